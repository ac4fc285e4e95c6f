// <tl-batching>: the same requests under static and under continuous batching, side by side, step by step.
//
// data: {rows, traces: [{name, requests: [[arrives at step, answer tokens]]}], trace, step (the first state)}
// A request that enters in step s computes its prompt and its first token in it, then one token a step.
import { COLORS, TinyElement, css, define, html, nothing, unsafeCSS } from "./base.js";

const PACE = 110; // ms a step, when playing
const WAYS = [["static", "Static: a group leaves together"], ["continuous", "Continuous: a free row is taken"]];

/** Where and when each request runs: [{row, start, end}], as the chapter's RowScheduler decides. */
export function simulate(requests, rows, together) {
  const held = Array(rows).fill(null), waiting = [], bars = [];
  let now = 0, coming = 0, left = requests.length;
  while (left) {
    while (coming < requests.length && requests[coming][0] <= now) waiting.push(coming++);
    if (!together || held.every((one) => one === null)) {
      for (let row = 0; row < rows && waiting.length; row++) {
        if (held[row] !== null) continue;
        const i = held[row] = waiting.shift();
        bars[i] = { row, start: now, end: now + requests[i][1] };
      }
    }
    if (held.every((one) => one === null)) {
      now = requests[coming][0]; // no request is there: on to the next arrival
      continue;
    }
    now += 1;
    held.forEach((i, row) => {
      if (i !== null && bars[i].end === now) { held[row] = null; left -= 1; }
    });
  }
  return bars;
}

const letter = (i) => (i < 26 ? String.fromCharCode(65 + i) : String(i + 1));
const percent = (share) => `${Math.round(100 * share)}%`;
const several = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

class Batching extends TinyElement {
  static properties = { ...TinyElement.properties, trace: { state: true }, now: { state: true }, playing: { state: true } };

  ready(data) {
    this.given = data;
    this.choose(data.trace);
    this.now = data.step;
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.stop();
  }

  simulate(requests, rows, together) { return simulate(requests, rows, together); }

  choose(trace) {
    this.stop();
    this.trace = trace;
    const { rows, traces } = this.given;
    this.requests = traces[trace].requests;
    this.runs = Object.fromEntries(WAYS.map(([way]) => [way, simulate(this.requests, rows, way === "static")]));
    this.ends = Object.fromEntries(WAYS.map(([way]) => [way, Math.max(...this.runs[way].map(({ end }) => end))]));
    this.last = Math.max(...Object.values(this.ends));
    this.now = Math.min(this.now ?? this.last, this.last);
  }

  // ---- what has happened until now ----

  state(way) {
    const now = Math.min(this.now, this.ends[way]), bars = this.runs[way];
    const worked = bars.reduce((sum, { start, end }) => sum + Math.max(0, Math.min(end, now) - start), 0);
    const started = bars.filter(({ start }) => start < this.now), arrived = bars.filter((_, i) => this.requests[i][0] < this.now);
    const waits = arrived.map((bar) => Math.min(bar.start, this.now) - this.requests[bars.indexOf(bar)][0]);
    return {
      used: now ? worked / (this.given.rows * now) : 0,
      done: bars.filter(({ end }) => end <= this.now).length,
      queue: bars.flatMap(({ start }, i) => (this.requests[i][0] < this.now && start >= this.now ? [i] : [])),
      wait: waits.length ? waits.reduce((a, b) => a + b, 0) / waits.length : 0,
      running: started.length - bars.filter(({ end }) => end <= this.now).length,
    };
  }

  sentence() {
    const say = ([way]) => {
      const { used, done, queue } = this.state(way);
      return `${way}: ${done} of ${this.requests.length} done, ${queue.length} waiting, rows in use ${percent(used)}`;
    };
    return `After step ${this.now}. ${WAYS.map(say).join(". ")}.`;
  }

  // ---- what the reader does ----

  go(step) {
    this.now = Math.max(0, Math.min(step, this.last));
    this.announce(this.sentence());
  }

  onPlay() {
    if (this.playing) return this.stop();
    if (!this.moves) return this.go(this.last); // no motion: the end at once
    if (this.now >= this.last) this.now = 0;
    this.playing = true;
    this.timer = setInterval(() => {
      this.now += 1;
      if (this.now >= this.last) this.stop();
    }, PACE);
    return undefined;
  }

  stop() {
    clearInterval(this.timer);
    if (this.playing) this.announce(this.sentence());
    this.playing = false;
  }

  onSlide(step) {
    this.stop();
    this.go(step);
  }

  onTrace(i) {
    const atEnd = this.now >= this.last;
    this.choose(i);
    if (atEnd) this.now = this.last;
    this.announce(this.sentence());
  }

  // ---- what is shown ----

  table() {
    const { runs, requests } = this;
    return {
      columns: ["Request", "Arrives before step", "Answer, tokens", ...WAYS.flatMap(([way]) => [`Waits, ${way}`, `Done after step, ${way}`])],
      rows: requests.map(([arrival, tokens], i) => [letter(i), arrival + 1, tokens,
        ...WAYS.flatMap(([way]) => [runs[way][i].start - arrival, runs[way][i].end])]),
    };
  }

  widget() {
    const { traces } = this.given, still = !this.moves;
    return html`
      ${WAYS.map(([way, name]) => this.lane(way, name))}
      <p class="legend"><span><i class="first"></i> prompt and first token</span> <span><i class="more"></i> one token a step</span> <span><i class="empty"></i> a row without work</span></p>
      <div class="time">
        <button type="button" class="play" @click=${this.onPlay}>${this.playing ? "Stop" : still ? "To the end" : this.now >= this.last ? "Play again" : "Play"}</button>
        <label><span class="label">Step <b>${this.now}</b> of ${this.last}</span>
          <input type="range" min="0" max=${this.last} .value=${String(this.now)} aria-label="Step" aria-valuetext="step ${this.now} of ${this.last}"
            @input=${(event) => this.onSlide(Number(event.target.value))}></label>
      </div>
      <div class="traces" role="group" aria-label="Lengths of the answers"><span class="label">Answers</span>
        ${traces.map(({ name }, i) => html`<button type="button" aria-pressed=${i === this.trace} @click=${() => this.onTrace(i)}>${name}</button>`)}</div>`;
  }

  lane(way, name) {
    const { rows } = this.given, { now, last, requests } = this, end = this.ends[way], bars = this.runs[way];
    const { used, done, queue, wait } = this.state(way), at = (step) => `${((100 * step) / last).toFixed(3)}%`;
    const over = Math.min(now, end);
    const bar = ({ row, start, end: stop }, i) => {
      const until = Math.min(stop, now);
      if (until <= start) return nothing;
      const wide = (stop - start) / last > 0.028;
      return html`<span class="bar ${stop <= now ? "" : "runs"}" style="left: ${at(start)}; width: ${at(until - start)}; top: calc(${row} * var(--row))"><i style="width: ${(100 / (until - start)).toFixed(2)}%"></i>${
        until - start > 1 ? html`<b class=${wide ? "" : "narrow"}>${letter(i)}</b>` : nothing}</span>`;
    };
    return html`<div class="lane ${way}">
      <p class="name">${name}</p>
      <div class="field" role="img" style="--rows: ${rows}" aria-label="${name}. ${several(rows, "row")}, ${done} of ${requests.length} requests done after step ${now}; ${queue.length} waiting.">
        <span class="ground" style="width: ${at(over)}"></span>
        ${bars.map(bar)}
        <span class="cursor" style="left: ${at(now)}"></span>
      </div>
      <p class="queue"><span class="label">Waiting</span> ${queue.length ? queue.map((i) => html`<span class="one">${letter(i)}</span>`) : html`<span class="label">none</span>`}</p>
      <dl class="counts">
        <div><dt>done</dt><dd>${done} of ${requests.length}${done === requests.length ? html` <small>after step ${end}</small>` : nothing}</dd></div>
        <div><dt>rows in use</dt><dd>${percent(used)}</dd></div>
        <div><dt>steps waited, mean</dt><dd>${wait.toFixed(1)}</dd></div>
      </dl>
    </div>`;
  }

  static styles = [TinyElement.styles, css`
    :host { --row: 1.5rem; --first: ${unsafeCSS(COLORS.prefill)}; --more: light-dark(#b84f00, ${unsafeCSS(COLORS.decode)}); }
    .label { color: var(--tl-muted); font-size: 0.8125rem; }
    .label b { color: var(--tl-ink); font-variant-numeric: tabular-nums; }
    .name { margin: 0.2rem 0 0.35rem; font-weight: 650; }
    .lane + .lane { margin-top: 1rem; }
    .field { position: relative; height: calc(var(--rows) * var(--row)); background: repeating-linear-gradient(to bottom, transparent 0 calc(var(--row) - 1px), var(--tl-line) calc(var(--row) - 1px) var(--row)); border-top: 1px solid var(--tl-line); overflow: hidden; }
    .ground, .empty { background: repeating-linear-gradient(135deg, color-mix(in srgb, var(--tl-muted) 38%, transparent) 0 2px, transparent 2px 7px); }
    .ground { position: absolute; inset: 0 auto 0 0; }
    .bar { position: absolute; height: calc(var(--row) - 3px); margin-top: 1px; border-radius: 3px; background: var(--more); box-shadow: 1px 0 0 var(--tl-raised); overflow: hidden; }
    .bar.runs { border-radius: 3px 0 0 3px; }
    .bar i { position: absolute; inset: 0 auto 0 0; background: var(--first); }
    .bar b { position: absolute; right: 0.25rem; top: 0; color: #fff; font-size: 0.75rem; line-height: calc(var(--row) - 3px); }
    .bar b.narrow { right: 0; width: 100%; font-size: 0.625rem; text-align: center; }
    .cursor { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: var(--tl-ink); }
    .queue { display: flex; flex-wrap: wrap; align-items: center; gap: 0.2rem; min-height: 1.9rem; margin: 0.35rem 0 0; }
    .one { min-width: 1.35rem; padding: 0 0.25rem; border: 1px solid var(--tl-edge); border-radius: 4px; font-size: 0.75rem; line-height: 1.3rem; text-align: center; }
    .counts { display: flex; flex-wrap: wrap; gap: 0.2rem 1.8rem; margin: 0.2rem 0 0; }
    .counts > div { display: flex; flex-direction: column-reverse; min-width: 5.5rem; }
    .counts dt { color: var(--tl-muted); font-size: 0.75rem; }
    .counts dd { margin: 0; font-size: 1.1rem; line-height: 1.3; font-weight: 650; font-variant-numeric: tabular-nums; }
    .counts small { color: var(--tl-muted); font-weight: 400; }
    @container (max-width: 30rem) { .bar b.narrow { display: none; } .counts { gap: 0.2rem 0.9rem; } .counts > div { min-width: 4.4rem; } }
    .legend { margin: 0.9rem 0 0.6rem; color: var(--tl-muted); font-size: 0.8125rem; }
    .legend i { display: inline-block; width: 0.85rem; height: 0.75rem; margin: 0 0.1rem -0.1rem 0; border-radius: 2px; }
    .legend span { margin-right: 0.5rem; white-space: nowrap; }
    i.first { background: var(--first); } i.more { background: var(--more); } i.empty { border: 1px solid var(--tl-line); }
    .time { display: flex; align-items: center; gap: 0.8rem; margin: 0.6rem 0; }
    .time button { min-width: 6.2rem; }
    .time label { flex: 1; display: flex; flex-direction: column; min-width: 0; }
    input[type="range"] { width: 100%; height: 1.6rem; margin: 0; accent-color: var(--tl-accent); }
    @media (pointer: coarse) { input[type="range"] { height: 2.5rem; } }
    .traces { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem; }
    .traces button { font-size: 0.8125rem; }
  `];
}

define("tl-batching", Batching);
