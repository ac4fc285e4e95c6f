// <tl-embeddings>: a map of tokens. Find one, see what lies near it, and how that differs between maps.
//
// data: {tokens: [text], ids: [id], places: the first so many tokens are on the map,
//        maps: [{name, about, places: [x, y, x, y, …] from 0 to 1000}],
//        near: [token, …] and cosines: [hundredths, …], `neighbours` of them for each place, best first,
//        chosen: place}
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { svg } from "lit";

const REACH = 28; // pixels within which the pointer finds a point
const CLOSE = 4; // times larger, when zoomed in
const LETTER = 6.6, LINE = 14; // pixels of a label
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const shown = (text) => text.replaceAll(" ", "·");

class Embeddings extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    chosen: { state: true }, // place of the token that is looked at
    under: { state: true }, // place under the mouse
    map: { state: true }, // which map
    close: { state: true }, // zoomed in
    query: { state: true },
    width: { state: true },
  };

  ready(data) {
    Object.assign(this, { maps: data.maps, tokens: data.tokens, ids: data.ids, size: data.places });
    this.each = data.neighbours;
    this.near = Array.from({ length: this.size }, (_, i) =>
      Array.from({ length: this.each }, (_, k) => ({ token: data.near[i * this.each + k], cosine: data.cosines[i * this.each + k] / 100 })));
    Object.assign(this, { chosen: data.chosen, under: undefined, map: 0, close: false, query: "", width: 640 });
    this.watching = new ResizeObserver(([entry]) => { this.width = Math.max(240, Math.round(entry.contentRect.width)); });
  }

  updated() {
    const frame = this.renderRoot.querySelector(".map");
    if (frame && this.watching && this.watched !== frame) this.watching.observe((this.watched = frame));
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.watching?.disconnect();
    this.watched = undefined;
  }

  get height() { return Math.round(Math.min(460, Math.max(300, this.width * 0.66))); }

  /** Pixels of every place: the whole map, or its part around the chosen one. */
  points() {
    const { width, height } = this, flat = this.maps[this.map].places, edge = 14;
    const scale = this.close ? CLOSE : 1;
    const [cx, cy] = this.close ? [flat[2 * this.chosen], flat[2 * this.chosen + 1]] : [500, 500];
    return Array.from({ length: this.size }, (_, i) => [
      width / 2 + (scale * (flat[2 * i] - cx) * (width - 2 * edge)) / 1000,
      height / 2 - (scale * (flat[2 * i + 1] - cy) * (height - 2 * edge)) / 1000,
    ]);
  }

  choose(place) {
    this.chosen = place;
    this.under = undefined;
    const names = this.near[place].slice(0, 3).map((n) => this.tokens[n.token].trim());
    this.announce(`${this.tokens[place].trim()}: nearest are ${names.join(", ")}`);
  }

  // What the reader does

  find(text) {
    this.query = text;
    const wanted = text.trim();
    const exact = this.tokens.findIndex((token, i) => i < this.size && token.trim() === wanted);
    const place = exact >= 0 ? exact
      : this.tokens.findIndex((token, i) => i < this.size && token.trim().toLowerCase() === wanted.toLowerCase());
    this.missing = wanted && place < 0 ? wanted : "";
    if (place >= 0) this.choose(place);
    else if (this.missing) this.announce(`${wanted} is not among the words of the map`);
  }

  at(event) {
    const box = event.currentTarget.getBoundingClientRect(), points = this.points();
    const x = ((event.clientX - box.left) * this.width) / box.width, y = ((event.clientY - box.top) * this.height) / box.height;
    let best, least = REACH ** 2;
    points.forEach(([px, py], i) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  }

  onMove(event) { if (event.pointerType === "mouse") this.under = this.at(event); }

  onPress(event) {
    const place = this.at(event);
    if (place !== undefined) this.choose(place);
  }

  /** The nearest point in the arrow's direction: what lies ahead counts, what lies aside counts against it. */
  onKey(event) {
    const arrow = KEYS[event.key];
    if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const points = this.points(), [x, y] = points[this.chosen];
    let best, least = Infinity;
    points.forEach(([px, py], i) => {
      const ahead = (px - x) * arrow[0] + (py - y) * arrow[1], aside = Math.abs((px - x) * arrow[1]) + Math.abs((py - y) * arrow[0]);
      if (i !== this.chosen && ahead > 0 && aside <= 2 * ahead && ahead + 2 * aside < least) [best, least] = [i, ahead + 2 * aside];
    });
    if (best !== undefined) this.choose(best);
  }

  // What is shown

  widget() {
    return html`
      <div class="controls">
        <div class="search">
          <label for="find">Find a word</label>
          <input id="find" type="search" list="words" maxlength="40" spellcheck="false" autocapitalize="off" autocomplete="off"
            placeholder="river" .value=${this.query} @input=${(e) => this.find(e.target.value)}
            aria-describedby="missing">
          <datalist id="words">${this.options ??= this.tokens.slice(0, this.size).map((t) => html`<option value=${t.trim()}></option>`)}</datalist>
        </div>
        <div class="choice" role="group" aria-label="Kind of map">
          ${this.maps.map(({ name }, i) => html`<button type="button" aria-pressed=${i === this.map}
            @click=${() => { this.map = i; this.announce(this.maps[i].about); }}>${name}</button>`)}
        </div>
        <button type="button" aria-pressed=${this.close} @click=${() => { this.close = !this.close; }}>Zoom in</button>
      </div>
      <p class="missing" id="missing">${this.missing
        ? html`<b><bdi>${this.missing}</bdi></b> is not among the ${this.size.toLocaleString("en")} words of the map.` : this.maps[this.map].about}</p>
      <div class="map">${this.drawing()}</div>
      ${this.list()}`;
  }

  drawing() {
    const { width, height, chosen } = this, points = this.points(), looked = this.under ?? chosen;
    const inside = ([x, y]) => x > -20 && y > -20 && x < width + 20 && y < height + 20;
    const friends = this.near[chosen].map((n) => n.token).filter((token) => token < this.size);
    const marked = new Set(friends);
    const dots = points.map((p, i) => (marked.has(i) || i === chosen || !inside(p) ? nothing
      : svg`<circle class="dot" cx=${p[0].toFixed(1)} cy=${p[1].toFixed(1)} r=${this.close ? 2.6 : 2}></circle>`));
    const lines = friends.map((i) => svg`<line class="thread" x1=${points[chosen][0]} y1=${points[chosen][1]} x2=${points[i][0]} y2=${points[i][1]}></line>`);
    const stars = friends.map((i) => svg`<circle class="friend" cx=${points[i][0]} cy=${points[i][1]} r="4"></circle>`);
    return html`
      <svg viewBox="0 0 ${width} ${height}" width="100%" height=${height} tabindex="0" role="application"
        aria-roledescription="map" aria-label="Map of words. ${this.tokens[chosen].trim()} is chosen; arrow keys go to the next word in their direction."
        @pointermove=${this.onMove} @pointerleave=${() => { this.under = undefined; }} @click=${this.onPress} @keydown=${this.onKey}>
        <g aria-hidden="true">
          ${dots}${lines}
          <circle class="here" cx=${points[chosen][0]} cy=${points[chosen][1]} r="6"></circle>${stars}
          ${looked !== chosen ? svg`<circle class="under" cx=${points[looked][0]} cy=${points[looked][1]} r="6"></circle>` : nothing}
          ${this.labels(points, looked, friends)}
        </g>
      </svg>`;
  }

  /** Names where there is room: the one looked at, the chosen, its neighbours, then the most frequent tokens. */
  labels(points, looked, friends) {
    const taken = [], out = [], first = new Set([looked, this.chosen, ...friends]);
    const most = this.width / (this.close ? 9 : 13);
    for (const i of [...first, ...Array(this.size).keys()]) {
      if (out.length > most) break;
      if (out.length >= first.size && first.has(i)) continue;
      const [x, y] = points[i], text = this.tokens[i].trim();
      if (x < 0 || y < 0 || x > this.width || y > this.height) continue;
      const half = (text.length * LETTER) / 2 + 2, center = Math.min(this.width - half, Math.max(half, x));
      const spot = (first.has(i) ? [-9, 18, -23, 32, -37, 46] : [-9, 18]).map((shift) => y + shift).find((base) => base > 10 && base < this.height - 3 && !taken.some(([cx, cy, h]) =>
        Math.abs(cx - center) < h + half && Math.abs(cy - base) < LINE));
      if (spot === undefined) continue;
      taken.push([center, spot, half]);
      const kind = i === looked ? "name looked" : i === this.chosen ? "name looked" : friends.includes(i) ? "name beside" : "name";
      out.push(svg`<text class=${kind} x=${center.toFixed(1)} y=${spot.toFixed(1)}>${text}</text>`);
    }
    return out;
  }

  list() {
    const looked = this.under ?? this.chosen;
    return html`
      <p class="about"><span class="word">${shown(this.tokens[looked])}</span> is token <b>${this.ids[looked]}</b>.
        Nearest to it by cosine, in all its dimensions:</p>
      <ol class="near">${this.near[looked].map(({ token, cosine }) => html`
        <li style="--part: ${(100 * Math.max(0, cosine)).toFixed(0)}%">
          ${token < this.size
            ? html`<button type="button" @click=${() => this.choose(token)}>${shown(this.tokens[token])}</button>`
            : html`<span class="off" title="Not on the map">${shown(this.tokens[token])}</span>`}
          <span class="bar" aria-hidden="true"></span><span class="cosine">${cosine.toFixed(2)}</span>
        </li>`)}</ol>`;
  }

  table() {
    const rows = this.near[this.chosen].map(({ token, cosine }, i) =>
      [i + 1, shown(this.tokens[token]), this.ids[token], cosine.toFixed(2)].map(String));
    return { columns: [`Nearest to ${shown(this.tokens[this.chosen])}`, "Token", "Id", "Cosine"], rows };
  }

  static styles = [TinyElement.styles, css`
    .controls { display: flex; flex-wrap: wrap; align-items: end; gap: 0.6rem 1rem; }
    .search { flex: 1 1 9rem; max-width: 15rem; }
    .search label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    input { width: 100%; min-height: 2.1rem; padding: 0.2rem 0.6rem; border: 1px solid var(--tl-edge); border-radius: 8px; background: var(--tl-paper); font-size: max(0.9375rem, 16px); }
    input::placeholder { color: var(--tl-muted); opacity: 1; }
    .choice { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .missing { min-height: 2.9em; overflow-wrap: anywhere; margin: 0.6rem 0 0.4rem; color: var(--tl-muted); font-size: 0.8125rem; }
    svg { display: block; border: 1px solid var(--tl-line); border-radius: 8px; background: var(--tl-paper); cursor: crosshair; touch-action: manipulation; overflow: hidden; -webkit-tap-highlight-color: transparent; }
    .dot { fill: ${unsafeCSS(COLORS.other)}; fill-opacity: 0.55; }
    .friend { fill: ${unsafeCSS(COLORS.token)}; }
    .here { fill: ${unsafeCSS(COLORS.chosen)}; }
    .under { fill: none; stroke: var(--tl-ink); stroke-width: 1.5; }
    .thread { stroke: light-dark(${unsafeCSS(COLORS.token)}, var(--tl-accent)); stroke-opacity: 0.45; }
    .name { fill: var(--tl-muted); font-family: var(--tl-sans); font-size: 11.5px; text-anchor: middle; paint-order: stroke; stroke: var(--tl-paper); stroke-width: 3px; stroke-linejoin: round; pointer-events: none; }
    .name.beside { fill: var(--tl-ink); }
    .name.looked { fill: var(--tl-ink); font-size: 13px; font-weight: 700; }
    .about { margin: 0.8rem 0 0.4rem; min-height: 1.45em; }
    .word { padding: 0.05rem 0.3rem; border-radius: 4px; background: color-mix(in srgb, var(--tl-ink) 9%, var(--tl-raised)); font-family: var(--tl-mono); font-size: 0.94em; }
    .near { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); grid-auto-flow: row; gap: 0.25rem 1.6rem; margin: 0; padding: 0; list-style: none; }
    .near li { display: grid; grid-template-columns: minmax(6.5rem, max-content) 1fr 2.4rem; align-items: center; gap: 0.5rem; }
    .near :is(button, .off) { justify-self: start; min-height: 1.75rem; max-width: 100%; padding: 0.05rem 0.6rem; font-family: var(--tl-mono); font-size: 0.8125rem; overflow: hidden; text-overflow: ellipsis; }
    @media (pointer: coarse) { .near button { min-height: 2.25rem; } }
    .off { padding-top: 0.25rem !important; color: var(--tl-muted); }
    .bar { height: 6px; border-radius: 3px; background: linear-gradient(to right, ${unsafeCSS(COLORS.token)} var(--part), var(--tl-tint) var(--part)); }
    .cosine { color: var(--tl-soft); font-variant-numeric: tabular-nums; text-align: right; }
    @container (max-width: 30rem) { .near { grid-template-columns: minmax(0, 1fr); } }
  `];
}

define("tl-embeddings", Embeddings);
