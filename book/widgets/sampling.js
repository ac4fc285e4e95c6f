// Choosing the next token as chapter 10 does (tinyllm/engine/sampling.py): the same order of filters and
// the same noise, so that a seed gives in the page the tokens that it gives in Python.

const high32 = (a, b) => { // the upper half of a 32-bit product
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const low = a0 * b0, middle = a1 * b0 + (low >>> 16), other = a0 * b1 + (middle & 0xffff);
  return (a1 * b1 + Math.floor(middle / 0x10000) + Math.floor(other / 0x10000)) >>> 0;
};

/** Four 32-bit words for a counter of four and a key of two: Philox4x32-10 (Salmon et al. 2011). */
export function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const high0 = high32(c0, 0xd2511f53), low0 = Math.imul(c0, 0xd2511f53) >>> 0;
    const high1 = high32(c2, 0xcd9e8d57), low1 = Math.imul(c2, 0xcd9e8d57) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Gumbel noise for each of `size` token ids: a pure function of seed, output index and purpose. */
export function gumbelNoise(seed, outputIndex, size, purpose = 0) {
  const whole = BigInt.asUintN(64, BigInt(seed)), noise = new Float32Array(size);
  const key = [Number(whole & 0xffffffffn), Number(whole >> 32n)];
  for (let first = 0; first < size; first += 4) {
    philox([first >>> 2, outputIndex, purpose, 0], key).forEach((word, i) => {
      const u = Math.min(Math.fround((2 * word + 1) * 2 ** -33), 1 - 2 ** -24);
      if (first + i < size) noise[first + i] = -Math.log(-Math.log1p(-u));
    });
  }
  return noise;
}

/** Id of the largest entry; the lowest id among equals. */
export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Positive numbers that add up to one. */
export function softmax(values) {
  let largest = -Infinity, sum = 0;
  for (const value of values) if (value > largest) largest = value;
  const out = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) sum += out[i] = Math.exp(values[i] - largest);
  for (let i = 0; i < values.length; i++) out[i] /= sum;
  return out;
}

/**
 * The logits whose softmax is drawn from: temperature, then min-p, then top-k and top-p, as in vLLM.
 * What is out becomes -Infinity. topK 0 and topP 1 are off.
 */
export function filterLogits(logits, { temperature = 1, topK = 0, topP = 1, minP = 0 } = {}) {
  const out = Float32Array.from(logits, (value) => value / temperature);
  if (minP > 0) {
    const least = out[argmax(out)] + Math.log(minP);
    out.forEach((value, i) => { if (value < least) out[i] = -Infinity; });
  }
  const kept = topK > 0 ? Math.min(topK, out.length) : out.length;
  if (kept === out.length && topP >= 1) return out;
  const order = Array.from(out.keys()).sort((a, b) => out[b] - out[a] || a - b);
  const kth = out[order[kept - 1]];
  for (const id of order) if (out[id] < kth) out[id] = -Infinity;
  if (topP < 1) {
    const shares = softmax(out);
    let before = 0;
    order.forEach((id, place) => {
      if (place && before >= topP) out[id] = -Infinity;
      before += shares[id];
    });
  }
  return out;
}

/** The next token: the argmax of filtered logits plus noise, or of the logits where temperature is 0. */
export function sample(logits, { temperature = 1, seed = 0, outputIndex = 0, ...filters } = {}) {
  if (temperature === 0) return argmax(logits);
  const kept = filterLogits(logits, { temperature, ...filters });
  const noise = gumbelNoise(seed, outputIndex, kept.length);
  return argmax(kept.map((value, i) => value + noise[i]));
}
