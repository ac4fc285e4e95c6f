// <tl-tokenizer>: type, and see into which tokens a text falls, and how each word came to its own.
//
// data: {text, examples: [[name, text]], and what BPE takes: merges, special_tokens, pattern}
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { BPE } from "./bpe.js";
import { Bytes, hex, nameOf, say } from "./characters.js";

const HUES = [COLORS.blue, COLORS.orange, COLORS.green, COLORS.purple, COLORS.sky];
const LONGEST = 1000; // UTF-16 units that the field takes
const MOST = 600; // tokens that are drawn
const LADDER = { bytes: 20, steps: 12 }; // a longer word shows one step at a time

const number = new Intl.NumberFormat("en");
const count = (n, what) => `${number.format(n)} ${what}${n === 1 ? "" : "s"}`;

/** The text as words, the pieces that no merge leaves, and as tokens. */
function read(bpe, text) {
  const tokens = [];
  const words = bpe.pieces(text).map((piece, word) => {
    const first = tokens.length, bytes = new Bytes(piece.text);
    let start = 0;
    for (const id of piece.special ? [bpe.specials.get(piece.text)] : bpe.encodePiece(piece.text)) {
      const end = start + bpe.bytesOf(id).length;
      tokens.push({ id, word, parts: bytes.parts(start, end), cut: bytes.isInside(end), end });
      start = end;
    }
    return { ...piece, first, bytes };
  });
  return { words, tokens };
}

class Tokenizer extends TinyElement {
  static properties = {
    ...TinyElement.properties,
    text: { state: true },
    chosen: { state: true }, // index of the token that is looked at
    under: { state: true }, // index of the token under the mouse
    step: { state: true }, // merges done in the word of the chosen token
  };

  ready(data) {
    this.bpe = new BPE(data);
    this.examples = data.examples ?? [];
    this.take(data.text);
  }

  /** A new text; look at the token at `caret`, or else at the word with most to show. */
  take(text, caret) {
    this.text = text;
    Object.assign(this, read(this.bpe, text));
    const most = (a, b) => (this.stepsOf(b).length > this.stepsOf(a).length ? b : a);
    const best = () => this.words.slice(0, 40).reduce(most, this.words[0]).first;
    this.under = undefined;
    this.choose(!this.tokens.length ? 0 : caret === undefined ? best() : this.tokenAt(caret));
  }

  choose(index) {
    this.chosen = Math.max(0, Math.min(index, Math.min(this.tokens.length, MOST) - 1));
    this.states = this.tokens.length ? this.stepsOf(this.words[this.tokens[this.chosen].word]) : [];
    this.step = Math.max(0, this.states.length - 1);
  }

  /** Keep the chosen token in sight where there are more than the list shows. */
  updated(changed) {
    super.updated(changed);
    const list = this.renderRoot.querySelector(".tokens"), token = list?.querySelector('[aria-selected="true"]');
    if (!token || list.scrollHeight <= list.clientHeight || !(changed.has("chosen") || changed.has("text"))) return;
    const above = token.offsetTop - list.offsetTop, below = above + token.offsetHeight - list.clientHeight;
    list.scrollTop = Math.min(Math.max(list.scrollTop, below + 6), above - 6);
  }

  stepsOf(word) {
    word.steps ??= word.special ? [{ ids: [this.bpe.specials.get(word.text)] }] : this.bpe.steps(word.text);
    return word.steps;
  }

  /** The token that holds the character before UTF-16 place `caret`. */
  tokenAt(caret) {
    let start = 0;
    for (const word of this.words) {
      if (caret <= start + word.text.length) {
        const bytes = new TextEncoder().encode(word.text.slice(0, Math.max(0, caret - start))).length;
        const inside = this.tokens.findIndex((token, i) => i >= word.first && token.end >= bytes);
        return inside < 0 ? word.first : inside;
      }
      start += word.text.length;
    }
    return this.tokens.length - 1;
  }

  // What the reader does

  onType(field) {
    this.take(field.value, field.selectionStart);
    this.announce(this.summary());
  }

  onCaret(field) {
    if (this.tokens.length && field.value === this.text) this.choose(this.tokenAt(field.selectionStart));
  }

  onExample(text) {
    this.take(text);
    this.announce(this.summary());
  }

  async onTokenKey(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.choose(this.chosen + moves[event.key]);
    await this.updateComplete;
    this.renderRoot.querySelector('[role="option"][tabindex="0"]').focus();
  }

  onStep(step) { this.step = Math.max(0, Math.min(step, this.states.length - 1)); }

  // What is shown

  get numBytes() { return this.words.reduce((sum, word) => sum + word.bytes.bytes.length, 0); }
  get numCharacters() { return [...this.text].length; }

  summary() { return `${count(this.tokens.length, "token")}, ${count(this.numBytes, "byte")}`; }

  widget() {
    return html`
      <label class="label" for="text">Type any text</label>
      <textarea id="text" rows="2" maxlength=${LONGEST} spellcheck="false" autocapitalize="off" autocomplete="off"
        .value=${this.text}
        @input=${(e) => this.onType(e.target)}
        @keyup=${(e) => { if (/^(Arrow|Home|End|Page)/.test(e.key)) this.onCaret(e.target); }}
        @pointerup=${(e) => this.onCaret(e.target)}></textarea>
      ${this.text.length >= LONGEST ? html`<p class="more full">The field is full: of a longer text it keeps the first ${number.format(LONGEST)} characters.</p>` : nothing}
      <div class="examples" role="group" aria-label="Examples">
        ${this.examples.map(([name, text]) => html`
          <button type="button" aria-pressed=${text === this.text} @click=${() => this.onExample(text)}>${name}</button>`)}
      </div>
      ${this.counts()}
      ${this.tokens.length ? html`${this.row()} ${this.about()} ${this.built()}`
        : html`<p class="empty">No text, no tokens.</p>`}`;
  }

  counts() {
    const tokens = this.tokens.length, bytes = this.numBytes;
    const shown = [
      [this.numCharacters, "characters"], [bytes, "bytes"], [tokens, "tokens"],
      [tokens ? (bytes / tokens).toFixed(2) : "\u2013", "bytes per token"],
    ];
    return html`<dl class="counts">${shown.map(([value, name]) => html`
      <div class=${name === "tokens" ? "main" : ""}><dt>${name}</dt><dd>${typeof value === "number" ? number.format(value) : value}</dd></div>`)}</dl>`;
  }

  /** All tokens in a row that wraps; those that share a character under one bracket. */
  row() {
    const out = [], shown = this.tokens.slice(0, MOST);
    for (let i = 0; i < shown.length;) {
      let end = i;
      while (shown[end].cut && end + 1 < shown.length) end++;
      const boxes = [];
      for (let j = i; j <= end; j++) boxes.push(this.box(shown[j], j));
      const space = shown[end].word !== shown[end + 1]?.word ? "gap" : "";
      if (end > i) {
        const chars = [...new Set(shown.slice(i, end + 1).flatMap((t) => t.parts.map((p) => p.char ?? "")))].join("");
        out.push(html`<span role="none" class="shared ${space}"><span role="none" class="of-one">${boxes}</span
          ><span class="whole" aria-hidden="true">${nameOf(new TextEncoder().encode(chars))}</span></span>`);
      } else out.push(space ? html`<span role="none" class="gap">${boxes}</span>` : boxes);
      if (/\n$/.test(this.words[shown[end].word].text) && shown[end + 1]?.word !== shown[end].word) {
        out.push(html`<span role="none" class="line"></span>`);
      }
      i = end + 1;
    }
    const rest = this.tokens.length - shown.length;
    return html`
      <div class="tokens" role="listbox" aria-label="Tokens and their ids" aria-orientation="horizontal"
        @keydown=${this.onTokenKey} @pointerleave=${() => { this.under = undefined; }}>${out}</div>
      ${rest > 0 ? html`<p class="more">and ${number.format(rest)} more</p>` : nothing}`;
  }

  box(token, index) {
    const chosen = index === this.chosen;
    return html`<span role="option" class="token" style="--hue: ${HUES[index % HUES.length]}"
      aria-selected=${chosen} tabindex=${chosen ? 0 : -1} aria-label="${say(token.parts)}, id ${token.id}"
      @click=${() => this.choose(index)} @focus=${() => { if (index !== this.chosen) this.choose(index); }}
      @pointermove=${(e) => { if (e.pointerType === "mouse") this.under = index; }}
      ><bdi class="text">${drawn(token.parts)}</bdi><span class="id">${token.id}</span></span>`;
  }

  /** Id, bytes and origin of the token under the mouse, or else of the chosen one. */
  about() {
    const { bpe } = this, token = this.tokens[this.under ?? this.chosen];
    const bytes = bpe.bytesOf(token.id), parts = bpe.partsOf(token.id);
    const rank = token.id - bpe.firstMerge + 1;
    const from = parts
      ? html`Made by merge <b>${number.format(rank)}</b> of ${number.format(bpe.merges.length)}:
          ${name(bpe.bytesOf(parts[0]))} + ${name(bpe.bytesOf(parts[1]))}.`
      : token.id < bpe.firstByte ? html`A special token: no merge makes it, it stands for itself.`
        : html`One of the 256 bytes, where every text begins.`;
    const split = token.parts.find((part) => part.hex);
    return html`<p class="about"><bdi class="name">${drawn(token.parts)}</bdi> is token <b>${token.id}</b>:
      ${bytes.length === 1 ? "byte" : `${bytes.length} bytes,`} <code>${hex(bytes)}</code>.
      ${from} ${split ? html`It holds only a part of ${name(new TextEncoder().encode(split.char))}.` : nothing}</p>`;
  }

  /** The word of the chosen token, from its bytes to its tokens, one merge a row. */
  built() {
    const word = this.words[this.tokens[this.chosen].word], last = this.states.length - 1;
    if (word.special) return nothing;
    const size = word.bytes.bytes.length;
    const ladder = size <= LADDER.bytes && last <= LADDER.steps;
    const rows = this.states.map((state, i) => (ladder || i === this.step ? this.rung(word, state, i, ladder) : nothing));
    return html`
      <div class="built">
        <div class="steps">
          <label class="label" for="step">From bytes to tokens</label>
          <span class="buttons">
            <button type="button" aria-label="One merge back" ?disabled=${this.step === 0} @click=${() => this.onStep(this.step - 1)}>‹</button>
            <input id="step" type="range" min="0" max=${last} step="1" .value=${String(this.step)} ?disabled=${last === 0}
              aria-valuetext=${this.happened(word)} @input=${(e) => this.onStep(Number(e.target.value))}>
            <button type="button" aria-label="One merge on" ?disabled=${this.step === last} @click=${() => this.onStep(this.step + 1)}>›</button>
          </span>
        </div>
        <p class="happened">${this.happened(word)}</p>
        <div class=${ladder ? "ladder" : "wrapped"} style="--bytes: ${size}" aria-hidden="true">${rows}</div>
      </div>`;
  }

  rung(word, { ids, made }, index, ladder) {
    let start = 0;
    const boxes = ids.map((id) => {
      const end = start + this.bpe.bytesOf(id).length, parts = word.bytes.parts(start, end);
      const span = ladder ? `grid-column: span ${end - start}` : "";
      start = end;
      return html`<span class="piece ${id === made ? "made" : ""}" style=${span}><bdi>${drawn(parts)}</bdi></span>`;
    });
    return html`<div class="rung ${index > this.step ? "later" : ""} ${index === this.step ? "now" : ""}">${boxes}</div>`;
  }

  happened(word) {
    const { pair, made } = this.states[this.step], last = this.states.length - 1;
    const size = word.bytes.bytes.length;
    if (last === 0) return size > 1 ? `No merge fits: the ${size} bytes stay ${size} tokens.` : "One byte is one token.";
    if (!pair) return `${nameOf(word.bytes.bytes)} begins as ${count(size, "byte")}.`;
    const [left, right] = pair.map((id) => nameOf(this.bpe.bytesOf(id)));
    const rank = number.format(made - this.bpe.firstMerge + 1);
    const end = this.step < last ? "" : " No other merge fits.";
    return `Step ${this.step} of ${last}: ${left} + ${right}, merge ${rank}, the oldest that fits.${end}`;
  }

  table() {
    const rows = this.tokens.slice(0, MOST).map(({ id, parts }, i) =>
      [i + 1, parts.map((part) => part.text ?? part.hex).join(" "), id, hex(this.bpe.bytesOf(id)), this.origin(id)].map(String));
    return { columns: ["Place", "Token", "Id", "Bytes", "Merge"], rows };
  }

  origin(id) {
    const parts = this.bpe.partsOf(id);
    return parts ? `${id - this.bpe.firstMerge + 1}: ${parts.map((part) => nameOf(this.bpe.bytesOf(part))).join(" + ")}` : "\u2013";
  }

  static styles = [TinyElement.styles, css`
    .label { display: block; color: var(--tl-muted); font-size: 0.8125rem; }
    .examples { display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 0.6rem 0 0; }
    .examples button { font-size: 0.8125rem; }
    .counts { display: grid; grid-template-columns: repeat(4, auto); justify-content: start; gap: 0 2rem; margin: 1.1rem 0 0.8rem; }
    .counts > div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
    .counts dt { color: var(--tl-muted); font-size: 0.75rem; line-height: 1.3; }
    .counts dd { margin: 0; font-size: 1.25rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
    .counts .main dd { color: var(--tl-accent); font-weight: 650; }
    .empty { margin: 1rem 0; color: var(--tl-muted); }
    .tokens { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0.45rem 2px; max-height: 24rem; margin: 0 -0.3rem; padding: 0.3rem; overflow-y: auto; scrollbar-width: thin; }
    .gap { margin-right: 0.4rem; }
    .line { flex-basis: 100%; }
    .token { display: inline-flex; flex-direction: column; align-items: center; cursor: pointer; border-radius: 6px; touch-action: manipulation; -webkit-tap-highlight-color: transparent; }
    .token .text { min-width: 1.5rem; max-width: 100%; padding: 0.22rem 0.42rem; border-radius: 6px; background: color-mix(in srgb, var(--hue) 15%, var(--tl-raised)); box-shadow: inset 0 -2px 0 var(--hue); font-family: var(--tl-mono); font-size: 1rem; line-height: 1.4; text-align: center; white-space: pre-wrap; overflow-wrap: anywhere; }
    .token .id { margin-top: 0.15rem; padding: 0 0.15rem; color: var(--tl-muted); font-family: var(--tl-mono); font-size: 0.6875rem; line-height: 1.3; }
    .token:hover .text { background: color-mix(in srgb, var(--hue) 30%, var(--tl-raised)); }
    .token[aria-selected="true"] .text { background: color-mix(in srgb, var(--hue) 34%, var(--tl-raised)); box-shadow: inset 0 0 0 2px var(--tl-ink); }
    .token[aria-selected="true"] .id { color: var(--tl-ink); font-weight: 650; }
    .token .hex, .piece .hex { color: var(--tl-soft); font-size: 0.8em; }
    .shared { display: inline-flex; flex-direction: column; align-items: stretch; }
    .of-one { display: inline-flex; flex-wrap: wrap; gap: 2px; }
    .whole { margin-top: 0.1rem; border-top: 1.5px solid var(--tl-edge); color: var(--tl-soft); font-size: 0.9375rem; line-height: 1.5; text-align: center; }
    .more { margin: 0.3rem 0; color: var(--tl-muted); }
    .about { min-height: 2.9em; margin: 0.75rem 0 0; color: var(--tl-soft); text-wrap: pretty; }
    .about b { color: var(--tl-ink); font-variant-numeric: tabular-nums; }
    .name { padding: 0.05rem 0.3rem; border-radius: 4px; background: color-mix(in srgb, var(--tl-ink) 9%, var(--tl-raised)); color: var(--tl-ink); font-family: var(--tl-mono); font-size: 0.94em; white-space: pre-wrap; }
    .built { margin-top: 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--tl-line); }
    .steps { display: flex; flex-wrap: wrap; align-items: center; gap: 0.3rem 1rem; }
    .buttons { display: flex; flex: 1; align-items: center; gap: 0.5rem; min-width: 12rem; max-width: 22rem; }
    .buttons button { width: 2rem; padding: 0; font-size: 1.1rem; line-height: 1; }
    @media (pointer: coarse) { .buttons button { width: 2.5rem; } }
    input[type="range"] { flex: 1; min-width: 0; height: 1.75rem; margin: 0; }
    .happened { min-height: 1.45em; margin: 0.4rem 0 0.6rem; }
    .ladder .rung { display: grid; grid-template-columns: repeat(var(--bytes), minmax(0, 2.5rem)); gap: 3px; margin-bottom: 3px; }
    .wrapped .rung { display: flex; flex-wrap: wrap; gap: 3px; max-height: 14rem; overflow-y: auto; }
    .piece { --hue: ${unsafeCSS(COLORS.token)}; min-width: 0; padding: 0.1rem 0.1rem; border: 1px solid color-mix(in srgb, var(--hue) 55%, transparent); border-radius: 4px; background: color-mix(in srgb, var(--hue) 10%, var(--tl-raised)); font-family: var(--tl-mono); font-size: 0.875rem; line-height: 1.35; text-align: center; white-space: pre-wrap; overflow: hidden; }
    .wrapped .piece { padding-inline: 0.35rem; overflow-wrap: anywhere; }
    .made { --hue: ${unsafeCSS(COLORS.chosen)}; border-color: var(--hue); background: color-mix(in srgb, var(--hue) 22%, var(--tl-raised)); }
    .later { visibility: hidden; }
    .now { animation: fall 0.16s ease-out; }
    @keyframes fall { from { opacity: 0.2; translate: 0 -0.5rem; } }
    @container (max-width: 30rem) {
      .counts { grid-template-columns: repeat(4, 1fr); justify-content: stretch; gap: 0 0.6rem; }
      .ladder .piece { font-size: 0.8125rem; padding-inline: 0; border-radius: 3px; }
    }
  `];
}

/** Parts of a token on the page: characters as they are, pieces of a character as hexadecimal. */
function drawn(parts) {
  return parts.map((part) => (part.hex ? html`<span class="hex">${part.hex}</span>` : part.text));
}

function name(bytes) { return html`<bdi class="name">${nameOf(bytes)}</bdi>`; }

define("tl-tokenizer", Tokenizer);
