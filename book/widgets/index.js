// Every widget of the book. Each file defines its own element.
import "./loop.js";
import "./tokenizer.js";
import "./embeddings.js";
import "./shapes.js";
import "./sampler.js";
import "./attention.js";
import "./heads.js";
import "./rope.js";
import "./bytes.js";
import "./neurons.js";
import "./kv-cache.js";
import "./batching.js";
import "./chunks.js";
import "./knobs.js";
import "./layers.js";
import "./paged.js";
import "./prefix.js";
import "./speculate.js";
import "./life.js";
import "./shard.js";

import * as fable from "./fable.js";

self.tinyllm = fable; // for the curious: `await tinyllm.loadFable()` in the console of a page
