// <tl-heads>: all heads of all layers on one text, those that share keys and values in one frame.
//
// data: as for <tl-attention>, and groups: how many heads of keys and values a layer has.
import { Attention } from "./attention.js";
import { css, define, html, nothing } from "./base.js";
import { percent, visible } from "./reader.js";

const MOSTLY = 0.4; // of a head's weight, on average, names its habit
const FOCUS = 0.35; // a head whose largest weights are smaller than this spreads its look
const SHOWN = 3; // looks told of a head that picks

const HABITS = {
  before: "looks one token back", first: "rests on the first token", itself: "stays with itself",
  spread: "spreads its look", picks: "picks certain tokens",
};

/** Where a head's weight goes, on average over the rows that have a choice; the same in chapter 5. */
export function habitOf(weights) {
  const rows = weights.map((row, i) => ({ row, i })).slice(2), mean = (pick) => rows.reduce((sum, one) => sum + pick(one), 0) / rows.length;
  if (!rows.length) return null;
  const shares = { before: mean(({ row, i }) => row[i - 1]), first: mean(({ row }) => row[0]), itself: mean(({ row, i }) => row[i]) };
  const name = Object.keys(shares).reduce((a, b) => (shares[b] > shares[a] ? b : a));
  const kind = shares[name] >= MOSTLY ? name : mean(({ row }) => Math.max(...row)) < FOCUS ? "spread" : "picks";
  return { kind, shares };
}

class Heads extends Attention {
  ready(data) {
    this.shared = data.scores[0].length / data.groups; // query heads in one frame
    super.ready(data);
  }

  weigh() {
    super.weigh();
    this.habits = this.all.map((layer) => layer.map(habitOf));
  }

  get habit() { return this.habits[this.layer][this.head]; }

  choose(layer, head) {
    super.choose(layer, head);
    this.announce(`Layer ${this.layer + 1}, head ${this.head + 1} ${this.habit ? HABITS[this.habit.kind] : ""}. ${this.sentence(this.pinned)}`);
  }

  /** The strongest looks of the head that are neither at itself, nor one back, nor at the first token. */
  far() {
    const found = [];
    this.weights.forEach((row, i) => { for (let j = 1; j < i - 1; j++) found.push([i, j, row[j]]); });
    return found.sort((a, b) => b[2] - a[2]).slice(0, SHOWN).filter(([, , weight]) => weight >= 0.1);
  }

  frames(narrow) {
    return this.all.flatMap((_, l) => Array.from({ length: this.heads / this.shared }, (_, g) => {
      const from = g * this.shared + 2, to = from + this.shared;
      return html`<span class="together" aria-hidden="true" style="grid-area: ${narrow ? `${from} / ${l + 2} / ${to}` : `${l + 2} / ${from} / auto / ${to}`}"></span>`;
    }));
  }

  switches() { return nothing; }

  matrix(narrow) { return html`<div>${super.matrix(narrow)}${this.story()}</div>`; }

  story() {
    const { habit } = this;
    if (!habit) return html`<p class="story">Three tokens are needed to see a habit.</p>`;
    const { before, first, itself } = habit.shares, far = this.far(), start = this.head - (this.head % this.shared);
    const mates = Array.from({ length: this.shared }, (_, i) => start + i).filter((h) => h !== this.head);
    return html`<div class="story"><p><b>This head ${HABITS[habit.kind]}.</b></p>
      <p>One back ${percent(before)}, first token ${percent(first)}, itself ${percent(itself)}.</p>
      ${far.length ? html`<p>Farther: ${far.map(([i, j, weight], n) => html`${n ? ", " : ""}${visible(this.tokens[i])} → ${visible(this.tokens[j])} ${percent(weight)}`)}.</p>` : nothing}
      ${mates.length ? html`<p>Shares keys and values with head ${mates.map((h) => h + 1).join(", ")}.</p>` : nothing}</div>`;
  }

  table() {
    const rows = this.habits.flatMap((layer, l) => layer.map((habit, h) => habit
      ? [l + 1, h + 1, Math.floor(h / this.shared) + 1, HABITS[habit.kind], ...["before", "first", "itself"].map((name) => habit.shares[name].toFixed(2))].map(String)
      : [l + 1, h + 1, Math.floor(h / this.shared) + 1, "", "", "", ""].map(String)));
    return { columns: ["Layer", "Head", "Key/value head", "Habit", "One back", "First", "Itself"], rows };
  }

  static styles = [Attention.styles, css`
    .heads { gap: 6px 5px; }
    .stage:not(.narrow) .head { width: 2.4rem; }
    .heads .together { margin: -3px -2.5px; border: 1.5px solid var(--tl-edge); border-radius: 7px; pointer-events: none; }
    .story { margin-top: 0.9rem; color: var(--tl-soft); text-wrap: pretty; }
    .story b { color: var(--tl-ink); }
  `];
}

define("tl-heads", Heads);
