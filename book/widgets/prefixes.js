// Names of blocks and who finds them again, as in chapter 16 (tinyllm/engine/prefix.py). A test compares digests and
// whole histories with the Python.
import { BlockPool } from "./blocks.js";

const encoder = new TextEncoder();

// SHA-256, FIPS 180-4. The browser's own is asynchronous, and missing on some pages.
const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((p) => n % p)) PRIMES.push(n);

/** The first 32 bits of the fractional part of a root, by whole-number arithmetic. */
function fraction(n, power) {
  const target = BigInt(n) << BigInt(32 * power);
  let low = 0n, high = 1n << 40n;
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** BigInt(power) <= target) low = middle; else high = middle;
  }
  return Number(low & 0xffffffffn);
}

const START = PRIMES.slice(0, 8).map((p) => fraction(p, 2)), ROUND = PRIMES.map((p) => fraction(p, 3));
const rotate = (x, n) => (x >>> n) | (x << (32 - n));

/** 32 bytes from any bytes. */
export function sha256(bytes) {
  const padded = new Uint8Array((((bytes.length + 8) >> 6) + 1) << 6), view = new DataView(padded.buffer);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, (bytes.length << 3) >>> 0);
  const state = Int32Array.from(START), w = new Int32Array(64);
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15], b = w[i - 2];
      w[i] = (w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ (a >>> 3)) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ (b >>> 10))) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const one = (h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + ROUND[i] + w[i]) | 0;
      const two = ((rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => { state[i] = (state[i] + word) | 0; });
  }
  const digest = new Uint8Array(32), out = new DataView(digest.buffer);
  state.forEach((word, i) => out.setInt32(4 * i, word));
  return digest;
}

export const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

function joined(first, second) {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

/** The name before the first block; requests with different salts never share one. */
export function firstLink(salt) {
  return sha256(encoder.encode(salt == null ? "" : `salt ${salt}`));
}

/** Names, as hex, of the first `count` blocks of these ids. */
export function chain(ids, count, blockSize, salt) {
  const names = [];
  let name = firstLink(salt);
  for (let i = 0; i < count; i++) {
    const bytes = new Uint8Array(4 * blockSize), view = new DataView(bytes.buffer);
    for (let j = 0; j < blockSize; j++) view.setInt32(4 * j, ids[i * blockSize + j], true);
    name = sha256(joined(name, bytes));
    names.push(hexOf(name));
  }
  return names;
}

/** From the name of a full block to a block that holds it: one block a name, one name a block. */
export class PrefixCache {
  constructor() {
    this.blocks = new Map();
    this.queries = this.hits = this.evictions = 0;
  }

  lookup(names) {
    const found = [];
    for (const name of names) {
      if (!this.blocks.has(name)) break;
      found.push(this.blocks.get(name));
    }
    return found;
  }

  register(pool, block, hash) {
    if (this.blocks.has(hash)) return;
    this.blocks.set(hash, block);
    pool.blockHashes.set(block, hash);
  }

  forget(block, hash) {
    this.blocks.delete(hash);
    this.evictions += 1;
  }
}

/** An engine that serves one request after the other: prompts in, found and forgotten blocks out. */
export class Server {
  constructor(numBlocks, blockSize) {
    this.blockSize = blockSize;
    [this.cache, this.forgotten] = [new PrefixCache(), []];
    this.pool = new BlockPool(numBlocks, (block, name) => {
      this.forgotten.push({ block, name, ...this.contents.get(name) });
      this.cache.forget(block, name);
    });
    this.contents = new Map(); // name -> {ids, parent, salt}
  }

  /** What would be found of this prompt now: its last token is never asked for, since it must be computed. */
  look(ids, salt) {
    const size = this.blockSize, names = chain(ids, Math.floor(ids.length / size), size, salt);
    return { names, found: this.cache.lookup(names.slice(0, Math.floor((ids.length - 1) / size))) };
  }

  /** Serve a prompt and one token after it. Null when it has more tokens than the cache has places. */
  serve(ids, salt) {
    const { blockSize: size, pool, cache } = this, { names, found } = this.look(ids, salt);
    const forgotten = this.forgotten = [];
    if (Math.ceil(ids.length / size) > pool.numBlocks) return null;
    pool.touch(found);
    const table = [...found, ...pool.getNewBlocks(Math.ceil(ids.length / size) - found.length)];
    for (const { name } of forgotten) this.contents.delete(name);
    names.forEach((name, i) => {
      cache.register(pool, table[i], name);
      this.contents.set(name, { ids: ids.slice(i * size, (i + 1) * size), parent: names[i - 1] ?? null, salt: salt ?? null });
    });
    cache.queries += ids.length;
    cache.hits += found.length * size;
    pool.freeBlocks(table);
    return { names, table, found: found.length, computed: ids.length - found.length * size, forgotten };
  }
}
