// What widgets share in which Fable reads the reader's own words, and those that name tokens.
import { TinyElement } from "./base.js";
import { hex } from "./characters.js";

export const percent = (weight) => `${Math.round(100 * weight)}%`;
const CONTROL = /^[\0-\x08\x0b-\x1f\x7f]+$/; // signs that no font draws, shown as their bytes
export const visible = (token) => CONTROL.test(token) ? hex(new TextEncoder().encode(token)) : token.trim() || { "\n": "⏎", "\n\n": "⏎⏎" }[token] || "␣";

/** A token as a text; one that is a piece of a character as its bytes. */
export function textOf(tokenizer, id) {
  const text = tokenizer.decode([id]);
  return text.includes("\ufffd") ? hex(tokenizer.bytesOf(id)) : text;
}

/** Has a text, one pinned token of `tokens`, and a field `#own`, whose text goes to `readText` when the typing rests. */
export class Reader extends TinyElement {
  static wait = 120; // ms after the last key before the text is read
  static properties = {
    ...TinyElement.properties,
    pinned: { state: true }, over: { state: true }, text: { state: true }, note: { state: true },
  };

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.typing);
  }

  get word() { return this.over ?? this.pinned; }

  pin(index) {
    if (index < 0 || index >= this.tokens.length) return;
    [this.pinned, this.over] = [index, null];
    this.announce(this.sentence(index));
  }

  /** To the field, unless the reader is elsewhere or has to open a keyboard for it. */
  async focusOwn() {
    await this.updateComplete;
    const nowhere = document.activeElement === document.body || (document.activeElement === this && !this.renderRoot.activeElement);
    if (nowhere && matchMedia("(pointer: fine)").matches) this.renderRoot.querySelector("#own").focus({ preventScroll: true });
  }

  /** What Fable makes of the first `most` tokens: {kept, session}; null if there are none, or a later text overtook this one. */
  async readWith(text, most, watch) {
    this.reading?.abort();
    const { fable } = this.loader, reading = (this.reading = new AbortController());
    const ids = fable.tokenizer.encode(text), kept = ids.slice(0, most);
    if (!kept.length) { this.note = "Type a word."; return null; }
    const session = fable.start(watch);
    await session.read(kept, { signal: reading.signal });
    if (reading.signal.aborted) return null;
    this.note = ids.length > most ? `The first ${most} of ${ids.length} tokens are shown.` : "";
    return { kept, session };
  }

  onText(text) {
    this.text = text;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.readText(text), this.constructor.wait);
  }
}
