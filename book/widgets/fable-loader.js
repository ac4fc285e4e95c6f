// The button that loads Fable, the same in every widget that needs it. A widget writes
//   ready() { this.loader = new FableLoader(this, { then: (fable) => … }); }
//   widget() { return html`… ${this.loader.button("type your own words")} …`; }
// and finds the model in `this.loader.fable` once it is there.
import { css, html, nothing } from "lit";

import { FABLE_SIZE, loadFable } from "./fable.js";

export const loaderStyle = css`
  .load { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem 0.75rem; }
  .load progress { width: min(14rem, 60%); height: 0.6rem; accent-color: var(--tl-accent); }
  .load .wrong { color: light-dark(#a34600, #f0a35e); }
`;

export class FableLoader {
  constructor(host, { then } = {}) {
    [this.host, this.then, this.share, this.fable, this.error] = [host, then, null, null, null];
  }

  async load() {
    if (this.share !== null) return;
    this.set(0);
    this.host.announce?.("Loading Fable");
    try {
      this.fable = await loadFable({ onProgress: (share) => this.set(share) });
      this.error = null;
      this.host.announce?.("Fable is loaded");
    } catch (error) {
      [this.share, this.error] = [null, error.message];
    }
    this.host.requestUpdate();
    if (this.fable) await this.then?.(this.fable);
  }

  set(share) {
    this.share = share;
    this.host.requestUpdate();
  }

  /** The button, then its progress; nothing once Fable is there. what: what the reader can do afterwards. */
  button(what) {
    if (this.fable) return nothing;
    const percent = Math.round(100 * this.share);
    return html`<div class="load">
      ${this.share === null
        ? html`<button type="button" @click=${() => this.load()}>Load Fable (${FABLE_SIZE} MB) to ${what}</button>`
        : html`<label for="load">Loading Fable</label><progress id="load" max="100" .value=${percent}>${percent}%</progress><span>${percent}%</span>`}
      ${this.error ? html`<span class="wrong" role="alert">Fable could not be loaded: ${this.error}</span>` : nothing}
    </div>`;
  }
}
