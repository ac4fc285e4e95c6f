// <tl-paged>: a pool of blocks to poke: requests come, grow, fork, end and are aborted.
//
// data: {slots, sizes: [block sizes], size (of the first state), longest (tokens that a request may have),
//   history: [["add", name, tokens] | ["grow", name, tokens] | ["fork", name, copy] | ["finish", name] | ["abort", name] | ["step"]]}
//
// Without buttons it draws another pool, such as a server's. Give it, before or after it is in the page and as
// often as it changes,
//   element.state = {
//     block_size, num_blocks,
//     counts: [of blocks 0 to num_blocks],        // BlockPool.counts, or {block: count}
//     numbers: [...],                             // the blocks to be drawn; without it, all
//     requests: [{name, tokens, blocks: [...]}],  // a row of BlockTables each
//     idle: [...],                                // first to be given out first; without it, by number
//     fenced: [[step, [blocks]]], step,           // may be left out
//   }
// and, if you like, element.question = "…" first. More than 40 blocks are drawn as squares. Styles are set as
// properties, never as attributes: a server's page forbids those.
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { Tenants, survey } from "./blocks.js";

const HUES = ["blue", "orange", "green", "purple", "sky", "vermillion"];
const MOST = 6; // requests at a time
const LARGE = 128, LARGE_LIVE = 40; // blocks; more are drawn as squares
const LISTED = { requests: 12, blocks: 16 }; // of a live state
const PROMPTS = [6, 13, 3, 9]; // tokens of the requests that the reader adds, in turn

const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
/** The colour of a request: of a name with a number always the same, whoever comes and goes. */
export const hueOf = (name, index) => COLORS[HUES[(/^\d/.test(name) ? parseInt(name, 10) : index) % HUES.length]];

const percent = (share) => `${Math.round(100 * share)}%`;

class Paged extends TinyElement {
  static properties = { ...TinyElement.properties, live: { state: true }, size: { state: true }, version: { state: true }, pointed: { state: true } };

  set state(value) {
    this.live = value;
    this.question ??= "Where do the tokens lie?";
    this.data ??= {};
  }

  /** Without data in the page it waits for a state. */
  read() { if (this.querySelector(":scope > script")) super.read(); }

  get state() { return this.live ?? this.tenants?.state; }

  ready(data) {
    this.given = data;
    this.restart(data.size, data.history);
  }

  restart(size, history) {
    [this.size, this.history, this.last, this.version, this.waiting] = [size, [], "", 0, []];
    [this.hues, this.pointed] = [new Map(), []];
    this.tenants = new Tenants(Math.floor(this.given.slots / size), size);
    for (const operation of history) this.run(operation);
    this.happened = "";
  }

  // ---- what the reader does ----

  /** Carry an operation out and write it down; says in words what happened. */
  run(operation) {
    const [kind, name, more] = operation, { tenants, given: { longest } } = this, { pool } = tenants;
    const request = tenants.running.get(name), before = request?.blocks.length ?? 0;
    this.history.push(operation);
    this.version += 1;
    if (kind !== "step" && kind !== "add" && !request) return "";
    if (kind === "add" || kind === "fork") {
      const copy = kind === "add" ? name : more;
      if (!(kind === "add" ? tenants.add(name, more) : tenants.fork(name, copy))) return `No room for ${copy}: only ${count(pool.freeBlockQueue.length, "block")} free.`;
      this.last = copy;
      this.hues.set(copy, this.freeHue(copy));
      const { blocks } = tenants.running.get(copy), shared = blocks.filter((block) => pool.refCounts[block] > 1);
      return `${copy} takes ${count(blocks.length - shared.length, "block")}${
        kind === "fork" ? ` of its own and shares ${shared.length} with ${name}: no token is copied, its last block is computed again` : ""}.`;
    }
    if (kind === "grow") {
      if (request.tokens + more > longest) return `${name} has all of the ${longest} tokens that it may have: let it finish.`;
      if (!tenants.grow(name, more)) return `${name} must wait: it needs a block and none is free.`;
      const taken = request.blocks.slice(before);
      return taken.length ? `${name} has ${count(request.tokens, "token")} and took block ${taken.join(", ")}.` : `${name} has ${count(request.tokens, "token")}; they still fit into block ${request.blocks[before - 1]}.`;
    }
    if (kind === "step") {
      const due = pool.fenced.flatMap(([, blocks]) => blocks);
      this.waiting = tenants.advance(longest);
      return `Step ${tenants.step - 1} is over, step ${tenants.step} is under way.${due.length ? ` Blocks ${due.join(", ")} are let go.` : ""}${
        this.waiting.length ? ` ${this.waiting.join(", ")} must wait for a block.` : ""}`;
    }
    const kept = request.blocks.filter((block) => pool.refCounts[block] > 1);
    if (kind === "finish") tenants.finish(name);
    else tenants.abort(name);
    const rest = kept.length ? ` ${count(kept.length, "block")} of it ${kept.length === 1 ? "stays" : "stay"}, in another table.` : "";
    return kind === "finish" || !tenants.step ? `${name} is gone and its blocks are let go.${rest}`
      : `${name} is aborted while step ${tenants.step} is at work on it: its blocks wait for the end of that step.${rest}`;
  }

  onDo(...operation) {
    this.happened = this.run(operation);
    this.announce(`${this.happened} ${this.sentence()}`);
  }

  /** Runs it, unless the page has no more letters and colours. */
  onNew(...operation) {
    if (this.state.requests.length < MOST) return this.onDo(...operation);
    this.happened = `${MOST} requests are as many as this page shows: finish one first.`;
    this.version += 1;
    return this.announce(this.happened);
  }

  onAdd() {
    const number = this.history.filter(([kind]) => kind === "add").length;
    this.onNew("add", this.tenants.freeName(this.last), PROMPTS[number % PROMPTS.length]);
  }

  async onLeave(kind, name) {
    this.onDo(kind, name);
    await this.updateComplete;
    this.renderRoot.querySelector(".request button, .main button").focus();
  }

  onSize(size) {
    this.restart(size, this.history);
    this.happened = `The same requests, in blocks of ${size}.`;
    this.announce(`${this.happened} ${this.sentence()}`);
  }

  // ---- what is shown ----

  sentence() {
    const { handedOut, stored } = survey(this.state);
    return handedOut ? `${handedOut} slots handed out, ${percent(1 - stored / handedOut)} of them empty.` : "All blocks are free.";
  }

  /** The letter's own colour if no running request has it, else the first that is free: no two look alike. */
  freeHue(name) {
    const used = Array.from(this.tenants.running.keys(), (other) => other !== name && this.hues.get(other));
    const own = HUES[Math.max(0, name.charCodeAt(0) - 65) % HUES.length];
    return used.includes(own) ? HUES.find((hue) => !used.includes(hue)) ?? own : own;
  }

  /** The blocks to be outlined, in the memory and in the tables. */
  point(blocks) { if (!this.live) this.pointed = blocks; }

  hueOf(index) {
    const { name } = this.state.requests[index];
    return this.live ? hueOf(name, index) : COLORS[this.hues.get(name)];
  }

  widget() {
    const { state, live } = this, seen = survey(state), large = seen.blocks.length > (live ? LARGE_LIVE : LARGE);
    return html`
      ${live ? nothing : html`<div class="main buttons">
        <button type="button" @click=${() => this.onDo("step")}>Step: one token each</button>
        <button type="button" @click=${this.onAdd}>New request</button>
        <button type="button" @click=${() => { this.restart(this.size, []); this.happened = "All blocks are free."; this.announce(this.happened); }}>Free all</button>
      </div>
      <p class="happened">${this.happened || "D was forked from A and shares its first three blocks. Finish A, and see which blocks stay."}</p>`}
      <p class="label">Memory: ${count(state.num_blocks, "block")} of ${count(state.block_size, "slot")}${
        seen.blocks.length < state.num_blocks ? `; drawn are ${seen.blocks.length}: those in use, and the next in line` : ""}</p>
      <div class="memory ${large ? "large" : ""} ${live ? "" : "told"}" role="img" aria-label="Blocks of memory. ${this.sentence()} The table below lists them."
        .style=${`--wide: ${large ? 1 : Math.max(2.7, 0.85 * Math.min(8, state.block_size) + 0.7)}rem; --row: ${Math.min(8, state.block_size)}`}>
        ${seen.blocks.map((block) => (large ? this.square(block, state.block_size) : this.block(block, state, seen)))}
      </div>
      <p class="legend ${live ? "" : "told"}"><span><i class="mark held"></i>holds a token</span> <span><i class="mark empty"></i>handed out, empty</span>
        ${!state.fenced?.length ? nothing : html`<span><i class="mark fence"></i>fenced</span> `}<span><i class="mark idle"></i>free</span></p>
      ${this.figures(state, seen)}
      <p class="label">${state.requests.length ? "Requests and their block tables" : "No request is running."}</p>
      <ul class="requests">${state.requests.slice(0, live ? LISTED.requests : MOST).map((request, i) => this.request(request, i))}</ul>
      ${live && state.requests.length > LISTED.requests ? html`<p class="label">and ${count(state.requests.length - LISTED.requests, "more request")}</p>` : nothing}
      ${live ? nothing : html`<div class="sizes buttons" role="group" aria-label="Slots in a block">
        ${this.given.sizes.map((size) => html`<button type="button" aria-pressed=${size === this.size} @click=${() => this.onSize(size)}>blocks of ${size}</button>`)}
      </div>`}`;
  }

  /** One block with its slots, its number, and whose it is; in a slot, the position of its token in the text. */
  block({ number, count: held, owners, filled, fence, place }, state, seen) {
    const letters = owners.map((i) => (this.live ? state.requests[i].name.slice(-2) : state.requests[i].name.slice(0, 2))).join(this.live ? " " : "");
    const hue = owners.length ? this.hueOf(owners[0]) : COLORS[fence ? "grey" : "free"];
    const kind = fence && !owners.length ? "fence" : held ? "held" : "idle";
    const first = owners.length && !this.live ? state.block_size * state.requests[owners[0]].blocks.indexOf(number) : null;
    return html`<span class="block ${kind} ${number === seen.next ? "next" : ""} ${this.pointed?.includes(number) ? "pointed" : ""}" .style=${`--hue: ${hue}`}
      @pointerenter=${() => this.point([number])} @pointerleave=${() => this.point([])}>
      <span class="top"><span class="number">${number}</span><b class="who">${kind !== "fence" ? letters : state.block_size > 1 ? html`<span class="until">step ${fence}</span>` : ""}</b></span>
      <span class="places">${Array.from({ length: state.block_size }, (_, i) => html`<i class=${held && i < filled ? "full" : ""}>${first !== null && i < filled ? first + i : nothing}</i>`)}</span>
      <span class="bottom">${held > 1 ? `×${held}` : number === seen.next ? "next" : ""}</span></span>`;
  }

  square({ count: held, owners, filled, fence }, size) {
    const hue = owners.length ? this.hueOf(owners[0]) : COLORS[fence ? "grey" : "free"];
    return html`<span class="square ${held ? "held" : ""} ${held > 1 ? "many" : ""}" .style=${`--hue: ${hue}; --full: ${Math.round(100 * filled / size)}%`}></span>`;
  }

  figures(state, { handedOut, stored, tokens, shared }) {
    const figure = (name, value, kind = "") => html`<div class=${kind}><dt>${name}</dt><dd>${value}</dd></div>`;
    const longest = this.given?.longest, pieces = state.requests.length * longest;
    return html`<dl class="figures">
      ${figure("slots handed out", handedOut.toLocaleString("en"))}
      ${figure("of them empty", handedOut ? percent(1 - stored / handedOut) : "–", "main")}
      ${figure("tokens stored only once", Math.max(0, tokens - stored).toLocaleString("en"))}
      ${this.live ? figure("blocks in two tables or more", shared.toLocaleString("en"))
        : figure(`if each had one piece for ${longest}`, pieces ? `${percent(1 - tokens / pieces)} empty${pieces > this.given.slots ? `, and only ${Math.floor(this.given.slots / longest)} fit` : ""}` : "–")}
    </dl>`;
  }

  request({ name, tokens, blocks }, i) {
    const wait = !this.live && this.waiting.includes(name) && tokens <= blocks.length * this.size;
    const button = (words, what, action) => html`<button type="button" aria-label="${what} ${name}" @click=${action}>${words}</button>`;
    const more = blocks.length > LISTED.blocks && this.live;
    return html`<li class="request" .style=${`--hue: ${this.hueOf(i)}`} @pointerenter=${() => this.point(blocks)} @pointerleave=${() => this.point([])}
      @focusin=${() => this.point(blocks)} @focusout=${() => this.point([])}>
      <b class="name">${name}</b>
      <span class="facts"><span class="tokens">${count(tokens, "token")}${wait ? ", waits" : ""}</span>
        <span class="table">${(more ? blocks.slice(0, LISTED.blocks) : blocks).map((block) => html`<span class=${this.pointed?.includes(block) ? "pointed" : ""}>${block}</span>`)}${more ? "…" : ""}</span></span>
      ${this.live ? nothing : html`<span class="actions">
        ${button("+ 1", "One token more for", () => this.onDo("grow", name, 1))}
        ${button("Fork", "Fork", () => this.onNew("fork", name, this.tenants.freeName(this.last)))}
        ${button("Finish", "Finish", () => this.onLeave("finish", name))}
        ${button("Abort", "Abort", () => this.onLeave("abort", name))}
      </span>`}</li>`;
  }

  table() {
    if (!this.state) return null;
    const { state } = this, { blocks } = survey(state);
    return {
      columns: ["Block", "Held by", "Count", "Slots in use", "State"],
      rows: blocks.slice(0, LARGE).map(({ number, count: held, owners, filled, fence, place }) => [
        number, owners.map((i) => state.requests[i].name).join(", ") || "none", held, owners.length ? `${filled} of ${state.block_size}` : "0",
        held ? (fence && !owners.length ? `fenced by step ${fence}` : "held") : `free, number ${place + 1} in the queue`]),
    };
  }

  static styles = [TinyElement.styles, css`
    .label { margin: 0.9rem 0 0.35rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .buttons { display: flex; flex-wrap: wrap; gap: 0.4rem; }
    .happened { min-height: 2.9em; margin-top: 0.6rem; color: var(--tl-soft); text-wrap: pretty; }
    .memory { display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--wide), 1fr)); gap: 4px; }
    .block { display: block; min-width: 0; padding: 2px 4px 1px; border: 1px solid var(--tl-line); border-radius: 6px; background: var(--tl-paper); font-size: 0.6875rem; line-height: 1.25; }
    .block.held { border-color: var(--hue); background: color-mix(in srgb, var(--hue) 9%, var(--tl-paper)); }
    .block.idle { border-style: dashed; }
    .block.next { border-color: var(--tl-edge); }
    .block.fence { border-color: var(--tl-edge); background: repeating-linear-gradient(135deg, transparent 0 4px, color-mix(in srgb, var(--tl-edge) 30%, transparent) 4px 6px) var(--tl-paper); }
    .block.pointed { outline: 2px solid var(--tl-ink); outline-offset: 1px; }
    .top { display: flex; justify-content: space-between; gap: 2px; min-height: 1.25em; }
    .number, .bottom { color: var(--tl-muted); font-variant-numeric: tabular-nums; }
    .who { overflow: hidden; white-space: nowrap; color: var(--tl-ink); }
    .until { padding: 0 2px; background: var(--tl-paper); color: var(--tl-soft); font-weight: 400; }
    .places { display: grid; grid-template-columns: repeat(var(--row), minmax(0, 1fr)); gap: 2px; margin: 2px 0 1px; }
    .places i { height: 0.85rem; color: var(--tl-ink); font-size: 0.625rem; font-style: normal; line-height: 0.75rem; text-align: center; font-variant-numeric: tabular-nums; border: 1px solid color-mix(in srgb, var(--tl-edge) 45%, transparent); border-radius: 2px; }
    .held .places i { border-color: var(--hue); }
    .places i.full { background: var(--hue); }
    .told i.full { background: color-mix(in srgb, var(--hue) 40%, var(--tl-paper)); }
    .bottom { display: block; min-height: 1.25em; text-align: right; }
    .large { gap: 2px; }
    .square { height: 1rem; border: 1px solid var(--tl-line); border-radius: 2px; }
    .square.held { border-color: var(--hue); background: linear-gradient(90deg, var(--hue) var(--full), transparent 0) var(--tl-paper); }
    .square.many { box-shadow: inset 0 0 0 2px var(--tl-ink); }
    .legend { margin-top: 0.4rem; color: var(--tl-muted); font-size: 0.75rem; }
    .legend > span { margin-right: 0.6rem; white-space: nowrap; }
    .mark { display: inline-block; width: 0.7rem; height: 0.7rem; margin: 0 0.25rem -1px 0; border: 1px solid var(--tl-edge); border-radius: 2px; }
    .mark.held { background: var(--tl-edge); }
    .told .mark.held { background: color-mix(in srgb, var(--tl-edge) 40%, var(--tl-paper)); }
    .mark.idle { border-style: dashed; }
    .mark.fence { background: repeating-linear-gradient(135deg, transparent 0 2px, var(--tl-edge) 2px 4px); }
    .figures { display: flex; flex-wrap: wrap; gap: 0.5rem 1.8rem; margin: 0.9rem 0 0; }
    .figures > div { display: flex; flex-direction: column-reverse; }
    .figures dt { color: var(--tl-muted); font-size: 0.75rem; }
    .figures dd { margin: 0; font-size: 1.05rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
    .figures .main dd { color: light-dark(#b04c00, ${unsafeCSS(COLORS.orange)}); }
    .requests { margin: 0; padding: 0; list-style: none; }
    .request { display: flex; flex-wrap: wrap; align-items: center; gap: 0.3rem 0.7rem; padding: 0.3rem 0; border-top: 1px solid var(--tl-line); }
    .name { min-width: 1.7rem; padding: 0 0.4rem; border-left: 4px solid var(--hue); border-radius: 2px; }
    .facts { display: flex; flex: 1 1 14rem; flex-wrap: wrap; align-items: center; gap: 0.15rem 0.7rem; min-width: 0; }
    .tokens { min-width: 5rem; color: var(--tl-soft); font-variant-numeric: tabular-nums; }
    .table { display: inline-flex; flex-wrap: wrap; gap: 2px; }
    .table span { min-width: 1.6rem; padding: 0 0.25rem; border: 1px solid var(--hue); border-radius: 3px; font-size: 0.75rem; text-align: center; font-variant-numeric: tabular-nums; }
    .table .pointed { background: color-mix(in srgb, var(--hue) 30%, transparent); }
    .actions { display: flex; flex-wrap: wrap; gap: 0.3rem; }
    .actions button { padding-inline: 0.6rem; font-size: 0.8125rem; }
    .sizes { margin-top: 0.9rem; }
    .sizes button { font-size: 0.8125rem; }
  `];
}

define("tl-paged", Paged);
