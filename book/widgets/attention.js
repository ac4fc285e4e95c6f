// <tl-attention>: who looks at whom, in every head of Fable.
//
// data: tokens [T texts]; scores [layers][heads][T][T], queries times keys before scale and mask;
//   scale (the divisor); layer, head, word (the first state, counted from 0); needs: ["fable"].
import { svg } from "lit";

import { COLORS, css, define, html, nothing, unsafeCSS } from "./base.js";
import { FableLoader, loaderStyle } from "./fable-loader.js";
import { attentionWeights } from "./fable.js";
import { Reader, percent, textOf, visible } from "./reader.js";

const MOST = 40; // tokens of the reader's own text
const NARROW = 560; // px below which the heads lie under the picture
const TOP = 3; // words named in a sentence

export class Attention extends Reader {
  static properties = {
    ...Reader.properties,
    layer: { state: true }, head: { state: true }, mask: { state: true }, scaled: { state: true },
    cell: { state: true }, width: { state: true },
  };

  ready(data) {
    this.example = data;
    [this.layer, this.head] = [data.layer, data.head];
    [this.mask, this.scaled, this.over, this.cell, this.text, this.note] = [true, true, null, null, null, ""];
    [this.layers, this.heads, this.width] = [data.scores.length, data.scores[0].length, 640];
    this.loader = new FableLoader(this, { then: () => this.begin(data.tokens.join("")) });
    this.show(data.tokens, data.scores, data.word);
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

  // ---- state ----

  /** Another text: its tokens and the scores of all heads. */
  show(tokens, scores, pinned) {
    [this.tokens, this.scores, this.pinned, this.over, this.cell] = [tokens, scores, pinned, null, null];
    this.weigh();
  }

  /** Weights of all heads, from the scores and the two switches. */
  weigh() {
    const how = { mask: this.mask, scale: this.scaled ? 1 / this.example.scale : 1 };
    this.all = this.scores.map((layer) => layer.map((scores) => attentionWeights(scores, how)));
    this.requestUpdate();
  }

  get weights() { return this.all[this.layer][this.head]; }

  toggle(name) {
    this[name] = !this[name];
    this.weigh();
    this.announce(this.lesson());
  }

  choose(layer, head) {
    [this.layer, this.head] = [(layer + this.layers) % this.layers, (head + this.heads) % this.heads];
    this.announce(`Layer ${this.layer + 1}, head ${this.head + 1}. ${this.sentence(this.pinned)}`);
    this.updateComplete.then(() => this.renderRoot.activeElement?.closest(".heads") && this.renderRoot.querySelector(".heads [aria-checked=true]").focus());
  }

  /** Fable is there: the reader may type, from the example on. */
  async begin(text) {
    this.text = text;
    await this.focusOwn();
  }

  /** Read the reader's text with Fable; a later text overtakes an earlier one. */
  async readText(text) {
    const read = await this.readWith(text, MOST, { attention: true });
    if (!read) return;
    const { kept, session } = read, { tokenizer } = this.loader.fable;
    const range = (count) => Array.from({ length: count }, (_, i) => i);
    const scores = range(this.layers).map((l) => range(this.heads).map((h) => session.scores(l, h)));
    this.show(kept.map((id) => textOf(tokenizer, id)), scores, kept.length - 1);
    this.announce(this.sentence(this.pinned));
  }

  // ---- words ----

  /** The most looked-at words of a row: [index, weight], by weight. */
  top(index) {
    return Array.from(this.weights[index], (weight, j) => [j, weight]).sort((a, b) => b[1] - a[1]).slice(0, TOP).filter(([, weight]) => weight >= 0.005);
  }

  sentence(index) {
    const found = this.top(index).map(([j, weight]) => `${visible(this.tokens[j])}${j === index ? " (itself)" : ""} ${percent(weight)}`);
    return `${visible(this.tokens[index])} looks at ${found.join(", ")}.`;
  }

  /** What the two switches do, in numbers of this head. */
  lesson() {
    const rows = this.weights, count = rows.length, mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const said = [];
    if (!this.mask) {
      const ahead = Array.from(rows, (row, i) => row.slice(i + 1).reduce((a, b) => a + b, 0)).slice(0, -1);
      said.push(count > 1 ? `Without the mask, ${percent(mean(ahead))} of the weight goes to words that come later. When Fable writes, they do not exist yet; in training, one of them is the answer.` : "Without the mask, a word would see what comes later.");
    }
    if (!this.scaled) {
      const largest = (scale) => mean(attentionWeights(this.scores[this.layer][this.head], { mask: this.mask, scale }).map((row) => Math.max(...row)));
      said.push(`Without the division by ${this.example.scale}, scores lie ${this.example.scale} times as far apart: the largest weight of a row is ${percent(largest(1))} on average, not ${percent(largest(1 / this.example.scale))}. A mixture becomes a choice of one.`);
    }
    return said.join(" ");
  }

  table() {
    const rows = this.tokens.map((token, i) => [visible(token), this.top(i).map(([j, weight]) => `${visible(this.tokens[j])} ${weight.toFixed(2)}`).join(", ")]);
    return { columns: ["Word", `Looks at, in layer ${this.layer + 1}, head ${this.head + 1}`], rows };
  }

  // ---- pictures ----

  widget() {
    const own = this.loader.fable && this.text !== null, narrow = this.width < NARROW;
    return html`
      <p class="label">Point at a word, or choose one.</p>
      ${this.words()}
      <p class="read">${this.readout()}</p>
      <div class=${narrow ? "stage narrow" : "stage"}>
        ${this.matrix(narrow)}
        <div class="side">${this.picker(narrow)}${this.switches()}</div>
      </div>
      <p class="lesson" ?hidden=${this.mask && this.scaled}>${this.lesson()}</p>
      ${own
        ? html`<label class="label" for="own">Your own words, at most ${MOST} tokens</label>
            <textarea id="own" rows="2" spellcheck="false" .value=${this.text} @keydown=${(e) => { if (e.key === "Enter") e.preventDefault(); }} @input=${(e) => this.onText(e.target.value)}></textarea>
            ${this.note ? html`<p class="note">${this.note}</p>` : nothing}`
        : this.loader.button("type your own words")}`;
  }

  switches() {
    return html`<div class="switches" role="group" aria-label="Steps of the computation">
      <button type="button" aria-pressed=${this.mask} @click=${() => this.toggle("mask")}>Mask later words</button>
      <button type="button" aria-pressed=${this.scaled} @click=${() => this.toggle("scaled")}>Scale by 1/${this.example.scale}</button>
    </div>`;
  }

  readout() {
    if (this.cell) {
      const [i, j] = this.cell;
      return html`<b class="looks">${visible(this.tokens[i])}</b> looks at <b>${visible(this.tokens[j])}</b>:
        ${this.mask && j > i ? "hidden by the mask, it comes later" : this.weights[i][j].toFixed(3)}`;
    }
    const index = this.word, found = this.top(index);
    return html`<b class="looks">${visible(this.tokens[index])}</b> looks at
      ${found.map(([j, weight], n) => html`${n ? ", " : ""}<b>${visible(this.tokens[j])}</b>${j === index ? " (itself)" : ""} ${percent(weight)}`)}`;
  }

  /** The text; each word shaded by how much the word in question looks at it. */
  words() {
    const row = this.weights[this.word];
    const keys = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const onKey = (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      this.pin(Math.max(0, Math.min(this.tokens.length - 1, this.pinned + keys[event.key])));
      this.updateComplete.then(() => this.renderRoot.querySelector(".word[aria-selected=true]").focus());
    };
    return html`<div class="words" role="listbox" aria-label="Words; choose one to see what it looks at" aria-orientation="horizontal"
        @keydown=${onKey} @pointerleave=${() => { this.over = null; }}>
      ${this.tokens.map((token, i) => {
        const weight = row[i], later = this.mask && i > this.word;
        return html`<span role="option" class="word ${i === this.word ? "looks" : ""} ${later ? "later" : ""} ${weight > 0.6 ? "hot" : ""} ${/^\s/.test(this.tokens[i + 1] ?? " ") ? "apart" : ""}"
          aria-selected=${i === this.pinned} tabindex=${i === this.pinned ? 0 : -1} style="--w: ${shade(weight)}%"
          aria-label="${visible(token)}, ${later ? "later, hidden" : `weight ${percent(weight)}`}"
          @click=${() => this.pin(i)} @focus=${() => { if (i !== this.pinned) this.pin(i); }}
          @pointerenter=${(event) => { if (event.pointerType === "mouse") this.over = i; }}
          ><span class="text">${visible(token)}</span><span class="share">${later ? "" : weight >= 0.005 ? percent(weight) : "·"}</span></span>`;
      })}</div>`;
  }

  /** Every word's row of weights. */
  matrix(narrow) {
    const { tokens, weights, word } = this, count = tokens.length;
    const longest = Math.max(...tokens.map((token) => visible(token).length));
    const room = narrow ? this.width - 32 : this.width - 250;
    const side = Math.min(92, Math.ceil(longest * 6.7) + 8);
    const size = Math.max(11, Math.min(22, Math.floor(2 * (room - side) / count) / 2)), font = Math.min(12, size);
    const edge = size * count, whole = side + edge;
    const clip = (token) => { const text = visible(token); return text.length > 13 ? `${text.slice(0, 12)}…` : text; };
    const at = (event) => {
      const box = event.currentTarget.getBoundingClientRect(), zoom = box.width / whole;
      const j = Math.floor(((event.clientX - box.left) / zoom - side) / size), i = Math.floor(((event.clientY - box.top) / zoom - side) / size);
      return i >= 0 && i < count && j < count ? [i, j] : null;
    };
    const onMove = (event) => {
      if (event.pointerType !== "mouse") return;
      const found = at(event);
      this.over = found ? found[0] : null;
      this.cell = found && found[1] >= 0 ? found : null;
    };
    const onClick = (event) => { const found = at(event); if (found) { this.pin(found[0]); this.cell = found[1] >= 0 ? found : null; } };
    const boxes = [];
    weights.forEach((row, i) => row.forEach((weight, j) => {
      if (weight >= 0.004) boxes.push(svg`<rect x=${side + j * size + 0.5} y=${side + i * size + 0.5} width=${size - 1} height=${size - 1} rx="1.5" opacity=${shade(weight) / 100} />`);
    }));
    const steps = tokens.slice(1).map((_, i) => `V${side + (i + 1) * size}H${side + (i + 2) * size}`).join("");
    const stair = `M${side + size} ${side}${steps}`; // what lies above it comes later
    return html`<div class="matrix"><svg width=${whole} height=${whole} viewBox="0 0 ${whole} ${whole}" role="img"
        aria-label="Weights of layer ${this.layer + 1}, head ${this.head + 1}: a row for each word that looks, a column for each that is looked at. The table below has the numbers."
        @pointermove=${onMove} @pointerleave=${() => { this.over = null; this.cell = null; }} @click=${onClick}>
      <path class=${this.mask ? "hidden" : "stair"} d=${this.mask ? `${stair}V${side}Z` : stair} />
      <g class="cells">${boxes}</g>
      <rect class="frame" x=${side} y=${side} width=${edge} height=${edge} />
      <rect class="row" x="1" y=${side + word * size} width=${whole - 2} height=${size} rx="3" />
      ${this.cell ? svg`<rect class="cell" x=${side + this.cell[1] * size} y=${side + this.cell[0] * size} width=${size} height=${size} />` : nothing}
      <g font-size=${font}>
        ${tokens.map((token, i) => svg`<text class=${i === word ? "looks" : ""} x=${side - 5} y=${side + (i + 0.5) * size} dy="0.34em" text-anchor="end">${clip(token)}</text>`)}
        ${tokens.map((token, j) => svg`<text class=${this.cell?.[1] === j ? "seen" : ""} transform="translate(${side + (j + 0.5) * size} ${side - 5}) rotate(-90)" dy="0.34em">${clip(token)}</text>`)}
      </g></svg></div>`;
  }

  /** All heads as small pictures. */
  picker(narrow) {
    const onKey = (event) => {
      const across = { ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0, down = { ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0;
      if (!across && !down) return;
      event.preventDefault();
      if (narrow) this.choose(this.layer + across, this.head + down);
      else this.choose(this.layer + down, this.head + across);
    };
    const buttons = this.all.map((layer, l) => layer.map((_, h) => {
      const chosen = l === this.layer && h === this.head;
      return html`<span role="radio" class="head" aria-checked=${chosen} tabindex=${chosen ? 0 : -1} aria-label="Layer ${l + 1}, head ${h + 1}"
        style="grid-area: ${narrow ? `${h + 2} / ${l + 2}` : `${l + 2} / ${h + 2}`}"
        @click=${() => this.choose(l, h)}><canvas aria-hidden="true"></canvas></span>`;
    }));
    const name = (number, place) => html`<span class="name" aria-hidden="true" style="grid-area: ${place}">${number}</span>`;
    return html`<p class="label" id="heads"><b>Layer ${this.layer + 1}, head ${this.head + 1}</b>
        <span>${narrow ? "layers across, heads down" : "layers down, heads across"}</span></p>
      <div class="heads" role="radiogroup" aria-labelledby="heads" @keydown=${onKey}>
        ${Array.from({ length: this.layers }, (_, l) => name(l + 1, narrow ? `1 / ${l + 2}` : `${l + 2} / 1`))}
        ${Array.from({ length: this.heads }, (_, h) => name(h + 1, narrow ? `${h + 2} / 1` : `1 / ${h + 2}`))}
        ${buttons}${this.frames(narrow)}
      </div>`;
  }

  /** More in the grid of heads: <tl-heads> frames those that share keys and values. */
  frames() { return nothing; }

  updated() {
    if (this.drawn === this.all || !this.all) return;
    this.drawn = this.all;
    this.renderRoot.querySelectorAll(".head canvas").forEach((canvas, n) => {
      const weights = this.all[Math.floor(n / this.heads)][n % this.heads], count = weights.length;
      const context = canvas.getContext("2d"), image = new ImageData(count, count), hue = parseInt(COLORS.key.slice(1), 16);
      [canvas.width, canvas.height] = [count, count];
      weights.forEach((row, i) => row.forEach((weight, j) => {
        image.data.set([hue >> 16, (hue >> 8) & 255, hue & 255, 2.55 * shade(weight)], 4 * (i * count + j));
      }));
      context.putImageData(image, 0, 0);
    });
  }

  static styles = [Reader.styles, loaderStyle, css`
    :host { --hot: ${unsafeCSS(COLORS.key)}; --asks: light-dark(${unsafeCSS(COLORS.query)}, ${unsafeCSS(COLORS.sky)}); }
    .label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    .words { display: flex; flex-wrap: wrap; gap: 0.2rem 1px; margin-top: 0.3rem; }
    .word { display: inline-flex; flex-direction: column; align-items: center; min-width: 1.7rem; cursor: pointer; border-radius: 6px; touch-action: manipulation; -webkit-tap-highlight-color: transparent; }
    .word.apart { margin-right: 0.22rem; }
    .word .text { width: 100%; padding: 0.2rem 0.4rem; border-radius: 6px; background: color-mix(in srgb, var(--hot) var(--w), var(--tl-raised)); font-size: 1rem; line-height: 1.4; text-align: center; white-space: pre; transition: background-color 0.12s; }
    .word.hot .text { color: #14171c; }
    .word.later .text { color: var(--tl-muted); }
    .word.looks .text { box-shadow: inset 0 0 0 2px var(--asks); font-weight: 650; }
    .word .share { color: var(--tl-muted); font-size: 0.6875rem; line-height: 1.4; font-variant-numeric: tabular-nums; min-height: 1.4em; }
    .read { min-height: 1.45em; margin: 0.35rem 0 0.9rem; color: var(--tl-soft); }
    .read b { color: var(--tl-ink); font-weight: 650; }
    .read b.looks { color: var(--asks); }
    .stage { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 1rem 1.5rem; align-items: start; }
    .stage.narrow { grid-template-columns: minmax(0, 1fr); }
    .matrix { overflow-x: auto; scrollbar-width: thin; }
    .matrix svg { display: block; touch-action: pan-x pan-y; cursor: crosshair; }
    .cells { fill: var(--hot); }
    .frame { fill: none; stroke: var(--tl-line); }
    .hidden { fill: color-mix(in srgb, var(--tl-ink) 6%, transparent); }
    .stair { fill: none; stroke: var(--tl-edge); stroke-dasharray: 3 3; }
    .row { fill: none; stroke: var(--asks); stroke-width: 1.5; }
    .cell { fill: none; stroke: var(--tl-ink); stroke-width: 1.5; }
    text { fill: var(--tl-soft); font-family: var(--tl-sans); }
    text.looks { fill: var(--asks); font-weight: 650; }
    text.seen { fill: var(--tl-ink); font-weight: 650; }
    .side .label { margin-bottom: 0.3rem; }
    .side .label b { margin-right: 0.3rem; color: var(--tl-ink); font-size: 0.875rem; white-space: nowrap; }
    .side .label span { white-space: nowrap; }
    .stage:not(.narrow) .label span { display: block; }
    .heads { display: grid; grid-auto-columns: auto; justify-content: start; gap: 4px; }
    .heads .name { align-self: center; padding: 0 0.25rem; color: var(--tl-muted); font-size: 0.75rem; text-align: center; font-variant-numeric: tabular-nums; }
    .head { display: block; width: 2.1rem; aspect-ratio: 1; border: 1px solid var(--tl-line); border-radius: 4px; background: var(--tl-paper); cursor: pointer; touch-action: manipulation; overflow: hidden; }
    .narrow .head { width: auto; }
    .narrow .heads { grid-template-columns: auto repeat(8, minmax(0, 2.6rem)); }
    .head canvas { display: block; width: 100%; height: 100%; image-rendering: pixelated; }
    .head:hover { border-color: var(--tl-accent); }
    .head[aria-checked="true"] { border-color: var(--tl-ink); outline: 2px solid var(--tl-ink); outline-offset: -1px; }
    .head:focus-visible { outline: 3px solid var(--tl-accent); outline-offset: 1px; }
    .switches { display: flex; flex-wrap: wrap; gap: 0.5rem; margin: 1rem 0 0; }
    .stage:not(.narrow) .switches { flex-direction: column; align-items: stretch; }
    .switches button { padding-inline: 0.6rem; text-align: left; }
    .switches button::before { content: "○ "; }
    .switches button[aria-pressed="true"]::before { content: "● "; }
    .lesson { margin: 0.9rem 0 0; padding: 0.5rem 0.75rem; border-left: 3px solid var(--tl-edge); color: var(--tl-soft); text-wrap: pretty; }
    .load, .label[for=own] { margin-top: 1rem; }
    .lesson[hidden] { display: none; }
    .note { margin-top: 0.3rem; color: var(--tl-muted); font-size: 0.8125rem; }
  `];
}

/** How dark a weight is drawn, in percent: a little more than its share, so that small ones are seen. */
function shade(weight) { return Math.round(1000 * weight ** 0.7) / 10; }

define("tl-attention", Attention);
