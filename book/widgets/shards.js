// What a rank holds, computes and sends (tinyllm/parallel/tensor.py), and who waits in a pipeline. A test compares
// the bytes with what the chapter's ranks count, and the timeline with a simulation in Python.

/** Bytes that each of n ranks sends in a ring all-reduce of a tensor, rounded down as the engine does. */
export const reduced = (bytes, n) => Math.floor((2 * (n - 1) * bytes) / n);

/** Bytes that each of n ranks sends in a ring all-gather of its part. */
export const gathered = (bytes, n) => (n - 1) * bytes;

/** The part of `length` things that a rank has: [first, end). */
export const cut = (length, rank, n) => [Math.floor((length * rank) / n), Math.floor((length * (rank + 1)) / n)];

/** What one rank does for `tokens` rows: of one matrix [inner, outer], or with "both" also of one back, [outer, inner]. */
export function work({ tokens, inner, outer, width }, how, rank, n) {
  const [start, end] = how === "rows" ? cut(inner, rank, n) : cut(outer, rank, n), part = end - start;
  const held = how === "rows" ? part * outer : inner * part * (how === "both" ? 2 : 1);
  const sent = how === "columns" ? gathered(width * tokens * part, n)
    : reduced(width * tokens * (how === "rows" ? outer : inner), n);
  return { start, end, held, products: tokens * held, sent };
}

/** Which micro-batch is at each stage in each slot of time: rows of [micro-batch, step] or null.
 *  A micro-batch enters again when its tokens have come out of the last stage. */
export function timeline(stages, micro, slots) {
  const turn = Math.max(stages, micro);
  return Array.from({ length: stages }, (_, stage) => Array.from({ length: slots }, (_, slot) => {
    const at = slot - stage, which = at % turn;
    return at < 0 || which >= micro ? null : [which, Math.floor(at / turn)];
  }));
}
