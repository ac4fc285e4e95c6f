// <tl-rope>: two vectors that turn with their positions, and a dot product that only sees the distance.
//
// data: query, key [pairs][2], before they are turned; speeds [pairs] in radians a token;
//   trained (tokens); reaches [tokens]: how far the line of positions goes, shortest first;
//   place: {query, key}, pair (the first state, counted from 0); names: {query, key} of the two tokens.
import { svg } from "lit";

import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { line, scale } from "./chart.js";

const RADIUS = 84; // of the dial, in its own units
const POINTS = 480; // of a curve
const number = new Intl.NumberFormat("en");
const degrees = (angle) => `${number.format(Math.round((angle * 180) / Math.PI))}°`;
const decimals = (value, digits) => value.toFixed(digits).replace("-", "−");
const tokens = (n) => `${number.format(n)} token${n === 1 ? "" : "s"}`;
const turn = ([x, y], angle) => [x * Math.cos(angle) - y * Math.sin(angle), y * Math.cos(angle) + x * Math.sin(angle)];
const dot = ([a, b], [c, d]) => a * c + b * d;
const length = (point) => Math.hypot(...point);

class Rope extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    place: { state: true }, pair: { state: true }, reach: { state: true }, width: { state: true },
  };

  ready(data) {
    this.given = data;
    [this.place, this.pair, this.reach, this.width] = [data.place, data.pair, data.reaches[0], 640];
  }

  connectedCallback() {
    super.connectedCallback();
    this.watcher = new ResizeObserver(([entry]) => { this.width = Math.round(entry.contentRect.width); });
    this.watcher.observe(this);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.watcher.disconnect();
  }

  // ---- arithmetic ----

  get distance() { return this.place.query - this.place.key; }
  get speed() { return this.given.speeds[this.pair]; }

  /** The pair's dot product once both are turned to their positions. */
  score(pair, query, key) {
    const { given } = this, speed = given.speeds[pair];
    return dot(turn(given.query[pair], query * speed), turn(given.key[pair], key * speed));
  }

  all(query, key) { return this.given.speeds.reduce((sum, _, pair) => sum + this.score(pair, query, key), 0); }

  /** [distance, dot product] for a curve; where waves are too narrow to draw, the least and the largest of each stretch. */
  samples(what) {
    const name = `${what} ${this.reach}`, known = (this.known ??= new Map());
    if (known.has(name)) return known.get(name);
    const at = (d) => (what === "all" ? this.all(d, 0) : this.score(what, d, 0)), last = this.reach - 1, points = [];
    if (this.reach <= POINTS) {
      for (let i = 0; i < POINTS; i++) points.push([(i * last) / (POINTS - 1), at((i * last) / (POINTS - 1))]);
    } else {
      const wide = Math.ceil((2 * this.reach) / POINTS);
      for (let from = 0; from < this.reach; from += wide) {
        const stretch = [];
        for (let d = from; d < Math.min(from + wide, this.reach); d++) stretch.push([d, at(d)]);
        const sorted = stretch.sort((a, b) => a[1] - b[1]);
        points.push(...[sorted[0], sorted[sorted.length - 1]].sort((a, b) => a[0] - b[0]));
      }
    }
    known.set(name, points);
    return points;
  }

  // ---- what the reader does ----

  /** Move query, key or both to a position; a query never stands before its key. */
  move(what, to) {
    const { query, key } = this.place, last = this.reach - 1, within = (low, value, high) => Math.max(low, Math.min(Math.round(value), high));
    if (what === "query") this.place = { query: within(key, to, last), key };
    else if (what === "key") this.place = { query, key: within(0, to, query) };
    else {
      const moved = within(0, to, last - (query - key));
      this.place = { query: moved + query - key, key: moved };
    }
    this.announce(this.sentence());
  }

  onKey(event, what) {
    const far = Math.max(2, Math.round(this.reach / 16)), at = what === "query" ? this.place.query : this.place.key;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -far, PageUp: far, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.move(what, Number.isFinite(steps[event.key]) ? at + steps[event.key] : steps[event.key] > 0 ? this.reach : 0);
  }

  onGrab(event, what) {
    const handle = event.currentTarget, line = this.renderRoot.querySelector(".line").getBoundingClientRect();
    const from = event.clientX, start = what === "query" ? this.place.query : this.place.key;
    handle.setPointerCapture(event.pointerId);
    handle.focus();
    const onMove = (move) => this.move(what, start + ((move.clientX - from) / line.width) * this.reach);
    const onEnd = () => {
      handle.removeEventListener("pointermove", onMove);
      for (const name of ["pointerup", "pointercancel"]) handle.removeEventListener(name, onEnd);
    };
    handle.addEventListener("pointermove", onMove);
    for (const name of ["pointerup", "pointercancel"]) handle.addEventListener(name, onEnd);
  }

  onReach(reach) {
    this.reach = reach;
    const { key, query } = this.place;
    if (query >= reach) this.place = this.given.place;
    else if (this.distance < reach / 32) {
      const apart = Math.round((3 * reach) / 8), from = Math.min(key, reach - 1 - apart);
      this.place = { key: from, query: from + apart };
    }
    this.announce(this.sentence());
  }

  choose(pair) {
    const count = this.given.speeds.length;
    this.pair = Math.max(0, Math.min(pair, count - 1));
    this.announce(this.sentence());
  }

  async onPairKey(event) {
    const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.choose(this.pair + steps[event.key]);
    await this.updateComplete;
    this.renderRoot.querySelector(".pair[aria-checked=true]").focus();
  }

  // ---- words ----

  get beyond() { return this.distance >= this.given.trained; }

  sentence() {
    const { query, key } = this.place;
    return `${tokens(this.distance)} apart. Dot product of pair ${this.pair + 1}: ${decimals(this.score(this.pair, query, key), 2)}; of all pairs: ${decimals(this.all(query, key), 2)}.`;
  }

  words() {
    const { place: { query, key }, speed, given: { trained } } = this, round = (2 * Math.PI) / speed;
    const each = speed > 0.0175 ? degrees(speed) : `${((speed * 180) / Math.PI).toFixed(3)}°`;
    const { query: q, key: k } = this.given, at = ([x, y]) => Math.atan2(y, x);
    const apart = (angle) => Math.atan2(Math.sin(angle), Math.cos(angle)); // from the key to the query, -180 to 180 degrees
    const before = apart(at(q[this.pair]) - at(k[this.pair])), now = apart(before + this.distance * speed);
    const stands = (angle) => `${degrees(Math.abs(angle))} ${angle < 0 ? "behind" : "ahead of"} the key`;
    return html`<p class="read">Pair ${this.pair + 1} turns <b>${each}</b> a token and is round after <b>${round < 20 ? round.toFixed(1) : number.format(Math.round(round))}</b> tokens.
      The <b class="q">query</b> has turned ${degrees(query * speed)}, the <b class="k">key</b> ${degrees(key * speed)}: a difference of <b>${degrees(this.distance * speed)}</b> for ${tokens(this.distance)}.
      Before it was turned, the query stood ${stands(before)}; now it stands ${stands(now)}.</p>
      <dl class="counts">
        <div class="one"><dt>dot product of this pair</dt><dd>${decimals(this.score(this.pair, query, key), 2)}</dd></div>
        <div><dt>of all ${this.given.speeds.length} pairs</dt><dd>${decimals(this.all(query, key), 2)}</dd></div>
      </dl>
      ${this.beyond ? html`<p class="beyond">Fable was trained on ${number.format(trained)} tokens: it never saw two tokens this far apart.
        ${trained * speed < 2 * Math.PI ? "The hand has left the arc that it learned." : "This hand went all the way round in training and shows nothing new; look at slower ones."}</p>` : nothing}`;
  }

  table() {
    const { query, key } = this.place, distance = this.distance;
    const places = [[query, key], [query + 100, key + 100], [query + 1000, key + 1000]];
    for (const far of [0, 1, 2, 4, 16, 64, 256, 1024, 2048, 4096]) if (far !== distance) places.push([key + far, key]);
    const rows = places.map(([q, k]) => [q, k, q - k].map((n) => number.format(n)).concat(decimals(this.score(this.pair, q, k), 2), decimals(this.all(q, k), 2)));
    return { columns: ["Query at", "Key at", "Distance", `Pair ${this.pair + 1}`, "All pairs"], rows };
  }

  // ---- pictures ----

  widget() {
    const { names } = this.given;
    return html`
      <p class="label">Drag a position, or <b>both</b> together</p>
      ${this.line()}
      <div class="stage">
        ${this.dial()}
        <div>${this.words()}</div>
      </div>
      ${this.curve()}
      <p class="legend"><span class="mark one"></span> this pair <span class="mark every"></span> all pairs together:
        how well “${names.query.trim()}” looking back finds “${names.key.trim()}”, if they stood so far apart</p>
      ${this.pairs()}
      <div class="reaches" role="group" aria-label="How far the positions go">
        ${this.given.reaches.map((reach) => html`<button type="button" aria-pressed=${reach === this.reach} @click=${() => this.onReach(reach)}>${number.format(reach)} tokens${
          reach === this.given.trained ? ", as trained" : reach > this.given.trained ? `, ${reach / this.given.trained} times that` : ""}</button>`)}
      </div>`;
  }

  /** The line of positions: three things to drag. */
  line() {
    const { place: { query, key }, reach } = this, at = (position) => `${(100 * position) / reach}%`;
    const handle = (what, value, low, high, text) => html`<span class="handle ${what}" role="slider" tabindex="0" style="left: ${at(value)}"
        aria-label=${{ query: "Position of the query", key: "Position of the key", both: "Both positions, at the same distance" }[what]}
        aria-valuemin=${low} aria-valuemax=${high} aria-valuenow=${value} aria-valuetext=${text} aria-orientation="horizontal"
        @pointerdown=${(event) => this.onGrab(event, what)} @keydown=${(event) => this.onKey(event, what)}></span>`;
    const share = Math.min(100, (100 * this.given.trained) / reach);
    return html`<div class="line">
      <span class="trained" style="width: ${share}%"></span>
      <span class="bar" style="left: ${at(key)}; width: ${at(query - key)}"></span>
      ${handle("query", query, key, reach - 1, `${number.format(query)}, ${this.sentence()}`)}
      <span class="grip" style="left: ${at((key + query) / 2)}"><span class="handle both" role="slider" tabindex="0"
        aria-label="Both positions, at the same distance" aria-valuemin="0" aria-valuemax=${reach - 1 - this.distance} aria-valuenow=${key}
        aria-valuetext="query ${number.format(query)}, key ${number.format(key)}, ${this.sentence()}" aria-orientation="horizontal"
        @pointerdown=${(event) => this.onGrab(event, "both")} @keydown=${(event) => this.onKey(event, "both")}>both</span></span>
      ${handle("key", key, 0, query, `${number.format(key)}, ${this.sentence()}`)}
    </div>
    <p class="ends" aria-hidden="true"><span>0</span><span><b class="q">query ${number.format(query)}</b> − <b class="k">key ${number.format(key)}</b> = ${tokens(this.distance)}</span><span>${number.format(reach - 1)}</span></p>`;
  }

  /** Both vectors of the pair, turned; the arc is where the query has been, seen from the key, in training. */
  dial() {
    const { given, pair, speed, place: { query, key } } = this;
    const q = turn(given.query[pair], query * speed), k = turn(given.key[pair], key * speed);
    const scale = (RADIUS - 8) / Math.max(length(q), length(k), 1e-9), at = ([x, y]) => [x * scale, -y * scale];
    const zero = Math.atan2(given.query[pair][1], given.query[pair][0]) + key * speed; // the query's angle at distance 0
    const angle = (turned, radius) => [radius * Math.cos(zero + turned), -radius * Math.sin(zero + turned)];
    const arrow = (point, name) => {
      const [x, y] = at(point), size = Math.hypot(x, y) || 1, [ux, uy] = [x / size, y / size], head = Math.min(9, size);
      return svg`<line class=${name} x2=${x - ux * head * 0.8} y2=${y - uy * head * 0.8} /><path class=${name}
        d="M${x} ${y}L${x - ux * head - uy * head * 0.45} ${y - uy * head + ux * head * 0.45}L${x - ux * head + uy * head * 0.45} ${y - uy * head - ux * head * 0.45}Z" />`;
    };
    return html`<svg class="dial" viewBox="-100 -100 200 200" role="img"
        aria-label="Pair ${pair + 1} of query and key as two arrows, turned by their positions: ${degrees(this.distance * speed)} between their turns. ${this.sentence()}">
      <circle class="rim" r=${RADIUS + 6} />
      ${arc(angle, Math.min((given.trained - 1) * speed, 2 * Math.PI), RADIUS + 6, "seen")}
      ${svg`<circle class=${this.beyond && given.trained * speed < 2 * Math.PI ? "tip new" : "tip"} cx=${angle(this.distance * speed, RADIUS + 6)[0]} cy=${angle(this.distance * speed, RADIUS + 6)[1]} r="4.5" />`}
      ${arrow(k, "k")}${arrow(q, "q")}
      <circle class="middle" r="3" />
    </svg>`;
  }

  /** Dot products over the distance, of this pair and of all. */
  curve() {
    const { given, reach, width } = this, wide = Math.max(240, width - 44), high = 160, left = 34, bottom = 30, top = 18;
    const one = this.samples(this.pair), every = this.samples("all"), values = [...one, ...every].map(([, s]) => s);
    const low = Math.min(0, ...values), top_ = Math.max(0, ...values);
    const x = scale(0, reach - 1, left, wide - 8), y = scale(low, top_, high - bottom, top);
    const path = (points) => line(points.map(([d, s]) => [x(d), y(s)]));
    const ticks = [0, reach / 4, reach / 2, (3 * reach) / 4].map(Math.round), { query, key } = this.place, d = this.distance;
    return html`<svg class="curve" width=${wide} height=${high} viewBox="0 0 ${wide} ${high}" role="img"
        aria-label="Dot product over the distance from 0 to ${number.format(reach - 1)} tokens, for this pair and for all. The table below has the numbers.">
      ${reach > given.trained ? svg`<rect class="unseen" x=${x(given.trained)} y=${top} width=${x(reach - 1) - x(given.trained)} height=${high - top - bottom} />
        <text x=${x(given.trained) + 2} y=${top - 6}>never seen in training</text>` : nothing}
      ${svg`<line class="axis" x1=${left} x2=${wide - 8} y1=${y(0)} y2=${y(0)} />`}
      <text x="0" y=${top - 6}>dot product</text>
      ${steps(low, top_).map((s) => svg`<line class="notch" x1=${left - 3} x2=${left} y1=${y(s)} y2=${y(s)} /><text class="tick" x=${left - 6} y=${y(s) + 4} text-anchor="end">${decimals(s, Number.isInteger(s) ? 0 : 1)}</text>`)}
      ${svg`<path class="every" d=${path(every)} /><path class="one" d=${path(one)} />
      <line class="now" x1=${x(d)} x2=${x(d)} y1=${top} y2=${high - bottom} />
      <circle class="every" cx=${x(d)} cy=${y(this.all(query, key))} r="4" /><circle class="one" cx=${x(d)} cy=${y(this.score(this.pair, query, key))} r="4" />
      ${ticks.map((tick) => svg`<text x=${x(tick)} y=${high - bottom + 13} text-anchor="middle">${number.format(tick)}</text>`)}
      <text x=${(left + wide) / 2} y=${high - 3} text-anchor="middle">distance in tokens</text>`}
    </svg>`;
  }

  /** All pairs as small clocks; each hand shows what this distance turns it by. */
  pairs() {
    const { given } = this, up = (turned, radius) => [-radius * Math.sin(turned), -radius * Math.cos(turned)];
    return html`<p class="label" id="pairs">Choose a pair, fast to slow. Hand: how far it has turned at this distance. Marked arc: where it ever stood in training.</p>
      <div class="pairs" role="radiogroup" aria-labelledby="pairs" @keydown=${this.onPairKey}>
      ${given.speeds.map((speed, i) => {
        const [hx, hy] = up(this.distance * speed, 9.5), known = (given.trained - 1) * speed;
        const fresh = this.beyond && known < 2 * Math.PI;
        return html`<span role="radio" class="pair" aria-checked=${i === this.pair} tabindex=${i === this.pair ? 0 : -1} aria-label="Pair ${i + 1}, turned by ${degrees(this.distance * speed)}"
          @click=${() => this.choose(i)}><svg viewBox="-14 -14 28 28" aria-hidden="true"><circle class="rim" r="12" />${arc(up, Math.min(known, 2 * Math.PI), 12, "seen")}
          ${svg`<line class=${fresh ? "hand new" : "hand"} x2=${hx} y2=${hy} />`}</svg></span>`;
      })}</div>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --q: light-dark(${unsafeCSS(COLORS.query)}, ${unsafeCSS(COLORS.sky)}); --k: ${unsafeCSS(COLORS.key)}; --k-text: light-dark(#8a5e00, ${unsafeCSS(COLORS.key)}); --new: ${unsafeCSS(COLORS.vermillion)}; }
    .label { margin: 0 0 0.35rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .label b { color: var(--tl-soft); }
    b.q { color: var(--q); }
    b.k { color: var(--k-text); }
    .line { position: relative; height: 5.25rem; margin: 0 1rem; }
    .line::before { content: ""; position: absolute; left: 0; right: 0; top: 2.55rem; height: 2px; background: var(--tl-line); }
    .trained { position: absolute; left: 0; top: 2.55rem; height: 2px; background: var(--tl-edge); }
    .bar { position: absolute; top: 2.4rem; height: 6px; border-radius: 3px; background: linear-gradient(to right, var(--k), var(--q)); }
    .handle { position: absolute; cursor: grab; touch-action: none; user-select: none; -webkit-user-select: none; -webkit-tap-highlight-color: transparent; }
    .handle:active { cursor: grabbing; }
    .handle.query, .handle.key { width: 1.75rem; height: 1.75rem; margin-left: -0.875rem; border-radius: 50%; }
    .handle.query { top: 0; background: var(--q); }
    .handle.key { bottom: 0; background: var(--k); }
    .handle.query::after, .handle.key::after { content: ""; position: absolute; left: calc(50% - 1px); width: 2px; height: 0.85rem; background: inherit; }
    .handle.query::after { top: 100%; }
    .handle.key::after { bottom: 100%; }
    .grip { position: absolute; top: 1.85rem; z-index: 1; }
    .handle.both { position: static; display: block; width: 3rem; height: 1.55rem; margin-left: -1.5rem; border: 1px solid var(--tl-edge); border-radius: 999px; background: var(--tl-raised); color: var(--tl-soft); font-size: 0.75rem; line-height: 1.45rem; text-align: center; }
    .ends { display: flex; justify-content: space-between; margin: 0.25rem 0.6rem 0.9rem; color: var(--tl-muted); font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    .stage { display: grid; grid-template-columns: 13rem minmax(0, 1fr); gap: 1rem 1.5rem; align-items: center; }
    @container (max-width: 34rem) { .stage { grid-template-columns: minmax(0, 1fr); } .dial { justify-self: center; } }
    .dial { display: block; width: 13rem; max-width: 100%; }
    .rim { fill: none; stroke: var(--tl-line); stroke-width: 3; }
    .seen { fill: none; stroke: var(--tl-soft); stroke-width: 3; }
    .dial .rim, .dial .seen { stroke-width: 4; }
    .tip { fill: var(--tl-ink); }
    .tip.new { fill: var(--new); }
    .middle { fill: var(--tl-ink); }
    line.q { stroke: var(--q); stroke-width: 3; } path.q { fill: var(--q); }
    line.k { stroke: var(--k); stroke-width: 3; } path.k { fill: var(--k); }
    .read { color: var(--tl-soft); text-wrap: pretty; }
    .read b { font-variant-numeric: tabular-nums; }
    .read b:not(.q):not(.k) { color: var(--tl-ink); }
    .counts { display: flex; flex-wrap: wrap; gap: 0.3rem 2rem; margin: 0.8rem 0 0; }
    .counts > div { display: flex; flex-direction: column-reverse; }
    .counts dt { color: var(--tl-muted); font-size: 0.75rem; }
    .counts dd { margin: 0; font-size: 1.35rem; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
    .beyond { margin-top: 0.7rem; padding: 0.45rem 0.75rem; border-left: 3px solid var(--new); color: var(--tl-soft); text-wrap: pretty; }
    .curve { display: block; max-width: 100%; margin-top: 0.9rem; }
    text { fill: var(--tl-muted); font-family: var(--tl-sans); font-size: 11px; font-variant-numeric: tabular-nums; }
    .unseen { fill: color-mix(in srgb, var(--new) 11%, transparent); }
    .axis, .notch { stroke: var(--tl-line); }
    path.one, path.every { fill: none; stroke-width: 2; stroke: ${unsafeCSS(COLORS.green)}; }
    path.every { stroke: var(--tl-muted); stroke-width: 1.25; }
    circle.one { fill: ${unsafeCSS(COLORS.green)}; }
    circle.every { fill: var(--tl-muted); }
    .now { stroke: var(--tl-edge); stroke-dasharray: 3 3; }
    .legend { margin: 0.2rem 0 1rem; color: var(--tl-muted); font-size: 0.8125rem; text-wrap: pretty; }
    .mark { display: inline-block; width: 1.1rem; height: 0; margin: 0 0.15rem 0.25rem 0; border-top: 2px solid ${unsafeCSS(COLORS.green)}; }
    .mark.every { margin-left: 0.6rem; border-color: var(--tl-muted); }
    .pairs { display: grid; grid-template-columns: repeat(16, max-content); gap: 2px 0.55rem; }
    @container (max-width: 38rem) { .pairs { grid-template-columns: repeat(8, max-content); } }
    .pair { width: 1.875rem; height: 1.875rem; padding: 1px; border: 1px solid transparent; border-radius: 6px; cursor: pointer; touch-action: manipulation; }
    .pair svg { display: block; width: 100%; height: 100%; }
    .pair .rim, .pair .seen { stroke-width: 2.5; }
    .pair:hover { border-color: var(--tl-accent); }
    .pair[aria-checked="true"] { border-color: var(--tl-ink); background: var(--tl-tint); }
    .hand { stroke: var(--tl-ink); stroke-width: 2; stroke-linecap: round; }
    .hand.new { stroke: var(--new); }
    .reaches { display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 0.9rem 0 0; }
    .reaches button { font-size: 0.8125rem; }
  `];
}

/** Round numbers from low to high, at most six: 1, 2, 2.5 or 5 times a power of ten apart. */
function steps(low, high) {
  const least = (high - low) / 5 || 1, power = 10 ** Math.floor(Math.log10(least));
  const step = Math.max(1, power * [1, 2, 2.5, 5, 10].find((n) => n * power >= least)), found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

/** Part of a ring, from no turn to `turned`; at(turned, radius) says where a turn lies. */
function arc(at, turned, radius, name) {
  if (turned >= 2 * Math.PI - 1e-6) return svg`<circle class=${name} r=${radius} />`;
  const [x, y] = at(0, radius), [ex, ey] = at(turned, radius), [mx, my] = at(turned / 2, radius);
  // two halves: a half says which way round
  const way = (x * my - y * mx) * 1 > 0 || turned === 0 ? 1 : 0;
  return svg`<path class=${name} d="M${x} ${y}A${radius} ${radius} 0 0 ${way} ${mx} ${my}A${radius} ${radius} 0 0 ${way} ${ex} ${ey}" />`;
}

define("tl-rope", Rope);
