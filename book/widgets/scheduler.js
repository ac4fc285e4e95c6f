// The scheduler of chapter 17, for pages: the same steps as tinyllm/engine/scheduler.py at depth 0, which a
// test checks on random requests. Requests here have no stop tokens and no siblings, and nobody aborts.

/** Blocks 1 to n: how often each is held, the queue of free ones, and the hashes of full ones. */
class Pool {
  constructor(numBlocks) {
    this.refCounts = Array(numBlocks + 1).fill(0);
    this.freeBlockQueue = Array.from({ length: numBlocks }, (_, i) => i + 1); // first to be given out first
    this.blockHashes = new Map(); // block -> hash
    this.blocks = new Map(); // hash -> block: the prefix cache
  }

  getNewBlocks(n) {
    const taken = this.freeBlockQueue.splice(0, n);
    for (const block of taken) {
      this.refCounts[block] = 1;
      if (this.blockHashes.has(block)) {
        this.blocks.delete(this.blockHashes.get(block));
        this.blockHashes.delete(block);
      }
    }
    return taken;
  }

  touch(blocks) {
    for (const block of blocks) {
      if (this.refCounts[block] === 0) this.freeBlockQueue.splice(this.freeBlockQueue.indexOf(block), 1);
      this.refCounts[block]++;
    }
  }

  freeBlocks(blocks) {
    for (const block of [...blocks].reverse()) {
      if (--this.refCounts[block] > 0) continue;
      if (this.blockHashes.has(block)) this.freeBlockQueue.push(block);
      else this.freeBlockQueue.unshift(block);
    }
  }

  register(block, hash) {
    if (this.blocks.has(hash)) return;
    this.blocks.set(hash, block);
    this.blockHashes.set(block, hash);
  }
}

export class Scheduler {
  constructor({ numBlocks, blockSize = 16, maxNumSeqs, budget, policy = "fcfs", prefixCaching = true, chunked = true }) {
    Object.assign(this, { blockSize, maxNumSeqs, budget, policy, prefixCaching, chunked });
    [this.pool, this.numBlocks, this.waiting, this.running, this.arrivals] = [new Pool(numBlocks), numBlocks, [], [], 0];
    this.links = new Map(); // what a name is made of -> the name: numbers will do here, the engine hashes
  }

  /** A request: {name, prompt: [ids], maxTokens, priority}. An Error at once if it could never run. */
  add({ name, prompt, maxTokens, priority = 0 }) {
    if (!prompt.length) throw Error("the prompt is empty");
    if (prompt.length + maxTokens - 1 > this.numBlocks * this.blockSize) throw Error(`${name} can never fit`);
    const request = {
      name, priority, maxTokens, promptLength: prompt.length, tokens: [...prompt], end: prompt.length + maxTokens,
      computed: 0, table: [], named: 0, chain: [], preemptions: 0, found: 0, arrival: this.arrivals++, done: false,
    };
    this.wait(request);
    return request;
  }

  before(a, b) { return (this.policy === "priority" ? a.priority - b.priority : 0) || a.arrival - b.arrival; }
  wait(request) { this.waiting.push(request); this.waiting.sort((a, b) => this.before(a, b)); }
  missing(request, tokens) { return Math.max(Math.ceil(tokens / this.blockSize) - request.table.length, 0); }
  grow(request, count) { request.table.push(...this.pool.getNewBlocks(count)); }

  /** The names of the request's first `count` blocks; each stands for all tokens up to its end. */
  chain({ chain, tokens }, count) {
    const size = this.blockSize;
    for (let i = chain.length; i < count; i++) {
      const link = `${chain[i - 1] ?? ""}|${tokens.slice(i * size, (i + 1) * size)}`;
      if (!this.links.has(link)) this.links.set(link, this.links.size);
      chain.push(this.links.get(link));
    }
    return chain.slice(0, count);
  }

  lookup(names) {
    const missed = names.findIndex((name) => !this.pool.blocks.has(name));
    return (missed < 0 ? names : names.slice(0, missed)).map((name) => this.pool.blocks.get(name));
  }

  cacheBlocks(request) {
    if (!this.prefixCaching) return;
    const full = Math.floor(Math.min(request.computed, request.tokens.length) / this.blockSize);
    const names = this.chain(request, full);
    for (; request.named < full; request.named++) this.pool.register(request.table[request.named], names[request.named]);
  }

  free(request) {
    this.cacheBlocks(request);
    this.pool.freeBlocks(request.table);
    Object.assign(request, { table: [], computed: 0, named: 0 });
  }

  /** Who computes how many tokens: those that want one first, then in order, each what is left. */
  shareTokenBudget() {
    const wants = this.running.map((request) => [request, request.tokens.length - request.computed]);
    let left = this.budget;
    return [...wants.filter(([, want]) => want <= 1), ...wants.filter(([, want]) => want > 1)].map(([request, want]) => {
      const count = Math.min(want, left);
      left -= count;
      return [request, count];
    }).filter(([, count]) => count > 0);
  }

  /** Blocks for these tokens; where there are too few, the last running request is preempted. */
  allocateOrPreempt(shares) {
    const needs = new Map(shares.map(([request, count]) => [request, this.missing(request, request.computed + count)]));
    const enough = [...needs.values()].reduce((a, b) => a + b, 0) <= this.pool.freeBlockQueue.length;
    if (enough) {
      for (const [request, need] of needs) this.grow(request, need);
      return { served: shares, preempted: [] };
    }
    const preempted = [], served = new Set();
    for (const request of [...this.running]) {
      if (!needs.has(request)) continue;
      while (!preempted.includes(request) && needs.get(request) > this.pool.freeBlockQueue.length) {
        const victim = this.running.pop();
        this.free(victim);
        preempted.push(victim);
      }
      if (preempted.includes(request)) continue;
      this.grow(request, needs.get(request));
      served.add(request);
    }
    for (const victim of preempted) {
      victim.preemptions++;
      this.wait(victim);
    }
    return { served: shares.filter(([request]) => served.has(request)), preempted };
  }

  /** Let waiting requests in, in order, while there is room for all that the next one brings. */
  admit(budget) {
    const admitted = [];
    while (budget > 0 && this.running.length < this.maxNumSeqs && this.waiting.length) {
      const [request] = this.waiting, length = request.tokens.length;
      const shared = this.prefixCaching ? this.lookup(this.chain(request, Math.floor((length - 1) / this.blockSize))) : [];
      const todo = length - shared.length * this.blockSize;
      const room = this.pool.freeBlockQueue.length - shared.filter((block) => this.pool.refCounts[block] === 0).length;
      if (Math.ceil(length / this.blockSize) - shared.length > room || (todo > budget && !this.chunked)) break;
      const count = Math.min(todo, budget);
      budget -= count;
      this.waiting.shift();
      this.pool.touch(shared);
      Object.assign(request, { table: [...shared], named: shared.length, found: length - todo, computed: length - todo + count });
      this.grow(request, this.missing(request, request.computed));
      this.cacheBlocks(request);
      this.running.push(request);
      this.running.sort((a, b) => this.before(a, b));
      admitted.push([request, count]);
    }
    return admitted;
  }

  /** The next step as [{request, start, count, samples, found}], single tokens first; null when nobody can do anything. */
  schedule() {
    const { served, preempted } = this.allocateOrPreempt(this.shareTokenBudget());
    for (const [request, count] of served) request.computed += count;
    for (const [request] of served) this.cacheBlocks(request);
    const left = this.budget - served.reduce((sum, [, count]) => sum + count, 0);
    const admitted = preempted.length ? [] : this.admit(left);
    if (!served.length && !admitted.length) return null;
    const part = (isNew) => ([request, count]) => ({
      request, count, start: request.computed - count, samples: request.computed === request.tokens.length, found: isNew ? request.found : 0, isNew,
    });
    const parts = [...served.map(part(false)), ...admitted.map(part(true))];
    return { parts: [...parts.filter(({ count }) => count === 1), ...parts.filter(({ count }) => count > 1)], preempted };
  }

  /** Take in the sampled tokens; those who have all they asked for leave. */
  update({ parts }, nextToken) {
    const ended = [];
    for (const { request } of parts.filter(({ samples }) => samples)) {
      request.tokens.push(nextToken(request.tokens));
      if (request.tokens.length >= request.end) ended.push(request);
    }
    for (const request of ended) {
      this.free(request);
      request.done = true;
    }
    this.running = this.running.filter(({ done }) => !done);
  }
}

/** Some token after these, the same on every machine. */
export const someToken = (tokens) => (3 * tokens.reduce((a, b) => a + b, 0) + tokens.length) % 23;

/**
 * Run requests, each with `at`: when it comes. A step of T tokens takes cost(T). Returns the steps,
 * each {from, to, parts: [{name, start, count, samples, found}], preempted, waiting: [names], idle}.
 */
export function simulate(options, requests, cost = () => 1, { until = Infinity, nextToken = someToken } = {}) {
  const scheduler = new Scheduler(options), steps = [], coming = [...requests].sort((a, b) => a.at - b.at);
  let clock = 0, again = true;
  while (clock < until && (coming.length || scheduler.waiting.length || scheduler.running.length)) {
    while (coming.length && coming[0].at <= clock + 1e-9) scheduler.add(coming.shift());
    const plan = scheduler.schedule();
    if (!plan) {
      if (scheduler.waiting.length && again) again = false; // somebody has given way, and may come in now
      else if (coming.length) clock = coming[0].at;
      else break;
      continue;
    }
    again = true;
    const tokens = plan.parts.reduce((sum, { count }) => sum + count, 0), to = clock + cost(tokens);
    steps.push({
      from: clock, to, tokens,
      parts: plan.parts.map(({ request, ...rest }) => ({ name: request.name, ...rest })),
      preempted: plan.preempted.map(({ name }) => name), waiting: scheduler.waiting.map(({ name }) => name), idle: scheduler.pool.freeBlockQueue.length,
    });
    scheduler.update(plan, nextToken);
    clock = to;
  }
  return steps;
}
