// <tl-shard>: a matrix cut over ranks: what each holds, computes and sends; and a pipeline's idle time.
//
// data: {tokens, inner, outer, width (bytes of a number), slots, cut, ranks, stages, micro (of the first state)}
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { svg } from "lit";
import { timeline, work } from "./shards.js";

const CUTS = { columns: "by columns", rows: "by rows", both: "columns, then rows" };
const LETTERS = "ABCDEF";
const UNIT = 3; // of a number in the picture
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const rect = (x, y, w, h, kind, fill) => svg`<rect x=${x} y=${y} width=${w} height=${h} class=${kind} fill=${fill ?? nothing}></rect>`;

class Shard extends TinyElement {
  static properties = { ...TinyElement.properties, view: { state: true }, cut: { state: true }, ranks: { state: true }, stages: { state: true }, micro: { state: true } };

  ready(data) {
    this.given = data;
    this.view = "matrix";
    for (const name of ["cut", "ranks", "stages", "micro"]) this[name] = data[name];
  }

  choose(name, value) {
    this[name] = value;
    this.announce(this.sentence());
  }

  group(label, name, choices) {
    return html`<div class="control"><span class="label" id=${name}>${label}</span><div class="choices" role="group" aria-labelledby=${name}>
      ${choices.map(([value, text]) => html`<button type="button" aria-pressed=${this[name] === value} @click=${() => this.choose(name, value)}>${text}</button>`)}
    </div></div>`;
  }

  get all() { return Array.from({ length: this.ranks }, (_, rank) => work(this.given, this.cut, rank, this.ranks)); }
  get line() { return timeline(this.stages, this.micro, this.given.slots); }

  sentence() {
    if (this.view === "pipeline") {
      const turn = Math.max(this.stages, this.micro), busy = Math.min(this.stages, this.micro) / this.stages;
      return `Once the pipeline is full each stage is busy ${Math.round(100 * busy)}% of the time; each request gets a token every ${count(turn, "slot")}.`;
    }
    const [{ sent }] = this.all;
    if (this.ranks === 1) return "One rank has everything and says nothing.";
    return {
      columns: `Each rank has finished some of the results. If the others need them: an all-gather, ${count(sent, "byte")} from each rank.`,
      rows: `Each rank has a part of every result. They must be added up: an all-reduce, ${count(sent, "byte")} from each rank.`,
      both: `Nothing is said between the two matrices. At the end, one all-reduce: ${count(sent, "byte")} from each rank.`,
    }[this.cut];
  }

  widget() {
    const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => [from + i, String(from + i)]);
    const matrix = this.view === "matrix";
    return html`
      <div class="controls">
        ${this.group("What to cut", "view", [["matrix", "a matrix"], ["pipeline", "the layers"]])}
        ${matrix ? this.group("Direction", "cut", Object.entries(CUTS)) : this.group("Stages", "stages", numbers(1, 4))}
        ${matrix ? this.group("Ranks", "ranks", numbers(1, 4)) : this.group("Micro-batches", "micro", numbers(1, 6))}
      </div>
      ${matrix ? html`<div class="ranks">${this.all.map((part, rank) => this.card(part, rank))}</div>` : this.chart()}
      <p class="sentence">${this.sentence()}</p>`;
  }

  card(part, rank) {
    const { tokens } = this.given;
    const done = this.cut === "rows" ? `a part of all ${count(tokens * this.given.outer, "sum")}`
      : this.cut === "columns" ? `${tokens * (part.end - part.start)} of ${count(tokens * this.given.outer, "result")}` : `a part of all ${count(tokens * this.given.inner, "sum")}`;
    return html`<div class="card r${rank}"><p class="name">Rank ${rank}</p>${this.picture(part, rank)}
      <dl><div><dt>holds</dt><dd>${count(part.held, "weight")}</dd></div><div><dt>multiplies</dt><dd>${count(part.products, "time")}</dd></div>
        <div><dt>has then</dt><dd>${this.ranks === 1 ? "everything" : done}</dd></div><div><dt>sends</dt><dd class="sent">${count(part.sent, "byte")}</dd></div></dl></div>`;
  }

  /** Inputs, weights and results, as they are multiplied; what this rank has is coloured, parts of sums are striped. */
  picture({ start, end }, rank) {
    const { tokens: t, inner: d, outer: f } = this.given, u = UNIT, { cut } = this, gap = 16, top = 12;
    const sums = this.ranks > 1 ? "sum" : "mine", y = top + (d * u - t * u) / 2;
    const mats = [[d, t, cut === "rows" ? [start, 0, end, t] : [0, 0, d, t], "mine"],
      [f, d, cut === "rows" ? [0, start, f, end] : [start, 0, end, d], "mine"],
      cut === "rows" ? [f, t, [0, 0, f, t], sums] : [f, t, [start, 0, end, t], "mine"]];
    if (cut === "both") mats.push([d, f, [0, start, d, end], "mine"], [d, t, [0, 0, d, t], sums]);
    const tall = cut === "both" ? f * u : d * u, signs = ["×", "=", "×", "="];
    let x = 1;
    const drawn = mats.map(([w, h, [a, b, c, e], kind], i) => {
      const left = x, above = top + (tall - h * u) / 2;
      x += w * u + gap;
      return svg`${rect(left, above, w * u, h * u, "whole")}${rect(left + a * u, above + b * u, (c - a) * u, (e - b) * u, kind, kind === "sum" ? `url(#stripes${rank})` : undefined)}
        ${i < mats.length - 1 ? svg`<text x=${left + w * u + gap / 2} y=${top + tall / 2 + 4}>${signs[i]}</text>` : nothing}`;
    });
    return html`<svg viewBox="0 0 ${x - gap + 1} ${tall + 2 * top}" style="max-width: ${1.15 * x}px" aria-hidden="true">
      <defs><pattern id=${`stripes${rank}`} width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2.5" height="5" class="mine"></rect></pattern></defs>${drawn}</svg>`;
  }

  chart() {
    return html`<div class="chart" style="--slots: ${this.given.slots}" aria-hidden="true">
      ${this.line.map((row, stage) => html`<span class="stage">stage ${stage}</span>${row.map((cell) => (cell
        ? html`<span class="slot r${cell[0] % 4} ${cell[0] > 3 ? "other" : ""}">${LETTERS[cell[0]]}${cell[1] + 1}</span>` : html`<span class="slot idle"></span>`))}`)}
      <span class="stage"></span><span class="axis">time →</span></div>
      <p class="key">A1 is the first step of micro-batch A; an empty place is a stage with nothing to do.</p>`;
  }

  table() {
    if (!this.given) return null;
    if (this.view === "pipeline") {
      return { columns: ["Stage", "In each slot of time"],
        rows: this.line.map((row, stage) => [stage, row.map((cell) => (cell ? LETTERS[cell[0]] + (cell[1] + 1) : "–")).join(" ")]) };
    }
    const what = this.cut === "rows" ? "Rows" : this.cut === "columns" ? "Columns" : "Columns, then rows";
    return { columns: ["Rank", what, "Weights", "Products", "Bytes sent"],
      rows: this.all.map(({ start, end, held, products, sent }, rank) => [rank, `${start} to ${end - 1}`, held, products, sent]) };
  }

  static styles = [TinyElement.styles, css`
    :host { --c0: ${unsafeCSS(COLORS.blue)}; --c1: ${unsafeCSS(COLORS.orange)}; --c2: ${unsafeCSS(COLORS.green)}; --c3: ${unsafeCSS(COLORS.purple)}; }
    .controls { display: flex; flex-wrap: wrap; gap: 0.7rem 1.6rem; }
    .label { display: block; margin-bottom: 0.3rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .choices { display: flex; flex-wrap: wrap; gap: 0.35rem; }
    .choices button { min-width: 2rem; font-size: 0.8125rem; }
    .r0 { --mine: var(--c0); } .r1 { --mine: var(--c1); } .r2 { --mine: var(--c2); } .r3 { --mine: var(--c3); }
    .ranks { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 0.6rem; margin-top: 1rem; }
    .card { padding: 0.5rem 0.75rem; border: 1px solid var(--tl-line); border-top: 4px solid var(--mine); border-radius: 8px; background: var(--tl-paper); }
    .name { font-weight: 650; }
    svg { display: block; width: 100%; height: auto; margin: 0.2rem auto; }
    .whole { fill: none; stroke: var(--tl-edge); stroke-width: 0.8; }
    .mine { fill: var(--mine); }
    text { fill: var(--tl-soft); font-size: 11px; text-anchor: middle; }
    dl { margin: 0; font-size: 0.8125rem; }
    dl > div { display: flex; justify-content: space-between; gap: 0.6rem; }
    dt { color: var(--tl-muted); }
    dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
    .sent { font-weight: 650; }
    .sentence { min-height: 2.9em; margin-top: 0.9rem; text-wrap: pretty; }
    .chart { display: grid; grid-template-columns: auto repeat(var(--slots), minmax(0, 1fr)); gap: 2px; margin-top: 1rem; font-size: 0.6875rem; }
    .stage { padding-right: 0.35rem; color: var(--tl-muted); white-space: nowrap; line-height: 1.9rem; }
    .slot { overflow: hidden; height: 1.9rem; border-radius: 3px; background: color-mix(in srgb, var(--mine) 38%, var(--tl-raised)); line-height: 1.9rem; text-align: center; color: var(--tl-ink); }
    .slot.other { outline: 1px dashed var(--tl-edge); outline-offset: -2px; }
    .idle { border: 1px dashed var(--tl-line); background: none; }
    .axis { grid-column: span var(--slots); color: var(--tl-muted); }
    .key { margin-top: 0.3rem; color: var(--tl-muted); font-size: 0.8125rem; }
    @container (max-width: 30rem) { .chart { gap: 1px; font-size: 0.5625rem; } .stage { font-size: 0.6875rem; } }
  `];
}

define("tl-shard", Shard);
