// <tl-kv-cache>: keys and values that are kept, filling step by step; and what they weigh on real cards.
//
// data: {tokens: [text], prompt (how many of them), keys, values: [layer][token] lengths of the vectors,
//   bytes (of a token here), step (the first state), models: [{name, weights, token, context}] in bytes and
//   tokens, cards: [{name, memory, speed}] in bytes and bytes a second, share (of a card that is used),
//   lengths: [tokens], model, card, length (first choices: indices)}
// Step 1 reads the prompt; each later step reads one token and tells the one after it.
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";

const exact = new Intl.NumberFormat("en");
const SIZES = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
const SEPARATE = 64; // conversations that are drawn one by one; more become one field

export function inBytes(n) {
  const [size, name] = SIZES.find(([limit]) => n >= limit * 0.9995) ?? [1, "bytes"], value = n / size;
  return `${size === 1 || value >= 99.95 ? exact.format(Math.round(value)) : value.toFixed(value >= 9.995 ? 1 : 2)} ${name}`;
}

/** What is left beside the weights: in bytes, in tokens, in conversations of `length` tokens. */
export function room({ weights, token }, { memory }, share, length) {
  const left = Math.max(0, memory * share - weights), tokens = Math.floor(left / token);
  return { left, tokens, conversations: Math.floor(tokens / length) };
}

const several = (n, what) => `${exact.format(n)} ${what}${n === 1 ? "" : "s"}`;

class KVCache extends TinyElement {
  static properties = {
    ...TinyElement.properties, view: { state: true }, step: { state: true }, keep: { state: true },
    model: { state: true }, card: { state: true }, length: { state: true },
  };

  ready(data) {
    this.given = data;
    this.view = "fill";
    this.keep = true;
    Object.assign(this, { step: data.step, model: data.model, card: data.card, length: data.length });
    this.steps = data.tokens.length - data.prompt;
  }

  // ---- arithmetic ----

  /** Tokens that are known when step `step` begins. */
  known(step) { return this.given.prompt + step - 1; }
  computed(step, keep) { return keep && step > 1 ? 1 : this.known(step); }
  total(step, keep) {
    let sum = 0;
    for (let i = 1; i <= step; i++) sum += this.computed(i, keep);
    return sum;
  }

  get chosen() {
    const { models, cards, lengths, share } = this.given;
    const model = models[this.model], card = cards[this.card], length = lengths[this.length];
    return { model, card, length, share, ...room(model, card, share, length) };
  }

  // ---- what the reader does ----

  go(step) {
    this.step = Math.max(1, Math.min(step, this.steps));
    this.announce(this.sentence());
  }

  onKeep(keep) {
    this.keep = keep;
    this.announce(this.sentence());
  }

  choose(what, value) {
    this[what] = Number(value);
    this.announce(this.verdict());
  }

  // ---- words ----

  sentence() {
    const { step, given: { tokens } } = this, known = this.known(step), newest = tokens[known - 1].trim(), next = tokens[known].trim();
    if (step === 1) return `Step 1 computes all ${known} tokens of the prompt${this.keep ? " and keeps their keys and values" : ", and forgets them again"}. It finds “${next}”.`;
    if (this.keep) return `Step ${step} computes one token, “${newest}”, adds its keys and values, and reads those of all ${known}. It finds “${next}”.`;
    return `Step ${step} computes all ${known} tokens to find “${next}”. Only “${newest}” is new: ${several(known - 1, "token")} ${known === 2 ? "is" : "are"} computed once more.`;
  }

  verdict() {
    const { model, card, length, share, left, tokens, conversations } = this.chosen;
    if (!left) return `The weights of ${model.name}, ${inBytes(model.weights)}, do not fit on one ${card.name}: it takes ${Math.ceil(model.weights / (card.memory * share))} of them before the first token is kept.`;
    if (length > model.context) return `${model.name} reads at most ${exact.format(model.context)} tokens; ${exact.format(tokens)} would fit.`;
    if (!conversations) return `Not one conversation of ${exact.format(length)} tokens fits: there is room for ${exact.format(tokens)} tokens.`;
    return `${several(conversations, "conversation")} of ${exact.format(length)} tokens fit beside the weights of ${model.name} on one ${card.name}.`;
  }

  table() {
    const { given, view } = this;
    if (view === "fill") {
      const rows = Array.from({ length: this.steps }, (_, i) => i + 1).map((step) => [
        step, this.total(step, true), this.total(step, false), this.known(step), inBytes(this.known(step) * given.bytes)]);
      return { columns: ["Step", "Tokens computed so far, with the cache", "Recomputing everything", "Tokens in the cache", "Their size"], rows };
    }
    const { card, length, share } = this.chosen;
    const rows = given.models.map((model) => {
      const { tokens, conversations } = room(model, card, share, length);
      return [model.name, inBytes(model.weights), exact.format(model.token), exact.format(tokens), length > model.context ? "too long" : exact.format(conversations)];
    });
    return { columns: ["Model", "Weights", "Bytes a token", `Tokens that fit, ${card.name}`, `Conversations of ${exact.format(length)}`], rows };
  }

  // ---- pictures ----

  widget() {
    const views = [["fill", "Fill a cache"], ["weigh", "Weigh a real one"]];
    return html`
      <div class="views" role="group" aria-label="What to look at">${views.map(([view, name]) => html`
        <button type="button" aria-pressed=${view === this.view} @click=${() => { this.view = view; }}>${name}</button>`)}</div>
      ${this.view === "fill" ? this.fill() : this.weigh()}`;
  }

  fill() {
    const { given, step, keep } = this, { tokens, prompt } = given, known = this.known(step);
    const fresh = (i) => i < known && (!keep || i >= known - this.computed(step, true));
    const state = (i) => (i >= known ? "future" : fresh(i) ? (i === known - 1 && step > 1 ? "new decode" : step === 1 ? "new prefill" : "new again") : "held");
    const most = { keys: Math.max(...given.keys.flat()), values: Math.max(...given.values.flat()) };
    const half = (which, layer, i) => html`<i class=${which} style="--part: ${(18 + (82 * given[which][layer][i]) / most[which]).toFixed(0)}%"></i>`;
    const columns = tokens.slice(0, -1), biggest = this.total(this.steps, false);
    const bar = (name, label, amount) => html`<dt>${label}</dt><dd><span class="lane"><span class="bar ${name}" style="width: ${(100 * amount / biggest).toFixed(2)}%"></span></span><b>${exact.format(amount)}</b></dd>`;
    return html`
      <p class="text"><span class="label">The text</span> ${tokens.slice(0, known + 1).map((token, i) => html`<span
        class=${i === known ? "found" : i >= prompt ? "made" : ""}>${token}</span>`)}</p>
      <div class="grid" role="img" style="--columns: ${columns.length}"
          aria-label="${given.keys.length} layers by ${columns.length} tokens. ${this.sentence()} ${keep ? several(known, "token") : "No token"} in the cache.">
        <span class="corner">layer</span>${columns.map((token, i) => html`<span class="name ${state(i)}">${token.trim()}</span>`)}
        ${given.keys.map((_, layer) => html`<span class="row">${layer + 1}</span>${columns.map((_, i) => html`
          <span class="cell ${state(i)}">${i < known ? html`${half("keys", layer, i)}${half("values", layer, i)}` : nothing}</span>`)}`)}
      </div>
      <p class="legend"><i class="keys"></i> key and <i class="values"></i> value of a token in a layer: the stronger the colour, the longer the vector.
        ${step === 1 ? html`<i class="frame prefill"></i> computed in this step` : html`<i class="frame decode"></i> new in this step ${keep ? nothing : html`<i class="frame again"></i> computed again`}`}</p>
      <p class="read">${this.sentence()}</p>
      <dl class="sums" aria-label="Tokens through the model so far">
        ${bar("kept", "tokens computed so far, with the cache", this.total(step, true))}
        ${bar("again", "recomputing everything instead", this.total(step, false))}
      </dl>
      <p class="stock">${keep ? html`In the cache: <b>${several(known, "token")}</b>, ${inBytes(known * given.bytes)}. The next step fetches all of it.` : html`In the cache: <b>nothing</b>. Every step begins from the ids alone.`}</p>
      <div class="controls">
        <button type="button" class="back" ?disabled=${step === 1} @click=${() => this.go(step - 1)}>Back</button>
        <button type="button" class="next" ?disabled=${step === this.steps} @click=${() => this.go(step + 1)}>Next token</button>
        <label class="keep"><input type="checkbox" .checked=${keep} @change=${(event) => this.onKeep(event.target.checked)}> Keep keys and values</label>
      </div>`;
  }

  weigh() {
    const { given } = this, { model, card, length, share, left, tokens, conversations } = this.chosen;
    const one = length * model.token, part = (bytes) => `${((100 * bytes) / card.memory).toFixed(3)}%`, usable = card.memory * share;
    const fits = left > 0 && conversations > 0 && length <= model.context, taken = fits ? conversations * one : 0;
    const select = (what, label, choices) => html`<label><span class="label">${label}</span>
      <select @change=${(event) => this.choose(what, event.target.value)}>${choices.map((name, i) => html`<option value=${i} ?selected=${i === this[what]}>${name}</option>`)}</select></label>`;
    const fetched = model.weights + taken, ms = (1000 * fetched) / card.speed;
    return html`
      <div class="selects">
        ${select("model", "Model, in bfloat16", given.models.map(({ name }) => name))}
        ${select("card", "GPU", given.cards.map(({ name, memory }) => `${name}, ${inBytes(memory).replace(/\.\d+/, "")}`))}
        <label><span class="label">Each conversation: <b>${exact.format(length)} tokens</b></span>
          <input type="range" min="0" max=${given.lengths.length - 1} .value=${String(this.length)} aria-valuetext="${exact.format(length)} tokens"
            @input=${(event) => this.choose("length", event.target.value)}></label>
      </div>
      <div class="memory" role="img" aria-label="${inBytes(card.memory)} of memory: ${inBytes(Math.min(model.weights, usable))} for weights, ${inBytes(taken)} for caches. ${this.verdict()}">
        <span class="weights ${left ? "" : "over"}" style="width: ${part(Math.min(model.weights, usable))}"></span>
        <span class="caches" style="width: ${part(taken)}">${conversations <= SEPARATE ? Array.from({ length: fits ? conversations : 0 }, () => html`<i></i>`) : nothing}</span>
        <span class="rest" style="width: ${part(usable - Math.min(model.weights, usable) - taken)}"></span>
        <span class="spare" style="width: ${part(card.memory - usable)}"></span>
      </div>
      <p class="legend"><i class="box weights"></i> weights <i class="box caches"></i> caches${conversations <= SEPARATE && fits ? ", one field a conversation" : ""} <i class="box rest"></i> left over <i class="box spare"></i> ${Math.round(100 * (1 - share))}% for everything else</p>
      <p class="read verdict">${this.verdict()}</p>
      <dl class="counts">
        <div><dt>bytes a token</dt><dd>${exact.format(model.token)}</dd></div>
        <div><dt>a conversation</dt><dd>${inBytes(one)}</dd></div>
        <div><dt>tokens that fit</dt><dd>${exact.format(tokens)}</dd></div>
      </dl>
      <p class="stock">${fits ? html`When all of them decode, each step fetches ${inBytes(model.weights)} of weights and ${inBytes(taken)} of caches. At ${inBytes(card.speed)} a second that is at least <b>${ms < 9.95 ? ms.toFixed(1) : exact.format(Math.round(ms))} ms</b> a step.` : "Choose a smaller model, a larger GPU or shorter conversations."}</p>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --keys: ${unsafeCSS(COLORS.key)}; --values: ${unsafeCSS(COLORS.value)}; --prefill: ${unsafeCSS(COLORS.prefill)}; --decode: ${unsafeCSS(COLORS.decode)}; --again: light-dark(#767d89, #9aa1ad); }
    .views, .controls { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem; }
    .views { margin-bottom: 0.8rem; }
    .views button { font-size: 0.8125rem; }
    .label { color: var(--tl-muted); font-size: 0.8125rem; }
    .text { margin: 0 0 0.6rem; font-family: var(--tl-mono); font-size: 0.9375rem; line-height: 1.7; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 3.4em; }
    .text .label { font-family: var(--tl-sans); }
    .made { border-bottom: 2px solid var(--decode); }
    .found { background: color-mix(in srgb, var(--decode) 18%, var(--tl-raised)); }
    .grid { display: grid; grid-template-columns: 2.2rem repeat(var(--columns), minmax(0, 1fr)); gap: 2px; align-items: end; }
    .name { justify-self: center; max-height: 5.2rem; overflow: hidden; color: var(--tl-soft); font-family: var(--tl-mono); font-size: 0.75rem; line-height: 1.1; writing-mode: vertical-rl; transform: rotate(180deg); }
    .name.future { color: var(--tl-muted); visibility: hidden; }
    .name.new { color: var(--tl-ink); font-weight: 700; }
    .corner, .row { color: var(--tl-muted); font-size: 0.75rem; line-height: 1.3rem; font-variant-numeric: tabular-nums; }
    .cell { display: grid; grid-template-rows: 1fr 1fr; gap: 1px; height: 1.3rem; padding: 1px; border-radius: 3px; box-shadow: inset 0 0 0 1px var(--tl-line); }
    .cell i { display: block; }
    .cell i.keys { background: color-mix(in srgb, var(--keys) var(--part), var(--tl-raised)); }
    .cell i.values { background: color-mix(in srgb, var(--values) var(--part), var(--tl-raised)); }
    .cell.future { box-shadow: none; outline: 1px dashed var(--tl-line); outline-offset: -1px; }
    .cell.new { box-shadow: 0 0 0 2px var(--decode); border-radius: 1px; }
    .cell.prefill { box-shadow: 0 0 0 2px var(--prefill); }
    .cell.again { box-shadow: 0 0 0 2px var(--again); }
    .legend { margin: 0.5rem 0; color: var(--tl-muted); font-size: 0.8125rem; text-wrap: pretty; }
    .legend i { display: inline-block; width: 0.75rem; height: 0.75rem; margin: 0 0.1rem -0.1rem 0.2rem; border-radius: 2px; }
    i.keys { background: var(--keys); } i.values { background: var(--values); }
    .legend .frame { background: none; box-shadow: inset 0 0 0 2px var(--decode); }
    .legend .frame.prefill { box-shadow: inset 0 0 0 2px var(--prefill); } .legend .frame.again { box-shadow: inset 0 0 0 2px var(--again); }
    .read { min-height: 3em; color: var(--tl-soft); text-wrap: pretty; }
    .sums { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.25rem 0.8rem; margin: 0.5rem 0; font-size: 0.8125rem; }
    .sums dt { color: var(--tl-muted); }
    .sums dd { display: flex; align-items: center; gap: 0.5rem; margin: 0; }
    .sums b { min-width: 2rem; text-align: right; font-variant-numeric: tabular-nums; }
    @container (max-width: 30rem) { .sums { grid-template-columns: minmax(0, 1fr); gap: 0.1rem; } .grid { grid-template-columns: 1.1rem repeat(var(--columns), minmax(0, 1fr)); } .corner { font-size: 0; } }
    .lane { flex: 1; height: 0.7rem; }
    .bar { display: block; height: 100%; border-radius: 0 3px 3px 0; background: var(--decode); transition: width 0.2s; }
    .bar.again { background: var(--again); }
    .stock { margin: 0.4rem 0 0.7rem; color: var(--tl-soft); text-wrap: pretty; min-height: 1.5em; }
    .keep { display: inline-flex; align-items: center; gap: 0.4rem; min-height: 2rem; padding: 0 0.3rem; cursor: pointer; }
    .keep input { width: 1.15rem; height: 1.15rem; accent-color: var(--tl-accent); }
    .selects { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.6rem 1rem; margin-bottom: 0.9rem; }
    @container (max-width: 34rem) { .selects { grid-template-columns: minmax(0, 1fr); } }
    .selects label { display: flex; flex-direction: column; gap: 0.2rem; }
    .selects b { color: var(--tl-ink); font-variant-numeric: tabular-nums; }
    select { min-height: 2.1rem; padding: 0.2rem 0.4rem; border: 1px solid var(--tl-edge); border-radius: 8px; background: var(--tl-paper); color: var(--tl-ink); font: inherit; font-size: 0.875rem; }
    input[type="range"] { width: 100%; height: 2.1rem; margin: 0; accent-color: var(--tl-accent); }
    @media (pointer: coarse) { select, input[type="range"] { min-height: 2.5rem; font-size: 16px; } .keep { min-height: 2.5rem; } }
    .memory { display: flex; height: 3rem; border: 1px solid var(--tl-edge); border-radius: 6px; overflow: hidden; }
    .memory > span { flex: none; height: 100%; }
    .weights { background: ${unsafeCSS(COLORS.hbm)}; }
    .weights.over { background: repeating-linear-gradient(45deg, ${unsafeCSS(COLORS.hbm)} 0 6px, ${unsafeCSS(COLORS.vermillion)} 6px 12px); }
    .memory .caches { display: flex; gap: 1px; background: linear-gradient(var(--keys) 50%, var(--values) 50%); }
    .memory .caches:has(i) { background: none; }
    .memory .caches i { flex: 1; background: linear-gradient(var(--keys) 50%, var(--values) 50%); }
    .box { border: 1px solid var(--tl-edge); }
    .box.caches { background: linear-gradient(var(--keys) 50%, var(--values) 50%); }
    .spare { background: repeating-linear-gradient(45deg, var(--tl-tint) 0 4px, var(--tl-line) 4px 8px); }
    .counts { display: flex; flex-wrap: wrap; gap: 0.3rem 2rem; margin: 0.6rem 0; }
    .counts > div { display: flex; flex-direction: column-reverse; }
    .counts dt { color: var(--tl-muted); font-size: 0.75rem; }
    .counts dd { margin: 0; font-size: 1.25rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
  `];
}

define("tl-kv-cache", KVCache);
