// <tl-neurons>: on which tokens a neuron of Fable's MLPs fires, and what it then pushes towards.
//
// data: tokens [T texts]; shortlist [{layer, neuron, name, valve [T], up [T], plus: [text], minus: [text]}], counted
//   from 0; peaks [layers][neurons], the largest activation in the tale, in tenths; word (the first choice);
//   needs: ["fable"].
import { COLORS, css, define, html, nothing, unsafeCSS } from "./base.js";
import { FableLoader, loaderStyle } from "./fable-loader.js";
import { Reader, textOf, visible } from "./reader.js";

const MOST = 200; // tokens of the reader's own text
const PUSHED = 6; // tokens that are named
const FIRES = 0.1; // of its peak: below that a neuron is called silent
const STRONGEST = 4; // neurons told of a token

const signed = (value) => `${value < 0 ? "\u2212" : ""}${Math.abs(value).toFixed(2)}`;
const nameOf = (layer, neuron) => `layer ${layer + 1}, neuron ${neuron + 1}`;

class Neurons extends Reader {
  static wait = 200;
  static properties = {
    ...Reader.properties,
    layer: { state: true }, neuron: { state: true },
  };

  ready(data) {
    [this.example, this.tokens, this.peaks] = [data, data.tokens, data.peaks];
    [this.pinned, this.over, this.text, this.note, this.session] = [data.word, null, null, "", null];
    this.loader = new FableLoader(this, { then: () => this.begin() });
    const [{ layer, neuron }] = data.shortlist;
    this.take(layer, neuron);
  }

  // ---- state ----

  get known() { return this.example.shortlist.find(({ layer, neuron }) => layer === this.layer && neuron === this.neuron); }
  get peak() { return Math.max(1, this.peaks[this.layer][this.neuron]) / 10; }
  get title() { return this.known?.name ?? nameOf(this.layer, this.neuron); }

  /** This neuron's numbers for the present text: from the model once it is there, else from the page. */
  take(layer, neuron) {
    [this.layer, this.neuron] = [layer, neuron];
    const { session, known } = this;
    if (session) {
      const all = this.tokens.map((_, i) => this.inside[layer][i]);
      [this.valve, this.up] = [all.map(({ valve }) => valve[neuron]), all.map(({ up }) => up[neuron])];
      const { fable } = this.loader, pushes = fable.pushes(layer, neuron), order = Array.from(pushes.keys()).sort((a, b) => pushes[b] - pushes[a]);
      const name = (id) => textOf(fable.tokenizer, id);
      this.pushed = { plus: order.slice(0, PUSHED).map(name), minus: order.slice(-PUSHED).reverse().map(name) };
    } else {
      [this.valve, this.up, this.pushed] = [known.valve, known.up, known];
    }
    this.fires = this.valve.map((valve, i) => valve * this.up[i]);
    this.requestUpdate();
  }

  choose(layer, neuron) {
    const { length: layers } = this.peaks, { length: size } = this.peaks[0];
    this.take((layer + layers) % layers, (neuron + size) % size);
    const best = this.strongest();
    this.over = null;
    if (best !== null) this.pinned = best;
    this.announce(`${this.title}. ${best === null ? "It is silent here." : this.sentence(best)}`);
  }

  /** The token on which it fires most; null where it is silent. */
  strongest() {
    const sizes = this.fires.map(Math.abs), best = sizes.indexOf(Math.max(...sizes));
    return sizes[best] >= FIRES * this.peak ? best : null;
  }

  /** Fable is there: read the example with it, and let the reader type. */
  async begin() {
    this.text = this.example.tokens.join("");
    await this.readText(this.text);
    await this.focusOwn();
  }

  /** Read the reader's text; a later text overtakes an earlier one. */
  async readText(text) {
    const read = await this.readWith(text, MOST, { neurons: true });
    if (!read) return;
    const { kept, session } = read;
    this.session = session;
    this.tokens = kept.map((id) => textOf(this.loader.fable.tokenizer, id));
    this.inside = this.peaks.map((_, l) => kept.map((_, i) => session.neurons(l, i)));
    [this.pinned, this.over] = [Math.min(this.pinned, kept.length - 1), null];
    this.take(this.layer, this.neuron);
    const best = this.strongest();
    if (text !== this.example.tokens.join("") && best !== null) this.pinned = best;
    this.announce(this.sentence(this.pinned));
  }

  onAny() {
    const { length: layers } = this.peaks, { length: size } = this.peaks[0], any = Math.floor(Math.random() * layers * size);
    this.choose(Math.floor(any / size), any % size);
  }

  // ---- words ----

  sentence(index) {
    const fires = this.fires[index], silent = Math.abs(fires) < FIRES * this.peak;
    const parts = `valve ${signed(this.valve[index])} times up ${signed(this.up[index])} is ${signed(fires)}`;
    return `${visible(this.tokens[index])}: ${parts}. ${silent ? "Hardly anything." : `Pushes towards ${this.towards(fires).join(", ")}.`}`;
  }

  towards(fires) { return this.pushed[fires < 0 ? "minus" : "plus"].map(visible); }

  /** The neurons that fire most on a token, each beside its own peak. */
  loudest(index) {
    const found = [];
    this.peaks.forEach((row, l) => {
      const { valve, up } = this.inside[l][index];
      row.forEach((peak, n) => { if (peak >= 10) found.push([l, n, (10 * Math.abs(valve[n] * up[n])) / peak]); });
    });
    return found.sort((a, b) => b[2] - a[2]).slice(0, STRONGEST);
  }

  table() {
    const rows = this.tokens.map((token, i) => [visible(token), signed(this.valve[i]), signed(this.up[i]), signed(this.fires[i])]);
    return { columns: ["Token", "Valve", "Up", "Activation"], rows };
  }

  // ---- pictures ----

  widget() {
    const live = this.session !== null;
    return html`
      <div class="short" role="group" aria-label="Neurons of the shortlist">
        ${this.example.shortlist.map(({ layer, neuron, name }) => html`<button type="button" aria-pressed=${layer === this.layer && neuron === this.neuron}
          @click=${() => this.choose(layer, neuron)}>${name}</button>`)}
      </div>
      ${live ? this.dial() : html`<p class="label which">Layer ${this.layer + 1}, neuron ${this.neuron + 1}</p>`}
      ${this.words()}
      <p class="read">${this.readout()}</p>
      ${live ? this.others() : nothing}
      ${live
        ? html`<label class="label" for="own">Your own words, at most ${MOST} tokens</label>
            <textarea id="own" rows="3" spellcheck="false" .value=${this.text} @input=${(e) => this.onText(e.target.value)}></textarea>
            ${this.note ? html`<p class="note">${this.note}</p>` : nothing}`
        : this.loader.button("see all 5,120 neurons, on your own words")}`;
  }

  dial() {
    const field = (name, value, most, take) => html`<label>${name} <input type="number" min="1" max=${most} .value=${String(value + 1)}
      @change=${(e) => take(Math.max(1, Math.min(most, Math.round(Number(e.target.value)) || 1)) - 1)}></label>`;
    return html`<div class="dial">
      ${field("Layer", this.layer, this.peaks.length, (layer) => this.choose(layer, this.neuron))}
      ${field("Neuron", this.neuron, this.peaks[0].length, (neuron) => this.choose(this.layer, neuron))}
      <button type="button" @click=${this.onAny}>Draw one by lot</button></div>`;
  }

  /** The text, each token as dark as the neuron fires on it. */
  words() {
    const keys = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const onKey = (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      this.pin(Math.max(0, Math.min(this.tokens.length - 1, this.pinned + keys[event.key])));
      this.updateComplete.then(() => this.renderRoot.querySelector(".word[aria-selected=true]").focus());
    };
    return html`<div class="words" role="listbox" aria-label="The text; choose a token" aria-orientation="horizontal"
        @keydown=${onKey} @pointerleave=${() => { this.over = null; }}>${this.tokens.map((token, i) => {
        const share = Math.min(1, Math.abs(this.fires[i]) / this.peak);
        return html`<span role="option" class="word ${this.fires[i] < 0 ? "below" : ""} ${i === this.word ? "chosen" : ""}"
          aria-selected=${i === this.pinned} tabindex=${i === this.pinned ? 0 : -1} style="--w: ${share < 0.02 ? 0 : Math.round(100 * share ** 0.7)}%"
          aria-label="${visible(token)}, ${signed(this.fires[i])}" @click=${() => this.pin(i)} @focus=${() => { if (i !== this.pinned) this.pin(i); }}
          @pointerenter=${(event) => { if (event.pointerType === "mouse") this.over = i; }}>${/\n/.test(token) ? html`${visible(token)}<br>` : token}</span>`;
      })}</div>`;
  }

  readout() {
    const index = this.word, fires = this.fires[index], silent = Math.abs(fires) < FIRES * this.peak;
    return html`<b>${visible(this.tokens[index])}</b>: valve ${signed(this.valve[index])} × up ${signed(this.up[index])} =
      <b class=${fires < 0 ? "below" : "above"}>${signed(fires)}</b>.
      ${silent ? "Hardly anything." : html`Pushes towards ${this.towards(fires).map((text, n) => html`${n ? ", " : ""}<b>${text}</b>`)}.`}`;
  }

  others() {
    return html`<p class="others"><span class="label">Firing most on ${visible(this.tokens[this.pinned])}:</span>
      ${this.loudest(this.pinned).map(([l, n]) => html`<button type="button" aria-label=${nameOf(l, n)} @click=${() => { const { pinned } = this; this.choose(l, n); this.pinned = pinned; }}>${l + 1}·${n + 1}</button>`)}</p>`;
  }

  static styles = [Reader.styles, loaderStyle, css`
    :host { --above: ${unsafeCSS(COLORS.mlp)}; --below: ${unsafeCSS(COLORS.purple)}; }
    .label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    .short { display: flex; flex-wrap: wrap; gap: 0.35rem; }
    .short button { padding-inline: 0.6rem; font-size: 0.8125rem; }
    .which, .dial { margin: 0.7rem 0 0.4rem; min-height: 1.3rem; }
    .dial { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem 0.9rem; }
    .dial input { width: 4.4rem; min-height: 2rem; margin-left: 0.25rem; padding: 0.1rem 0.4rem; border: 1px solid var(--tl-edge); border-radius: 8px; background: var(--tl-paper); font-size: max(0.9rem, 16px); }
    .words { padding: 0.6rem 0.75rem; border: 1px solid var(--tl-line); border-radius: 8px; background: var(--tl-paper); font-size: 1rem; line-height: 1.75; white-space: pre-wrap; overflow-wrap: anywhere; }
    .word { padding: 0.12rem 0; border-radius: 3px; --hue: var(--above); background: light-dark(color-mix(in srgb, var(--hue) var(--w), transparent), color-mix(in srgb, var(--hue) calc(0.6 * var(--w)), transparent)); cursor: pointer; touch-action: manipulation; -webkit-tap-highlight-color: transparent; transition: background-color 0.12s; }
    .word.below { --hue: var(--below); }
    .word.chosen { box-shadow: inset 0 -2px 0 var(--tl-ink); }
    .read { min-height: 2.9em; margin: 0.6rem 0 0.7rem; color: var(--tl-soft); text-wrap: pretty; overflow-wrap: anywhere; }
    .read b { color: var(--tl-ink); font-weight: 650; }
    .read .above { color: light-dark(#00694d, #3fc99f); }
    .read .below { color: light-dark(#94436f, #e29cc0); }
    .others { display: flex; flex-wrap: wrap; align-items: center; gap: 0.35rem; margin: 0 0 0.8rem; }
    .others button { padding-inline: 0.55rem; font-variant-numeric: tabular-nums; }
    .note { margin-top: 0.3rem; color: var(--tl-muted); font-size: 0.8125rem; }
  `];
}

define("tl-neurons", Neurons);
