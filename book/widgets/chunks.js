// <tl-chunks>: a long prompt among decoders, and the token budget that decides how it is cut.
//
// data: {fetch, each}: ms to fetch all weights, and of arithmetic for a token: a step takes the longer;
//   budgets [tokens], budget (the first one); blockSize;
//   cases: {name: {says, options (of the scheduler), requests, watch, others: [names], span}}; span: ms
//   requests: {name, prompt: [first id, how many], shared?, maxTokens, priority?, at (ms)}; the ids count up
//   from the first one, or are those of `shared`'s prompt as far as that goes.
import { svg } from "lit";

import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { line, scale } from "./chart.js";
import { simulate } from "./scheduler.js";

const LABEL = 74, LANE = 15, GAP = 3, LOAD = 54; // of the timeline, in its own units
const SPANS = [60, 90, 120, 180, 240, 360, 480, 720, 960];
const number = new Intl.NumberFormat("en");
const ms = (time) => `${time < 9.95 ? time.toFixed(1) : number.format(Math.round(time))} ms`;
const count = (n, what) => `${number.format(n)} ${what}${n === 1 ? "" : "s"}`;

class Chunks extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    which: { state: true }, budget: { state: true }, at: { state: true }, width: { state: true },
  };

  ready(data) {
    this.given = data;
    this.known = new Map();
    [this.budget, this.width] = [data.budget, 640];
    this.choose(Object.keys(data.cases)[0]);
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

  // ---- the schedule ----

  get case() { return this.given.cases[this.which]; }
  get run() { return this.runOf(this.which, this.budget); }
  get step() { return this.run.steps[this.at]; }

  /** The steps of a case under a budget, for tests of the rule too: plain data in, plain data out. */
  simulate(...args) { return simulate(...args); }

  cost(tokens) { return Math.max(this.given.fetch, this.given.each * tokens); }

  runOf(which, budget) {
    const key = `${which} ${budget}`;
    if (!this.known.has(key)) this.known.set(key, this.measure(which, budget));
    return this.known.get(key);
  }

  measure(which, budget) {
    const { options, requests, watch, others } = this.given.cases[which];
    const ids = (name) => {
      const { prompt: [first, length], shared } = requests.find((request) => request.name === name);
      const own = Array.from({ length }, (_, i) => first + i), start = shared ? ids(shared) : [];
      return [...start, ...own].slice(0, length);
    };
    const all = requests.map((request) => ({ ...request, prompt: ids(request.name) }));
    const steps = simulate({ ...options, blockSize: this.given.blockSize, budget }, all, (tokens) => this.cost(tokens), { nextToken: () => 0 });
    const marks = Object.fromEntries(requests.map(({ name, at }) => [name, { at, out: [] }]));
    for (const { to, parts } of steps) for (const { name, samples } of parts) if (samples) marks[name].out.push(to);
    const waits = others.flatMap((name) => marks[name].out.slice(1).map((time, i) => ({ name, from: marks[name].out[i], to: time })));
    const worst = waits.reduce((a, b) => (b.to - b.from > a.to - a.from + 1e-9 ? b : a));
    const first = marks[watch].out[0] - marks[watch].at;
    const reading = steps.filter(({ parts }) => parts.some(({ name, samples, count }) => name === watch && (count > 1 || !samples)));
    return { steps, worst, first, until: marks[watch].out[0], chunks: reading.length, fullest: Math.max(...steps.map(({ tokens }) => tokens)) };
  }

  get span() {
    const needed = Math.max(this.case.span, this.run.until + 12);
    return SPANS.find((span) => span >= needed) ?? needed;
  }

  get shown() { return this.run.steps.filter(({ from }) => from < this.span); }

  // ---- what the reader does ----

  choose(which) {
    this.which = which;
    this.look();
  }

  onBudget(place) {
    this.budget = this.given.budgets[place];
    this.look();
    this.announce(this.sentence());
  }

  /** Put the finger on the fullest step, where the watched one reads. */
  look() {
    const steps = this.run.steps, reads = ({ parts }) => parts.some(({ name }) => name === this.case.watch);
    this.at = steps.findIndex((step) => reads(step));
    steps.forEach((step, i) => { if (reads(step) && step.tokens > steps[this.at].tokens) this.at = i; });
  }

  show(at) {
    this.at = Math.max(0, Math.min(at, this.shown.length - 1));
    this.announce(this.stepSentence());
  }

  onKey(event) {
    const far = Math.max(2, Math.round(this.shown.length / 10));
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -far, PageUp: far, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.show(this.at + moves[event.key]);
  }

  onPoint(event) {
    if (event.type === "pointermove" && event.pointerType !== "mouse" && !event.buttons) return;
    const box = event.currentTarget.getBoundingClientRect(), scale = this.wide / box.width;
    const time = (((event.clientX - box.left) * scale - LABEL) / (this.wide - LABEL - 4)) * this.span;
    const at = this.shown.findIndex(({ from, to }) => time >= from && time < to);
    if (at >= 0) this.show(at);
  }

  // ---- words ----

  sentence() {
    const { first, worst, chunks } = this.run;
    return `Budget ${number.format(this.budget)}: the ${this.case.watch} has its first token after ${ms(first)}, in ${count(chunks, "piece")}; the others wait ${ms(worst.to - worst.from)} at most for a token.`;
  }

  stepSentence() {
    const { from, to, tokens, parts, preempted, waiting } = this.step, singles = parts.filter(({ count }) => count === 1).length;
    const pieces = parts.filter(({ count }) => count > 1).map(({ name, start, count, found }) =>
      `${name}, tokens ${number.format(start + 1)} to ${number.format(start + count)}${found ? ` (${number.format(found)} found in the cache)` : ""}`);
    return [
      `Step ${this.at + 1}, from ${from.toFixed(1)} to ${to.toFixed(1)} ms: ${count(tokens, "token")}.`,
      singles ? `${count(singles, "request")} with a single token.` : "",
      pieces.length ? `Read: ${pieces.join("; ")}.` : "",
      preempted.length ? `${preempted.join(", ")} gave way: no blocks left.` : "",
      waiting.length ? `Waiting: ${waiting.join(", ")}.` : "",
    ].filter(Boolean).join(" ");
  }

  table() {
    if (!this.given) return null;
    const rows = this.shown.map(({ from, to, tokens, parts, preempted, waiting }, i) => [
      String(i + 1), `${from.toFixed(1)}–${to.toFixed(1)}`, number.format(tokens), String(parts.filter(({ count }) => count === 1).length),
      parts.filter(({ count }) => count > 1).map(({ name, count }) => `${name} ${number.format(count)}`).join(", ") || "–",
      preempted.join(", ") || "–", waiting.join(", ") || "–",
    ]);
    return { columns: ["Step", "Milliseconds", "Tokens", "Single tokens", "Pieces of prompts", "Gave way", "Waiting"], rows };
  }

  // ---- pictures ----

  get wide() { return Math.max(280, this.width - 42); }

  widget() {
    const { given, run } = this, place = given.budgets.indexOf(this.budget), wait = run.worst.to - run.worst.from;
    return html`
      <div class="cases" role="group" aria-label="What happens">
        ${Object.keys(given.cases).map((name) => html`<button type="button" aria-pressed=${name === this.which} @click=${() => { this.choose(name); this.announce(this.sentence()); }}>${name}</button>`)}
      </div>
      <p class="says">${this.case.says}</p>
      <label class="label" for="budget"><span>Token budget of a step</span> <b>${number.format(this.budget)}</b></label>
      <input id="budget" type="range" min="0" max=${given.budgets.length - 1} step="1" .value=${String(place)}
        aria-valuetext="${number.format(this.budget)} tokens" @input=${(event) => this.onBudget(Number(event.target.value))}>
      <dl class="counts">
        <div class="first"><dt>until the ${this.case.watch}'s first token</dt><dd>${ms(run.first)}</dd></div>
        <div class="wait"><dt>the others' longest wait for a token</dt><dd>${ms(wait)}</dd></div>
        <div><dt>read in</dt><dd>${count(run.chunks, "piece")}</dd></div>
      </dl>
      ${this.timeline()}
      <p class="legend"><span class="mark pre"></span> reads its prompt <span class="mark dec"></span> one token
        ${this.shows("found") ? html`<span class="mark fnd"></span> found in the cache` : nothing}
        ${this.shows("preempted") ? html`<span class="mark gone">×</span> gave way` : nothing}
        <span class="mark wai"></span> waits</p>
      <p class="read">${this.stepSentence()}</p>
      ${this.curve()}
      <p class="legend"><span class="mark first"></span> until the ${this.case.watch}'s first token <span class="mark wait"></span> the others' longest wait, for each budget</p>`;
  }

  shows(what) { return this.run.steps.some(({ parts, preempted }) => (what === "found" ? parts.some(({ found }) => found) : preempted.length)); }

  timeline() {
    const { span, wide, shown, case: { requests, watch } } = this, names = requests.map(({ name }) => name);
    const x = (time) => LABEL + (Math.min(time, span) / span) * (wide - LABEL - 4);
    const top = names.length * (LANE + GAP) + 12, bottom = top + LOAD, high = bottom + 30;
    const y = (name) => names.indexOf(name) * (LANE + GAP), most = Math.max(...shown.map(({ tokens }) => tokens));
    const now = this.step, { worst } = this.run;
    const every = [10, 20, 30, 60, 90, 120, 240].find((step) => span / step <= (wide > 460 ? 8 : 5)), ticks = [];
    for (let time = 0; time <= span; time += every) ticks.push(time);
    const box = (step, name, how, title = nothing) => svg`<rect class=${how} x=${(x(step.from) + 0.4).toFixed(2)} y=${y(name)} width=${Math.max(0.8, x(step.to) - x(step.from) - (shown.length > 90 ? 0.4 : 1)).toFixed(2)} height=${LANE}>${title}</rect>`;
    const marks = shown.flatMap((step) => {
      const found = step.parts.filter(({ found }) => found), bar = (tokens) => (tokens / most) * (LOAD - 4);
      const light = step.parts.filter(({ count }) => count === 1).length;
      return [
        ...step.parts.map(({ name, count }) => box(step, name, count > 1 ? "pre" : "dec")),
        ...step.waiting.map((name) => box(step, name, "wai")),
        ...found.map(({ name }) => svg`<rect class="fnd" x=${(x(step.from) - 2).toFixed(2)} y=${y(name) - 1} width="4" height=${LANE + 2} rx="1.5" />`),
        ...step.preempted.map((name) => svg`<text class="gone" x=${x(step.from).toFixed(2)} y=${y(name) + LANE - 3} text-anchor="middle">×</text>`),
        svg`<rect class="pre" x=${(x(step.from) + 0.4).toFixed(2)} y=${(bottom - bar(step.tokens)).toFixed(2)} width=${Math.max(0.8, x(step.to) - x(step.from) - 0.8).toFixed(2)} height=${bar(step.tokens - light).toFixed(2)} />
          <rect class="dec" x=${(x(step.from) + 0.4).toFixed(2)} y=${(bottom - bar(light)).toFixed(2)} width=${Math.max(0.8, x(step.to) - x(step.from) - 0.8).toFixed(2)} height=${bar(light).toFixed(2)} />`,
      ];
    });
    return html`<svg class="time" width=${wide} height=${high} viewBox="0 -2 ${wide} ${high}" role="slider" tabindex="0"
        aria-label="Steps over time, a lane for each request" aria-valuemin="1" aria-valuemax=${shown.length} aria-valuenow=${this.at + 1} aria-valuetext=${this.stepSentence()}
        @keydown=${this.onKey} @pointerdown=${this.onPoint} @pointermove=${this.onPoint}>
      ${names.map((name) => svg`<text class=${name === watch ? "name watched" : "name"} x=${LABEL - 7} y=${y(name) + LANE - 4} text-anchor="end">${name}</text>
        <line class="lane" x1=${LABEL} x2=${wide - 4} y1=${y(name) + LANE + GAP / 2} y2=${y(name) + LANE + GAP / 2} />`)}
      ${marks}
      ${svg`<rect class="worst" x=${x(worst.from)} y=${y(worst.name) - 1} width=${Math.max(1, x(worst.to) - x(worst.from))} height=${LANE + 2} />
      <rect class="now" x=${x(now.from) - 0.5} y="-1" width=${Math.max(1.5, x(now.to) - x(now.from))} height=${bottom + 1} />
      <text class="name" x=${LABEL - 7} y=${top + 13} text-anchor="end">tokens</text>
      <text class="name" x=${LABEL - 7} y=${top + 26} text-anchor="end">a step</text>
      <text class="tick" x=${LABEL - 7} y=${bottom} text-anchor="end">0 to ${number.format(most)}</text>
      <line class="axis" x1=${LABEL} x2=${wide - 4} y1=${bottom} y2=${bottom} />`}
      ${ticks.map((time) => svg`<text class="tick" x=${x(time)} y=${bottom + 13} text-anchor=${time === span ? "end" : time ? "middle" : "start"}>${time}</text>`)}
      ${svg`<text class="tick" x=${(LABEL + wide) / 2} y=${bottom + 26} text-anchor="middle">milliseconds</text>`}
    </svg>`;
  }

  /** Both waits for every budget. */
  curve() {
    const { given: { budgets }, which, wide } = this, high = 132, left = 46, bottom = 30, top = 8;
    const points = budgets.map((budget) => {
      const { first, worst } = this.runOf(which, budget);
      return { budget, first, wait: worst.to - worst.from };
    });
    const most = Math.max(...points.flatMap(({ first, wait }) => [first, wait]));
    const x = scale(budgets[0], budgets[budgets.length - 1], left, wide - 16, true), y = scale(0, most, high - bottom, top);
    const path = (what) => line(points.map((point) => [x(point.budget), y(point[what])]));
    const here = points.find(({ budget }) => budget === this.budget), shownBudgets = budgets.filter((budget) => Number.isInteger(Math.log2(budget)) && (wide > 430 || Math.log2(budget) % 2 === 1));
    return html`<svg class="curve" width=${wide} height=${high} viewBox="0 0 ${wide} ${high}" role="img"
        aria-label="For budgets from ${budgets[0]} to ${number.format(budgets[budgets.length - 1])} tokens: time to the first token of the ${this.case.watch}, and the longest wait of the others. ${this.sentence()}">
      ${svg`<line class="axis" x1=${left} x2=${wide - 4} y1=${y(0)} y2=${y(0)} />
      <text class="tick" x=${left - 6} y=${y(0) + 4} text-anchor="end">0</text>
      <text class="tick" x=${left - 6} y=${y(most) + 8} text-anchor="end">${Math.round(most)} ms</text>
      <line class="here" x1=${x(here.budget)} x2=${x(here.budget)} y1=${top} y2=${y(0)} />
      <path class="first" d=${path("first")} /><path class="wait" d=${path("wait")} />
      <circle class="first" cx=${x(here.budget)} cy=${y(here.first)} r="4.5" /><circle class="wait" cx=${x(here.budget)} cy=${y(here.wait)} r="4.5" />`}
      ${shownBudgets.map((budget) => svg`<text class="tick" x=${x(budget)} y=${y(0) + 13} text-anchor="middle">${number.format(budget)}</text>`)}
      ${svg`<text class="tick" x=${(left + wide) / 2} y=${high - 3} text-anchor="middle">token budget</text>`}
    </svg>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --pre: ${unsafeCSS(COLORS.prefill)}; --dec: ${unsafeCSS(COLORS.decode)}; --fnd: ${unsafeCSS(COLORS.green)}; --first: light-dark(${unsafeCSS(COLORS.blue)}, ${unsafeCSS(COLORS.sky)}); }
    .cases { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .cases button { font-size: 0.8125rem; }
    .says { margin: 0.6rem 0 0.8rem; color: var(--tl-soft); text-wrap: pretty; }
    .label { display: flex; justify-content: space-between; color: var(--tl-muted); font-size: 0.8125rem; }
    .label b { color: var(--tl-ink); font-size: 0.9375rem; font-variant-numeric: tabular-nums; }
    input[type="range"] { display: block; width: 100%; height: 1.75rem; margin: 0 0 0.4rem; cursor: pointer; }
    .counts { display: flex; flex-wrap: wrap; gap: 0.3rem 2rem; margin: 0 0 0.9rem; }
    .counts > div { display: flex; flex-direction: column-reverse; }
    .counts dt { color: var(--tl-muted); font-size: 0.75rem; }
    .counts dd { margin: 0; font-size: 1.35rem; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
    .counts .first dd { color: var(--first); }
    .counts .wait dd { color: light-dark(#b34a00, #f08a4b); }
    .time { display: block; max-width: 100%; cursor: crosshair; touch-action: pan-y; }
    .time:focus-visible { outline-offset: 4px; border-radius: 4px; }
    text { fill: var(--tl-muted); font-family: var(--tl-sans); font-size: 11px; font-variant-numeric: tabular-nums; }
    text.name { fill: var(--tl-soft); }
    text.watched { fill: var(--tl-ink); font-weight: 650; }
    text.gone { fill: var(--tl-ink); font-size: 15px; font-weight: 700; }
    .pre { fill: var(--pre); background: var(--pre); }
    .dec { fill: var(--dec); background: var(--dec); }
    .fnd { fill: var(--fnd); background: var(--fnd); }
    .wai { fill: color-mix(in srgb, var(--tl-muted) 26%, transparent); background: color-mix(in srgb, var(--tl-muted) 26%, transparent); }
    .lane, .axis { stroke: var(--tl-line); }
    .worst { fill: none; stroke: var(--tl-ink); stroke-width: 1.5; }
    .now { fill: color-mix(in srgb, var(--tl-accent) 12%, transparent); stroke: var(--tl-accent); }
    .legend { margin: 0.3rem 0 0.6rem; color: var(--tl-muted); font-size: 0.8125rem; text-wrap: pretty; }
    .mark { display: inline-block; width: 0.8rem; height: 0.7rem; margin: 0 0.1rem 0 0.6rem; }
    .mark:first-child { margin-left: 0; }
    .mark.gone { width: auto; height: auto; color: var(--tl-ink); font-weight: 700; line-height: 1; }
    .mark.first, .mark.wait { height: 0; margin-bottom: 0.25rem; border-top: 2px solid var(--first); background: none; }
    .mark.wait { border-top: 2px dashed var(--dec); }
    .read { min-height: 3em; margin: 0.1rem 0 1rem; padding: 0.45rem 0.75rem; border-left: 3px solid var(--tl-accent); color: var(--tl-soft); font-variant-numeric: tabular-nums; }
    .curve { display: block; max-width: 100%; }
    path.first, path.wait { fill: none; stroke: var(--first); stroke-width: 2; }
    path.wait { stroke: var(--dec); stroke-dasharray: 5 3; }
    circle.first { fill: var(--first); }
    circle.wait { fill: var(--dec); }
    .here { stroke: var(--tl-edge); stroke-dasharray: 3 3; }
  `];
}

define("tl-chunks", Chunks);
