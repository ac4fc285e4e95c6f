// <tl-layers>: one token on its way up through Fable: what it would say after each layer, how large its
// stream is, how much attention and MLP add, and what happens without one of the layers.
//
// data: tokens [T texts]; names {id: text}; runs [9], with all layers, then without each one:
//   {guesses [T][9] of [id, probability, id, probability, ...], loud [T][9], wrote [T][8] of [attention, MLP]};
//   word (the first choice); needs: ["fable"].
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { FableLoader, loaderStyle } from "./fable-loader.js";
import { percent, textOf, visible } from "./reader.js";
import { softmax } from "./sampling.js";

const MOST = 60; // tokens of the reader's own text
const WAIT = 200; // ms after the last key before the text is read
const SHOWN = 3; // guesses told

const size = (vector) => Math.sqrt(vector.reduce((sum, v) => sum + v * v, 0) / vector.length);
const between = (a, b) => size(a.map((v, i) => v - b[i]));

class Layers extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    pinned: { state: true }, out: { state: true }, text: { state: true }, note: { state: true },
  };

  ready(data) {
    [this.example, this.tokens, this.pinned, this.out, this.text, this.note, this.sessions] = [data, data.tokens, data.word, null, null, "", null];
    this.layers = data.runs.length - 1;
    this.loader = new FableLoader(this, { then: () => this.begin() });
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.typing);
  }

  // ---- state ----

  /** The way of token `index`, without layer `out` or with all: for each height [[text, probability], ...], and the sizes. */
  way(index, out) {
    if (this.sessions) return this.look(index, out);
    const { names, runs } = this.example, run = runs[out === null ? 0 : out + 1];
    const pairs = (flat) => Array.from({ length: SHOWN }, (_, i) => [names[flat[2 * i]], flat[2 * i + 1]]);
    return { guesses: run.guesses[index].map(pairs), loud: run.loud[index], wrote: run.wrote[index] };
  }

  /** The same from the model in the page; a way is worked out once. */
  look(index, out) {
    const { session, ways } = this.sessions.get(out), { fable } = this.loader;
    if (!ways.has(index)) {
      const heights = Array.from({ length: this.layers + 1 }, (_, l) => session.hidden(l, index));
      const guesses = heights.map((state) => {
        const shares = softmax(fable.readOut(state)), best = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]).slice(0, SHOWN);
        return best.map((id) => [textOf(fable.tokenizer, id), shares[id]]);
      });
      const wrote = heights.slice(1).map((state, l) => {
        const middle = session.middle(l, index);
        return [between(middle, heights[l]), between(state, middle)];
      });
      ways.set(index, { guesses, loud: heights.map(size), wrote });
    }
    return ways.get(index);
  }

  pin(index) {
    if (index < 0 || index >= this.tokens.length) return;
    this.pinned = index;
    this.announce(this.sentence());
  }

  async leaveOut(layer) {
    const out = this.out === layer ? null : layer;
    if (this.sessions && !this.sessions.has(out)) await this.pass(out);
    this.out = out;
    this.announce(this.sentence());
  }

  async begin() {
    this.text = this.example.tokens.join("");
    await this.readText(this.text);
    const nowhere = document.activeElement === document.body || (document.activeElement === this && !this.renderRoot.activeElement);
    if (nowhere && matchMedia("(pointer: fine)").matches) this.renderRoot.querySelector("#own").focus({ preventScroll: true });
  }

  /** The present ids once more, without a layer. */
  async pass(out, ids = this.ids, sessions = this.sessions, signal = undefined) {
    const session = this.loader.fable.start({ hidden: true, without: out === null ? [] : [out] });
    await session.read(ids, { signal });
    sessions.set(out, { session, ways: new Map() });
  }

  /** Read the reader's text; a later text overtakes an earlier one. */
  async readText(text) {
    this.reading?.abort();
    const { fable } = this.loader, { signal } = (this.reading = new AbortController());
    const ids = fable.tokenizer.encode(text), kept = ids.slice(0, MOST);
    if (!kept.length) { this.note = "Type a word."; return; }
    const sessions = new Map();
    for (const out of new Set([null, this.out])) await this.pass(out, kept, sessions, signal);
    if (signal.aborted) return;
    const same = text === this.example.tokens.join("");
    [this.ids, this.sessions, this.tokens] = [kept, sessions, kept.map((id) => textOf(fable.tokenizer, id))];
    this.note = ids.length > MOST ? `The first ${MOST} of ${ids.length} tokens are shown.` : "";
    this.pinned = same ? Math.min(this.pinned, kept.length - 1) : kept.length - 1;
    this.requestUpdate();
    this.announce(this.sentence());
  }

  onText(text) {
    this.text = text;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.readText(text), WAIT);
  }

  // ---- words ----

  /** From which layer on the last word stands: 0 for the token's own row. */
  settled({ guesses }) {
    const last = guesses[this.layers][0][0];
    let from = this.layers;
    while (from > 0 && guesses[from - 1][0][0] === last) from--;
    return from;
  }

  sentence() {
    const whole = this.way(this.pinned, null), [said, share] = whole.guesses[this.layers][0];
    const start = `After “${visible(this.tokens[this.pinned])}” Fable expects “${visible(said)}”, ${percent(share)}.`;
    if (this.out === null) return `${start} That is its first choice from layer ${this.settled(whole)} on.`;
    const [other, less] = this.way(this.pinned, this.out).guesses[this.layers][0];
    return `${start} Without layer ${this.out + 1} it expects “${visible(other)}”, ${percent(less)}.`;
  }

  table() {
    const { guesses, loud, wrote } = this.way(this.pinned, this.out);
    const rows = guesses.map((best, l) => [l ? `layer ${l}` : "own row", best.map(([text, share]) => `${visible(text)} ${percent(share)}`).join(", "),
      ...(l ? wrote[l - 1].map((value) => value.toFixed(2)) : ["", ""]), loud[l].toFixed(2)]);
    return { columns: ["After", "It would say", "Attention adds", "MLP adds", "Stream"], rows };
  }

  // ---- pictures ----

  widget() {
    const live = this.sessions !== null, way = this.way(this.pinned, this.out);
    return html`
      <p class="label">Choose a token of the text. Underlined below: what really came next.</p>
      ${this.words()}
      <p class="read">${this.sentence()}</p>
      ${this.ladder(way)}
      ${live
        ? html`<label class="label" for="own">Your own words, at most ${MOST} tokens</label>
            <textarea id="own" rows="2" spellcheck="false" .value=${this.text} @input=${(e) => this.onText(e.target.value)}></textarea>
            ${this.note ? html`<p class="label">${this.note}</p>` : nothing}`
        : this.loader.button("follow your own words")}`;
  }

  words() {
    const keys = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const onKey = (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      this.pin(Math.max(0, Math.min(this.tokens.length - 1, this.pinned + keys[event.key])));
      this.updateComplete.then(() => this.renderRoot.querySelector(".word[aria-selected=true]").focus());
    };
    return html`<div class="words" role="listbox" aria-label="The text; choose a token" aria-orientation="horizontal" @keydown=${onKey}>
      ${this.tokens.map((token, i) => html`<span role="option" class="word" aria-selected=${i === this.pinned} tabindex=${i === this.pinned ? 0 : -1}
        @click=${() => this.pin(i)}>${visible(token)}</span>`)}</div>`;
  }

  /** A rung for the token's own row and one for each layer. */
  ladder({ guesses, loud, wrote }) {
    const most = Math.max(...wrote.flat(), 1e-6), next = this.tokens[this.pinned + 1];
    const bar = (kind, value) => html`<span class="lane"><span class="bar ${kind}" style="width: ${((100 * value) / most).toFixed(1)}%"></span></span>`;
    const guess = ([text, share], n) => html`<span class="guess ${text === next ? "came" : ""}" style="--w: ${Math.round(100 * share)}%">${visible(text)}
      <span class="share">${percent(share)}</span></span>`;
    return html`<div class="ladder">
      <div class="rung head" aria-hidden="true"><span>After</span><span>it would say</span>
        <span class="key">adds, longest bar ${most.toFixed(2)}<br><i class="attention"></i>attention <i class="mlp"></i>MLP</span><span>stream</span><span></span></div>
      ${guesses.map((best, l) => html`<div class="rung ${l && this.out === l - 1 ? "gone" : ""}">
        <span class="name">${l ? `layer ${l}` : "own row"}</span>
        <span class="guesses">${best.map(guess)}</span>
        <span class="adds">${l ? html`${bar("attention", wrote[l - 1][0])}${bar("mlp", wrote[l - 1][1])}` : nothing}</span>
        <span class="loud" title="root mean square of the stream">${loud[l].toFixed(2)}</span>
        <span>${l ? html`<button type="button" aria-pressed=${this.out === l - 1} aria-label="Leave out layer ${l}"
          title="Leave out layer ${l}" @click=${() => this.leaveOut(l - 1)}>skip</button>` : nothing}</span>
      </div>`)}</div>`;
  }

  static styles = [TinyElement.styles, loaderStyle, css`
    :host { --attention: ${unsafeCSS(COLORS.attention)}; --mlp: ${unsafeCSS(COLORS.mlp)}; --hot: ${unsafeCSS(COLORS.chosen)}; }
    .label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    .words { display: flex; flex-wrap: wrap; gap: 0.25rem; margin-top: 0.3rem; }
    .word { min-width: 1.7rem; padding: 0.2rem 0.45rem; border: 1px solid var(--tl-line); border-radius: 6px; font-size: 1rem; line-height: 1.4; text-align: center; cursor: pointer; touch-action: manipulation; -webkit-tap-highlight-color: transparent; }
    .word:hover { border-color: var(--tl-accent); }
    .word[aria-selected="true"] { border-color: var(--tl-ink); box-shadow: inset 0 0 0 1px var(--tl-ink); font-weight: 650; }
    .read { min-height: 2.9em; margin: 0.6rem 0 0.5rem; color: var(--tl-soft); text-wrap: pretty; }
    .ladder { margin-bottom: 0.9rem; }
    .rung { display: grid; grid-template-columns: 3.9rem minmax(0, 1fr) 9.5rem 2.6rem 3.6rem; align-items: center; gap: 0 0.7rem; min-height: 2.3rem; padding: 0.15rem 0; border-top: 1px solid var(--tl-line); }
    .rung.head { min-height: 1.6rem; border: 0; color: var(--tl-muted); font-size: 0.75rem; }
    .head i { display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.3em; border-radius: 2px; }
    .head .key { white-space: nowrap; }
    .head .mlp { margin-left: 0.4em; }
    .attention { background: var(--attention); }
    .mlp { background: var(--mlp); }
    .name { color: var(--tl-soft); white-space: nowrap; }
    .guesses { display: flex; gap: 0.3rem; min-width: 0; overflow: hidden; }
    .guess { flex: 0 1 auto; padding: 0.1rem 0.4rem; border-radius: 5px; background: color-mix(in srgb, var(--hot) calc(0.55 * var(--w)), var(--tl-tint)); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
    .guess:first-child { flex-shrink: 0; font-weight: 650; }
    .guess.came { box-shadow: inset 0 -2px 0 var(--tl-ink); }
    .share { font-size: 0.75rem; font-weight: 400; font-variant-numeric: tabular-nums; }
    .lane { display: block; height: 0.5rem; margin: 0.15rem 0; }
    .bar { display: block; height: 100%; border-radius: 0 2px 2px 0; transition: width 0.2s; }
    .loud { text-align: right; font-variant-numeric: tabular-nums; }
    .rung button { min-height: 1.75rem; padding: 0 0.6rem; font-size: 0.8125rem; }
    .gone .name { text-decoration: line-through; }
    @media (pointer: coarse) { .rung button { min-height: 2.2rem; } }
    @container (max-width: 38rem) {
      .rung { grid-template-columns: 3.6rem minmax(0, 1fr) 2.4rem 3.4rem; }
      .guesses { grid-column: 2 / 5; }
      .adds { grid-column: 2; grid-row: 2; }
      .rung:not(:has(button)) .adds { display: none; }
      .loud { grid-column: 3; grid-row: 2; }
      .rung > :last-child { grid-column: 4; grid-row: 2; }
      .rung:not(:has(button)) .loud { grid-row: 1; grid-column: 4; }
      .rung:not(:has(button)) .guesses { grid-column: 2 / 4; }
      .head span:nth-child(2), .head > :last-child { display: none; }
      .head .key { grid-column: 2; }
      .head span:nth-child(4) { grid-column: 3; }
    }
  `];
}

define("tl-layers", Layers);
