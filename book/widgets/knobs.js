// <tl-knobs>: the load that comes, two knobs of the scheduler, and whether a promise to the clients is kept.
//
// data: {rates [requests a second], seats [max_num_seqs], budgets [max_num_batched_tokens],
//   promise: {first, next} (seconds, for the first word and between words),
//   surface: [rate][seat][budget] -> {first: [p50, p99], next: [p50, p99] (seconds), tokens (a second),
//     good (share of requests with the promise kept), inside (requests, on average), stay (seconds), arrived (requests a second over the whole run)},
//   rate, seat, budget: indices of the first choices}
import { svg } from "lit";

import { COLORS, TinyElement, css, define, html, unsafeCSS } from "./base.js";
import { line, scale } from "./chart.js";

const HIGH = 178, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 34; // of a chart, in its own units
const number = new Intl.NumberFormat("en");
const few = (n) => number.format(n < 99.95 ? Number(n.toFixed(1)) : Math.round(n));
const short = (time) => (time < 0.9995 ? `${Number((1000 * time).toPrecision(3))} ms` : `${number.format(Number(time.toPrecision(3)))} s`);
const wait = (time) =>
  time < 0.09995 ? `${(1000 * time).toFixed(1)} ms` : time < 0.9995 ? `${Math.round(1000 * time)} ms` : time < 9.995 ? `${time.toFixed(2)} s` : `${few(time)} s`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);

class Knobs extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    rate: { state: true }, seat: { state: true }, budget: { state: true }, width: { state: true },
  };

  ready(data) {
    this.given = data;
    [this.rate, this.seat, this.budget, this.width] = [data.rate, data.seat, data.budget, 640];
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

  get point() { return this.given.surface[this.rate][this.seat][this.budget]; }

  /** This setting under every load. */
  get line() { return this.given.surface.map((under) => under[this.seat][this.budget]); }

  keeps({ first, next }) { return first[1] <= this.given.promise.first && next[1] <= this.given.promise.next; }

  turn(knob, place) {
    this[knob] = Math.max(0, Math.min(place, this.given[`${knob}s`].length - 1));
    this.announce(this.sentence());
  }

  /** A finger or the mouse on a chart chooses the load. */
  onPoint(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const { rates } = this.given, box = event.currentTarget.getBoundingClientRect(), wide = this.wide;
    const x = ((event.clientX - box.left) / box.width) * wide;
    const far = rates.map((rate) => Math.abs(this.x(rate) - x));
    this.turn("rate", far.indexOf(Math.min(...far)));
  }

  // ---- words ----

  sentence() {
    const { given: { rates, promise }, point, rate } = this, load = `At ${number.format(rates[rate])} a second`;
    const late = { first: point.first[1] > promise.first, next: point.next[1] > promise.next };
    const first = wait(point.first[1]), next = wait(point.next[1]);
    if (!late.first && !late.next) {
      const end = rates.findIndex((_, i) => i > rate && !this.keeps(this.line[i]));
      const ends = rate === rates.length - 1 ? "" : end < 0 ? " So it is at every higher load here." : ` With the same knobs it breaks at ${number.format(rates[end])} a second.`;
      return `${load} the promise is kept: at p99 the first word takes ${first} of the ${short(promise.first)} allowed, the next one ${next} of ${short(promise.next)}.${ends}`;
    }
    const what = late.first && late.next
      ? `both halves of the promise break: at p99 the first word takes ${first} instead of ${short(promise.first)}, the next one ${next} instead of ${short(promise.next)}.`
      : late.first
        ? `the first word breaks the promise: it takes ${first} at p99 instead of ${short(promise.first)}, while the next one is in time (${next}).`
        : `the next word breaks the promise: it takes ${next} at p99 instead of ${short(promise.next)}, while the first one is in time (${first}).`;
    return `${load} ${what} ${this.advice()}`;
  }

  /** What would keep the promise under this load: one knob, both, or nothing. Looked up, not guessed. */
  advice() {
    const { given: { rates, seats, budgets, surface }, rate, seat, budget } = this;
    const near = (list, at, holds) => list.map((_, i) => i).filter((i) => i !== at && holds(i)).sort((a, b) => Math.abs(a - at) - Math.abs(b - at) || b - a)[0];
    const s = near(seats, seat, (i) => this.keeps(surface[rate][i][budget]));
    const b = near(budgets, budget, (i) => this.keeps(surface[rate][seat][i]));
    const single = [
      s === undefined ? "" : `${s > seat ? "more" : "fewer"} requests at once (${number.format(seats[s])})`,
      b === undefined ? "" : `${b > budget ? "more" : "fewer"} tokens a step (${number.format(budgets[b])})`,
    ].filter(Boolean);
    if (single.length) return `${capital(single.join(", or "))}${single.length > 1 ? "," : ""} would keep it.`;
    const setting = (i, j) => `${number.format(seats[i])} at once and ${number.format(budgets[j])} tokens a step`;
    for (const under of [rate, ...rates.map((_, i) => rates.length - 1 - i)]) {
      const pairs = seats.flatMap((_, i) => budgets.map((_, j) => [i, j])).filter(([i, j]) => this.keeps(surface[under][i][j]));
      if (!pairs.length) continue;
      const [i, j] = pairs.sort(([a, b], [c, d]) => Math.abs(a - seat) + Math.abs(b - budget) - Math.abs(c - seat) - Math.abs(d - budget))[0];
      return under === rate
        ? `Neither knob alone would keep it; both would: ${setting(i, j)}.`
        : `No setting here keeps it under this load; the highest load under which one does is ${number.format(rates[under])} a second, with ${setting(i, j)}.`;
    }
    return "No setting here keeps it under any load.";
  }

  table() {
    if (!this.given) return null;
    const rows = this.line.map((point, i) => [
      number.format(this.given.rates[i]), ...point.first.map(wait), ...point.next.map(wait), number.format(Math.round(point.tokens)),
      few(this.given.rates[i] * point.good), few(point.inside), wait(point.stay), this.keeps(point) ? "kept" : "broken",
    ]);
    return { columns: ["Asked for a second", "First word, p50", "p99", "Next word, p50", "p99", "Tokens a second", "Kept a second", "Inside", "Stay", "Promise at p99"], rows };
  }

  // ---- pictures ----

  get inner() { return Math.max(250, this.width - 42); }

  /** Of one chart: two stand side by side where there is room. */
  get wide() { return this.inner > 560 ? Math.floor((this.inner - 20) / 2) : this.inner; }

  x(rate) {
    const { rates } = this.given, last = rates[rates.length - 1];
    return LEFT + ((rate - rates[0]) / (last - rates[0] || 1)) * (this.wide - LEFT - RIGHT);
  }

  widget() {
    const { given, point, rate } = this, { rates, seats, budgets } = given, load = rates[rate];
    const group = (knob, list, label, parameter) => html`<div class="knob" role="group" aria-label="${label} (${parameter})">
      <span class="name">${label} <code>${parameter}</code></span>
      <span class="choices">${list.map((value, i) => html`<button type="button" aria-pressed=${i === this[knob]} @click=${() => this.turn(knob, i)}>${number.format(value)}</button>`)}</span></div>`;
    const fact = (name, label, figures, note) => html`<div class=${name}><dt>${label}</dt><dd>${figures}</dd><dd class="note">${note}</dd></div>`;
    return html`
      <label class="label" for="load"><span>Load: requests that come</span> <b>${number.format(load)} a second</b></label>
      <input id="load" type="range" min="0" max=${rates.length - 1} step="1" .value=${String(rate)} aria-valuetext="${number.format(load)} requests a second"
        @input=${(event) => this.turn("rate", Number(event.target.value))}>
      <div class="knobs">${group("seat", seats, "At once", "max_num_seqs")}${group("budget", budgets, "Tokens a step", "max_num_batched_tokens")}</div>
      <div class="charts">${this.chart("first", "Until the first word", true)}${this.chart("next", "Between words", false)}</div>
      <p class="legend"><span><i class="mark thick"></i> p99</span> <span><i class="mark"></i> p50 of this setting</span>
        <span><i class="mark faint"></i> p99 of the others</span> <span><i class="mark due"></i> the promise</span></p>
      <dl class="facts">
        ${fact("first", "first word, p50 / p99", `${wait(point.first[0])} / ${wait(point.first[1])}`, `promised: ${short(given.promise.first)}`)}
        ${fact("next", "next word, p50 / p99", `${wait(point.next[0])} / ${wait(point.next[1])}`, `promised: ${short(given.promise.next)}`)}
        ${fact("tokens", "tokens a second", number.format(Math.round(point.tokens)), "all requests together")}
        ${fact("good", "goodput", `${few(load * point.good)} a second`, `of ${number.format(load)} asked for`)}
      </dl>
      <p class="little">Little’s law, until the last has left: ${few(point.arrived)} a second × ${wait(point.stay)} = <b>${few(point.arrived * point.stay)}</b>; inside, by counting: <b>${few(point.inside)}</b></p>
      <p class="read ${this.keeps(point) ? "kept" : "broken"}">${this.sentence()}</p>`;
  }

  chart(what, title, log) {
    const { given: { rates, seats, budgets, surface, promise }, wide, rate } = this, base = HIGH - BOTTOM;
    const all = surface.flat(2).flatMap((point) => point[what]).concat(promise[what]);
    const low = log ? Math.min(...all) / 1.3 : 0, top = Math.max(...all) * (log ? 1.2 : 1.08), y = scale(low, top, base, TOP, log);
    const path = (i, j, k) => line(rates.map((each, r) => [this.x(each), y(surface[r][i][j][what][k])]));
    const others = seats.flatMap((_, i) => budgets.map((_, j) => [i, j])).filter(([i, j]) => i !== this.seat || j !== this.budget);
    const here = this.x(rates[rate]), due = y(promise[what]);
    const shown = rates.reduce((kept, each) => (kept.length && this.x(each) - this.x(kept[kept.length - 1]) < 22 ? kept : [...kept, each]), []);
    return html`<svg class=${what} width=${wide} height=${HIGH} viewBox="0 0 ${wide} ${HIGH}" role="img" @pointerdown=${this.onPoint} @pointermove=${this.onPoint}
        aria-label="${title}: p50 and p99 for loads from ${rates[0]} to ${rates[rates.length - 1]} requests a second, ${number.format(seats[this.seat])} at once, ${number.format(budgets[this.budget])} tokens a step. Promised: ${short(promise[what])}.">
      ${ticks(low, top, log).map((time) => svg`<line class="grid" x1=${LEFT} x2=${wide - RIGHT} y1=${y(time)} y2=${y(time)} />
        <text class="tick" x=${LEFT - 6} y=${y(time) + 4} text-anchor="end">${time ? short(time) : "0"}</text>`)}
      ${svg`<line class="now" x1=${here} x2=${here} y1=${TOP} y2=${base} />`}
      ${others.map(([i, j]) => svg`<path class="faint" d=${path(i, j, 1)} />`)}
      ${svg`<line class="due" x1=${LEFT} x2=${wide - RIGHT} y1=${due} y2=${due} />
      <path class="thin" d=${path(this.seat, this.budget, 0)} /><path class="thick" d=${path(this.seat, this.budget, 1)} />
      <circle class="small" cx=${here} cy=${y(this.point[what][0])} r="3" /><circle class="dot" cx=${here} cy=${y(this.point[what][1])} r="5" />
      <text class="title" x=${LEFT + 6} y=${TOP + 9}>${title}</text>`}
      ${shown.map((each) => svg`<text class=${each === rates[rate] ? "tick chosen" : "tick"} x=${this.x(each)} y=${base + 14} text-anchor="middle">${number.format(each)}</text>`)}
      ${svg`<text class="tick" x=${(LEFT + wide - RIGHT) / 2} y=${HIGH - 4} text-anchor="middle">requests a second</text>`}
    </svg>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --first: light-dark(${unsafeCSS(COLORS.blue)}, ${unsafeCSS(COLORS.sky)}); --next: light-dark(#b34a00, #f08a4b); }
    .label { display: flex; justify-content: space-between; color: var(--tl-muted); font-size: 0.8125rem; }
    .label b { color: var(--tl-ink); font-size: 0.9375rem; font-variant-numeric: tabular-nums; }
    input[type="range"] { display: block; width: 100%; height: 1.75rem; margin: 0 0 0.5rem; cursor: pointer; }
    .knobs { display: flex; flex-wrap: wrap; gap: 0.6rem 2rem; margin: 0 0 1rem; }
    .knob .name { display: block; margin: 0 0 0.25rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .choices { display: flex; flex-wrap: wrap; gap: 0.35rem; }
    .choices button { min-width: 3.4rem; font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    .charts { display: flex; flex-wrap: wrap; gap: 0.6rem 20px; }
    svg { display: block; max-width: 100%; cursor: crosshair; touch-action: pan-y; }
    svg.first, .facts .first { --hue: var(--first); }
    svg.next, .facts .next { --hue: var(--next); }
    text { fill: var(--tl-muted); font-family: var(--tl-sans); font-size: 11px; font-variant-numeric: tabular-nums; }
    text.title { fill: var(--tl-ink); font-size: 12px; font-weight: 650; paint-order: stroke; stroke: var(--tl-raised); stroke-width: 4px; }
    text.chosen { fill: var(--tl-ink); font-weight: 650; }
    .grid { stroke: var(--tl-line); }
    .now { stroke: var(--tl-accent); stroke-width: 9; opacity: 0.16; }
    .due { stroke: var(--tl-ink); stroke-width: 1.3; stroke-dasharray: 6 4; }
    path { fill: none; stroke: var(--hue); stroke-linejoin: round; }
    .faint { stroke: var(--tl-edge); stroke-width: 1; opacity: 0.45; }
    .thin { stroke-width: 1.2; }
    .thick { stroke-width: 3; }
    circle { fill: var(--hue); stroke: var(--tl-raised); stroke-width: 1.5; }
    .legend { display: flex; flex-wrap: wrap; gap: 0 0.9rem; margin: 0.4rem 0 0.9rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .mark { display: inline-block; width: 1.3rem; border-top: 1.2px solid var(--tl-soft); vertical-align: 0.25em; }
    .mark.thick { border-top-width: 3px; }
    .mark.faint { border-color: var(--tl-edge); }
    .mark.due { border-top: 1.5px dashed var(--tl-ink); }
    .facts { display: grid; grid-template-columns: repeat(4, auto); justify-content: space-between; gap: 0.6rem 1.2rem; margin: 0 0 0.8rem; }
    .facts dt, .facts .note { color: var(--tl-muted); font-size: 0.75rem; }
    .facts dd { margin: 0; font-size: 1.15rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
    .facts .first dd, .facts .next dd { color: var(--hue); }
    .facts dd.note, .facts :is(.first, .next) dd.note { color: var(--tl-muted); font-weight: 400; }
    .little { margin: 0 0 0.7rem; color: var(--tl-soft); font-size: 0.8125rem; font-variant-numeric: tabular-nums; text-wrap: pretty; }
    .little b { color: var(--tl-ink); }
    .read { min-height: 4.4em; margin: 0; padding: 0.45rem 0.75rem; border-left: 3px solid ${unsafeCSS(COLORS.accepted)}; color: var(--tl-soft); font-variant-numeric: tabular-nums; text-wrap: pretty; }
    .read.broken { border-color: ${unsafeCSS(COLORS.rejected)}; }
    @container (max-width: 38rem) { .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
  `];
}

/** Round values of an axis from `low` to `high`: powers of ten (or 1, 2, 5 if those are few), or equal steps. */
function ticks(low, high, log) {
  if (!log) {
    const size = 10 ** Math.floor(Math.log10(high / 3)), step = size * [1, 2, 5, 10].find((times) => high / (size * times) <= 5);
    return Array.from({ length: Math.floor(high / step) + 1 }, (_, i) => i * step);
  }
  const found = (times) => Array.from({ length: 12 }, (_, i) => i - 5).flatMap((power) => times.map((n) => n * 10 ** power)).filter((value) => value >= low && value <= high);
  return found([1]).length > 2 ? found([1]) : found([1, 2, 5]).length > 6 ? found([1, 3]) : found([1, 2, 5]);
}

define("tl-knobs", Knobs);
