// <tl-tokenizer>: type, and see the tokens.
import { TinyElement, css, define, html } from "./base.js";
import { BPE } from "./bpe.js";

class Tokenizer extends TinyElement {
  static properties = { ...TinyElement.properties, text: { state: true } };
  ready(data) { this.bpe = new BPE(data); this.text = data.text; }
  widget() {
    return html`<textarea aria-label="Text" .value=${this.text} @input=${(e) => { this.text = e.target.value; }}></textarea>
      <p>${this.bpe.encode(this.text).join(" ")}</p>`;
  }
}
define("tl-tokenizer", Tokenizer);
