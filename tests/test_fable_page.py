"""Fable in the page: book/widgets/fable.js computes what Python computes, from scripts under 12 MB."""
import base64
import json
import os
import re
import subprocess
import warnings

import numpy as np
import pytest
import torch
from press import weights
from press.bundle import node_and_npm
from safetensors.torch import load_file, save_file
from tinybook import tale

from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.noise import gumbel_noise
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.rope import apply_rotary
from tinyllm.model.weights import load_model

TEXTS = ["Once upon a time there was a king", "The wolf said to the little girl, 'Where are you going?'",
         "café — 12345 naïve 🦊\n\n  The end."]
TOKENS = 40
SAMPLING = [{"seed": 7, "temperature": 0.8}, {"seed": 2**63 + 5, "temperature": 1, "topP": 0.9, "topK": 50},
            {"seed": 1, "temperature": 1.3, "minP": 0.05}]
NOISE = [[0, 0], [7, 3], [2**63 - 1, 100]]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    made = weights.assets(resolve("fable"), folder / "cache")
    for name, content in made.items():
        (folder / name.rpartition("/")[2]).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def received(scripts):
    """The tensors as a page receives them: (numbers, scales or None) by name, read back from the scripts."""
    items = [json.loads(file.read_text()[:-3].partition("push(")[2]) for file in sorted(scripts.glob("*.js"))]
    head, content = items[0], b"".join(base64.b64decode(item["data"]) for item in items[1:])
    assert len(content) == head["bytes"]
    found = {}
    for name, shape, place, scales in head["tensors"]:
        kind = "<f4" if scales is None else "i1"
        numbers = np.frombuffer(content, kind, int(np.prod(shape)), place).reshape(shape)
        found[name] = numbers, None if scales is None else np.frombuffer(content, "<f4", shape[0], scales)
    return found


@pytest.fixture(scope="module")
def rounded(received, tmp_path_factory):
    """Python's engine on the rounded weights."""
    folder = tmp_path_factory.mktemp("rounded")
    tensors = {n: torch.tensor(w if s is None else w * s[:, None]) for n, (w, s) in received.items()}
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((resolve("fable") / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    return load_model(folder)


@pytest.fixture(scope="module")
def fable():
    return load_model("fable")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("fable"))


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """60 pieces of the tale, 24 tokens each."""
    ids = tokenizer.encode(tale())
    return [ids[at : at + 24] for at in range(0, 60 * 100, 100)]


@pytest.fixture(scope="module")
def page(root, scripts, prompts):
    """Everything that the JavaScript answers, from one run in Node."""
    asked = {"scripts": str(scripts), "module": (root / "book/widgets/fable.js").as_uri(), "failing": "004.js",
             "texts": TEXTS, "prompts": prompts, "tokens": TOKENS, "noise": [[str(s), i] for s, i in NOISE],
             "sampling": [s | {"seed": str(s["seed"])} for s in SAMPLING]}
    command = [*node_and_npm()[0], str(root / "tests/fable_page.mjs")]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    print(f"\n[fable.js] {answer['speed']:.0f} tokens/s in Node")
    return answer


def logits(model, ids):
    """[T, V]: what the model expects after each token."""
    with torch.no_grad():
        return model.logits(model(torch.tensor(ids), AttentionInputs.from_lengths([len(ids)])))


def test_scripts_stay_under_12_mb_and_the_button_says_how_much(root, scripts):
    sizes = [file.stat().st_size for file in sorted(scripts.glob("*.js"))]
    assert sum(sizes) < 12e6 and max(sizes) < 1.1e6
    said = re.search(r"FABLE_SIZE = ([\d.]+)", (root / "book/widgets/fable.js").read_text())[1]
    assert f"{sum(sizes) / 1e6:.1f}" == said


def test_scripts_need_no_torch_and_are_the_same_each_time(scripts, tmp_path):
    again = weights.assets(resolve("fable"), tmp_path / "cache")
    assert {n.rpartition("/")[2]: c for n, c in again.items()} == {f.name: f.read_bytes() for f in scripts.glob("*.js")}
    source = weights.__spec__.loader.get_source("press.weights")
    assert not re.search(r"import (torch|safetensors)", source)


def test_our_reader_of_safetensors_agrees_with_the_library():
    ours, theirs = (f(resolve("fable") / "model.safetensors") for f in (weights.read_safetensors, load_file))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name].float().numpy()), name


def test_rounding_moves_no_weight_by_more_than_half_a_step(received):
    for name, original in weights.read_safetensors(resolve("fable") / "model.safetensors").items():
        numbers, scales = received[name]
        if scales is None:
            assert np.array_equal(numbers, original), name
        else:
            assert (np.abs(numbers * scales[:, None] - original) <= 0.5001 * scales[:, None]).all(), name
            assert np.abs(numbers).max(axis=1).min() == 127, name


def test_tokens_are_those_of_python(page, tokenizer):
    assert page["ids"] == [tokenizer.encode(text) for text in TEXTS]


def test_logits_are_those_of_python_on_the_same_rounded_weights(page, rounded):
    worst = 0.0
    for ids, found in zip(page["ids"], page["logits"], strict=True):
        worst = max(worst, (torch.tensor(found) - logits(rounded, ids)[-1]).abs().max().item())
    print(f"\n[fable.js] logits differ from Python's by at most {worst:.1e}")
    assert worst < 1e-3


def test_the_rounded_model_speaks_like_the_real_one(page, prompts, rounded, fable):
    """int8 costs little: the likeliest token is nearly always the same, the logits are close."""
    real = torch.stack([logits(fable, ids)[-1] for ids in prompts])
    near = torch.stack([logits(rounded, ids)[-1] for ids in prompts])
    found = torch.tensor(page["last"])
    assert torch.equal(found, near.argmax(-1))
    same = (found == real.argmax(-1)).float().mean().item()
    print(f"\n[fable.js] the real weights' likeliest token in {same:.0%} of {len(prompts)} prompts;"
          f" logits differ by {(near - real).abs().mean():.3f} on average, {(near - real).abs().max():.2f} at most")
    assert same >= 0.95
    assert (near - real).abs().mean() < 0.1 and (near - real).abs().max() < 1


def test_the_cache_changes_nothing(page):
    assert np.abs(np.array(page["steps"]) - np.array(page["whole"])).max() < 1e-4


def test_greedy_text_is_that_of_python(page, rounded):
    for ids, found in zip(page["ids"], page["greedy"], strict=True):
        assert found == list(generate(rounded, ids, SamplingParams(temperature=0, max_tokens=TOKENS)))


def test_a_seed_gives_the_tokens_that_it_gives_in_python(page, rounded):
    names = {"topP": "top_p", "topK": "top_k", "minP": "min_p"}
    for params, found in zip(SAMPLING, page["sampled"], strict=True):
        wish = SamplingParams(max_tokens=TOKENS, **{names.get(k, k): v for k, v in params.items() if k != "seed"},
                              seed=params["seed"])
        assert found == list(generate(rounded, page["ids"][0], wish))


def test_noise_is_that_of_chapter_10(page):
    seeds, indices = (torch.tensor([pair[i] for pair in NOISE]) for i in (0, 1))
    expected = gumbel_noise(seeds, indices, 0, 10)
    torch.testing.assert_close(torch.tensor(page["noise"]), expected, rtol=1e-4, atol=1e-5)


def test_attention_and_hidden_states_are_those_of_python(page, rounded):
    ids = page["ids"][0]
    inputs, config = AttentionInputs.from_lengths([len(ids)]), rounded.config
    with torch.no_grad():
        x, rotary = rounded.embed_tokens(torch.tensor(ids)), rounded.rotary(inputs.positions)
        later = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        for layer, block in enumerate(rounded.layers):
            torch.testing.assert_close(torch.tensor(page["hidden"][layer]), x, rtol=1e-4, atol=1e-4)
            q, k, _ = block.self_attn.split(block.self_attn.qkv_proj(block.input_layernorm(x)))
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
            k = k.repeat_interleave(config.num_attention_heads // config.num_key_value_heads, 1)
            scores = torch.einsum("qnh,knh->nqk", q, k)
            torch.testing.assert_close(torch.tensor(page["scores"][layer]), scores, rtol=1e-3, atol=1e-3)
            shares = (scores / 8).masked_fill(later, float("-inf")).softmax(-1)
            torch.testing.assert_close(torch.tensor(page["weights"][layer]), shares, rtol=1e-3, atol=1e-4)
            x = sum(block(x, None, inputs, rounded.backend, rotary))
        torch.testing.assert_close(torch.tensor(page["hidden"][-1]), x, rtol=1e-4, atol=1e-4)


def test_neurons_and_what_they_push_towards_are_those_of_python(page, rounded):
    ids = page["ids"][0]
    inputs = AttentionInputs.from_lengths([len(ids)])
    with torch.no_grad():
        x, rotary = rounded.embed_tokens(torch.tensor(ids)), rounded.rotary(inputs.positions)
        for layer, block in enumerate(rounded.layers):
            x = x + block.self_attn(block.input_layernorm(x), inputs, rounded.backend, rotary)
            torch.testing.assert_close(torch.tensor(page["middle"][layer]), x, rtol=1e-4, atol=1e-4)
            gate, up = block.mlp.gate_up_proj(block.post_attention_layernorm(x)).chunk(2, dim=-1)
            found = torch.tensor(page["neurons"][layer])
            torch.testing.assert_close(found[:, 0], torch.nn.functional.silu(gate), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found[:, 1], up, rtol=1e-3, atol=1e-4)
            x = x + block.mlp(block.post_attention_layernorm(x))
        column = rounded.layers[4].mlp.down_proj.weight[:, 280] * rounded.norm.weight
        torch.testing.assert_close(torch.tensor(page["pushes"]), rounded.logits(column), rtol=1e-3, atol=1e-5)


def test_a_layer_that_is_left_out_leaves_the_stream_as_it_was(page, rounded):
    ids = page["ids"][0]
    inputs = AttentionInputs.from_lengths([len(ids)])
    with torch.no_grad():
        x, rotary = rounded.embed_tokens(torch.tensor(ids)), rounded.rotary(inputs.positions)
        for layer, block in enumerate(rounded.layers):
            x = x if layer in (2, 5) else sum(block(x, None, inputs, rounded.backend, rotary))
    torch.testing.assert_close(torch.tensor(page["without"]), x, rtol=1e-4, atol=1e-4)


def test_a_missing_script_is_named_and_a_second_try_works(page):
    assert page["first"] == "scripts/004.js is missing: render the book again"
    assert page["once"], "the model is loaded once for the whole page"
    assert page["progress"] == sorted(page["progress"]) and page["progress"][-1] == 1 and len(page["progress"]) > 10


def test_a_reader_can_stop_it(page):
    assert page["stopped"] == 3


def test_errors_name_the_value_and_the_limit(page):
    assert page["wrong"] == {
        "outside": "RangeError: token id 4096 is outside the vocabulary, 0 to 4095",
        "fraction": "RangeError: token id 1.5 is outside the vocabulary, 0 to 4095",
        "none": "RangeError: no tokens: give at least one",
        "long": "RangeError: 2049 tokens are more than the context of 2048: shorten the text",
        "forgot": "Error: start the session with {attention: true} to ask for scores",
        "neurons": "Error: start the session with {neurons: true} to ask for neurons",
    }


# In Chromium, from the file system. 30 tokens/s is the promise, and other work of the page gets its turn.

SPEED = """async (text) => {
  const blocked = [];
  new PerformanceObserver((l) => blocked.push(...l.getEntries().map((e) => e.duration))).observe({type: "longtask"});
  const shares = [], start = performance.now();
  const fable = await tinyllm.loadFable({onProgress: (share) => shares.push(share)});
  const loaded = performance.now(), ids = fable.tokenizer.encode(text), out = [];
  const prompt = Array.from({length: 200}, (_, i) => 300 + i), logits = Array.from(fable.start().feed(ids));
  let beats = 0, beating = true;
  const beat = () => { beats += 1; if (beating) setTimeout(beat); };
  const before = performance.now();
  for await (const id of fable.generate(ids, {maxTokens: 128})) out.push(id);
  const after = performance.now();
  setTimeout(beat);
  await fable.start().read(prompt);
  beating = false;
  const end = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 100));
  return {shares, out, logits, load: loaded - start, speed: 1000 * out.length / (after - before),
          reading: end - after, beats, longest: Math.max(0, ...blocked)};
}"""


def test_fable_runs_in_the_page_from_the_file_system(page_factory, rounded):
    reader = page_factory("nbs/04_attention.html")
    found = reader.evaluate(SPEED, TEXTS[0])
    print(f"\n[fable.js] in Chromium: loaded in {found['load']:.0f} ms, {found['speed']:.0f} tokens/s,"
          f" reads {2e5 / found['reading']:.0f} tokens/s, longest task {found['longest']:.0f} ms")
    ids = load_tokenizer(resolve("fable")).encode(TEXTS[0])
    assert (torch.tensor(found["logits"]) - logits(rounded, ids)[-1]).abs().max() < 1e-3
    assert found["out"] == list(generate(rounded, ids, SamplingParams(temperature=0, max_tokens=128)))
    assert found["shares"] == sorted(found["shares"]) and found["shares"][-1] == 1
    busy = os.getloadavg()[0] > 2 * os.cpu_count()
    if found["speed"] < 30 and busy:
        warnings.warn(f"{found['speed']:.0f} tokens/s, but the machine is busy: not held against it", stacklevel=1)
    else:
        assert found["speed"] >= 30
    assert found["beats"] >= 8, "the page freezes while a long prompt is read"


def test_pages_without_fable_ask_for_none_of_it(page_factory):
    reader = page_factory("nbs/05_multi_head_attention.html")
    assert reader.locator("script[src*='fable']").count() == 0
