// <tl-bytes>: how many bytes of an operation cross each border of a GPU, and what sets its time.
//
// data: {chip: {name, memory, bandwidth, l2, l2_bandwidth, cores, shared, shared_bandwidth, rate}, tiles,
//        model, config, operation, batch, context}; batch and context are numbers, shown as powers of two
import { svg } from "lit";

import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { scale } from "./chart.js";
import { attention, bytes, matmul, seconds, step, total } from "./roofline.js";

const exact = new Intl.NumberFormat("en");
const scaled = (sizes) => (n, unit) => {
  const [size, name] = sizes.find(([limit]) => n >= limit * 0.9995) ?? sizes[sizes.length - 1];
  const value = n / size;
  return `${value.toFixed(value >= 99.95 || size === 1 && Number.isInteger(value) ? 0 : value >= 9.995 ? 1 : 2)} ${name}${unit}`;
};
const decimal = scaled([[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]]);
const inBytes = (n) => decimal(n, "B");
const inTime = (s) => scaled([[1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]])(s, "s");
const binary = (n) => (n >= 2 ** 20 ? `${Math.round(n / 2 ** 20)} MiB` : `${Math.round(n / 1024)} KiB`);
const plural = (n, word) => `${exact.format(n)} ${word}${n === 1 ? "" : "s"}`;

const OPERATIONS = [
  { key: "decode", name: "Decode step", counts: "request", most: 9, looks: true },
  { key: "prefill", name: "Prefill", counts: "prompt token", most: 13, looks: false },
  { key: "attention", name: "Attention", counts: "request", most: 9, looks: true },
  { key: "product", name: "One matrix product", counts: "row", most: 13, looks: false },
];
const LEAST = 5, FARTHEST = 17; // powers of two of the context

class Bytes extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    operation: { state: true }, power: { state: true }, far: { state: true }, width: { state: true },
  };

  ready(data) {
    this.given = data;
    [this.operation, this.power, this.far] = [data.operation, Math.log2(data.batch), Math.log2(data.context)];
    this.width = 420;
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

  get kind() { return OPERATIONS.find(({ key }) => key === this.operation); }
  get batch() { return 2 ** this.power; }
  get context() { return 2 ** this.far; }

  /** The parts of an operation, one after the other. */
  parts(operation = this.operation, batch = this.batch, context = this.context) {
    const { tiles, config } = this.given;
    if (operation === "decode") return step(tiles, config, [[1, context, batch]]);
    if (operation === "prefill") return step(tiles, config, [[batch, batch, 1]]);
    if (operation === "attention") return { attention: step(tiles, { ...config, num_hidden_layers: 1 }, [[1, context, batch]]).attention };
    return { product: matmul(tiles, batch, config.hidden_size, 2 * config.intermediate_size) };
  }

  /** What crosses each border, the time that it needs for that, and which border needs the most. */
  flow(parts = this.parts()) {
    const { chip } = this.given, work = total(parts), spent = seconds(parts, chip);
    const levels = [
      { key: "hbm", amount: bytes(work), time: bytes(work) / chip.bandwidth },
      { key: "l2", amount: work.l2, time: work.l2 / chip.l2_bandwidth },
      { key: "sram", amount: work.shared, time: work.shared / chip.shared_bandwidth },
      { key: "cores", amount: work.flops, time: work.flops / chip.rate },
    ];
    const longest = Math.max(...levels.map(({ time }) => time));
    return { work, spent, levels, longest, slowest: levels.find(({ time }) => time === longest).key, intensity: work.flops / bytes(work) };
  }

  /** Whether weights and caches of a decode step are more than the chip holds. */
  get overflows() { return this.operation === "decode" && bytes(total(this.parts())) > this.given.chip.memory; }

  /** Bytes from HBM that all share, and those that are somebody's own. */
  shares(parts) {
    const kv = this.operation === "product" ? 0 : bytes(parts.attention ?? { read: 0, written: 0 });
    if (this.operation !== "product") return [["weights", bytes(total(parts)) - kv], ["KV cache", kv]];
    const weights = 2 * this.given.config.hidden_size * 2 * this.given.config.intermediate_size;
    return [["weights", weights], ["rows in and out", bytes(parts.product) - weights]];
  }

  // ---- what the reader does ----

  choose(key) {
    this.operation = key;
    this.power = Math.min(this.power, this.kind.most);
    if (key === "prefill" && this.power < 4) this.power = 11;
    this.announce(this.sentence());
  }

  // ---- words ----

  sentence() {
    const { spent, slowest, intensity, levels } = this.flow(), waits = slowest === "cores" ? "compute-bound" : "memory-bound";
    return `${plural(this.batch, this.kind.counts)}: ${inBytes(levels[0].amount)} from HBM and ${decimal(levels[3].amount, "FLOP")}, ${intensity.toFixed(intensity < 9.95 ? 1 : 0)} FLOPs a byte: ${waits}, at least ${inTime(spent)}.`;
  }

  verdict() {
    const { spent, slowest, levels, longest } = this.flow(), busy = levels[3].time / longest;
    const each = spent / this.batch, what = this.kind.counts;
    return html`<p class="read">${slowest === "cores"
      ? html`The <b class="cores">tensor cores</b> have the most to do: <b>compute-bound</b>. HBM rests ${Math.round(100 * (1 - levels[0].time / longest))}% of the time.`
      : html`<b class=${slowest}>${{ hbm: "HBM", l2: "L2", sram: "Shared memory" }[slowest]}</b> needs the longest: <b>memory-bound</b>. The tensor cores are busy ${busy < 0.0995 ? (100 * busy).toFixed(1) : Math.round(100 * busy)}% of the time.`}
      At least <b>${inTime(spent)}</b>${spent > 1.02 * longest ? ", its parts one after the other" : nothing}${this.batch > 1 ? html`, that is ${inTime(each)} a ${what}` : nothing}.</p>`;
  }

  table() {
    const { most, counts } = this.kind, rows = [];
    for (let power = 0; power <= most; power += most > 10 ? 2 : 1) {
      const { levels, spent, intensity, slowest } = this.flow(this.parts(this.operation, 2 ** power));
      rows.push([exact.format(2 ** power), ...levels.slice(0, 3).map(({ amount }) => inBytes(amount)), decimal(levels[3].amount, "FLOP"),
        intensity.toFixed(1), inTime(spent), slowest === "cores" ? "compute" : "memory"]);
    }
    return { columns: [`${counts}s`, "HBM to L2", "L2 to cores", "to multipliers", "operations", "FLOPs a byte", "least time", "bound by"], rows };
  }

  // ---- pictures ----

  widget() {
    const { kind } = this, slider = (id, label, value, low, high, text, set) => html`<div class="slide">
      <label for=${id}>${label}: <b>${text}</b></label>
      <input id=${id} type="range" min=${low} max=${high} step="1" .value=${String(value)} aria-valuetext=${text}
        @input=${(event) => { set(Number(event.target.value)); this.announce(this.sentence()); }}></div>`;
    return html`
      <div class="choice" role="group" aria-label="Operation">${OPERATIONS.map(({ key, name }) => html`
        <button type="button" aria-pressed=${key === this.operation} @click=${() => this.choose(key)}>${name}</button>`)}</div>
      <div class="slides">
        ${slider("batch", { decode: "Requests at once", attention: "Requests at once", prefill: "Tokens of the prompt", product: "Rows" }[kind.key], this.power, 0, kind.most, exact.format(this.batch), (value) => { this.power = value; })}
        ${kind.looks ? slider("context", "Tokens in each text", this.far, LEAST, FARTHEST, exact.format(this.context), (value) => { this.far = value; }) : html`<p class="what">${this.about()}</p>`}
      </div>
      <div class="stage">${this.levels()}<div class="right">${this.roof()}${this.verdict()}${this.split()}</div></div>`;
  }

  about() {
    const { hidden_size: d, intermediate_size: f } = this.given.config;
    return this.operation === "prefill" ? "One request; its last token gets logits." : `One layer's gate and up: ${exact.format(d)} × ${exact.format(2 * f)} weights.`;
  }

  /** Memories from far to near, and what flows from each to the next. */
  levels() {
    const { chip } = this.given, { levels, longest } = this.flow(), most = Math.max(...levels.slice(0, 3).map(({ amount }) => amount));
    const speed = (n) => decimal(n, "B/s");
    const stations = [
      ["hbm", "HBM", `${Math.round(chip.memory / 1e9)} GB`, speed(chip.bandwidth)],
      ["l2", "L2 cache", binary(chip.l2), speed(chip.l2_bandwidth)],
      ["sram", "Shared memory", `${chip.cores} × ${binary(chip.shared)}`, speed(chip.shared_bandwidth)],
      ["cores", "Tensor cores", `in ${chip.cores} cores`, decimal(chip.rate, "FLOP/s")],
    ];
    return html`<ol class="levels" aria-label="The memories of an ${chip.name}, from far to near">${stations.map(([key, name, size, rate], i) => {
      const { amount, time } = levels[i], share = time / longest, last = key === "cores";
      const wide = last ? 0 : 3 + 25 * Math.max(0, 1 - Math.log10(most / Math.max(amount, 1)) / 4);
      return html`<li class="level ${key} ${share === 1 ? "slowest" : ""}">
        <div class="station"><b>${name}</b><span>${size}</span></div>
        <div class="pipe">
          ${last ? html`<span class="sum" aria-hidden="true">×+</span>` : html`<span class="flow ${this.moves ? "moving" : ""}" aria-hidden="true" style="width: ${wide.toFixed(1)}px; animation-duration: ${(0.9 / Math.max(share, 0.02)).toFixed(2)}s"></span>`}
          <div class="cost">
            <span><b class="amount">${last ? decimal(amount, "FLOP") : inBytes(amount)}</b> at ${rate}</span>
            <span class="track"><span class="bar" style="width: ${(100 * share).toFixed(1)}%"></span></span>
            <span class="time">${inTime(time)}</span>
          </div>
        </div></li>`;
    })}</ol>`;
  }

  /** The roofline, on logarithmic scales: every batch size of this operation, and the chosen one. */
  roof() {
    const { chip } = this.given, narrow = this.width < 560, wide = Math.max(230, narrow ? this.width - 34 : (this.width - 42) * 0.5 - 16);
    const high = 216, left = 44, bottom = 34, top = 12, right = 10, LOW = 0.5, FAR = 16384, FLOOR = 1e12, CEILING = 2e15;
    const across = scale(LOW, FAR, left, wide - right, true), up = scale(FLOOR, CEILING, high - bottom, top, true);
    const x = (n) => across(Math.min(Math.max(n, LOW), FAR)), y = (n) => up(Math.min(Math.max(n, FLOOR), CEILING));
    const ridge = chip.rate / chip.bandwidth, dot = (power) => {
      const { intensity, work, spent } = this.flow(this.parts(this.operation, 2 ** power));
      return [x(intensity), y(work.flops / spent)];
    };
    const path = Array.from({ length: this.kind.most + 1 }, (_, power) => dot(power)), [cx, cy] = dot(this.power);
    const { work, spent, intensity } = this.flow();
    return html`<svg class="roof" width=${wide} height=${high} viewBox="0 0 ${wide} ${high}" role="img"
        aria-label="Roofline: ${decimal(work.flops / spent, "FLOP/s")} at most with ${intensity.toFixed(1)} FLOPs a byte; the roof is flat from ${ridge.toFixed(0)} FLOPs a byte on.">
      ${[1e12, 1e13, 1e14, 1e15].map((n) => svg`<line class="grid" x1=${left} x2=${wide - right} y1=${y(n)} y2=${y(n)} /><text x=${left - 5} y=${y(n) + 4} text-anchor="end">${n / 1e12}</text>`)}
      ${[1, 10, 100, 1000, 10000].map((n) => svg`<text x=${x(n)} y=${high - bottom + 14} text-anchor="middle">${exact.format(n)}</text>`)}
      ${svg`<path class="sky" d="M${x(LOW)} ${y(LOW * chip.bandwidth)}L${x(ridge)} ${y(chip.rate)}L${x(FAR)} ${y(chip.rate)}" />
      <line class="ridge" x1=${x(ridge)} x2=${x(ridge)} y1=${y(chip.rate)} y2=${high - bottom} />
      <text class="where" x=${x(ridge) + 4} y=${high - bottom - 6}>${ridge.toFixed(0)}</text>
      <text class="where hbm" x=${x(3)} y=${y(3 * chip.bandwidth) - 12} text-anchor="end" transform="rotate(0)">HBM</text>
      <text class="where" x=${wide - right} y=${y(chip.rate) - 10} text-anchor="end">tensor cores</text>
      ${path.map(([px, py]) => svg`<circle class="other" cx=${px} cy=${py} r="2.5" />`)}
      <circle class="here" cx=${cx} cy=${cy} r="6" />
      <text x=${(left + wide - right) / 2} y=${high - 3} text-anchor="middle">FLOPs for each byte from HBM</text>
      <text x="2" y="10">TFLOP/s</text>`}
    </svg>`;
  }

  split() {
    const shares = this.shares(this.parts()), whole = shares.reduce((sum, [, n]) => sum + n, 0);
    return html`<div class="split"><div class="both" aria-hidden="true">${shares.map(([name, n]) => html`<span class=${name === "weights" ? "weights" : "own"} style="flex: ${n / whole} 0 0"></span>`)}</div>
      <p>Across the border of HBM: ${shares.map(([name, n], i) => html`${i ? ", " : ""}<span class="mark ${name === "weights" ? "weights" : "own"}"></span> ${name} <b>${inBytes(n)}</b>`)}${this.overflows ? `: more than one ${this.given.chip.name} holds` : nothing}</p></div>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --hbm: ${unsafeCSS(COLORS.hbm)}; --hbm-text: light-dark(${unsafeCSS(COLORS.hbm)}, #d79abb); --l2: ${unsafeCSS(COLORS.l2)}; --l2-text: light-dark(#9c4777, ${unsafeCSS(COLORS.l2)}); --sram: ${unsafeCSS(COLORS.sram)}; --sram-text: light-dark(#8a5e00, ${unsafeCSS(COLORS.sram)}); --cores: ${unsafeCSS(COLORS.green)}; --cores-text: light-dark(#00694c, #35c79b); }
    .choice { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .choice button { font-size: 0.8125rem; }
    .slides { display: grid; grid-template-columns: 1fr 1fr; gap: 0.3rem 1.5rem; margin: 0.8rem 0 0.9rem; align-items: end; }
    .slide label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    .slide b { color: var(--tl-ink); font-variant-numeric: tabular-nums; }
    .slide input { display: block; width: 100%; height: 1.75rem; margin: 0; }
    .what { color: var(--tl-muted); font-size: 0.8125rem; padding-bottom: 0.3rem; }
    .stage { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1.2rem; align-items: start; }
    .levels { margin: 0; padding: 0; list-style: none; }
    .level { --hue: var(--hbm); --hue-text: var(--hbm-text); }
    .level.l2 { --hue: var(--l2); --hue-text: var(--l2-text); }
    .level.sram { --hue: var(--sram); --hue-text: var(--sram-text); }
    .level.cores { --hue: var(--cores); --hue-text: var(--cores-text); }
    .station { display: flex; justify-content: space-between; gap: 0.6rem; padding: 0.3rem 0.7rem; border: 1px solid var(--hue); border-left-width: 5px; border-radius: 6px; background: color-mix(in srgb, var(--hue) 10%, var(--tl-raised)); }
    .station span { color: var(--tl-soft); font-variant-numeric: tabular-nums; }
    .pipe { display: grid; grid-template-columns: 2.4rem minmax(0, 1fr); gap: 0.6rem; min-height: 3.3rem; align-items: center; }
    .flow { align-self: stretch; justify-self: center; background: repeating-linear-gradient(to bottom, var(--hue) 0 9px, color-mix(in srgb, var(--hue) 45%, var(--tl-raised)) 9px 14px); background-size: 100% 14px; transition: width 0.25s; }
    .moving { animation: down 1s linear infinite; }
    @keyframes down { to { background-position-y: 14px; } }
    .sum { justify-self: center; color: var(--hue-text); font-weight: 650; letter-spacing: 0.1em; }
    .cost { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0.1rem 0.6rem; align-items: center; font-variant-numeric: tabular-nums; color: var(--tl-soft); font-size: 0.8125rem; }
    .cost > :first-child { grid-column: 1 / -1; }
    .amount { color: var(--tl-ink); font-size: 0.9375rem; }
    .track { height: 7px; border-radius: 4px; background: var(--tl-tint); overflow: hidden; }
    .bar { display: block; height: 100%; min-width: 1px; background: var(--hue); transition: width 0.25s; }
    .time { min-width: 4.2rem; text-align: right; }
    .slowest .time { color: var(--hue-text); font-weight: 650; }
    .roof { display: block; max-width: 100%; }
    text { fill: var(--tl-muted); font-family: var(--tl-sans); font-size: 11px; font-variant-numeric: tabular-nums; }
    .grid { stroke: var(--tl-line); }
    .sky { fill: none; stroke: var(--tl-edge); stroke-width: 2.5; }
    .ridge { stroke: var(--tl-edge); stroke-dasharray: 3 3; }
    .other { fill: var(--tl-muted); }
    .here { fill: var(--tl-accent); stroke: var(--tl-raised); stroke-width: 1.5; }
    .read { margin: 0.5rem 0 0.7rem; min-height: 4.4em; color: var(--tl-soft); text-wrap: pretty; }
    .read b { color: var(--tl-ink); font-variant-numeric: tabular-nums; }
    .read b.hbm { color: var(--hbm-text); } .read b.l2 { color: var(--l2-text); } .read b.sram { color: var(--sram-text); } .read b.cores { color: var(--cores-text); }
    .both { display: flex; height: 10px; border-radius: 4px; overflow: hidden; }
    .weights { background: var(--hbm); } .own { background: ${unsafeCSS(COLORS.sky)}; }
    .split p { margin-top: 0.3rem; color: var(--tl-muted); font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    .split b { color: var(--tl-ink); }
    .mark { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 2px; vertical-align: -1px; }
    @container (max-width: 35rem) { .stage, .slides { grid-template-columns: minmax(0, 1fr); } .read { min-height: 0; } }
  `];
}

define("tl-bytes", Bytes);
