// <tl-live>: the page at "/" of `tinyllm serve`. It asks the server for its state (GET live) twice a second and draws
// it; chapter 15's widget draws the pool. Not in the book: the server's page loads this file's bundle alone.
// That page's Content-Security-Policy allows no style attribute: styles are set as properties.
import { svg } from "lit";

import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";
import { hueOf } from "./paged.js";

const EVERY = 500, LATER = 2000; // ms between two questions; when nobody has answered
const SLOW = 2; // seconds after which a picture is called old
const KEY = "tinyllm.key";

const number = (n) => n.toLocaleString("en");
const count = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;
const percent = (part, all) => (all ? `${(100 * part / all).toFixed(part && part < all ? 1 : 0)}%` : "–");
const time = (s) => (s === undefined ? "–" : s < 0.1 ? `${(1000 * s).toFixed(1)} ms` : s < 1 ? `${Math.round(1000 * s)} ms` : `${s.toFixed(2)} s`);
const LATENCIES = [["ttft", "First token", "TTFT"], ["itl", "Each further token", "ITL"], ["e2e", "Whole answer", "E2E"]];

class Live extends TinyElement {
  static properties = {
    now: { state: true }, trouble: { state: true }, paused: { state: true }, answer: { state: true }, busy: { state: true },
  };

  /** It has no data in the page. */
  read() {
    if (this.data) return;
    [this.data, this.trouble, this.paused, this.answer, this.busy] = [{}, "", false, null, false];
    this.key = sessionStorage.getItem(KEY) ?? "";
    document.addEventListener("visibilitychange", () => document.hidden || this.ask());
    this.ask();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.timer);
  }

  get headers() { return this.key ? { Authorization: `Bearer ${this.key}` } : {}; }

  /** Ask for the state, and again after a while. */
  async ask() {
    clearTimeout(this.timer);
    if (this.paused || document.hidden) return;
    const before = this.trouble;
    try {
      const got = await fetch("live", { headers: this.headers, cache: "no-store" });
      this.trouble = got.status === 401 ? "key" : got.ok ? "" : "dead";
      if (got.ok) this.now = await got.json();
    } catch { this.trouble = "gone"; }
    if (this.trouble !== before) this.announce(this.trouble ? this.words : "Connected.");
    clearTimeout(this.timer);
    if (this.trouble !== "key") this.timer = setTimeout(() => this.ask(), this.trouble ? LATER : EVERY);
  }

  get words() {
    const { trouble, now, paused } = this;
    if (trouble === "key") return this.key ? "The server does not know this key." : "The server asks for an API key.";
    if (trouble === "dead") return "The engine has died; the server is about to end.";
    if (trouble === "gone") return "The server does not answer. Asking again.";
    if (paused) return "Paused.";
    if (!now) return "Asking the server.";
    return now.age_seconds === null || now.age_seconds > SLOW ? `The engine is busy with a long step: this is ${time(now.age_seconds ?? 0)} old.` : "Live.";
  }

  onKey(event) {
    event.preventDefault();
    this.key = new FormData(event.target).get("key").trim();
    sessionStorage.setItem(KEY, this.key);
    this.ask();
  }

  onForget() {
    sessionStorage.removeItem(KEY);
    [this.key, this.now] = ["", undefined];
    this.ask();
  }

  onPause() {
    this.paused = !this.paused;
    this.ask();
  }

  /** Stream an answer to what stands in the box. */
  async onSend(event) {
    event.preventDefault();
    if (this.busy) {
      this.stopper.abort();
      return;
    }
    const form = new FormData(event.target), prompt = form.get("prompt"), begun = performance.now();
    this.stopper = new AbortController();
    [this.busy, this.answer] = [true, { prompt, text: "", note: "" }];
    let first, tokens = 0, reason = "";
    try {
      const body = { model: this.now.model, prompt, max_tokens: Number(form.get("tokens")), temperature: 0.8, stream: true, stream_options: { include_usage: true } };
      const got = await fetch("v1/completions", { method: "POST", signal: this.stopper.signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...this.headers } });
      if (!got.ok) throw new Error((await got.json()).error.message);
      for await (const event of events(got.body)) {
        if (event.error) throw new Error(event.error.message);
        first ??= (performance.now() - begun) / 1000;
        tokens = event.usage?.completion_tokens ?? tokens;
        const choice = event.choices[0];
        reason = choice?.finish_reason ?? reason;
        if (choice) this.answer = { ...this.answer, text: this.answer.text + choice.text };
      }
      const seconds = (performance.now() - begun) / 1000;
      this.note(`${count(tokens, "token")} in ${time(seconds)}, the first after ${time(first)}; ended by ${reason === "stop" ? "the model" : "the limit"}.`);
    } catch (error) {
      this.note(error.name === "AbortError" ? "Stopped: the request is aborted and its blocks are free." : `Refused: ${error.message}`);
    } finally {
      this.busy = false;
      this.ask();
    }
  }

  note(words) {
    this.answer = { ...this.answer, note: words };
    this.announce(words);
  }

  // ---- what is shown ----

  render() {
    const { now, trouble } = this;
    return html`
      <header>
        <h1>${now ? now.model : "tinyllm"} <small>${now ? `tinyllm ${now.version}` : ""}</small></h1>
        <p class="state ${trouble || (this.paused ? "paused" : "")}"><i></i>${this.words}</p>
        <p class="buttons">
          ${now && !trouble ? html`<button type="button" aria-pressed=${this.paused} @click=${this.onPause}>Pause</button>` : nothing}
          ${this.key ? html`<button type="button" @click=${this.onForget}>Forget the key</button>` : nothing}</p>
      </header>
      ${trouble === "key" ? this.keyForm() : nothing}
      ${now ? html`${this.figures(now)}<div class="columns"><div>${this.box(now)}${this.running(now)}${this.queue(now)}${this.latency(now)}</div>
        <div>${this.pool(now)}</div></div>` : nothing}
      <p class="for-ears" role="status">${this.said}</p>`;
  }

  keyForm() {
    return html`<form class="card" @submit=${this.onKey}><label for="key">API key</label>
      <p class="row"><input id="key" name="key" type="password" autocomplete="off" required .value=${this.key}><button type="submit">Use it</button></p>
      <p class="hint">It is kept in this tab only, and sent to this server only.</p></form>`;
  }

  figures(now) {
    const speed = now.tokens_per_second, high = Math.max(1, ...speed), { prefix, guesses } = now;
    const figure = (name, value, more = "") => html`<div><dt>${name}</dt><dd>${value}${more ? html` <small>${more}</small>` : nothing}</dd></div>`;
    return html`<dl class="figures card">
      ${figure("running", number(now.running))}
      ${figure("waiting", number(now.waiting))}
      ${figure("blocks in use", number(now.blocks_used), `of ${number(now.blocks)}, ${percent(now.blocks_used, now.blocks)}`)}
      ${figure("prefix hits", percent(prefix.hits, prefix.queries), `of ${count(prefix.queries, "prompt token")}`)}
      ${figure("preemptions", number(now.preemptions))}
      ${guesses.made ? figure("guesses right", percent(guesses.right, guesses.made), `of ${number(guesses.made)}`) : nothing}
      <div class="speed"><dt>tokens a second, the last minute</dt>
        <dd>${number(Math.round(speed.reduce((a, b) => a + b, 0) / speed.length))} <small>on average, at most ${number(Math.max(0, ...speed))}</small>
          <svg viewBox="0 0 ${speed.length} 20" preserveAspectRatio="none" role="img" aria-label="Tokens in each second of the last minute.">
            ${speed.map((n, i) => (n ? svgBar(i, 20 * n / high) : nothing))}<path class="floor" d="M0 20H${speed.length}"></path></svg></dd></div>
    </dl>`;
  }

  box() {
    const { answer, busy } = this;
    return html`<form class="card" @submit=${this.onSend}>
      <h2><label for="prompt">Continue a text</label></h2>
      <textarea id="prompt" name="prompt" rows="2" required ?readonly=${busy}>Once upon a time</textarea>
      <p class="row"><label>At most <input name="tokens" type="number" min="1" max="2000" value="64" required> tokens</label>
        <button type="submit" class="main">${busy ? "Stop" : "Continue"}</button></p>
      ${answer ? html`<p class="answer" tabindex="0" role="region" aria-label="The answer" aria-busy=${busy}><span>${answer.prompt}</span>${answer.text}</p>
        <p class="hint">${answer.note || "…"}</p>` : nothing}
    </form>`;
  }

  running({ requests, running }) {
    const more = running - requests.length;
    return html`<section class="card"><h2>Running batch</h2>
      <p class="legend"><span><i class="mark prefill"></i>prompt</span> <span><i class="mark decode"></i>answer</span> computed so far</p>
      ${requests.length ? html`<div class="scroll" tabindex="0" role="region" aria-label="Running batch"><table>
        <thead><tr><th scope="col">Request</th><th scope="col">Phase</th><th scope="col" class="wide">Tokens computed</th><th scope="col" class="extra">Cached</th><th scope="col">Blocks</th></tr></thead>
        <tbody>${requests.map((request, i) => this.request(request, i))}</tbody></table></div>` : html`<p class="hint">No request is running. Continue a text, or send one with any OpenAI client.</p>`}
      ${more > 0 ? html`<p class="hint">and ${count(more, "more request")}</p>` : nothing}</section>`;
  }

  request({ name, phase, prompt_tokens: prompt, computed, most, cached, held }, i) {
    const share = (n) => `${(100 * n / most).toFixed(2)}%`;
    return html`<tr><th scope="row"><span class="name" .style=${`--hue: ${hueOf(name, i)}`}>${name}</span></th><td>${phase}</td>
      <td><span class="bar"><i class="prefill" .style=${`width: ${share(Math.min(computed, prompt))}`}></i><i class="decode" .style=${`width: ${share(Math.max(0, computed - prompt))}`}></i><b .style=${`left: ${share(prompt)}`}></b></span>
        <span class="of">${number(computed)} / ${number(most)}</span></td><td class="extra">${number(cached)}</td><td>${number(held)}</td></tr>`;
  }

  queue({ queue, waiting }) {
    if (!waiting) return nothing;
    return html`<section class="card"><h2>Queue</h2><ol class="queue">${queue.map(({ name, prompt_tokens: prompt }) => html`<li><b>${name}</b> ${count(prompt, "token")}</li>`)}</ol>
      ${waiting > queue.length ? html`<p class="hint">and ${count(waiting - queue.length, "more request")}</p>` : nothing}</section>`;
  }

  latency({ latency }) {
    return html`<section class="card"><h2>Latency, the last minute</h2><div class="scroll" tabindex="0" role="region" aria-label="Latency"><table>
      <thead><tr><th scope="col">Time</th><th scope="col">p50</th><th scope="col">p90</th><th scope="col">p99</th><th scope="col" class="extra">How many</th></tr></thead>
      <tbody>${LATENCIES.map(([kind, name, short]) => html`<tr><th scope="row">${name} <small class="extra">${short}</small></th>
        <td>${time(latency[kind].p50)}</td><td>${time(latency[kind].p90)}</td><td>${time(latency[kind].p99)}</td><td class="extra">${number(latency[kind].count)}</td></tr>`)}</tbody></table></div></section>`;
  }

  pool({ requests, pool }) {
    if (!pool.numbers) return nothing;
    const { numbers, counts, block_size: size, idle_blocks: idle, num_blocks: all, named } = pool;
    const state = {
      ...pool, counts: Object.fromEntries(numbers.map((block, i) => [block, counts[i]])),
      requests: requests.map(({ name, computed, blocks }) => ({ name, blocks, tokens: Math.min(computed, size * blocks.length) })),
    };
    return html`<section class="card"><h2>Block pool</h2>
      <p class="bar whole" role="img" aria-label="${count(all - idle, "block")} of ${number(all)} in use"><i class="used" .style=${`width: ${100 * (all - idle) / all}%`}></i></p>
      <p class="hint">${count(all - idle, "block")} of ${number(all)} in use. ${count(named, "block")} can be found again by a prompt that begins alike.</p>
      <tl-paged .question=${"Where do the tokens lie?"} .state=${state}></tl-paged></section>`;
  }

  static styles = [TinyElement.styles, css`
    :host { margin: 0; font-size: 0.9375rem; }
    header { display: flex; flex-wrap: wrap; align-items: center; gap: 0.3rem 1.2rem; margin-bottom: 1rem; }
    h1 { margin: 0; font-size: 1.5rem; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
    h2 { margin: 0 0 0.6rem; font-size: 1.0625rem; line-height: 1.3; }
    small { color: var(--tl-muted); font-size: 0.8125rem; font-weight: 400; letter-spacing: 0; }
    .state { flex: 1 1 12rem; color: var(--tl-soft); }
    .state i { display: inline-block; width: 0.6rem; height: 0.6rem; margin-right: 0.45rem; border-radius: 50%; background: ${unsafeCSS(COLORS.green)}; }
    .state.paused i { background: ${unsafeCSS(COLORS.grey)}; }
    .state:is(.gone, .dead, .key) i { background: ${unsafeCSS(COLORS.vermillion)}; }
    .buttons { display: flex; gap: 0.4rem; }
    .card { padding: 1rem 1.15rem; border: 1px solid var(--tl-line); border-radius: 12px; background: var(--tl-raised); }
    .columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; margin-top: 1rem; }
    .columns > div { display: flex; flex-direction: column; gap: 1rem; min-width: 0; }
    @container (min-width: 62rem) { .columns { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); } }
    .figures { display: flex; flex-wrap: wrap; gap: 0.8rem 2.2rem; margin: 0; }
    .figures > div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
    .figures dt { color: var(--tl-muted); font-size: 0.8125rem; }
    .figures dd { margin: 0; font-size: 1.375rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
    .figures .speed { flex: 1 1 16rem; max-width: 32rem; }
    .speed svg { display: block; width: 100%; height: 2rem; }
    svg .on { fill: ${unsafeCSS(COLORS.decode)}; }
    svg .floor { stroke: var(--tl-edge); stroke-width: 1; vector-effect: non-scaling-stroke; }
    .hint { color: var(--tl-muted); font-size: 0.8125rem; text-wrap: pretty; }
    .row { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 0.6rem 1rem; margin: 0.5rem 0; }
    input { border: 1px solid var(--tl-edge); border-radius: 8px; background: var(--tl-paper); }
    input { min-height: 2rem; padding: 0.15rem 0.5rem; }
    input[type="number"] { width: 5.5rem; }
    input[type="password"] { flex: 1 1 12rem; }
    button.main { border-color: var(--tl-accent); background: var(--tl-accent); color: var(--tl-paper); font-weight: 600; }
    button.main:hover:not(:disabled) { color: var(--tl-paper); }
    .answer { max-height: 18rem; margin: 0.6rem 0; padding: 0.5rem 0.75rem; overflow: auto; border-left: 3px solid var(--tl-accent); white-space: pre-wrap; overflow-wrap: anywhere; }
    .answer span { color: var(--tl-muted); }
    section.card { margin: 0; }
    .scroll { overflow-x: auto; scrollbar-width: thin; }
    table { width: 100%; border-collapse: collapse; font-variant-numeric: lining-nums tabular-nums; }
    th, td { padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--tl-line); text-align: left; font-weight: 400; white-space: nowrap; }
    thead th { color: var(--tl-muted); font-size: 0.8125rem; }
    .wide { width: 55%; }
    :is(th, td):last-child { padding-right: 0; }
    .name { padding-left: 0.45rem; border-left: 4px solid var(--hue); border-radius: 2px; font-weight: 600; }
    .bar { position: relative; display: flex; height: 0.7rem; min-width: 5rem; overflow: hidden; border-radius: 3px; background: color-mix(in srgb, var(--tl-edge) 25%, transparent); }
    .bar.whole { height: 0.8rem; margin-bottom: 0.4rem; }
    .bar b { position: absolute; top: 0; bottom: 0; width: 2px; background: var(--tl-ink); }
    .prefill { background: ${unsafeCSS(COLORS.prefill)}; }
    .decode { background: ${unsafeCSS(COLORS.decode)}; }
    .used { background: ${unsafeCSS(COLORS.blue)}; }
    .of { font-size: 0.8125rem; color: var(--tl-soft); }
    .legend { margin-bottom: 0.4rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .legend > span { margin-right: 0.5rem; }
    .mark { display: inline-block; width: 0.7rem; height: 0.7rem; margin-right: 0.25rem; border-radius: 2px; }
    .queue { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0; padding: 0; list-style: none; }
    tl-paged { margin: 0.8rem 0 0; }
    @container (max-width: 30rem) { .card { padding: 0.85rem 0.8rem; } .extra { display: none; } :is(th, td) { padding-right: 0.5rem; } }
  `];
}

/** A bar of the curve. */
const svgBar = (i, height) => svg`<path class="on" d="M${i} 20v${-height}h0.8v${height}z"></path>`;

/** The events of a stream. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}

define("tl-live", Live);
