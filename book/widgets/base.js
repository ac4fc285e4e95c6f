// What all widgets share: their data, the question above them, colours, a table for those who would
// rather read, and words for a screen reader.
//
// A page holds
//   <tl-name class="tl-widget">
//     <script type="application/json">the data</script>
//     <div class="tl-static">question, picture, description, table</div>
//   </tl-name>
// Without JavaScript the reader sees the inner div. With it, the element draws itself in its place
// and takes question, description and table from there. If anything goes wrong, the div is shown.
//
// A subclass writes
//   ready(data)    set the first state; called once, before the first render
//   widget()       a lit template: the picture and at most three controls
//   table()        {columns, rows} of the present state (default: the table in the page)
//   static styles = [TinyElement.styles, css`...`]
//   static properties = { ...TinyElement.properties, chosen: { state: true } }
// and sets first values in `ready`: a class field would hide lit's accessor of the same name.
import { LitElement, css, html, nothing, unsafeCSS } from "lit";

import { COLORS } from "./colors.js";

export { COLORS, css, html, nothing, unsafeCSS };

const still = matchMedia("(prefers-reduced-motion: reduce)");
const QUIET = 700; // ms without a change before it is spoken

const style = css`
  :host {
    --tl-paper: var(--paper, var(--jp-layout-color0, light-dark(#fdfcf9, #14171c)));
    --tl-raised: var(--raised, var(--jp-layout-color1, light-dark(#ffffff, #1b1f26)));
    --tl-tint: var(--tint, var(--jp-layout-color2, light-dark(#f5f3ed, #242a33)));
    --tl-line: var(--line, var(--jp-border-color2, light-dark(#e4e0d6, #2d333d)));
    --tl-ink: var(--ink, var(--jp-ui-font-color0, light-dark(#20242b, #d9dce2)));
    --tl-soft: var(--ink-soft, var(--jp-ui-font-color1, light-dark(#474d58, #b0b6c1)));
    --tl-muted: var(--muted, var(--jp-ui-font-color2, light-dark(#666c78, #8f97a5)));
    --tl-accent: var(--accent, light-dark(#0b5d8f, #74bdf0));
    --tl-edge: light-dark(#8d929c, #6c7482); /* around what can be operated: 3 to 1 on the paper */
    --tl-sans: var(--sans, system-ui, sans-serif);
    --tl-mono: var(--mono, ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace);
    display: block;
    container-type: inline-size;
    margin: 1.6rem 0 0;
    color: var(--tl-ink);
    font-family: var(--tl-sans);
    font-size: 0.875rem;
    font-size-adjust: none;
    font-variant-numeric: lining-nums;
    line-height: 1.45;
    text-align: left;
    print-color-adjust: exact; /* a legend is its colours */
  }
  :host([hidden]) { display: none; }
  *, ::before, ::after { box-sizing: border-box; }
  section { padding: 1.15rem 1.25rem 0.7rem; border: 1px solid var(--tl-line); border-radius: 12px; background: var(--tl-raised); }
  @container (max-width: 30rem) { section { padding: 0.95rem 0.85rem 0.5rem; } }
  .question { margin: 0 0 0.85rem; font-size: 1.0625rem; font-weight: 650; line-height: 1.3; letter-spacing: -0.005em; text-wrap: balance; }
  p { margin: 0; }
  code, .mono { font-family: var(--tl-mono); font-size: 0.94em; font-variant-ligatures: none; }
  button, input, select, textarea { font: inherit; color: inherit; accent-color: var(--tl-accent); }
  textarea { display: block; width: 100%; min-height: 4rem; max-height: 12rem; margin: 0.25rem 0 0; padding: 0.5rem 0.75rem; border: 1px solid var(--tl-edge); border-radius: 8px; background: var(--tl-paper); font-family: var(--tl-mono); font-size: max(1rem, 16px); line-height: 1.45; resize: vertical; field-sizing: content; } /* below 16 px a phone would zoom in */
  button { min-height: 2rem; padding: 0.2rem 0.75rem; border: 1px solid var(--tl-edge); border-radius: 999px; background: var(--tl-raised); color: var(--tl-ink); cursor: pointer; touch-action: manipulation; }
  button:hover:not(:disabled) { border-color: var(--tl-accent); color: var(--tl-accent); }
  button[aria-pressed="true"] { border-color: var(--tl-accent); background: color-mix(in srgb, var(--tl-accent) 14%, var(--tl-raised)); color: var(--tl-ink); font-weight: 600; }
  button:disabled { border-color: var(--tl-line); color: var(--tl-muted); cursor: default; }
  @media (pointer: coarse) { button { min-height: 2.5rem; } }
  :focus-visible { outline: 2px solid var(--tl-accent); outline-offset: 2px; }
  input[type="range"]:focus-visible { outline-offset: -1px; border-radius: 6px; } /* its label stands close above */
  .for-ears { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  .foot { display: flex; justify-content: flex-end; margin-top: 0.7rem; }
  .foot button { min-height: 1.75rem; padding: 0.1rem 0.4rem; border: 0; background: none; color: var(--tl-muted); font-size: 0.8125rem; text-decoration: underline; text-decoration-color: color-mix(in srgb, currentcolor 40%, transparent); text-underline-offset: 0.2em; }
  .as-table { max-height: 22rem; margin: 0.2rem 0 0.5rem; overflow: auto; scrollbar-width: thin; }
  .as-table table { width: 100%; border-collapse: collapse; font-size: 0.8125rem; font-variant-numeric: lining-nums tabular-nums; }
  .as-table :is(th, td) { padding: 0.3rem 0.9rem 0.3rem 0; border-bottom: 1px solid var(--tl-line); text-align: left; vertical-align: top; }
  .as-table th { font-weight: 650; }
  .as-table td { overflow-wrap: break-word; } /* a table too wide scrolls, and its words stay whole */
  @media (prefers-reduced-motion: reduce) { *, ::before, ::after { animation: none !important; transition: none !important; } }
`;

export class TinyElement extends LitElement {
  static styles = style;
  static properties = { data: { attribute: false }, asTable: { state: true }, said: { state: true } };

  constructor() {
    super();
    this.asTable = false;
    this.said = "";
    // Arrow keys turn the book's pages and "/" opens its search, but not while a widget has the focus.
    this.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" && !event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
  }

  connectedCallback() {
    super.connectedCallback();
    if (document.readyState !== "loading") this.read();
    else document.addEventListener("DOMContentLoaded", () => this.read(), { once: true }); // children come later
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.speaking);
  }

  /** Take the data and the words from the page. */
  read() {
    if (this.data !== undefined) return;
    const part = (selector) => this.querySelector(`:scope > ${selector}`);
    try {
      const data = JSON.parse(part('script[type="application/json"]').textContent);
      this.question = part(".tl-static > .tl-question")?.textContent.trim() ?? "";
      this.description = part(".tl-static > .tl-description")?.textContent.trim() ?? "";
      this.ready(data);
      this.data = data;
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    console.error(`${this.localName}#${this.id}: ${error.message}`, error);
    this.broken = true;
    this.data ??= null;
    this.requestUpdate();
  }

  ready() {}
  widget() { return nothing; }

  /** The present state as {columns: [text], rows: [[text]]}; by default the table that the page holds. */
  table() {
    const table = this.querySelector(":scope > .tl-static table");
    if (!table) return null;
    const texts = (row) => Array.from(row.cells, (cell) => cell.textContent.trim());
    return { columns: texts(table.tHead.rows[0]), rows: Array.from(table.tBodies[0].rows, texts) };
  }

  /** Whether things may move. */
  get moves() { return !still.matches; }

  /** Let a screen reader say `text` once nothing has changed for a moment. */
  announce(text) {
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => { this.said = text; }, QUIET);
  }

  shouldUpdate() { return this.data !== undefined; }

  render() {
    if (this.broken) return html`<slot></slot>`;
    try {
      return html`
        <section aria-labelledby="question" aria-describedby=${this.description ? "description" : nothing}>
          <p class="question" id="question">${this.question}</p>
          ${this.description ? html`<p class="for-ears" id="description">${this.description}</p>` : nothing}
          ${this.widget()}
          ${this.footer()}
          <p class="for-ears" role="status">${this.said}</p>
        </section>`;
    } catch (error) {
      queueMicrotask(() => this.fail(error));
      return html`<slot></slot>`;
    }
  }

  footer() {
    const table = this.table();
    if (!table) return nothing;
    const cells = (row) => row.map((cell) => html`<td>${cell}</td>`);
    return html`
      <div class="foot">
        <button type="button" aria-expanded=${this.asTable} @click=${() => { this.asTable = !this.asTable; }}>
          ${this.asTable ? "Hide the table" : "Show as a table"}</button>
      </div>
      ${this.asTable
        ? html`<div class="as-table" tabindex="0" role="region" aria-label="The same as a table">
            <table><thead><tr>${table.columns.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
              <tbody>${table.rows.map((row) => html`<tr>${cells(row)}</tr>`)}</tbody></table>
          </div>`
        : nothing}`;
  }
}

/** Define an element once: a notebook may run the bundle a second time. */
export function define(name, element) {
  if (!customElements.get(name)) customElements.define(name, element);
}
