// The arithmetic of chapter 13 (tinyllm/measure/roofline.py): what an operation computes, and how many
// bytes cross each border of the memory hierarchy. A test runs both on the same inputs.
//
// tiles: {tile, queries, instruction}, TILE, QUERIES and INSTRUCTION of the Python module.
// config: the fields of ModelConfig. chip: {bandwidth, l2_bandwidth, shared_bandwidth, rate}.

const NOTHING = { flops: 0, read: 0, written: 0, l2: 0, shared: 0 };
const WIDTH = 2; // bytes of a number in bfloat16

export const add = (a, b) => Object.fromEntries(Object.keys(NOTHING).map((key) => [key, a[key] + b[key]]));
export const times = (a, n) => Object.fromEntries(Object.keys(NOTHING).map((key) => [key, a[key] * n]));
export const total = (parts) => Object.values(parts).reduce(add, NOTHING);
export const bytes = (work) => work.read + work.written;

/** [rows, inner] inputs times [inner, columns] weights. */
export function matmul(tiles, rows, inner, columns, activations = true) {
  const weights = WIDTH * inner * columns, inputs = WIDTH * rows * inner, results = WIDTH * rows * columns;
  const across = Math.ceil(columns / tiles.tile);
  return {
    flops: 2 * rows * inner * columns,
    read: weights + (activations ? inputs : 0),
    written: activations ? results : 0,
    l2: weights * Math.ceil(rows / tiles.tile) + inputs * across + results,
    shared: weights * Math.ceil(rows / tiles.instruction) + inputs * across,
  };
}

/** One layer's attention for one request: `fresh` tokens at the end of `context`, themselves included. */
export function attention(tiles, fresh, context, config, activations = true) {
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: size } = config;
  const kv = 2 * kvHeads * size * WIDTH, queries = WIDTH * fresh * heads * size;
  const looked = fresh * (context - fresh) + (fresh * (fresh + 1)) / 2;
  const rows = Math.floor((fresh * heads) / kvHeads), seen = (kv * looked) / Math.max(fresh, 1);
  return {
    flops: 4 * heads * size * looked,
    read: kv * (context - fresh) + (activations ? queries : 0),
    written: kv * fresh + (activations ? queries : 0),
    l2: seen * Math.ceil(rows / tiles.queries) + 2 * queries,
    shared: seen * Math.ceil(rows / tiles.instruction) + queries,
  };
}

/** Each part's work in one step, all layers together; requests: [[new tokens, length with them, how many such]]. */
export function step(tiles, config, requests) {
  const { hidden_size: d, intermediate_size: f, num_hidden_layers: layers, vocab_size: vocabulary } = config;
  const queries = config.num_attention_heads * config.head_dim, keys = config.num_key_value_heads * config.head_dim;
  const tokens = requests.reduce((sum, [fresh, , many]) => sum + fresh * many, 0);
  const sampled = requests.reduce((sum, [, , many]) => sum + many, 0);
  const product = (rows, inner, columns) => matmul(tiles, rows, inner, columns, false);
  const attended = requests.map(([fresh, context, many]) => times(attention(tiles, fresh, context, config, false), many));
  const passed = WIDTH * tokens * d;
  return {
    embedding: { ...NOTHING, read: passed, l2: passed, shared: passed },
    qkv: times(product(tokens, d, queries + 2 * keys), layers),
    attention: times(attended.reduce(add, NOTHING), layers),
    output: times(product(tokens, queries, d), layers),
    "gate and up": times(product(tokens, d, 2 * f), layers),
    down: times(product(tokens, f, d), layers),
    head: product(sampled, d, vocabulary),
  };
}

/** The least time that parts, one after the other, can take. */
export function seconds(parts, chip) {
  return Object.values(parts).reduce((sum, part) => sum + Math.max(bytes(part) / chip.bandwidth, part.flops / chip.rate), 0);
}
