// <tl-shapes>: every part of a model in the order in which a token meets it: its shape and its price.
//
// data: {models: [{name, layers, longest, parts: [{name, kind, repeat, weights: [[name, shape]], tied,
//        params, out, flops, looking}]}], about: {part: sentence}, model, part, context}
//   params, flops: of one copy; looking: operations more for each token that is looked at; repeat: copies
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";

const exact = new Intl.NumberFormat("en");
const LARGE = [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]];
const BYTES = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
const WIDTH = 2; // bytes of a parameter in bfloat16

function round(n, sizes, least) {
  const [size, name] = sizes.find(([limit]) => n >= limit * 0.9995) ?? [1, ""];
  if (size === 1) return exact.format(n) + least;
  const value = n / size;
  return `${value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2)} ${name}`;
}
const inWords = (n) => round(n, LARGE, "");
const inBytes = (n) => round(n, BYTES, " bytes");
const percent = (part, whole) => {
  const share = (100 * part) / whole;
  return share === 0 ? "0%" : share < 0.1 ? "under 0.1%" : share < 9.95 ? `${share.toFixed(1)}%` : `${share.toFixed(0)}%`;
};
const shaped = (shape) => shape.map((n) => exact.format(n)).join(" × ");

class Shapes extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    model: { state: true },
    part: { state: true },
    what: { state: true }, // "params" or "flops": what the bars show
    power: { state: true }, // the context is 2 to this power
  };

  ready(data) {
    Object.assign(this, { models: data.models, about: data.about });
    Object.assign(this, { model: data.model, part: data.part, what: "params", power: Math.round(Math.log2(data.context)) });
  }

  get now() { return this.models[this.model]; }
  get context() { return Math.min(2 ** this.power, this.now.longest); }
  params(part) { return part.params * part.repeat; }
  flops(part) { return (part.flops + part.looking * this.context) * part.repeat; }
  total(measure) { return this.now.parts.reduce((sum, part) => sum + this[measure](part), 0); }

  // What the reader does

  take(index) {
    const name = this.now.parts[this.part].name;
    this.model = index;
    this.part = Math.max(0, this.now.parts.findIndex((part) => part.name === name));
    this.power = Math.min(this.power, Math.log2(this.now.longest));
    this.announce(this.summary());
  }

  async onKey(event) {
    const moves = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.part = Math.max(0, Math.min(this.part + moves[event.key], this.now.parts.length - 1));
    await this.updateComplete;
    this.renderRoot.querySelector('[role="option"][tabindex="0"]').focus();
  }

  // What is shown

  summary() {
    const params = this.total("params");
    return `${this.now.name}: ${inWords(params)} parameters, ${inBytes(WIDTH * params)}, ${inWords(this.total("flops"))} operations a token`;
  }

  widget() {
    const params = this.total("params"), tokens = exact.format(this.context);
    return html`
      <div class="controls">
        <div class="choice" role="group" aria-label="Model">${this.models.map(({ name }, i) => html`
          <button type="button" aria-pressed=${i === this.model} @click=${() => this.take(i)}>${name}</button>`)}</div>
        <div class="choice" role="group" aria-label="What the bars show">
          ${[["params", "Parameters"], ["flops", "Operations"]].map(([key, name]) => html`
            <button type="button" aria-pressed=${key === this.what} @click=${() => { this.what = key; }}>${name}</button>`)}</div>
        <div class="context">
          <label for="context">Tokens looked at: <b>${tokens}</b></label>
          <input id="context" type="range" min="0" max=${Math.ceil(Math.log2(this.now.longest))} step="1" .value=${String(this.power)}
            aria-valuetext="${tokens} tokens" @input=${(e) => { this.power = Number(e.target.value); this.announce(this.summary()); }}>
        </div>
      </div>
      <dl class="totals">
        <div><dt>parameters</dt><dd>${inWords(params)}</dd></div>
        <div><dt>in bfloat16</dt><dd>${inBytes(WIDTH * params)}</dd></div>
        <div><dt>operations a token</dt><dd>${inWords(this.total("flops"))}</dd></div>
      </dl>
      <div class="both">${this.stack()}${this.details()}</div>`;
  }

  stack() {
    const { parts, layers } = this.now, whole = this.total(this.what);
    const most = Math.max(...parts.map((part) => this[this.what](part)));
    const first = parts.findIndex((part) => part.repeat > 1), last = parts.findLastIndex((part) => part.repeat > 1);
    const row = (part, i) => html`
      <div role="option" class="part ${part.repeat > 1 ? "inside" : ""}" tabindex=${i === this.part ? 0 : -1}
        aria-selected=${i === this.part} style="--hue: ${COLORS[part.kind]}"
        aria-label="${part.name}${part.repeat > 1 ? ` in ${part.repeat} layers` : ""}, ${percent(this[this.what](part), whole)} of the ${this.what === "params" ? "parameters" : "operations"}"
        @click=${() => { this.part = i; }} @focus=${() => { if (this.part !== i) this.part = i; }}>
        <span class="called">${part.name}</span>
        <span class="track"><span class="bar" style="width: ${((100 * this[this.what](part)) / most).toFixed(1)}%"></span></span>
        <span class="share">${part.tied && this.what === "params" ? "embedding’s" : percent(this[this.what](part), whole)}</span>
      </div>`;
    return html`
      <div class="stack" role="listbox" aria-label="Parts, from token ids to logits" @keydown=${this.onKey}>
        ${parts.slice(0, first).map((part, i) => row(part, i))}
        <div class="layer" role="group" aria-label="${layers} layers">
          <span class="times" aria-hidden="true">${layers} times</span>
          ${parts.slice(first, last + 1).map((part, i) => row(part, first + i))}
        </div>
        ${parts.slice(last + 1).map((part, i) => row(part, last + 1 + i))}
      </div>`;
  }

  details() {
    const part = this.now.parts[this.part], params = this.params(part), flops = this.flops(part);
    const each = part.repeat > 1 ? ` (${exact.format(part.params)} a layer)` : "";
    const line = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
    return html`
      <div class="details" style="--hue: ${COLORS[part.kind]}">
        <p class="title">${part.name}</p>
        <p class="what">${this.about[part.name]}</p>
        <dl>
          ${part.weights.map(([name, shape]) => line(html`<code>${name.replace(/\.weight$/, "")}</code>`, html`<code>${shaped(shape)}</code>${part.tied ? ", the embedding’s own" : ""}`))}
          ${line("hands on", html`<code>${part.out}</code>`)}
          ${line("parameters", params ? html`${exact.format(params)}${each}` : part.tied ? "none of its own" : "none")}
          ${params ? line("bytes", html`${inBytes(WIDTH * params)} in bfloat16`) : nothing}
          ${line("operations", flops ? html`${exact.format(flops)} a token` : "hardly any")}
          ${line("share", html`${percent(params, this.total("params"))} of the parameters, ${percent(flops, this.total("flops"))} of the operations`)}
        </dl>
      </div>`;
  }

  table() {
    const rows = this.now.parts.map((part) => [
      part.name + (part.repeat > 1 ? ` (${part.repeat} times)` : ""), part.weights.map(([, shape]) => shaped(shape)).join("; ") || "\u2013",
      part.out, part.tied ? "0 (the embedding table again)" : exact.format(this.params(part)), exact.format(this.flops(part))]);
    return { columns: ["Part", "Weights", "Hands on", "Parameters", `Operations a token, looking at ${exact.format(this.context)}`], rows };
  }

  static styles = [TinyElement.styles, css`
    .controls { display: flex; flex-wrap: wrap; align-items: end; gap: 0.6rem 1.4rem; }
    .choice { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .choice button { font-size: 0.8125rem; }
    .context { flex: 1 1 11rem; max-width: 18rem; }
    .context label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    .context b { color: var(--tl-ink); font-variant-numeric: tabular-nums; }
    .context input { display: block; width: 100%; height: 1.75rem; margin: 0; }
    dl { margin: 0; } dd { margin: 0; } dt { color: var(--tl-muted); }
    .totals { display: flex; flex-wrap: wrap; gap: 0.4rem 2rem; margin: 1rem 0 0.9rem; }
    .totals > div { display: flex; flex-direction: column-reverse; }
    .totals dt { font-size: 0.75rem; }
    .totals dd { font-size: 1.25rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
    .both { display: grid; grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); gap: 1.1rem; align-items: start; }
    .part { --gap: 0.5rem; display: grid; grid-template-columns: 7.4rem 1fr 4.6rem; gap: var(--gap); align-items: center; min-height: 1.9rem; padding: 0.1rem 0.5rem; border-radius: 6px; cursor: pointer; touch-action: manipulation; -webkit-tap-highlight-color: transparent; }
    .part:hover { background: var(--tl-tint); }
    .part[aria-selected="true"] { background: color-mix(in srgb, var(--hue) 16%, var(--tl-raised)); box-shadow: inset 3px 0 0 var(--hue); font-weight: 650; }
    .called { overflow-wrap: anywhere; line-height: 1.2; }
    .track { height: 9px; border-radius: 4px; background: var(--tl-tint); overflow: hidden; }
    .bar { display: block; height: 100%; border-radius: 4px; background: var(--hue); transition: width 0.2s; }
    .share { color: var(--tl-soft); font-size: 0.75rem; font-variant-numeric: tabular-nums; text-align: right; font-weight: 400; }
    .layer { position: relative; margin: 0.3rem 0; padding: 1.25rem 0 0.25rem; border: 1px solid var(--tl-line); border-radius: 8px; }
    .times { position: absolute; top: 0.15rem; left: 0.5rem; color: var(--tl-muted); font-size: 0.75rem; }
    .details { padding: 0.7rem 0.9rem; border: 1px solid var(--tl-line); border-top: 3px solid var(--hue); border-radius: 8px; background: var(--tl-paper); }
    .title { font-size: 1rem; font-weight: 650; }
    .what { min-height: 4.4em; margin: 0.2rem 0 0.5rem; color: var(--tl-soft); text-wrap: pretty; }
    .details dl > div { display: grid; grid-template-columns: minmax(5.2rem, max-content) 1fr; gap: 0.6rem; padding: 0.22rem 0; border-top: 1px solid var(--tl-line); font-variant-numeric: tabular-nums; }
    .details dd, .details dt { overflow-wrap: anywhere; }
    @container (max-width: 38rem) { .both { grid-template-columns: minmax(0, 1fr); } .what { min-height: 0; } }
    @container (max-width: 22rem) { .part { grid-template-columns: 6.2rem 1fr 4.2rem; --gap: 0.3rem; } }
  `];
}

define("tl-shapes", Shapes);
