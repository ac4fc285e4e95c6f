"""What speculation brings on a card, beside the same engine without: a measurement, not a test.

    python tests/gpu/speculation.py result.json [double] [draft] [fable]

double: the shape of Llama-3.1-8B, random weights changed so that every token has one known successor, and a proposer
that costs nothing and guesses each of three tokens right with probability 0.7 (a test double). draft: the same with a
real model of 1B's shape, which knows 70% of the successors. fable: Fable and its draft. Engines take turns in one
process.
"""
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

import tinyllm.parallel.build as build
from tinyllm.llm import LLM, SamplingParams
from tinyllm.model.backends import PagedAttention
from tinyllm.model.weights import dummy_model

CONFIG = ROOT / "book/measurements/configs/Llama-3.1-8B"
RIGHT, K, VOCAB = 0.7, 3, 128_256
OPTIONS = {"load_format": "dummy", "dtype": "bfloat16", "device": "cuda", "skip_tokenizer_init": True,
           "max_model_len": 1024, "num_gpu_blocks_override": 9000}
DRAFT = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 64}


def successors(seed: int = 1) -> torch.Tensor:
    """A successor for each token, such that all of them form one circle."""
    order = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(seed))
    after = torch.empty(VOCAB, dtype=torch.int64)
    after[order] = order.roll(-1)
    return after


@torch.no_grad()
def teach(model, after: torch.Tensor):
    """Let each token be followed by its successor, by a wide margin, with numbers as random as before."""
    for layer in model.layers:
        layer.self_attn.o_proj.weight.mul_(1e-3)
        layer.mlp.down_proj.weight.mul_(1e-3)
    model.lm_head.weight[after.to(model.lm_head.weight.device)] = model.embed_tokens.weight.clone()
    return model


class Double:
    """In the place of a `Proposer`: right with a given probability, at no cost."""

    def __init__(self, after: torch.Tensor):
        self.after, self.rng = after.numpy(), np.random.default_rng(0)

    def propose(self, texts, limits):
        drafts = np.full((len(texts), K), -1, np.int64)
        for line, text, limit in zip(drafts, texts, limits.tolist(), strict=True):
            token = int(text[-1])
            for j in range(limit):
                token = int(self.after[token])
                line[j] = token if self.rng.random() < RIGHT else (token + 1) % VOCAB
        return drafts


def play(llm, requests: int, tokens: int, seed: int, after: torch.Tensor) -> float:
    """Output tokens a second. Every token must be the successor of the one before it."""
    rng = random.Random(seed)
    prompts = [{"prompt_token_ids": [rng.randrange(VOCAB) for _ in range(100)]} for _ in range(requests)]
    start = time.perf_counter()
    done = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True), use_tqdm=False)
    seconds = time.perf_counter() - start
    for prompt, output in zip(prompts, done, strict=True):
        said = torch.tensor([prompt["prompt_token_ids"][-1], *output.outputs[0].token_ids])
        assert torch.equal(after[said[:-1]], said[1:]), "a token is not the successor of the one before it"
    return requests * tokens / seconds


def compare(engines: dict, runs, repeats: int) -> dict:
    """Tokens a second of each engine, in turn; the first round does not count. runs(engine, round) -> a second's."""
    found = {name: [] for name in engines}
    for i in range(repeats + 1):
        for name, llm in engines.items():
            found[name].append(round(runs(llm, i), 1))
    found = {name: values[1:] for name, values in found.items()}
    plain = statistics.median(found["plain"])
    for name, llm in engines.items():
        if name != "plain":
            found[name] = {"tokens_per_second": found[name], "ratio": statistics.median(found[name]) / plain,
                           "tokens_a_step": llm.core.scheduler.speculator.stats.mean_accepted_length,
                           "steps": dict(llm.core.executor.ran)}
    return found


def large(draft: bool) -> dict:
    """Llama-3.1-8B's shape, without and with guesses, for a few sizes of batch."""
    after, config = successors(), {"num_speculative_tokens": K, "method": "ngram"}
    if draft:
        folder = tempfile.mkdtemp()
        shape = json.loads((CONFIG / "config.json").read_text()) | DRAFT
        Path(folder, "config.json").write_text(json.dumps(shape))
        knows = after.clone()
        wrong = torch.rand(VOCAB, generator=torch.Generator().manual_seed(5)) > RIGHT
        knows[wrong] = after[wrong].roll(1)
        config = {"num_speculative_tokens": K, "model": folder}
        build.load_draft = lambda config, dtype, device: teach(
            dummy_model(config["model"], dtype, device, PagedAttention(), seed=3),
            knows) if config and "model" in config else None
    engines = {"plain": LLM(str(CONFIG), **OPTIONS), "guessing": LLM(str(CONFIG), speculative_config=config, **OPTIONS)}
    for llm in engines.values():
        teach(llm.model, after)
    if not draft:
        engines["guessing"].core.scheduler.speculator.proposer = Double(after)
    found = {}
    for n, tokens in ((1, 512), (16, 256), (256, 256)):
        def run(llm, i, n=n, tokens=tokens):
            return play(llm, n, tokens, 100 * n + i, after)

        found[f"{n} requests"] = compare(engines, run, repeats=4)
    return found


def fable() -> dict:
    """One request to Fable, without guesses, with its draft as it pays, and with its draft always."""
    options = {"device": "cuda", "dtype": "bfloat16", "num_gpu_blocks_override": 4000, "max_num_seqs": 16}
    draft = {"model": "fable-draft", "num_speculative_tokens": K}
    engines = {"plain": LLM("fable", **options), "as it pays": LLM("fable", speculative_config=draft, **options),
               "always": LLM("fable", speculative_config=draft | {"adaptive": False}, **options)}

    def run(llm, params):
        start = time.perf_counter()
        llm.generate(["Once upon a time there was a king who had a daughter"], params, use_tqdm=False)
        return params.max_tokens / (time.perf_counter() - start)

    found = {}
    for name, wish in (("greedy", {"temperature": 0}), ("seeded", {"temperature": 0.8, "seed": 1}),
                       ("drawn", {"temperature": 0.8})):
        params = SamplingParams(max_tokens=400, ignore_eos=True, **wish)
        found[name] = compare(engines, lambda llm, i, params=params: run(llm, params), repeats=8)
    return found


if __name__ == "__main__":
    path, *kinds = sys.argv[1:]
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"),
              "command": f"python tests/gpu/speculation.py {path} {' '.join(kinds)}", "num_speculative_tokens": K,
              "right": RIGHT}
    for kind in kinds or ("double", "draft", "fable"):
        report[kind] = fable() if kind == "fable" else large(draft=kind == "draft")
        print(kind, json.dumps(report[kind], indent=1), flush=True)
        Path(path).write_text(json.dumps(report, indent=1) + "\n")
        gc.collect()
        torch.cuda.empty_cache()
