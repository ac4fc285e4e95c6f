// Byte-level byte-pair encoding, as in chapter 2 (tinyllm/model/tokenizer.py). A test compares the two
// on random text of any Unicode.
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // U+FEFF is a character like any other

const escape = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** Pairs of ids from base64: 16 bits an id, the low byte first. */
export function unpackMerges(base64) {
  const text = atob(base64), pairs = [];
  const id = (at) => text.charCodeAt(at) | (text.charCodeAt(at + 1) << 8);
  for (let at = 0; at < text.length; at += 4) pairs.push([id(at), id(at + 2)]);
  return pairs;
}

export class BPE {
  /**
   * merges: pairs of ids in the order learned, or the same packed (`tinybook.pack_merges`).
   * specialTokens: texts of the ids from 0; then come the 256 bytes; then one id a merge.
   * pattern: the regular expression that cuts text into pieces, PATTERN of chapter 2 as it stands.
   */
  constructor({ merges, special_tokens: specialTokens, pattern }) {
    this.merges = typeof merges === "string" ? unpackMerges(merges) : merges;
    this.firstByte = specialTokens.length;
    this.firstMerge = this.firstByte + 256;
    this.vocabSize = this.firstMerge + this.merges.length;
    this.specials = new Map(specialTokens.map((text, id) => [text, id]));
    this.bytes = specialTokens.map((text) => encoder.encode(text));
    for (let byte = 0; byte < 256; byte++) this.bytes.push(Uint8Array.of(byte));
    this.merged = new Map();
    this.merges.forEach(([a, b], i) => {
      this.merged.set(this.key(a, b), this.firstMerge + i);
      this.bytes.push(Uint8Array.of(...this.bytes[a], ...this.bytes[b]));
    });
    this.pattern = new RegExp(pattern, "gu"); // u: code points, not halves of them
    const names = [...specialTokens].sort((a, b) => b.length - a.length).map(escape);
    this.splitter = new RegExp(`(${names.join("|") || "(?!)"})`, "u");
    this.known = new Map();
  }

  key(a, b) { return a * 65536 + b; }

  /** The text cut up, nothing merged: [{text, special}], whose texts joined are `text`. */
  pieces(text, allowSpecial = true) {
    const found = [];
    const parts = allowSpecial ? text.split(this.splitter) : [text];
    parts.forEach((part, i) => {
      if (i % 2) found.push({ text: part, special: true });
      else for (const piece of part.match(this.pattern) ?? []) found.push({ text: piece, special: false });
    });
    return found;
  }

  /** Every state of a piece from its bytes to its tokens: [{ids, pair, made}], pair and made unset in the first. */
  steps(piece) {
    let ids = Array.from(encoder.encode(piece), (byte) => this.firstByte + byte);
    const states = [{ ids }];
    for (;;) {
      let made = Infinity, pair;
      for (let i = 0; i + 1 < ids.length; i++) {
        const id = this.merged.get(this.key(ids[i], ids[i + 1]));
        if (id < made) [made, pair] = [id, [ids[i], ids[i + 1]]];
      }
      if (!pair) return states;
      ids = mergePair(ids, pair, made);
      states.push({ ids, pair, made });
    }
  }

  /** The ids of one piece. */
  encodePiece(piece) {
    if (!this.known.has(piece)) {
      if (this.known.size > 10_000) this.known.clear();
      this.known.set(piece, this.steps(piece).pop().ids);
    }
    return this.known.get(piece);
  }

  /** The ids of `text`. Half of a surrogate pair is read as U+FFFD, which is what a page would send. */
  encode(text, allowSpecial = true) {
    return this.pieces(text, allowSpecial).flatMap((piece) =>
      piece.special ? [this.specials.get(piece.text)] : this.encodePiece(piece.text));
  }

  /** The bytes that a token stands for. */
  bytesOf(id) {
    if (!(id in this.bytes)) throw new RangeError(`token id ${id} is outside the vocabulary, 0 to ${this.vocabSize - 1}`);
    return this.bytes[id];
  }

  /** The text of `ids`. Bytes that are not UTF-8 become U+FFFD, the replacement character. */
  decode(ids) {
    return decoder.decode(Uint8Array.from(ids.flatMap((id) => [...this.bytesOf(id)])));
  }

  /** The pair that was merged into `id`; null for a byte or a special token. */
  partsOf(id) { return id < this.firstMerge ? null : this.merges[id - this.firstMerge]; }
}

/** Replace every `pair` in `ids`, from left to right, by `made`. */
function mergePair(ids, [a, b], made) {
  const out = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === a && ids[i + 1] === b) { out.push(made); i++; } else out.push(ids[i]);
  }
  return out;
}
