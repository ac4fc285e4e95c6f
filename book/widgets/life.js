// <tl-life>: the life of one request, recorded from the engine, one event after the other.
//
// data: {name; stages: [{key, title, links: [[chapter, words]]}]; chapters: {number: [file, title]};
//   frames: [{stage, step, says, and what the stage shows}]}
//   text      pieces: [[text, id]]
//   queue     running, waiting: [[name, computed, tokens]]
//   plan      rows: [[name, start, count, tokens, samples]], budget
//   blocks    table: [[block, [texts], "found" | "new" | ""]], size, free
//   batch     flat: [[name, text, position, slot]]
//   forward   shapes: [[what, shape, chapter]]
//   sample    likely: [[text, probability]], chosen, temperature
//   out       before, piece, ids
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";

const PLAIN = { " ": "␣", "\n": "↵" };
const visible = (text) => text.replace(/^ |\n/g, (c) => PLAIN[c]);
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

class Life extends TinyElement {
  static properties = { ...TinyElement.properties, at: { state: true } };

  ready(data) {
    this.given = data;
    this.at = 0;
  }

  get frame() { return this.given.frames[this.at]; }
  get stage() { return this.given.stages.find(({ key }) => key === this.frame.stage); }

  // ---- what the reader does ----

  go(at) {
    this.at = Math.max(0, Math.min(at, this.given.frames.length - 1));
    this.announce(`${this.where()} ${this.frame.says}`);
  }

  /** To this stage: in the same step if it is there, else at the next that has it, else at the first. */
  goTo(key) {
    const { frames } = this.given, now = this.frame.step, found = (test) => frames.findIndex((frame, i) => frame.stage === key && test(frame, i));
    this.go([found(({ step }) => step === now), found((_, i) => i > this.at), found(() => true)].find((i) => i >= 0));
  }

  onKey(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey || event.target.type === "range") return;
    event.preventDefault();
    this.go(this.at + moves[event.key]);
  }

  // ---- words ----

  where() {
    const { step } = this.frame;
    return step === 0 ? "Before its first step." : `Step ${step} of the engine.`;
  }

  href(chapter) {
    const [file] = this.given.chapters[chapter];
    return `${file}.${/\.html?$/.test(location.pathname) ? "html" : "ipynb"}`;
  }

  links() {
    const { stage, given: { chapters } } = this;
    return html`<p class="links">${stage.links.map(([chapter, words]) => html`<a href=${this.href(chapter)}>${chapters[chapter][1]}</a>${words ? html` <span>${words}</span>` : nothing}<br>`)}</p>`;
  }

  table() {
    if (!this.given) return null;
    return {
      columns: ["Event", "Step", "Stage", "What happens"],
      rows: this.given.frames.map(({ stage, step, says }, i) => [String(i + 1), step ? String(step) : "–", this.given.stages.find(({ key }) => key === stage).title, says]),
    };
  }

  // ---- pictures ----

  widget() {
    const { given: { stages, frames }, frame, at } = this, here = new Set(frames.filter(({ step }) => step === frame.step).map(({ stage }) => stage));
    return html`<div class="all" @keydown=${this.onKey}>
      <div class="stages" role="group" aria-label="Stages of a request's life">
        ${stages.map(({ key, title }) => html`<button type="button" class=${here.has(key) ? "here" : ""} aria-pressed=${key === frame.stage} @click=${() => this.goTo(key)}>${title}</button>`)}
      </div>
      <p class="where"><b>${this.where()}</b> <span>${at + 1} of ${frames.length}</span></p>
      <p class="says">${frame.says}</p>
      <div class="stage">${this[frame.stage === "leave" ? "blocks" : frame.stage](frame)}</div>
      ${this.links()}
      <input type="range" aria-label="Place in the request's life" min="0" max=${frames.length - 1} step="1" .value=${String(at)}
        aria-valuetext="${at + 1} of ${frames.length}: ${this.stage.title}" @input=${(event) => this.go(Number(event.target.value))}>
      <div class="buttons">
        <button type="button" ?disabled=${at === 0} @click=${() => this.go(at - 1)}>Back</button>
        <button type="button" class="next" ?disabled=${at === frames.length - 1} @click=${() => this.go(at + 1)}>Next</button>
        <button type="button" ?disabled=${!frames.some(({ step }) => step > frame.step)} @click=${() => this.go(frames.findIndex(({ step }) => step > frame.step))}>Next step</button>
      </div>
    </div>`;
  }

  text({ pieces }) {
    return html`<ol class="tokens">${pieces.map(([text, id]) => html`<li><bdi>${visible(text)}</bdi><span>${id}</span></li>`)}</ol>`;
  }

  queue({ running, waiting }) {
    const one = ([name, computed, tokens]) => html`<li class=${name === this.given.name ? "mine" : ""}><b>${name}</b>
      <span class="lane"><span class="bar" style="width: ${(100 * computed) / Math.max(tokens, 1)}%"></span></span><span>${computed} of ${tokens} computed</span></li>`;
    return html`<div class="two"><div><p class="label">Running</p><ul class="people">${running.map(one)}${running.length ? nothing : html`<li>no request</li>`}</ul></div>
      <div><p class="label">Waiting</p><ul class="people">${waiting.map(one)}${waiting.length ? nothing : html`<li>no request</li>`}</ul></div></div>`;
  }

  plan({ rows, budget }) {
    const used = rows.reduce((sum, [, , count]) => sum + count, 0);
    return html`<div class="scroll" tabindex="0" role="region" aria-label="The plan"><table><thead><tr><th scope="col">Request</th><th scope="col">From position</th><th scope="col">Tokens</th><th scope="col">Then computed</th><th scope="col">Samples</th></tr></thead>
      <tbody>${rows.map(([name, start, count, tokens, samples]) => html`<tr class=${name === this.given.name ? "mine" : ""}><td>${name}</td><td>${start}</td><td>${count}</td><td>${start + count} of ${tokens}</td><td>${samples ? "yes" : "no"}</td></tr>`)}</tbody></table></div>
      <p class="label">${used} of a budget of ${budget} tokens</p>`;
  }

  blocks({ table, size, free }) {
    return html`<ol class="blocks">${table.map(([block, texts, how]) => html`<li class=${how}><b>block ${block}</b>
        <span class="slots">${Array.from({ length: size }, (_, i) => html`<bdi class=${texts[i] === undefined ? "free" : ""}>${texts[i] === undefined ? "" : visible(texts[i])}</bdi>`)}</span>
        <span class="how">${{ found: "found in the cache", new: "new", named: "keeps its hash" }[how] ?? ""}</span></li>`)}</ol>
      <p class="label">${free} free blocks</p>`;
  }

  batch({ flat }) {
    return html`<div class="scroll" tabindex="0" role="region" aria-label="The flat batch"><table><thead><tr><th scope="col">Whose</th><th scope="col">Token</th><th scope="col">Position</th><th scope="col">Slot</th></tr></thead>
      <tbody>${flat.map(([name, text, position, slot]) => html`<tr class=${name === this.given.name ? "mine" : ""}><td>${name}</td><td><bdi class="mono">${visible(text)}</bdi></td><td>${position}</td><td>${slot}</td></tr>`)}</tbody></table></div>`;
  }

  forward({ shapes }) {
    return html`<ol class="flow">${shapes.map(([what, shape, chapter]) => html`<li><a href=${this.href(chapter)}>${what}</a><code>${shape}</code></li>`)}</ol>`;
  }

  sample({ likely, chosen, temperature }) {
    const most = Math.max(...likely.map(([, share]) => share));
    return html`<ul class="likely">${likely.map(([text, share]) => html`<li class=${text === chosen ? "mine" : ""}><bdi class="mono">${visible(text)}</bdi>
      <span class="lane"><span class="bar" style="width: ${(100 * share) / most}%"></span></span><span>${percent(share)}</span></li>`)}</ul>
      <p class="label">at a temperature of ${temperature}; drawn: <b class="mono">${visible(chosen)}</b></p>`;
  }

  out({ before, piece, ids }) {
    return html`<p class="story">${before}<b>${piece}</b></p><p class="label">${ids.length} new token${ids.length === 1 ? "" : "s"}: ${ids.join(", ")}</p>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --mine: ${unsafeCSS(COLORS.blue)}; --found: ${unsafeCSS(COLORS.green)}; --new: ${unsafeCSS(COLORS.prefill)}; }
    .stages { display: flex; flex-wrap: wrap; gap: 0.3rem; }
    .stages button { min-height: 1.9rem; padding: 0.1rem 0.6rem; font-size: 0.8125rem; }
    .stages .here:not([aria-pressed="true"]) { border-color: var(--tl-accent); }
    .where { display: flex; justify-content: space-between; margin: 0.9rem 0 0.2rem; }
    .where span { color: var(--tl-muted); font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    .says { min-height: 4.4em; color: var(--tl-soft); text-wrap: pretty; }
    .stage { min-height: 15rem; padding: 0.7rem 0.8rem; border: 1px solid var(--tl-line); border-radius: 8px; background: var(--tl-paper); }
    .label { margin: 0 0 0.3rem; color: var(--tl-muted); font-size: 0.8125rem; }
    * + .label { margin-top: 0.5rem; }
    ol, ul { margin: 0; padding: 0; list-style: none; }
    .tokens { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .tokens li { display: grid; justify-items: center; padding: 0.2rem 0.5rem; border: 1px solid var(--tl-line); border-bottom: 3px solid var(--mine); border-radius: 6px; background: var(--tl-raised); }
    .tokens bdi, .mono, .slots bdi { font-family: var(--tl-mono); white-space: pre; }
    .tokens span { color: var(--tl-muted); font-size: 0.75rem; font-variant-numeric: tabular-nums; }
    .two { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
    @container (max-width: 30rem) { .two { grid-template-columns: 1fr; } }
    .people li { display: grid; grid-template-columns: 4.5rem minmax(2rem, 1fr) auto; align-items: center; gap: 0.5rem; padding: 0.15rem 0; font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    .lane { height: 0.7rem; border-radius: 3px; background: color-mix(in srgb, var(--tl-muted) 20%, transparent); }
    .bar { display: block; height: 100%; border-radius: 3px; background: var(--tl-muted); }
    .mine .bar { background: var(--mine); }
    .people .mine b, tr.mine td { color: var(--tl-ink); }
    .scroll { max-height: 15rem; overflow: auto; scrollbar-width: thin; }
    table { width: 100%; border-collapse: collapse; font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    th, td { padding: 0.22rem 0.7rem 0.22rem 0; border-bottom: 1px solid var(--tl-line); text-align: left; color: var(--tl-soft); }
    th { color: var(--tl-muted); font-weight: 600; }
    tr.mine td { background: color-mix(in srgb, var(--mine) 14%, transparent); }
    tr.mine td:first-child { padding-left: 0.4rem; }
    .blocks { display: grid; gap: 0.35rem; }
    .blocks li { display: grid; grid-template-columns: 4.6rem minmax(0, 1fr) 7.5rem; align-items: center; gap: 0.5rem; padding-left: 0.4rem; border-left: 4px solid var(--tl-edge); font-size: 0.8125rem; }
    @container (max-width: 30rem) { .blocks li { grid-template-columns: 4.6rem minmax(0, 1fr); } .how { grid-column: 2; } }
    .blocks .found { border-color: var(--found); }
    .blocks .new { border-color: var(--new); }
    .slots { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 2px; }
    .slots bdi { overflow: hidden; min-height: 1.6rem; padding: 0.1rem 0.3rem; border-radius: 4px; background: color-mix(in srgb, var(--mine) 14%, var(--tl-raised)); text-overflow: ellipsis; }
    .slots .free { background: color-mix(in srgb, var(--tl-muted) 16%, transparent); }
    .how { color: var(--tl-muted); }
    .flow li { display: flex; justify-content: space-between; gap: 1rem; padding: 0.24rem 0; border-bottom: 1px solid var(--tl-line); }
    .flow li:last-child { border: 0; }
    .flow code { color: var(--tl-soft); text-align: right; }
    .likely li { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr) 3rem; align-items: center; gap: 0.6rem; padding: 0.18rem 0; font-variant-numeric: tabular-nums; }
    .likely li > span:last-child { text-align: right; }
    .likely .mine { font-weight: 650; }
    .likely .mine .bar { background: ${unsafeCSS(COLORS.chosen)}; }
    .story { font-family: var(--tl-mono); line-height: 1.7; white-space: pre-wrap; overflow-wrap: anywhere; }
    .story b { border-bottom: 2px solid ${unsafeCSS(COLORS.chosen)}; font-weight: 400; background: color-mix(in srgb, ${unsafeCSS(COLORS.chosen)} 16%, transparent); }
    .links { margin: 0.6rem 0 0; min-height: 3em; font-size: 0.8125rem; color: var(--tl-muted); }
    a { color: var(--tl-accent); text-underline-offset: 0.15em; }
    input[type="range"] { display: block; width: 100%; height: 1.75rem; margin: 0.4rem 0 0.2rem; cursor: pointer; }
    .buttons { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .buttons .next:not(:disabled) { border-color: var(--tl-accent); }
  `];
}

define("tl-life", Life);
