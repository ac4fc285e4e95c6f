// <tl-speculate>: recorded steps of speculative decoding, one judgement after the other.
//
// data: {steps: [{text (before the step), guesses: [{text, q, p, coin | null}], stood, then,
//   likely: [{text, p, q | null, left}]}]}
//   q, p: a guess's probability under draft and target. stood: how many were kept. then: the token after them,
//   drawn from `left`: what p has more of than q where a guess was refused, else p itself, and q is null.
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";

const PACE = 1100; // ms a frame, when playing
const visible = (text) => text.replace(/^ |\n/g, (c) => ({ " ": "␣", "\n": "↵" })[c]);
const share = (x) => (x < 0.0005 ? "0.000" : x < 0.0995 ? x.toFixed(3) : x.toFixed(2));
const WORDS = ["no guess", "one guess", "two guesses", "three guesses", "four guesses", "five guesses"];

class Speculate extends TinyElement {
  static properties = { ...TinyElement.properties, at: { state: true }, playing: { state: true } };

  ready(data) {
    this.given = data;
    // frames of a step: the draft has guessed; the target has looked; a judgement for each; the last word
    this.frames = data.steps.flatMap(({ guesses, stood }, step) => {
      const judged = Math.min(stood + 1, guesses.length);
      return [{ step, seen: 0, done: -1 }, ...Array.from({ length: judged + 1 }, (_, done) => ({ step, seen: 1, done })), { step, seen: 1, done: judged, last: 1 }];
    });
    [this.at, this.playing] = [2, false];
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.stop();
  }

  get frame() { return this.frames[this.at]; }
  get step() { return this.given.steps[this.frame.step]; }

  /** "wait": not judged yet; "kept"; "refused"; "dropped": behind a refused one, nobody looks. */
  fate(i) {
    const { step: { stood, guesses }, frame: { done } } = this;
    if (i < Math.min(stood, done)) return "kept";
    if (i === stood && done > stood) return "refused";
    return i > stood && done > Math.min(stood, guesses.length - 1) ? "dropped" : "wait";
  }

  // ---- what the reader does ----

  go(at) {
    this.at = Math.max(0, Math.min(at, this.frames.length - 1));
    if (!this.playing) this.announce(`Step ${this.frame.step + 1}. ${this.says()}`);
  }

  byHand(at) {
    this.stop();
    this.go(at);
  }

  /** One frame after the other; for those who want no motion, the end of this step at once. */
  onPlay() {
    if (this.playing) return this.stop();
    const end = this.frames.length - 1;
    if (!this.moves) return this.go(this.frames.findIndex(({ last }, i) => last && i > this.at));
    if (this.at >= end) this.at = 0;
    this.playing = true;
    this.timer = setInterval(() => {
      this.go(this.at + 1);
      if (this.at >= end) this.stop();
    }, PACE);
    return undefined;
  }

  stop() {
    clearInterval(this.timer);
    this.playing = false;
  }

  onKey(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey || event.target.type === "range") return;
    event.preventDefault();
    this.byHand(this.at + moves[event.key]);
  }

  // ---- words ----

  says() {
    const { step: { guesses, stood, then }, frame: { seen, done, last } } = this, quoted = (text) => `“${visible(text)}”`;
    if (!seen) return `The draft model has guessed ${guesses.length} tokens, one after the other, each drawn with probability q.`;
    if (done === 0) return `One step of the target model gives a probability p for each of them, all at once.`;
    if (last) {
      const tokens = `${stood + 1} token${stood ? "s" : ""} in one step of the target.`;
      return stood === guesses.length
        ? `All guesses stand, and the target’s distribution for the place behind them is there already: it draws ${quoted(then)}. ${tokens}`
        : `In place of ${quoted(guesses[stood].text)} a token is drawn from what p has more of than q: ${quoted(then)}. ${tokens}`;
    }
    const { text, p, q, coin } = guesses[done - 1], kept = done <= stood;
    if (p >= q) return `${quoted(text)}: the target gives it more than the draft did, so it stands whatever the coin.`;
    return `${quoted(text)}: p ÷ q is ${share(p / q)}, and the coin says ${share(coin)}. ${kept ? "It lies below: the guess stands." : "It lies above: the guess is refused, and nobody looks at what stands behind it."}`;
  }

  sofar() {
    const tokens = this.given.steps.slice(0, this.frame.step).reduce((sum, { stood }) => sum + stood + 1, 0);
    const { last, step } = this.frame, now = last ? tokens + this.step.stood + 1 : tokens, steps = step + (last ? 1 : 0);
    return steps ? `${now} tokens in ${steps} step${steps > 1 ? "s" : ""}` : "";
  }

  // ---- pictures ----

  widget() {
    const { frame, frames, at, given } = this;
    return html`<div class="all" @keydown=${this.onKey}>
      <p class="where"><b>Step ${frame.step + 1} of ${given.steps.length}</b><span>${this.sofar()}</span></p>
      ${this.story()}
      <p class="says">${this.says()}</p>
      <div class="stage"><ol class="guesses">${this.step.guesses.map((guess, i) => this.guess(guess, i))}</ol>${this.rest()}</div>
      <p class="legend"><span class="mark q"></span> q, draft <span class="mark p"></span> p, target <span class="mark ratio"></span> p ÷ q, at most 1 <span class="mark coin"></span> coin</p>
      <input type="range" aria-label="Place in the recording" min="0" max=${frames.length - 1} step="1" .value=${String(at)}
        aria-valuetext="Step ${frame.step + 1}: ${this.says()}" @input=${(event) => this.byHand(Number(event.target.value))}>
      <div class="buttons">
        <button type="button" ?disabled=${at === 0} @click=${() => this.byHand(at - 1)}>Back</button>
        <button type="button" class="next" ?disabled=${at === frames.length - 1} @click=${() => this.byHand(at + 1)}>Next</button>
        <button type="button" aria-pressed=${this.playing} ?disabled=${!this.playing && !this.moves && at === frames.length - 1} @click=${this.onPlay}>${this.playing ? "Stop" : "Play"}</button>
      </div>
    </div>`;
  }

  story() {
    const { step, frame } = this;
    return html`<p class="story">${step.text}${step.guesses.map(({ text }, i) => (frame.last && ["refused", "dropped"].includes(this.fate(i)) ? nothing : html`<span class=${this.fate(i)}>${text}</span>`))}${frame.last ? html`<b>${step.then}</b>` : nothing}</p>`;
  }

  guess({ text, q, p, coin }, i) {
    const fate = this.fate(i), { seen } = this.frame, judged = fate === "kept" || fate === "refused", bar = (kind, x) => html`<span class="lane ${kind}"><span class="bar" style="width: ${100 * x}%"></span></span><span class="value">${share(x)}</span>`;
    return html`<li class=${fate}><bdi class="mono">${visible(text)}</bdi><span class="verdict">${{ kept: "stands", refused: "refused", dropped: "not looked at" }[fate] ?? ""}</span>
      <span class="bars"><span class="sign">q</span>${bar("q", q)}<span class="sign">p</span>${seen ? bar("p", p) : html`<span class="lane"></span><span class="value"></span>`}
        <span class="sign">p ÷ q</span>${judged
          ? html`<span class="lane ratio"><span class="bar" style="width: ${100 * Math.min(1, p / q)}%"></span><span class="dot" style="left: ${100 * coin}%"></span></span><span class="value">${share(Math.min(1, p / q))}</span>`
          : html`<span class="lane"></span><span class="value"></span>`}</span></li>`;
  }

  rest() {
    const { step: { likely, then, stood, guesses }, frame } = this;
    if (!frame.last) return html`<div class="rest"><p class="label">The step’s last token is not drawn yet.</p></div>`;
    const refused = stood < guesses.length, most = Math.max(...likely.map(({ left }) => left));
    return html`<div class="rest"><p class="label">${refused ? "What p has more of than q, scaled to a sum of 1" : "The target’s distribution behind the last guess"}</p>
      <ul>${likely.map(({ text, p, q, left }) => html`<li class=${text === then ? "chosen" : ""}><bdi class="mono">${visible(text)}</bdi><span class="lane"><span class="bar" style="width: ${(100 * left) / most}%"></span></span><span class="value">${share(left)}</span>
        ${refused ? html`<span class="pair">p ${share(p)}, q ${share(q)}</span>` : nothing}</li>`)}</ul>
      <p class="label">drawn: <b class="mono">${visible(then)}</b></p></div>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --q: ${unsafeCSS(COLORS.orange)}; --p: ${unsafeCSS(COLORS.blue)}; --yes: ${unsafeCSS(COLORS.accepted)}; --no: ${unsafeCSS(COLORS.rejected)};
      --yes-text: light-dark(#00704f, #35c79b); --no-text: light-dark(#a84700, #f28b4b); }
    .where { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
    .where span, .legend, .label, .pair { color: var(--tl-muted); font-size: 0.8125rem; }
    .story { min-height: 5.1em; margin: 0.5rem 0; padding: 0.5rem 0.7rem; border: 1px solid var(--tl-line); border-radius: 8px; background: var(--tl-paper); font-family: var(--tl-mono); line-height: 1.65; white-space: pre-wrap; overflow-wrap: anywhere; }
    .story b { font-weight: 400; border-bottom: 2px solid var(--p); background: color-mix(in srgb, var(--p) 16%, transparent); }
    .story .wait { color: var(--tl-muted); border-bottom: 2px dotted var(--tl-edge); }
    .story .kept { border-bottom: 2px solid var(--yes); background: color-mix(in srgb, var(--yes) 14%, transparent); }
    .story .refused { border-bottom: 2px solid var(--no); text-decoration: line-through; }
    .story .dropped { color: var(--tl-muted); text-decoration: line-through; }
    .says { min-height: 4.4em; color: var(--tl-soft); text-wrap: pretty; }
    .stage { display: grid; grid-template-columns: minmax(0, 1.35fr) minmax(0, 1fr); gap: 1rem 1.6rem; }
    @container (max-width: 38rem) { .stage { grid-template-columns: minmax(0, 1fr); } }
    ol, ul { margin: 0; padding: 0; list-style: none; }
    .guesses { display: grid; gap: 0.55rem; }
    .guesses li { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0.1rem 0.6rem; padding-left: 0.6rem; border-left: 3px solid var(--tl-line); }
    .guesses .kept { border-color: var(--yes); }
    .guesses .refused { border-color: var(--no); }
    .mono, bdi { font-family: var(--tl-mono); white-space: pre; }
    .verdict { font-size: 0.8125rem; font-weight: 600; color: var(--tl-muted); }
    .kept .verdict { color: var(--yes-text); }
    .refused .verdict { color: var(--no-text); }
    .bars { grid-column: 1 / -1; display: grid; grid-template-columns: 2.6rem minmax(0, 1fr) 2.9rem; align-items: center; gap: 0.12rem 0.5rem; }
    .sign, .value { color: var(--tl-muted); font-size: 0.75rem; line-height: 1.2; font-variant-numeric: tabular-nums; white-space: nowrap; }
    .value { min-height: 1.2em; text-align: right; }
    .lane { position: relative; height: 0.6rem; border-radius: 3px; background: color-mix(in srgb, var(--tl-muted) 18%, transparent); }
    .bar { display: block; height: 100%; border-radius: 3px; background: var(--tl-muted); }
    .q .bar, .mark.q { background: var(--q); }
    .p .bar, .mark.p { background: var(--p); }
    .ratio .bar, .mark.ratio { background: var(--yes); }
    .refused .ratio { background: color-mix(in srgb, var(--no) 40%, transparent); }
    .dot { position: absolute; top: 50%; width: 0.72rem; height: 0.72rem; margin: -0.36rem 0 0 -0.36rem; border: 2px solid var(--tl-raised); border-radius: 50%; background: var(--tl-ink); }
    .rest ul { display: grid; gap: 0.3rem; margin: 0.4rem 0; }
    .rest li { display: grid; grid-template-columns: 5.5rem minmax(0, 1fr) 2.9rem; align-items: center; gap: 0 0.5rem; }
    .rest bdi { overflow: hidden; text-overflow: ellipsis; }
    .rest .chosen { font-weight: 650; }
    .rest .chosen .bar { background: var(--p); }
    .pair { grid-column: 2 / -1; font-size: 0.75rem; font-weight: 400; }
    .rest { min-height: 16.5rem; }
    @container (max-width: 38rem) { .rest { min-height: 15rem; } }
    .legend { margin: 0.8rem 0 0; }
    .mark { display: inline-block; width: 0.85rem; height: 0.55rem; margin: 0 0.1rem 0 0.5rem; border-radius: 3px; }
    .mark:first-child { margin-left: 0; }
    .mark.coin { width: 0.6rem; height: 0.6rem; border-radius: 50%; background: var(--tl-ink); }
    input[type="range"] { display: block; width: 100%; height: 1.75rem; margin: 0.4rem 0 0.2rem; cursor: pointer; }
    .buttons { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .buttons .next:not(:disabled) { border-color: var(--tl-accent); }
  `];
}

define("tl-speculate", Speculate);
