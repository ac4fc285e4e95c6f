// What tests/test_fable_page.py asks of book/widgets/fable.js: questions as JSON on standard input, answers on
// standard output. There is no browser here: a document that only knows how to run a script stands in.
import fs from "node:fs";
import path from "node:path";
import vm from "node:vm";

const asked = JSON.parse(fs.readFileSync(0, "utf8"));
globalThis.self = globalThis;
let failing = asked.failing; // the script that cannot be read the first time
globalThis.document = {
  createElement: () => ({ remove() {} }),
  head: {
    append(script) {
      const file = path.join(asked.scripts, path.basename(script.src));
      if (path.basename(file) === failing) { failing = null; setTimeout(() => script.onerror(), 0); return; }
      vm.runInThisContext(fs.readFileSync(file, "utf8"));
      setTimeout(() => script.onload(), 0);
    },
  },
};

const js = await import(asked.module);
const answer = { progress: [], first: null };
try { await js.loadFable({ base: "scripts/" }); } catch (error) { answer.first = error.message; }
const fable = await js.loadFable({ base: "scripts/", onProgress: (share) => answer.progress.push(share) });
const same = await js.loadFable();
answer.once = same === fable;

const list = (values) => Array.from(values);
const said = (work) => { try { work(); return null; } catch (error) { return `${error.name}: ${error.message}`; } };

answer.ids = asked.texts.map((text) => fable.tokenizer.encode(text));
answer.logits = asked.texts.map((text) => list(fable.start().feed(fable.tokenizer.encode(text))));
answer.last = asked.prompts.map((ids) => js.argmax(fable.start().feed(ids)));

const ids = answer.ids[0], session = fable.start({ attention: true, hidden: true, neurons: true });
answer.steps = ids.map((id) => list(session.step(id)));
answer.whole = ids.map((_, i) => list(fable.start().feed(ids.slice(0, i + 1))));
const range = (count) => Array.from({ length: count }, (_, i) => i);
const { num_hidden_layers: layers, num_attention_heads: heads } = fable.config;
answer.scores = range(layers).map((l) => range(heads).map((h) => session.scores(l, h).map(list)));
answer.weights = range(layers).map((l) => range(heads).map((h) => session.weights(l, h).map(list)));
answer.hidden = range(layers + 1).map((l) => ids.map((_, i) => list(session.hidden(l, i))));
answer.middle = range(layers).map((l) => ids.map((_, i) => list(session.middle(l, i))));
answer.neurons = range(layers).map((l) => ids.map((_, i) => { const { valve, up } = session.neurons(l, i); return [list(valve), list(up)]; }));
answer.pushes = list(fable.pushes(4, 280));
const shorter = fable.start({ hidden: true, without: [2, 5] });
shorter.feed(ids);
answer.without = ids.map((_, i) => list(shorter.hidden(layers, i)));

const drain = async (from, how) => { const out = []; for await (const id of fable.generate(from, how)) out.push(id); return out; };
answer.greedy = [];
for (const text of asked.texts) answer.greedy.push(await drain(fable.tokenizer.encode(text), { maxTokens: asked.tokens }));
answer.sampled = [];
for (const params of asked.sampling) answer.sampled.push(await drain(ids, { maxTokens: asked.tokens, ...params }));
answer.noise = asked.noise.map(([seed, index]) => list(js.gumbelNoise(seed, index, 10)));

const stop = new AbortController(), stopped = [];
for await (const id of fable.generate(ids, { maxTokens: 50, signal: stop.signal })) { stopped.push(id); if (stopped.length === 3) stop.abort(); }
answer.stopped = stopped.length;
answer.wrong = {
  outside: said(() => fable.start().step(fable.config.vocab_size)),
  fraction: said(() => fable.start().step(1.5)),
  none: said(() => fable.start().feed([])),
  long: said(() => fable.start().feed(new Array(fable.config.max_position_embeddings + 1).fill(5))),
  forgot: said(() => fable.start().scores(0, 0)),
  neurons: said(() => fable.start().neurons(0, 0)),
};
const start = performance.now();
answer.speed = 1000 * (await drain(ids, { maxTokens: 100 })).length / (performance.now() - start);
fs.writeFileSync(1, JSON.stringify(answer));
