// <tl-prefix>: prompts, the hashes of their blocks, and a small cache that finds them again.
//
// data: {merges, special_tokens, pattern (what BPE takes), num_blocks, block_size, prompts: [text], salts: [text],
//   sent: [[prompt, salt or null]] (served already), text, salt (of the first state)}
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { BPE } from "./bpe.js";
import { nameOf } from "./characters.js";
import { Server, firstLink, hexOf } from "./prefixes.js";

const LONGEST = 160; // UTF-16 units of the reader's prompt
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const short = (name) => name.slice(0, 8);
const decoder = new TextDecoder();

class Prefix extends TinyElement {
  static properties = { ...TinyElement.properties, text: { state: true }, salt: { state: true }, chosen: { state: true }, version: { state: true } };

  ready(data) {
    this.given = data;
    this.bpe = new BPE(data);
    [this.text, this.salt, this.version] = [data.text, data.salt ?? null, 0];
    this.restart();
    for (const [text, salt] of data.sent) this.server.serve(this.bpe.encode(text), salt);
    this.look();
  }

  restart() {
    this.server = new Server(this.given.num_blocks, this.given.block_size);
    [this.forgotten, this.said] = [[], ""];
    this.version += 1;
  }

  /** What the cache would find of the prompt in the field. */
  look() {
    this.ids = this.bpe.encode(this.text);
    Object.assign(this, this.server.look(this.ids, this.salt));
    this.chosen = Math.max(0, Math.min(this.chosen ?? 0, this.names.length - 1));
  }

  // ---- what the reader does ----

  onText(text) {
    this.text = text;
    this.happened = "";
    this.chosen = Infinity;
    this.look();
    this.announce(this.sentence());
  }

  onSalt(salt) {
    this.salt = salt;
    this.happened = "";
    this.look();
    this.announce(this.sentence());
  }

  onSend() {
    if (!this.ids.length) return;
    const answer = this.server.serve(this.ids, this.salt);
    this.version += 1;
    if (!answer) this.happened = `${count(this.ids.length, "token")} need more than the ${this.given.num_blocks} blocks there are.`;
    else {
      this.forgotten = answer.forgotten;
      const { found, computed, forgotten } = answer;
      this.happened = `Served: ${count(found * this.given.block_size, "token")} found, ${computed} computed.${
        forgotten.length ? ` ${count(forgotten.length, "block")} forgotten to make room.` : ""}`;
    }
    this.look();
    this.announce(this.happened);
  }

  onEmpty() {
    this.restart();
    this.happened = "The cache is empty.";
    this.look();
    this.announce(this.happened);
  }

  // ---- what is shown ----

  words(ids) { return ids.map((id) => nameOf(this.bpe.bytesOf(id))); }
  textOf(ids) { return decoder.decode(Uint8Array.from(ids.flatMap((id) => [...this.bpe.bytesOf(id)]))); }

  /** Whether block i of the prompt is there: "found", "again" (there, but its last token must be computed) or "new". */
  fate(i) {
    if (i < this.found.length) return "found";
    return this.found.length === i && this.server.cache.blocks.has(this.names[i]) ? "again" : "new";
  }

  sentence() {
    const size = this.given.block_size, hit = this.found.length * size, rest = this.ids.length - hit;
    if (!this.ids.length) return "No token, nothing to look for.";
    return `${hit} of ${count(this.ids.length, "token")} would be found; ${rest} must be computed.`;
  }

  widget() {
    const { given: { prompts, salts, block_size: size }, ids } = this, whole = this.names.length * size;
    return html`
      <div class="examples" role="group" aria-label="Choose a prompt">
        ${prompts.map((text) => html`<button type="button" aria-pressed=${text === this.text} @click=${() => this.onText(text)}>${text.length > 34 ? `…${text.slice(-32).replace(/^\S*\s/, "")}` : text}</button>`)}
      </div>
      <label class="label" for="prompt">The prompt: choose one above or type your own</label>
      <textarea id="prompt" rows="2" maxlength=${LONGEST} spellcheck="false" autocapitalize="off" autocomplete="off"
        .value=${this.text} @input=${(event) => this.onText(event.target.value)}></textarea>
      <div class="send">
        <div class="salts" role="group" aria-label="Salt of this request">
          ${[null, ...salts].map((salt) => html`<button type="button" aria-pressed=${salt === this.salt} @click=${() => this.onSalt(salt)}>${salt === null ? "no salt" : `salt “${salt}”`}</button>`)}
        </div>
        <span class="go"><button type="button" class="main" ?disabled=${!ids.length} @click=${this.onSend}>Send it</button>
          <button type="button" @click=${this.onEmpty}>Empty the cache</button></span>
      </div>
      <p class="label" id="chain">Its blocks of ${count(size, "token")} and their hashes; pick one to see what its hash is made of</p>
      <div class="chain" role="group" aria-labelledby="chain">
        <span class="card link"><span class="words">${this.salt === null ? "first link" : `salt “${this.salt}”`}</span><code>${short(hexOf(firstLink(this.salt)))}</code></span>
        ${this.names.map((name, i) => html`<button type="button" class="card ${this.fate(i)}" aria-pressed=${i === this.chosen} @click=${() => { this.chosen = i; }}>
          <span class="words">${this.words(ids.slice(i * size, (i + 1) * size)).map((word) => html`<bdi>${word}</bdi>`)}</span>
          <code>${short(name)}</code><span class="fate">${{ found: `found in block ${this.found[i]}`, again: "there, but last", new: "not there" }[this.fate(i)]}</span></button>`)}
        ${whole < ids.length ? html`<span class="card rest"><span class="words">${this.words(ids.slice(whole)).map((word) => html`<bdi>${word}</bdi>`)}</span><span class="fate">not full: no hash</span></span>` : nothing}
      </div>
      ${this.recipe()}
      <p class="happened">${this.happened ? html`<b>${this.happened}</b> Sent again: ` : ""}${this.sentence()}</p>
      ${this.tree()}
      <dl class="figures">
        ${[["tokens asked for", this.server.cache.queries], ["of them found", this.server.cache.hits], ["blocks forgotten", this.server.cache.evictions],
          ["blocks with a hash", `${this.server.cache.blocks.size} of ${this.given.num_blocks}`]].map(([name, value]) => html`<div><dt>${name}</dt><dd>${value.toLocaleString("en")}</dd></div>`)}
      </dl>`;
  }

  /** What the chosen block's hash is made of. */
  recipe() {
    const { chosen, names, given: { block_size: size } } = this;
    if (!names.length) return html`<p class="recipe">No block is full yet: nothing to hash.</p>`;
    return html`<p class="recipe"><code>sha256(<span class="of">${chosen ? short(names[chosen - 1]) : short(hexOf(firstLink(this.salt)))}…</span>, <span class="of">${
      this.ids.slice(chosen * size, (chosen + 1) * size).join(" ")}</span>) =</code> <code class="digest">${names[chosen]}</code></p>`;
  }

  /** All that the cache holds, by beginnings. */
  tree() {
    const { cache, contents, pool } = this.server, children = new Map(), mine = new Set(this.names.slice(0, this.found.length));
    for (const name of cache.blocks.keys()) {
      const { parent, salt } = contents.get(name), under = parent !== null && cache.blocks.has(parent) ? parent : `salt ${salt}`;
      children.set(under, [...(children.get(under) ?? []), name]);
    }
    const branch = (under) => (children.has(under) ? html`<ul>${children.get(under).map((name) => {
      const { ids } = contents.get(name), block = cache.blocks.get(name);
      return html`<li><span class="node ${mine.has(name) ? "found" : ""}"><b class="block">${block}</b><span class="words">${this.words(ids).map((word) => html`<bdi>${word}</bdi>`)}</span>
        <code>${short(name)}</code><span class="line">${this.place(pool.freeBlockQueue.indexOf(block))}</span></span>${branch(name)}</li>`;
    })}</ul>` : nothing);
    const roots = [null, ...this.given.salts].filter((salt) => children.has(`salt ${salt}`));
    return html`<p class="label">What the cache holds in its ${count(this.given.num_blocks, "block")}, and when each goes</p>
      <div class="tree">
        ${roots.length ? roots.map((salt) => html`<p class="root">${salt === null ? "no salt" : `salt “${salt}”`}</p>${branch(`salt ${salt}`)}`) : html`<p class="root">nothing</p>`}
        ${this.forgotten.length ? html`<p class="root">just forgotten</p><ul>${this.forgotten.map(({ block, name, ids }) => html`<li><span class="node gone"><b class="block">${block}</b><span class="words">${
          this.words(ids).map((word) => html`<bdi>${word}</bdi>`)}</span> <code>${short(name)}</code></span></li>`)}</ul>` : nothing}
      </div>`;
  }

  place(at) { return at === 0 ? "next to go" : `goes after ${count(at, "other")}`; }

  table() {
    if (!this.server) return null;
    const { cache, contents, pool } = this.server;
    return {
      columns: ["Block", "Salt", "Its tokens", "Hash", "Hash before", "Goes"],
      rows: Array.from(cache.blocks, ([name, block]) => {
        const { ids, parent, salt } = contents.get(name);
        return [block, salt ?? "none", this.textOf(ids), name, parent === null ? "first link" : short(parent), this.place(pool.freeBlockQueue.indexOf(block))];
      }),
    };
  }

  static styles = [TinyElement.styles, css`
    :host { --hit: ${unsafeCSS(COLORS.accepted)}; --new: ${unsafeCSS(COLORS.prefill)}; --hit-text: light-dark(#00694c, #4fc79f); }
    .label { display: block; margin: 0.9rem 0 0.35rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .examples, .salts, .go { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .examples button, .salts button { font-size: 0.8125rem; }
    .send { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.5rem 1.2rem; margin-top: 0.6rem; }
    .main { border-color: var(--tl-accent); color: var(--tl-accent); font-weight: 600; }
    .main:disabled { border-color: var(--tl-line); color: var(--tl-muted); }
    .chain { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .card { display: flex; flex-direction: column; gap: 0.1rem; min-height: 4.2rem; padding: 0.3rem 0.55rem; border: 1px solid var(--tl-edge); border-radius: 8px; background: var(--tl-paper); color: var(--tl-ink); font-size: 0.8125rem; font-weight: 400; text-align: left; }
    button.card[aria-pressed="true"] { font-weight: 400; outline: 2px solid var(--tl-ink); outline-offset: -1px; background: var(--tl-paper); }
    .card.link, .card.rest { border-style: dashed; border-color: var(--tl-line); color: var(--tl-soft); }
    .card.found { border-color: var(--hit); border-left: 5px solid var(--hit); }
    .card.new, .card.again { border-left: 5px solid var(--new); }
    .card code { color: var(--tl-soft); }
    .fate { color: var(--tl-muted); font-size: 0.75rem; }
    .found .fate { color: var(--hit-text); font-weight: 600; }
    .words { font-family: var(--tl-mono); overflow-wrap: anywhere; }
    .words bdi + bdi { margin-left: 2px; padding-left: 2px; border-left: 1px solid var(--tl-line); }
    .recipe { margin-top: 0.6rem; color: var(--tl-soft); overflow-wrap: anywhere; }
    .recipe code { font-size: 0.78rem; }
    .of { padding: 0 0.15rem; border-radius: 3px; background: var(--tl-tint); }
    .happened { min-height: 1.45em; margin-top: 0.7rem; text-wrap: pretty; }
    .tree { padding: 0.5rem 0.7rem; border: 1px solid var(--tl-line); border-radius: 8px; background: var(--tl-paper); overflow-wrap: anywhere; }
    .tree ul { margin: 0; padding: 0 0 0 1rem; list-style: none; border-left: 1px solid var(--tl-line); }
    .root { color: var(--tl-muted); font-size: 0.8125rem; }
    .node { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 0.6rem; padding: 0.1rem 0.35rem; border-radius: 4px; font-size: 0.8125rem; }
    .node.found { box-shadow: inset 3px 0 0 var(--hit); background: color-mix(in srgb, var(--hit) 13%, transparent); }
    .node.gone .words { text-decoration: line-through; color: var(--tl-muted); }
    .node code, .line { color: var(--tl-muted); font-size: 0.75rem; }
    .node.found code, .node.found .line { color: var(--tl-soft); }
    .block { min-width: 1.5rem; font-variant-numeric: tabular-nums; }
    .figures { display: flex; flex-wrap: wrap; gap: 0.5rem 1.8rem; margin: 0.9rem 0 0; }
    .figures > div { display: flex; flex-direction: column-reverse; }
    .figures dt { color: var(--tl-muted); font-size: 0.75rem; }
    .figures dd { margin: 0; font-size: 1.05rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
    @container (max-width: 30rem) { .tree ul { padding-left: 0.5rem; } }
  `];
}

define("tl-prefix", Prefix);
