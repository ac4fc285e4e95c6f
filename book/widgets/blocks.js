// Blocks and who holds them, as in chapter 15 (tinyllm/engine/blocks.py). A test compares the two on random
// sequences of operations.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/** Blocks 1 to `numBlocks`: how often each is held, and which are free. `onEvict(block, hash)` is called when content is lost. */
export class BlockPool {
  constructor(numBlocks, onEvict = () => {}) {
    [this.numBlocks, this.onEvict] = [numBlocks, onEvict];
    this.refCounts = new Array(numBlocks + 1).fill(0);
    this.freeBlockQueue = Array.from({ length: numBlocks }, (_, i) => i + 1); // first to be given out first
    this.blockHashes = new Map();
    this.fenced = []; // [last step that may touch them, blocks]
    this.stepsDone = 0;
  }

  /** Take n free blocks; their content is lost. The caller knows that n are free. */
  getNewBlocks(n) {
    const taken = this.freeBlockQueue.splice(0, n);
    for (const block of taken) {
      this.refCounts[block] = 1;
      const hash = this.blockHashes.get(block);
      if (hash === undefined) continue;
      this.blockHashes.delete(block);
      this.onEvict(block, hash);
    }
    return taken;
  }

  /** Hold these blocks once more. Free ones leave the queue, content and hash kept. */
  touch(blocks) {
    for (const block of blocks) {
      if (this.refCounts[block] === 0) this.freeBlockQueue.splice(this.freeBlockQueue.indexOf(block), 1);
      this.refCounts[block] += 1;
    }
  }

  /** Release each block once, as soon as step `fence` is over. */
  freeBlocks(blocks, fence = -1) {
    if (fence > this.stepsDone) {
      this.fenced.push([fence, [...blocks]]);
      return;
    }
    for (const block of [...blocks].reverse()) {
      if (this.refCounts[block] === 0) throw new RangeError(`block ${block} is freed, but nobody holds it`);
      this.refCounts[block] -= 1;
      if (this.refCounts[block] > 0) continue;
      if (this.blockHashes.has(block)) this.freeBlockQueue.push(block);
      else this.freeBlockQueue.unshift(block);
    }
  }

  /** Step `step` and all before it are over: what was fenced by them is let go. */
  finishStep(step) {
    this.stepsDone = Math.max(step, this.stepsDone);
    while (this.fenced.length && this.fenced[0][0] <= this.stepsDone) this.freeBlocks(this.fenced.shift()[1]);
  }
}

/** Requests that run, with the table of each: what a scheduler does with a pool, without a model. */
export class Tenants {
  constructor(numBlocks, blockSize) {
    [this.pool, this.blockSize, this.step] = [new BlockPool(numBlocks), blockSize, 0];
    this.running = new Map(); // name -> {tokens, blocks}
  }

  blocksFor(tokens) { return Math.ceil(tokens / this.blockSize); }

  /** How many blocks a fork shares: the full ones, but never the one with the last token, which is computed again. */
  shareable(tokens) { return Math.floor((tokens - 1) / this.blockSize); }

  /** Each of these says whether there was room; without room nothing changes. */
  add(name, tokens) { return this.enter(name, tokens, []); }

  fork(name, copy) {
    const { tokens, blocks } = this.running.get(name);
    return this.enter(copy, tokens, blocks.slice(0, this.shareable(tokens)));
  }

  enter(name, tokens, shared) {
    const more = this.blocksFor(tokens) - shared.length;
    if (more > this.pool.freeBlockQueue.length) return false;
    this.pool.touch(shared);
    this.running.set(name, { tokens, blocks: [...shared, ...this.pool.getNewBlocks(more)] });
    return true;
  }

  grow(name, tokens) {
    const request = this.running.get(name), more = this.blocksFor(request.tokens + tokens) - request.blocks.length;
    if (more > this.pool.freeBlockQueue.length) return false;
    request.blocks.push(...this.pool.getNewBlocks(more));
    request.tokens += tokens;
    return true;
  }

  /** It has ended, and no step under way has it: its blocks come back at once. */
  finish(name) { this.leave(name, -1); }

  /** It is stopped while a step may be at work on it: its blocks come back when that step is over. */
  abort(name) { this.leave(name, this.step); }

  leave(name, fence) {
    this.pool.freeBlocks(this.running.get(name).blocks, fence);
    this.running.delete(name);
  }

  /** The step under way is over; the next is sent off with one more token for everyone. Returns who had no room. */
  advance(longest = Infinity) {
    this.pool.finishStep(this.step);
    this.step += 1;
    return Array.from(this.running).filter(([name, { tokens }]) => tokens < longest && !this.grow(name, 1)).map(([name]) => name);
  }

  /** A letter that is not in use, the next one after the last if possible. */
  freeName(last) {
    const order = LETTERS.slice(LETTERS.indexOf(last) + 1) + LETTERS;
    return Array.from(order).find((letter) => !this.running.has(letter));
  }

  /** All of it as plain data, in the form that `tl-paged` draws. */
  get state() {
    const { pool } = this;
    return {
      block_size: this.blockSize, num_blocks: pool.numBlocks, step: this.step, counts: [...pool.refCounts],
      idle: [...pool.freeBlockQueue], fenced: pool.fenced.map(([step, blocks]) => [step, [...blocks]]),
      requests: Array.from(this.running, ([name, { tokens, blocks }]) => ({ name, tokens, blocks: [...blocks] })),
    };
  }
}

/** What a state says of each block and of the whole: owners, filled places, fences, and how many places are in use. */
export function survey({ block_size: size, num_blocks: count, numbers, counts, idle, fenced = [], requests }) {
  const drawn = numbers ?? Array.from({ length: count }, (_, i) => i + 1);
  const byNumber = new Map(drawn.map((number) => [number, { number, count: counts[number] ?? 0, owners: [], filled: 0, fence: 0 }]));
  const blocks = [...byNumber.values()], set = (number, key, value) => { if (byNumber.has(number)) byNumber.get(number)[key] = value; };
  requests.forEach(({ tokens, blocks: table }, owner) => table.forEach((number, i) => {
    const block = byNumber.get(number);
    if (!block) return;
    block.owners.push(owner);
    block.filled = Math.max(block.filled, Math.min(size, Math.max(0, tokens - i * size)));
  }));
  for (const [step, of] of fenced) for (const number of of) set(number, "fence", step);
  const held = blocks.filter(({ owners }) => owners.length), line = idle ?? blocks.filter(({ count: n }) => !n).map(({ number }) => number);
  line.forEach((number, i) => set(number, "place", i));
  return {
    blocks, handedOut: held.length * size, next: line[0],
    stored: held.reduce((sum, { filled }) => sum + filled, 0), shared: held.filter(({ owners }) => owners.length > 1).length,
    tokens: requests.reduce((sum, { tokens }) => sum + tokens, 0),
  };
}
