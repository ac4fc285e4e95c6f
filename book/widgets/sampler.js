// <tl-sampling>: a real distribution over the next token, reshaped by temperature and one filter, and
// draws from it with the engine's own noise.
//
// data: {prompts: [{text, surprise}], seed, needs: ["fable"], and what BPE takes, to name tokens}
// surprise: -ln p of every token id, as the model gives it.
import { COLORS, TinyElement, css, define, html, unsafeCSS } from "./base.js";
import { BPE } from "./bpe.js";
import { nameOf } from "./characters.js";
import { FableLoader, loaderStyle } from "./fable-loader.js";
import { argmax, filterLogits, gumbelNoise, softmax } from "./sampling.js";

const SHOWN = 10; // tokens with a bar of their own
const BANDS = [100, 1000]; // where the bands of the others end; the last one ends with the vocabulary
const MOST_DRAWS = 300;
const WORDS = 12; // draws that are spelled out
const LONGEST = 600; // UTF-16 units of the reader's text
const PAUSE = 250; // ms after a key before the model reads

const NUDGES = Array.from({ length: 19 }, (_, i) => (i + 1) / 20);
export const CUTS = {
  "nothing": null,
  "top-k": { option: "topK", steps: [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000], at: 4, says: "tokens at most" },
  "top-p": { option: "topP", steps: [...NUDGES, 0.99], at: 9, says: "of the probability, in the fewest tokens" },
  "min-p": { option: "minP", steps: [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1], at: 4, says: "times as likely as the favourite, or more" },
};

const number = new Intl.NumberFormat("en");
const percent = (share) => (share === 0 ? "0" : share < 0.00005 ? "<0.01%"
  : `${(100 * share).toFixed(share < 0.001 ? 2 : share < 0.1 ? 1 : 0)}%`);

/** Bits that one draw tells on average. */
export const entropy = (shares) => shares.reduce((sum, p) => (p > 0 ? sum - p * Math.log2(p) : sum), 0);

/** What is drawn from: one certain token at temperature 0. */
export function reshape(logits, { temperature, ...filters }) {
  if (temperature > 0) return filterLogits(logits, { temperature, ...filters });
  const best = argmax(logits);
  return Float32Array.from(logits, (_, id) => (id === best ? 0 : -Infinity));
}

class Sampling extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    text: { state: true },
    temperature: { state: true },
    cut: { state: true },
    draws: { state: true },
    seed: { state: true },
  };

  ready(data) {
    this.bpe = new BPE(data);
    this.prompts = data.prompts.map(({ text, surprise }) => [text, Float32Array.from(surprise, (value) => -value)]);
    this.loader = new FableLoader(this);
    this.places = Object.fromEntries(Object.entries(CUTS).map(([name, cut]) => [name, cut?.at]));
    this.noise = [];
    [this.temperature, this.cut, this.draws, this.seed] = [1, "nothing", 100, data.seed];
    this.take(...this.prompts[0]);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.waiting);
  }

  /** New logits: what comes after `text`. */
  take(text, logits) {
    [this.text, this.logits] = [text, logits];
    this.own = softmax(logits);
    this.ranked = Array.from(this.own.keys()).sort((a, b) => this.own[b] - this.own[a] || a - b);
    this.redraw();
  }

  /** The distribution as it is now, and all draws from it: the noise stays, so only what changes moves. */
  redraw() {
    const cut = CUTS[this.cut];
    const options = { temperature: this.temperature };
    if (cut) options[cut.option] = cut.steps[this.places[this.cut]];
    const kept = reshape(this.logits, options);
    this.shares = softmax(kept);
    this.left = kept.reduce((n, value) => n + (value > -Infinity), 0);
    this.bits = entropy(this.shares);
    while (this.noise.length < this.draws) this.noise.push(gumbelNoise(this.seed, this.noise.length, this.own.length));
    const ids = this.ranked.filter((id) => kept[id] > -Infinity);
    this.drawn = this.noise.slice(0, this.draws).map((noise) => {
      let best = ids[0];
      for (const id of ids) {
        const value = kept[id] + noise[id], most = kept[best] + noise[best];
        if (value > most || (value === most && id < best)) best = id;
      }
      return best;
    });
    this.tally = new Map();
    for (const id of this.drawn) this.tally.set(id, (this.tally.get(id) ?? 0) + 1);
    this.requestUpdate();
  }

  // What the reader does

  set(values) {
    Object.assign(this, values);
    this.redraw();
    this.announce(this.summary());
  }

  onPrompt(text, logits) {
    this.take(text, logits);
    this.announce(this.summary());
  }

  onStep(place) {
    this.places = { ...this.places, [this.cut]: place };
    this.set({});
  }

  onDraw(more) { this.set({ draws: Math.min(this.draws + more, MOST_DRAWS) }); }

  onNewDice() {
    this.noise = [];
    this.set({ seed: this.seed + 1, draws: 0 });
  }

  onType(text) {
    this.text = text;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => { this.waiting = null; this.ask(text); }, PAUSE);
  }

  /** The model's own answer to a text. */
  async ask(text) {
    const { fable } = this.loader, known = this.prompts.find(([known]) => known === text);
    if (known) { this.onPrompt(...known); return; }
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking, ids = fable.tokenizer.encode(text);
    const logits = await fable.start().read(ids.length ? ids : [fable.config.eos_token_id].flat(), { signal });
    if (!signal.aborted && this.text === text) this.onPrompt(text, Float32Array.from(logits));
  }

  // What is shown

  name(id) { return id < this.bpe.firstByte ? "end of text" : nameOf(this.bpe.bytesOf(id)); }

  /** Rows of the picture: {name, own, share, drawn, band}. */
  rows() {
    const rows = this.ranked.slice(0, SHOWN).map((id) => (
      { name: this.name(id), own: this.own[id], share: this.shares[id], drawn: this.tally.get(id) ?? 0 }));
    let start = SHOWN;
    for (const end of [...BANDS, this.ranked.length]) {
      const row = { own: 0, share: 0, drawn: 0, band: true };
      for (const id of this.ranked.slice(start, end)) {
        row.own += this.own[id];
        row.share += this.shares[id];
        row.drawn += this.tally.get(id) ?? 0;
      }
      row.name = `${end === this.ranked.length ? "last" : "next"} ${number.format(end - start)}`;
      rows.push(row);
      start = end;
    }
    return rows;
  }

  summary() {
    return `${number.format(this.left)} token${this.left === 1 ? "" : "s"} can come, ${this.bits.toFixed(2)} bits. `
      + `The favourite, ${this.name(this.ranked[0])}, has ${percent(this.shares[this.ranked[0]])}.`;
  }

  widget() {
    return html`
      ${this.asked()}
      <div class="knobs">
        <div class="knob">
          <label for="temperature">Temperature <output>${this.temperature.toFixed(2)}</output></label>
          <input id="temperature" type="range" min="0" max="2" step="0.05" .value=${String(this.temperature)}
            @input=${(e) => this.set({ temperature: Number(e.target.value) })}>
          <p class="says">${this.temperature === 0 ? "greedy: the favourite, always" : this.temperature < 1 ? "favourites grow"
            : this.temperature === 1 ? "as the model has it" : "outsiders grow"}</p>
        </div>
        ${this.filter()}
      </div>
      ${this.counts()}
      ${this.picture()}
      ${this.dice()}`;
  }

  asked() {
    return html`
      ${this.loader.fable
        ? html`<label class="label" for="text">The text so far: type your own</label>
          <textarea id="text" rows="2" maxlength=${LONGEST} spellcheck="false" autocapitalize="off" autocomplete="off"
            .value=${this.text} @input=${(e) => this.onType(e.target.value)}></textarea>`
        : html`<p class="label" id="so-far">The text so far</p><p class="text">${this.text} <span class="gap">?</span></p>`}
      <div class="examples" role="group" aria-label="Texts">
        ${this.prompts.map(([text, logits]) => html`
          <button type="button" aria-pressed=${text === this.text} @click=${() => this.onPrompt(text, logits)}
            >${text}\u2009\u2026</button>`)}
        ${this.loader.button("type your own")}
      </div>`;
  }

  filter() {
    const cut = CUTS[this.cut], place = this.places[this.cut];
    return html`
      <div class="knob">
        <div class="cuts" role="group" aria-label="Cut the tail by">
          <span class="cut-name" aria-hidden="true">Cut by</span>
          ${Object.keys(CUTS).map((name) => html`<button type="button" aria-pressed=${name === this.cut}
            @click=${() => this.set({ cut: name })}>${name}</button>`)}
        </div>
        ${cut ? html`
          <input type="range" aria-label=${this.cut} aria-valuetext="${cut.steps[place]} ${cut.says}" min="0" max=${cut.steps.length - 1}
            step="1" .value=${String(place)} @input=${(e) => this.onStep(Number(e.target.value))}>
          <p class="says"><b>${cut.steps[place]}</b> ${cut.says}</p>`
          : html`<p class="says">every token keeps its chance</p>`}
      </div>`;
  }

  counts() {
    const shown = [
      [number.format(this.left), this.left === 1 ? "token can come" : "tokens can come"],
      [this.bits.toFixed(2), "bits of entropy"],
      [number.format(Number((2 ** this.bits).toPrecision(3))), "equal choices are as open"],
    ];
    return html`<dl class="counts">${shown.map(([value, name]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
  }

  picture() {
    const rows = this.rows(), longest = Math.max(...rows.flatMap(({ own, share }) => [own, share]));
    const width = (share) => `${(100 * share / longest).toFixed(2)}%`;
    return html`
      <div class="bars" role="img" aria-label=${this.summary()}>
        <div class="row head"><span></span><span class="legend"><span><i class="as-own"></i>from the model</span> <span><i class="as-is"></i>now</span> <span><i class="as-is many"></i>now, many tokens</span></span>
          <span>chance</span><span>drawn</span></div>
        ${rows.map((row) => html`
          <div class="row ${row.band ? "band" : ""} ${row.share === 0 ? "out" : ""}">
            <bdi class="token">${row.name}</bdi>
            <span class="lane"><span class="own" style="width: ${width(row.own)}"></span><span class="now" style="width: ${width(row.share)}"></span></span>
            <span class="share">${percent(row.share)}</span>
            <span class="drawn">${row.drawn || "\u2013"}</span>
          </div>`)}
      </div>`;
  }

  dice() {
    const words = this.drawn.slice(-WORDS);
    return html`
      <div class="dice">
        <button type="button" ?disabled=${this.draws >= MOST_DRAWS} @click=${() => this.onDraw(1)}>Draw one</button>
        <button type="button" ?disabled=${this.draws >= MOST_DRAWS} @click=${() => this.onDraw(100)}>Draw 100</button>
        <button type="button" @click=${() => this.onNewDice()}>New noise</button>
        <span class="seed">${number.format(this.draws)} drawn, seed ${this.seed}</span>
      </div>
      <p class="words">${words.length
        ? html`<span class="label">The last of them:</span> ${words.map((id, i) => html`<bdi class="word ${i === words.length - 1 ? "newest" : ""} ${
          this.ranked.indexOf(id) >= BANDS[1] ? "odd" : ""}">${this.name(id)}</bdi> `)}`
        : html`<span class="label">Nothing drawn yet.</span>`}</p>`;
  }

  table() {
    if (!this.shares) return null;
    return {
      columns: ["Token", "From the model", "Now", `Of ${this.draws} draws`],
      rows: this.rows().map(({ name, own, share, drawn }) => [name, percent(own), percent(share), String(drawn)]),
    };
  }

  static styles = [TinyElement.styles, loaderStyle, css`
    .label { color: var(--tl-muted); font-size: 0.8125rem; }
    label.label, p.label { display: block; }
    .text { margin: 0.15rem 0 0; font-family: var(--tl-mono); font-size: 1rem; overflow-wrap: anywhere; }
    .gap { padding: 0 0.35rem; border-radius: 4px; background: color-mix(in srgb, ${unsafeCSS(COLORS.chosen)} 18%, var(--tl-raised)); }
    .examples { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem; margin: 0.6rem 0 1rem; }
    .examples button { font-size: 0.8125rem; }
    .knobs { display: grid; grid-template-columns: 1fr 1.35fr; gap: 0.6rem 2rem; }
    .knob label, .cuts { display: flex; flex-wrap: wrap; align-items: center; gap: 0.3rem 0.4rem; min-height: 2.2rem; }
    .knob output { font-weight: 650; font-variant-numeric: tabular-nums; }
    .cut-name { margin-right: 0.2rem; }
    .cuts button { padding-inline: 0.6rem; font-size: 0.8125rem; }
    input[type="range"] { display: block; width: 100%; height: 1.75rem; margin: 0; }
    .knob { min-height: 5.4rem; }
    .says { min-height: 1.45em; color: var(--tl-muted); font-size: 0.8125rem; }
    .says b { color: var(--tl-ink); font-variant-numeric: tabular-nums; }
    .counts { display: flex; flex-wrap: wrap; gap: 0.4rem 2rem; margin: 0.8rem 0; }
    .counts > div { display: flex; flex-direction: column-reverse; }
    .counts dt { color: var(--tl-muted); font-size: 0.75rem; line-height: 1.3; }
    .counts dd { margin: 0; font-size: 1.25rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
    .counts > div:nth-child(2) dd { color: var(--tl-accent); font-weight: 650; }
    .row { display: grid; grid-template-columns: 6.2rem minmax(0, 1fr) 3.6rem 3rem; align-items: center; gap: 0.6rem; min-height: 1.6rem; }
    .row > :nth-child(n + 3) { text-align: right; font-variant-numeric: tabular-nums; }
    .head { color: var(--tl-muted); font-size: 0.75rem; }
    .legend i { display: inline-block; width: 0.9rem; height: 0.6rem; margin: 0 0.25rem 0 0; border-radius: 2px; }
    .legend { display: flex; flex-wrap: wrap; gap: 0 0.8rem; }
    .as-own, .own { border: 1.5px solid var(--tl-edge); }
    .as-is, .now { background: ${unsafeCSS(COLORS.token)}; }
    .token { overflow: hidden; font-family: var(--tl-mono); text-overflow: ellipsis; white-space: pre; }
    .band .token { color: var(--tl-soft); font-family: var(--tl-sans); font-size: 0.8125rem; }
    .lane { position: relative; height: 0.95rem; }
    .own, .now { position: absolute; inset: 0 auto 0 0; border-radius: 0 3px 3px 0; }
    .own { border-left: 0; }
    .now { inset-block: 0.2rem; transition: width 0.18s ease-out; }
    .band .now, .as-is.many { background: ${unsafeCSS(COLORS.chosen)}; }
    .out :is(.token, .share) { color: var(--tl-muted); }
    .out .token { text-decoration: line-through; text-decoration-color: color-mix(in srgb, currentcolor 60%, transparent); }
    .drawn { color: var(--tl-soft); }
    .dice { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem; margin: 0.9rem 0 0.5rem; }
    .seed { margin-left: 0.4rem; color: var(--tl-muted); font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    .words { min-height: 3.4em; line-height: 1.7; }
    .word { padding: 0.05rem 0.3rem; border-radius: 4px; background: var(--tl-tint); font-family: var(--tl-mono); font-size: 0.94em; white-space: pre; }
    .word.odd { background: color-mix(in srgb, ${unsafeCSS(COLORS.chosen)} 18%, var(--tl-raised)); }
    .word.newest { box-shadow: 0 0 0 1.5px var(--tl-edge); }
    @container (max-width: 36rem) { .knobs { grid-template-columns: 1fr; } }
    @container (max-width: 30rem) {
      .row { grid-template-columns: 4.9rem minmax(0, 1fr) 2.9rem 2.5rem; gap: 0.4rem; font-size: 0.8125rem; }
      .head { font-size: 0.6875rem; }
      .counts { gap: 0.4rem 1.1rem; }
    }
  `];
}

define("tl-sampling", Sampling);
