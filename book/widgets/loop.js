// <tl-loop>: the loop of chapter 1, one step at a time: see what could come next, take one, ask again.
//
// data: {prompt, ids, tokens: {id: text}, tree, size, end, needs: ["fable"], write?: [id]}
// tree: the likeliest tokens after the prompt, [[id, probability, tree after it], ...], some steps deep.
// write: the tokens of a sentence that the tree leads along. With them it writes by itself, first this
// sentence, then, once the model is loaded, others, and the reader looks on: the book's front page.
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { nameOf } from "./characters.js";
import { FableLoader, loaderStyle } from "./fable-loader.js";
import { sample, softmax } from "./sampling.js";

const SHOWN = 5;
const LONGEST = 400; // UTF-16 units of the reader's prompt
const PAUSE = 250; // ms after a key before the model reads
const PACE = 650; // ms from one token that it writes by itself to the next
const MOST = 60; // tokens that it writes by itself

const number = new Intl.NumberFormat("en");
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
const encoder = new TextEncoder(), decoder = new TextDecoder();

class Loop extends TinyElement {
  static properties = { ...TinyElement.properties, choices: { state: true }, busy: { state: true }, writing: { state: true } };

  ready(data) {
    this.prompt = data.prompt;
    this.size = data.size;
    this.sentence = data.write ?? null;
    this.loader = new FableLoader(this, { then: () => this.sentence ? this.onAgain() : this.go() });
    this.seed = 1;
    this.begin(data.ids);
    this.fromTree(data);
    if (!this.sentence) return;
    this.data = data;
    const whole = () => { this.stop(); while (!this.logits && this.picked.length < this.sentence.length) this.draw(); };
    addEventListener("beforeprint", whole);
    if (this.moves) this.write();
    else whole();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.waiting);
    this.stop();
  }

  begin(ids) { [this.start, this.picked, this.history] = [ids, [], []]; }

  get ids() { return [...this.start, ...this.picked]; }
  get ended() { return this.picked[this.picked.length - 1] === this.end; }

  /** What comes after all tokens so far, as stored in the page; nothing beyond its last step. */
  fromTree(data = this.data) {
    let tree = data.tree;
    this.end = data.end;
    for (const id of this.picked) tree = tree?.find(([other]) => other === id)?.[2];
    this.known = data.tokens;
    this.choices = tree && !this.ended ? tree.map(([id, share]) => ({ id, share })) : [];
    this.logits = null;
  }

  /** What comes after them, as the model says it. Its cache knows all tokens but the new ones. */
  async go() {
    const { fable } = this.loader, wanted = this.ids, done = this.session?.ids ?? [];
    this.asking?.abort();
    this.busy = !this.ended;
    if (this.ended) { this.choices = []; return; }
    this.asking = new AbortController();
    const { signal } = this.asking, goesOn = done.length > 0 && done.length < wanted.length && done.every((id, i) => id === wanted[i]);
    if (!goesOn) this.session = fable.start();
    const session = this.session, begun = performance.now(), logits = await session.read(wanted.slice(goesOn ? done.length : 0), { signal });
    if (signal.aborted) {
      if (this.session === session) this.session = null;
      return;
    }
    this.busy = false;
    this.took = goesOn ? performance.now() - begun : null;
    this.logits = Float32Array.from(logits);
    const shares = softmax(this.logits), order = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a] || a - b);
    this.choices = order.slice(0, SHOWN).map((id) => ({ id, share: shares[id] }));
    this.say();
  }

  ask() {
    if (this.loader.fable) return this.go();
    this.fromTree();
    this.say();
    return undefined;
  }

  // What the reader does

  async pick(id, by) {
    if (this.ended || !this.choices.length) return;
    const among = this.choices.find((choice) => choice.id === id);
    const share = among?.share ?? softmax(this.logits)[id];
    this.picked = [...this.picked, id];
    this.history = [...this.history, { id, share, by, among: this.choices }];
    await this.ask();
    if (this.sentence) return;
    await this.updateComplete;
    if (!this.choices.length) (this.renderRoot.querySelector(".load button") ?? this.renderRoot.querySelector(".back")).focus();
  }

  onLikeliest() { this.pick(this.choices[0].id, "the likeliest"); }

  /** Dice: over the whole vocabulary with the model, else over the tokens that are shown. */
  onDice() {
    const seed = this.seed, outputIndex = this.picked.length;
    const logits = this.logits ?? Float32Array.from(this.choices, ({ share }) => Math.log(share));
    const at = sample(logits, { seed, outputIndex });
    return this.pick(this.logits ? at : this.choices[at].id, "dice");
  }

  onBack() {
    this.picked = this.picked.slice(0, -1);
    this.history = this.history.slice(0, -1);
    this.ask();
  }

  onAgain() {
    this.seed++;
    this.begin(this.start);
    const asked = this.ask();
    if (this.sentence) Promise.resolve(asked).then(() => this.write());
  }

  // Writing by itself

  get full() { return !this.choices.length || this.picked.length >= MOST; }

  draw() {
    if (this.logits) return this.onDice();
    return this.pick(this.sentence[this.picked.length], "dice");
  }

  write() {
    this.writing = !this.full;
    clearTimeout(this.tick);
    if (!this.writing) { this.announce(`Fable wrote: ${this.prompt}${this.history.map(({ id }) => this.textOf(id)).join("")}`); return; }
    this.tick = setTimeout(async () => {
      await this.draw();
      if (this.writing) this.write();
    }, PACE);
  }

  stop() {
    clearTimeout(this.tick);
    this.writing = false;
  }

  onWrite() {
    if (this.writing) this.stop();
    else if (this.full) this.onAgain();
    else this.write();
  }

  onType(text) {
    this.prompt = text;
    this.stop();
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      const ids = this.loader.fable.tokenizer.encode(text);
      this.begin(ids.length ? ids : [this.end]);
      this.go();
    }, PAUSE);
  }

  // What is shown

  bytes(id) { return this.loader.fable ? this.loader.fable.tokenizer.bytesOf(id) : encoder.encode(this.known[id]); }
  name(id) { return id === this.end ? "end of text" : nameOf(this.bytes(id)); }
  textOf(id) { return id === this.end ? "" : decoder.decode(this.bytes(id)); }

  say() {
    if (this.sentence) return; // as a whole, at its end
    const [best] = this.choices;
    this.announce(best ? `${this.ids.length} tokens. Likeliest next: ${this.name(best.id)}, ${percent(best.share)}.` : this.state());
  }

  state() {
    if (this.ended) return "Fable has ended the text.";
    if (!this.choices.length) return "So far the page knows the way. Load Fable to go on, or step back.";
    return `${number.format(this.ids.length)} tokens in, ${number.format(this.size)} probabilities out.`;
  }

  /** What is seen while it writes: the text, and what the newest token was drawn from. */
  writer() {
    const { fable } = this.loader, last = this.history[this.history.length - 1];
    const among = last?.among ?? this.choices, shown = among.slice(0, SHOWN);
    if (last && !shown.some(({ id }) => id === last.id)) shown.splice(SHOWN - 1, 1, { id: last.id, share: last.share });
    const longest = Math.max(...shown.map(({ share }) => share));
    const speed = this.took ? ` The last took ${number.format(Math.max(1, Math.round(this.took)))} ms.` : "";
    return html`
      ${fable ? html`<label class="label" for="prompt">The prompt: type your own</label>
        <input id="prompt" type="text" maxlength=${LONGEST} spellcheck="false" autocapitalize="off" autocomplete="off"
          .value=${this.prompt} @input=${(e) => this.onType(e.target.value)} @keydown=${(e) => e.key === "Enter" && this.onWrite()}>` : nothing}
      <div class="writer">
        <p class="text">${this.prompt}${this.history.map(({ id }, i) => html`<bdi class="new ${
          i === this.history.length - 1 ? "newest" : ""}">${this.textOf(id)}</bdi>`)}</p>
        <div class="drawn">
          <p class="label">${last ? "Drawn from" : "What may come next"}</p>
          ${shown.map(({ id, share }) => html`<div class="choice ${id === last?.id ? "chosen" : ""}"><bdi class="token">${this.name(id)}</bdi
            ><span class="lane"><span class="bar" style="width: ${(100 * share / longest).toFixed(2)}%"></span></span><span class="share">${percent(share)}</span></div>`)}
        </div>
      </div>
      <p class="state">${number.format(this.ids.length)} tokens so far, each drawn from ${number.format(this.size)}.${speed}</p>
      <div class="buttons">
        <button type="button" class="write" @click=${this.onWrite}>${this.writing ? "Pause" : this.full ? (fable ? "Write another" : "Write it again") : "Write on"}</button>
        ${this.loader.button("write more")}
      </div>`;
  }

  widget() {
    if (this.sentence) return this.writer();
    const { fable } = this.loader, rest = 1 - this.choices.reduce((sum, { share }) => sum + share, 0);
    const longest = Math.max(rest, ...this.choices.map(({ share }) => share));
    const bar = (share) => html`<span class="lane"><span class="bar" style="width: ${(100 * share / longest).toFixed(2)}%"></span></span>`;
    const stuck = !this.choices.length;
    return html`
      ${fable ? html`<label class="label" for="prompt">The prompt: type your own</label>
        <input id="prompt" type="text" maxlength=${LONGEST} spellcheck="false" autocapitalize="off" autocomplete="off"
          .value=${this.prompt} @input=${(e) => this.onType(e.target.value)}>` : nothing}
      <p class="label">The text so far</p>
      <p class="text">${this.prompt}${this.history.map(({ id, by }, i) => html`<bdi class="new ${by === "dice" ? "dice" : ""} ${
        i === this.history.length - 1 ? "newest" : ""}">${this.textOf(id)}</bdi>`)}${stuck ? nothing : html`<span class="gap">?</span>`}</p>
      <p class="state">${this.state()}</p>
      <div class="choices" role="group" aria-label="What may come next: pick one" aria-busy=${Boolean(this.busy)}>
        ${this.choices.map(({ id, share }) => html`
          <button type="button" class="choice" @click=${() => this.pick(id, "you")} aria-label="${this.name(id)}, ${percent(share)}">
            <bdi class="token">${this.name(id)}</bdi>${bar(share)}<span class="share">${percent(share)}</span></button>`)}
        ${stuck ? nothing : html`<div class="choice others"><span class="token">${number.format(this.size - this.choices.length)} others</span
          >${bar(rest)}<span class="share">${percent(rest)}</span></div>`}
      </div>
      <div class="buttons">
        <button type="button" ?disabled=${stuck} @click=${this.onLikeliest}>Take the likeliest</button>
        <button type="button" ?disabled=${stuck} @click=${this.onDice}>Roll the dice</button>
        <button type="button" class="back" ?disabled=${!this.picked.length} @click=${this.onBack}>Step back</button>
        <button type="button" ?disabled=${!this.picked.length} @click=${this.onAgain}>Start again</button>
      </div>
      ${fable ? nothing : html`<p class="label">Until Fable is loaded, the dice choose among the five.</p>`}
      ${this.loader.button("go on, and to type your own prompt")}`;
  }

  table() {
    if (!this.choices || this.sentence) return null; // the rows are words and numbers already
    return {
      columns: ["What may come next", "Probability"],
      rows: this.choices.map(({ id, share }) => [this.name(id), percent(share)]),
    };
  }

  static styles = [TinyElement.styles, loaderStyle, css`
    .label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    input[type="text"] { display: block; width: 100%; margin: 0.25rem 0 0.8rem; padding: 0.5rem 0.75rem; border: 1px solid var(--tl-edge); border-radius: 8px; background: var(--tl-paper); font-family: var(--tl-mono); font-size: max(1rem, 16px); }
    .text { min-height: 3.6rem; margin: 0.15rem 0 0.3rem; font-family: var(--tl-mono); font-size: 1rem; line-height: 1.75; white-space: pre-wrap; overflow-wrap: anywhere; }
    .new { padding: 0.1rem 0; border-bottom: 2px solid ${unsafeCSS(COLORS.token)}; }
    .new.dice { border-bottom-style: dashed; }
    .newest { background: color-mix(in srgb, ${unsafeCSS(COLORS.token)} 16%, var(--tl-raised)); }
    .gap { margin-left: 0.35rem; padding: 0 0.35rem; border-radius: 4px; background: color-mix(in srgb, ${unsafeCSS(COLORS.chosen)} 18%, var(--tl-raised)); }
    .state { min-height: 1.45em; color: var(--tl-soft); }
    .choices { min-height: 13.2rem; margin: 0.6rem 0; }
    .choice { display: grid; grid-template-columns: 6.2rem minmax(0, 1fr) 3.2rem; align-items: center; gap: 0.7rem; width: 100%; min-height: 2rem; margin: 0 0 0.2rem; padding: 0.1rem 0.7rem; border: 1px solid var(--tl-line); border-radius: 8px; text-align: left; }
    button.choice:hover .bar { background: var(--tl-accent); }
    button.choice { border-color: var(--tl-edge); }
    .others { color: var(--tl-soft); border-color: transparent; }
    .token { overflow: hidden; font-family: var(--tl-mono); text-overflow: ellipsis; white-space: pre; }
    .others .token { font-family: var(--tl-sans); font-size: 0.8125rem; }
    .lane { height: 0.8rem; }
    .bar { display: block; height: 100%; border-radius: 0 3px 3px 0; background: ${unsafeCSS(COLORS.chosen)}; }
    .choice ~ .choice .bar { background: ${unsafeCSS(COLORS.token)}; }
    .choice ~ .others .bar { background: ${unsafeCSS(COLORS.other)}; }
    .share { text-align: right; font-variant-numeric: tabular-nums; }
    .buttons { display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 0.6rem 0; }
    .buttons + .label { margin-bottom: 0.4rem; }
    .writer { display: grid; gap: 0.4rem 1.6rem; }
    @container (min-width: 34rem) { .writer { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); } }
    .writer .text { min-height: 5.4rem; }
    .writer .choice { min-height: 1.45rem; margin: 0; padding: 0 0.4rem; border: 0; }
    .writer .choice .bar { background: ${unsafeCSS(COLORS.other)}; }
    .writer .chosen { background: color-mix(in srgb, ${unsafeCSS(COLORS.token)} 16%, var(--tl-raised)); }
    .writer .chosen .bar { background: ${unsafeCSS(COLORS.token)}; }
    .writer + .state { margin-top: 0.5rem; font-size: 0.8125rem; }
    @container (min-width: 34rem) { .write { min-width: 8.5rem; } }
    .writer ~ .buttons { margin-block: 0.4rem; }
    @media print { .writer ~ .buttons { display: none; } }
    @media (pointer: coarse) { .writer .choice { min-height: 1.45rem; } }
    @media (pointer: coarse) { .choice { min-height: 2.5rem; } .choices { min-height: 16.2rem; } }
    @container (max-width: 30rem) { .choice { grid-template-columns: 5.2rem minmax(0, 1fr) 2.8rem; gap: 0.4rem; padding-inline: 0.5rem; } }
  `];
}

define("tl-loop", Loop);
