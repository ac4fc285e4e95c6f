// Fable, the book's model, in the reader's browser: the whole Llama architecture (RMSNorm, rotary
// positions, grouped-query attention, SwiGLU, a head tied to the embedding) in plain JavaScript.
//
//   const fable = await loadFable({ onProgress: (share) => … });
//   const session = fable.start({ attention: true, hidden: true });   // what to remember
//   const logits = await session.read(fable.tokenizer.encode("Once upon a time"));
//   session.step(argmax(logits));                                      // logits of the next token
//   session.weights(4, 3);                                             // who looked at whom, by layer and head
//   fable.start({ neurons: true, without: [2] });                      // gates and ups; a text read without the third layer
//
// Weights arrive as int8 with one scale a row (book/press/weights.py) and become float32 once. Sums run
// in double precision, which is what JavaScript has; activations are float32.
import { BPE } from "./bpe.js";
import { sample, softmax } from "./sampling.js";

export { argmax, filterLogits, gumbelNoise, sample, softmax } from "./sampling.js";

export const FABLE_SIZE = 8.9; // MB of all scripts together; a test weighs them
const QUEUE = "tinyllmFable";
const ROWS = 8; // rows of a matrix that are multiplied side by side
const SLICE = 8; // tokens that go through all layers together
const PATIENCE = 12; // ms of work before the page may paint

// ---- matrices ----

/**
 * Rows in groups of eight, column by column: the eight numbers that one entry of x is multiplied with
 * lie together in memory. Twice as fast as row after row.
 */
export class Matrix {
  constructor(bytes, scales, rows, cols) {
    if (rows % ROWS) throw new Error(`a matrix of ${rows} rows cannot be cut into groups of ${ROWS}`);
    [this.rows, this.cols, this.packed] = [rows, cols, new Float32Array(rows * cols)];
    for (let row = 0, at = 0; row < rows; row++) {
      const scale = scales[row];
      let to = (row - (row % ROWS)) * cols + (row % ROWS);
      for (let col = 0; col < cols; col++, at++, to += ROWS) this.packed[to] = bytes[at] * scale;
    }
  }

  /** One row, as for an embedding. */
  row(index, out, at = 0) {
    const { packed, cols } = this;
    let from = (index - (index % ROWS)) * cols + (index % ROWS);
    for (let col = 0; col < cols; col++, from += ROWS) out[at + col] = packed[from];
  }

  /** One column: what one entry of x adds. */
  column(index, out) {
    for (let row = 0; row < this.rows; row++) out[row] = this.packed[(row - (row % ROWS)) * this.cols + index * ROWS + (row % ROWS)];
  }

  /** out[t] = matrix · x[t] for `count` vectors laid end to end; added to what is there when `add`. */
  times(x, out, count = 1, add = false) {
    const { packed, rows, cols } = this;
    for (let row = 0; row < rows; row += ROWS) {
      for (let t = 0; t < count; t++) {
        let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, w = row * cols;
        for (let i = t * cols, end = i + cols; i < end; i++, w += ROWS) {
          const v = x[i];
          a += v * packed[w]; b += v * packed[w + 1]; c += v * packed[w + 2]; d += v * packed[w + 3];
          e += v * packed[w + 4]; f += v * packed[w + 5]; g += v * packed[w + 6]; h += v * packed[w + 7];
        }
        const to = t * rows + row;
        if (add) {
          out[to] += a; out[to + 1] += b; out[to + 2] += c; out[to + 3] += d;
          out[to + 4] += e; out[to + 5] += f; out[to + 6] += g; out[to + 7] += h;
        } else {
          out[to] = a; out[to + 1] = b; out[to + 2] = c; out[to + 3] = d;
          out[to + 4] = e; out[to + 5] = f; out[to + 6] = g; out[to + 7] = h;
        }
      }
    }
  }
}

function rmsNorm(x, weight, eps, out, count) {
  const size = weight.length;
  for (let t = 0, at = 0; t < count; t++, at += size) {
    let sum = 0;
    for (let i = 0; i < size; i++) sum += x[at + i] * x[at + i];
    const scale = 1 / Math.sqrt(sum / size + eps);
    for (let i = 0; i < size; i++) out[at + i] = x[at + i] * scale * weight[i];
  }
}

/** Turn each head of x (`count` tokens from position `start`) by its position, halves paired as in Llama. */
function rotate(x, heads, size, start, count, frequencies) {
  const half = size / 2;
  for (let t = 0; t < count; t++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround((start + t) * frequencies[i]), cos = Math.cos(angle), sin = Math.sin(angle);
      for (let h = 0, at = t * heads * size + i; h < heads; h++, at += size) {
        const a = x[at], b = x[at + half];
        x[at] = a * cos - b * sin;
        x[at + half] = b * cos + a * sin;
      }
    }
  }
}

/** A row of vectors that grows. */
class Rows {
  constructor(width) { [this.width, this.length, this.data] = [width, 0, new Float32Array(width * 32)]; }

  push(vectors, count) {
    const end = (this.length + count) * this.width;
    if (end > this.data.length) {
      const wider = new Float32Array(Math.max(end, 2 * this.data.length));
      wider.set(this.data.subarray(0, this.length * this.width));
      this.data = wider;
    }
    this.data.set(vectors.subarray(0, count * this.width), this.length * this.width);
    this.length += count;
  }

  at(index) { return this.data.subarray(index * this.width, (index + 1) * this.width); }
}

// ---- the model ----

export class Fable {
  /** config: that of Hugging Face; tensors: by name, a Matrix or a Float32Array; tokenizer: a BPE. */
  constructor(config, tensors, tokenizer) {
    [this.config, this.tokenizer] = [config, tokenizer];
    const take = (name) => {
      if (!tensors.has(name)) throw new Error(`the weights have no ${name}`);
      return tensors.get(name);
    };
    this.embedding = take("model.embed_tokens.weight");
    this.norm = take("model.norm.weight");
    this.head = config.tie_word_embeddings ? this.embedding : take("lm_head.weight");
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => {
      const part = (name) => take(`model.layers.${i}.${name}.weight`);
      return {
        inputNorm: part("input_layernorm"), middleNorm: part("post_attention_layernorm"),
        q: part("self_attn.q_proj"), k: part("self_attn.k_proj"), v: part("self_attn.v_proj"), o: part("self_attn.o_proj"),
        gate: part("mlp.gate_proj"), up: part("mlp.up_proj"), down: part("mlp.down_proj"),
      };
    });
    const size = config.head_dim;
    this.frequencies = Float32Array.from({ length: size / 2 }, (_, i) => config.rope_theta ** (-2 * i / size));
    const buffer = (width) => new Float32Array(SLICE * width);
    this.scratch = {
      x: buffer(config.hidden_size), normed: buffer(config.hidden_size), mixed: buffer(config.num_attention_heads * size),
      q: buffer(config.num_attention_heads * size), k: buffer(config.num_key_value_heads * size),
      v: buffer(config.num_key_value_heads * size), gate: buffer(config.intermediate_size), up: buffer(config.intermediate_size),
      share: new Float64Array(config.max_position_embeddings),
    };
  }

  /**
   * A new text. attention: remember queries, so that weights can be asked for; hidden: remember hidden
   * states; neurons: remember what the MLPs compute inside; without: layers that are left out.
   */
  start(how = {}) { return new Session(this, how); }

  /** Logits that the head reads from a hidden state of any layer: the final norm comes first. */
  readOut(hidden) {
    const normed = new Float32Array(hidden.length), logits = new Float32Array(this.config.vocab_size);
    rmsNorm(hidden, this.norm, this.config.rms_norm_eps, normed, 1);
    this.head.times(normed, logits);
    return logits;
  }

  /** What a neuron adds to every token's logit, for each unit of its activation, if later layers leave it as it is. */
  pushes(layer, neuron) {
    const { head, norm, config } = this, column = new Float32Array(config.hidden_size), logits = new Float32Array(config.vocab_size);
    this.layers[layer].down.column(neuron, column);
    for (let i = 0; i < column.length; i++) column[i] *= norm[i];
    head.times(column, logits);
    return logits;
  }

  /**
   * Continue `ids`, one token a turn. sampling: as for `sample`, with the seed; stops at the end-of-text
   * token, after maxTokens, at the end of the context, or when `signal` says so.
   */
  async *generate(ids, { maxTokens = 64, signal, ...sampling } = {}) {
    const session = this.start(), { max_position_embeddings: limit, eos_token_id: eos } = this.config;
    let logits = await session.read(ids, { signal }), since = performance.now();
    for (let index = 0; index < maxTokens && !signal?.aborted; index++) {
      const id = sample(logits, { temperature: 0, ...sampling, outputIndex: index });
      if ([eos].flat().includes(id)) return;
      yield id;
      if (index + 1 === maxTokens || session.length === limit) return;
      logits = session.step(id);
      if (performance.now() - since > PATIENCE) {
        await nextTurn();
        since = performance.now();
      }
    }
  }
}

/** One text on its way through the model, with its cache of keys and values. */
export class Session {
  constructor(model, { attention = false, hidden = false, neurons = false, without = [] }) {
    const { num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: groups, head_dim: size, hidden_size: width, intermediate_size: inner } = model.config;
    const rows = (count, wide) => Array.from({ length: count }, () => new Rows(wide));
    [this.model, this.ids, this.logits] = [model, [], null];
    [this.keys, this.values] = [rows(layers, groups * size), rows(layers, groups * size)];
    this.queries = attention ? rows(layers, heads * size) : null;
    this.states = hidden ? rows(layers + 1, width) : null;
    this.middles = hidden ? rows(layers, width) : null; // between a layer's attention and its MLP
    [this.gates, this.ups] = neurons ? [rows(layers, inner), rows(layers, inner)] : [null, null];
    this.without = new Set(without);
  }

  get length() { return this.ids.length; }

  /** Logits after one more token. */
  step(id) { return this.feed([id]); }

  /** Logits after these tokens, at once. For a long text see `read`. */
  feed(ids) {
    for (const slice of this.slices(ids)) this.forward(...slice);
    return this.logits;
  }

  /** The same, but the page stays alive meanwhile. onProgress gets the share that is done. */
  async read(ids, { onProgress, signal } = {}) {
    let since = performance.now(), done = 0;
    for (const slice of this.slices(ids)) {
      this.forward(...slice);
      done += slice[0].length;
      if (performance.now() - since > PATIENCE) {
        onProgress?.(done / ids.length);
        await nextTurn();
        since = performance.now();
      }
      if (signal?.aborted) break;
    }
    onProgress?.(1);
    return this.logits;
  }

  slices(ids) {
    const { vocab_size: size, max_position_embeddings: limit } = this.model.config;
    if (!ids.length) throw new RangeError("no tokens: give at least one");
    const odd = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= size);
    if (odd !== undefined) throw new RangeError(`token id ${odd} is outside the vocabulary, 0 to ${size - 1}`);
    if (this.length + ids.length > limit) throw new RangeError(`${this.length + ids.length} tokens are more than the context of ${limit}: shorten the text`);
    const slices = [];
    for (let at = 0; at < ids.length; at += SLICE) slices.push([ids.slice(at, at + SLICE), at + SLICE >= ids.length]);
    return slices;
  }

  /** Up to SLICE tokens through all layers; logits of the last one if wanted. */
  forward(ids, wanted) {
    const { model, model: { config, scratch } } = this, { x, normed, mixed, q, k, v, gate, up } = scratch;
    const { hidden_size: width, num_attention_heads: heads, num_key_value_heads: groups, head_dim: size, rms_norm_eps: eps } = config;
    const count = ids.length, start = this.length;
    ids.forEach((id, t) => model.embedding.row(id, x, t * width));
    this.states?.[0].push(x, count);
    model.layers.forEach((layer, l) => {
      if (this.without.has(l)) {
        this.middles?.[l].push(x, count);
        this.states?.[l + 1].push(x, count);
        return;
      }
      rmsNorm(x, layer.inputNorm, eps, normed, count);
      layer.q.times(normed, q, count);
      layer.k.times(normed, k, count);
      layer.v.times(normed, v, count);
      rotate(q, heads, size, start, count, model.frequencies);
      rotate(k, groups, size, start, count, model.frequencies);
      this.queries?.[l].push(q, count);
      this.keys[l].push(k, count);
      this.values[l].push(v, count);
      this.attend(l, start, count);
      layer.o.times(mixed, x, count, true);
      this.middles?.[l].push(x, count);

      rmsNorm(x, layer.middleNorm, eps, normed, count);
      layer.gate.times(normed, gate, count);
      layer.up.times(normed, up, count);
      this.gates?.[l].push(gate, count);
      this.ups?.[l].push(up, count);
      for (let i = 0; i < count * config.intermediate_size; i++) gate[i] *= up[i] / (1 + Math.exp(-gate[i]));
      layer.down.times(gate, x, count, true);
      this.states?.[l + 1].push(x, count);
    });
    this.ids.push(...ids);
    if (wanted) this.logits = model.readOut(x.subarray((count - 1) * width, count * width));
  }

  /** Causal attention of the last `count` tokens in layer l, from scratch.q into scratch.mixed. */
  attend(l, start, count) {
    const { config: { num_attention_heads: heads, num_key_value_heads: groups, head_dim: size }, scratch: { q, mixed, share } } = this.model;
    const keys = this.keys[l].data, values = this.values[l].data, wide = groups * size, scale = 1 / Math.sqrt(size);
    mixed.fill(0, 0, count * heads * size);
    for (let t = 0; t < count; t++) {
      const seen = start + t + 1;
      for (let head = 0; head < heads; head++) {
        const mine = (t * heads + head) * size, shared = Math.floor(head * groups / heads) * size;
        let largest = -Infinity, sum = 0, j = 0, at = shared;
        for (; j + 4 <= seen; j += 4, at += 4 * wide) { // four keys at a time: the query is read once for all
          const at1 = at + wide, at2 = at1 + wide, at3 = at2 + wide;
          let a = 0, b = 0, c = 0, d = 0;
          for (let i = 0; i < size; i++) {
            const number = q[mine + i];
            a += number * keys[at + i]; b += number * keys[at1 + i]; c += number * keys[at2 + i]; d += number * keys[at3 + i];
          }
          share[j] = a * scale; share[j + 1] = b * scale; share[j + 2] = c * scale; share[j + 3] = d * scale;
        }
        for (; j < seen; j++, at += wide) {
          let dot = 0;
          for (let i = 0; i < size; i++) dot += q[mine + i] * keys[at + i];
          share[j] = dot * scale;
        }
        for (j = 0; j < seen; j++) if (share[j] > largest) largest = share[j];
        for (j = 0; j < seen; j++) sum += share[j] = Math.exp(share[j] - largest);
        for (j = 0; j < seen; j++) share[j] /= sum;
        for (j = 0, at = shared; j + 4 <= seen; j += 4, at += 4 * wide) { // and four values
          const a = share[j], b = share[j + 1], c = share[j + 2], d = share[j + 3];
          const at1 = at + wide, at2 = at1 + wide, at3 = at2 + wide;
          for (let i = 0; i < size; i++) {
            mixed[mine + i] += a * values[at + i] + b * values[at1 + i] + c * values[at2 + i] + d * values[at3 + i];
          }
        }
        for (; j < seen; j++, at += wide) {
          const weight = share[j];
          for (let i = 0; i < size; i++) mixed[mine + i] += weight * values[at + i];
        }
      }
    }
  }

  /** Scores of a head before scale and mask, every token's query with every token's key: rows of Float32Array. */
  scores(layer, head) {
    if (!this.queries) throw new Error("start the session with {attention: true} to ask for scores");
    const { num_attention_heads: heads, num_key_value_heads: groups, head_dim: size } = this.model.config;
    const shared = Math.floor(head * groups / heads) * size;
    return this.ids.map((_, from) => {
      const query = this.queries[layer].at(from);
      return Float32Array.from(this.ids, (_, to) => {
        const key = this.keys[layer].at(to);
        let dot = 0;
        for (let i = 0; i < size; i++) dot += query[head * size + i] * key[shared + i];
        return dot;
      });
    });
  }

  /** Attention weights of a head as the model uses them: row i has a weight for each token up to i. */
  weights(layer, head) {
    return attentionWeights(this.scores(layer, head), { scale: 1 / Math.sqrt(this.model.config.head_dim) });
  }

  /** A token's hidden state after `layer` layers: 0 is its embedding. */
  hidden(layer, position) {
    if (!this.states) throw new Error("start the session with {hidden: true} to ask for hidden states");
    return this.states[layer].at(position);
  }

  /** The same in the middle of a layer: its attention has been added, its MLP has not. */
  middle(layer, position) { return this.middles[layer].at(position); }

  /** All neurons of a layer at a token: what the valve lets through of each gate, and the number of up. */
  neurons(layer, position) {
    if (!this.gates) throw new Error("start the session with {neurons: true} to ask for neurons");
    return { valve: this.gates[layer].at(position).map((gate) => gate / (1 + Math.exp(-gate))), up: this.ups[layer].at(position) };
  }
}

/** Rows of scores to rows of weights. Without the mask each row spreads over all tokens. */
export function attentionWeights(scores, { mask = true, scale = 1 } = {}) {
  return scores.map((row, i) => {
    const seen = mask ? row.slice(0, i + 1) : row, weights = new Float32Array(row.length);
    weights.set(softmax(Array.from(seen, (score) => score * scale)));
    return weights;
  });
}

// ---- loading ----

/** Let the page paint and take input. */
export function nextTurn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => { port1.close(); resolve(); };
    port2.postMessage(0);
  });
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** The model from what the scripts push: one head item, then pieces in any order. */
export async function assemble(head, pieces, onProgress) {
  const content = new Uint8Array(head.bytes);
  let at = 0;
  for (const { data } of [...pieces].sort((a, b) => a.piece - b.piece)) {
    const bytes = fromBase64(data);
    content.set(bytes, at);
    at += bytes.length;
    await nextTurn();
  }
  if (at !== head.bytes) throw new Error(`the weights have ${at} bytes and should have ${head.bytes}: render the book again`);
  const tensors = new Map();
  for (const [name, shape, place, scales] of head.tensors) {
    tensors.set(name, scales === null
      ? new Float32Array(content.buffer, place, shape[0])
      : new Matrix(new Int8Array(content.buffer, place, shape[0] * shape[1]), new Float32Array(content.buffer, scales, shape[0]), ...shape));
    if (shape[0] >= 1024) await nextTurn();
    onProgress?.(tensors.size / head.tensors.length);
  }
  return new Fable(head.config, tensors, new BPE(head.tokenizer));
}

/** Run a script of the page's folder; what it pushed to the queue. */
function runScript(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = () => { script.remove(); resolve(globalThis[QUEUE].shift()); };
    script.onerror = () => { script.remove(); reject(new Error(`${address} is missing: render the book again`)); };
    document.head.append(script);
  });
}

const homeOfAssets = () => {
  const script = document.querySelector('script[src$="widgets.js"], script[src*="/widgets/tl-"]'); // of all, or of one
  if (!script) throw new Error("this page does not say where the book's assets are; open the rendered book");
  return script.src.replace(/widgets(\/[^/]*)?\.js$/, "fable/");
};

let loading = null;
const listeners = new Set();

/**
 * The model, loaded once for the whole page. onProgress gets the share that is done, 0 to 1.
 * Rejects when a script is missing, and tries again at the next call.
 */
export function loadFable({ onProgress, base } = {}) {
  const first = globalThis.tinyllm?.loadFable; // two widgets of a page are two scripts, but load one model
  if (first && first !== loadFable) return first({ onProgress, base });
  if (onProgress) listeners.add(onProgress);
  const tell = (share) => listeners.forEach((listener) => listener(share));
  loading ??= (async () => {
    const place = base ?? homeOfAssets();
    const head = await runScript(`${place}000.js`), pieces = [];
    for (let i = 1; i <= head.pieces; i++) { // one by one: that is what moves the progress bar
      pieces.push(await runScript(`${place}${String(i).padStart(3, "0")}.js`));
      tell(0.9 * i / head.pieces);
      await nextTurn();
    }
    return assemble(head, pieces, (share) => tell(0.9 + 0.1 * share));
  })().catch((error) => { loading = null; throw error; });
  return loading.finally(() => listeners.delete(onProgress));
}

/** Whether a widget of this page has already asked for the model. */
export const isFableLoading = () => loading !== null;
