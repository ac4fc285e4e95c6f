"""The runner for a card, on a CPU through Triton's interpreter, against the plain runner: a handful of requests.

    TRITON_INTERPRET=1 python tests/graph_engine.py
"""
import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from interpreter import hurry

from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.proposers import AdaptiveProposer, SpeculativeConfig
from tinyllm.model.backends import PagedAttention
from tinyllm.model.transformer import ModelConfig, Transformer


def tiny_model(noise: float = 0) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=32,
                         qk_norm=True)
    model = Transformer(config, PagedAttention()).requires_grad_(False).eval()
    for weight in model.parameters():
        weight.normal_(0, 0.5) if weight.dim() > 1 else weight.uniform_(0.5, 1.5)
    for weight in model.parameters():
        weight += noise * torch.randn(weight.shape)
    return model


def play(model, make, wishes: dict, speculator: AdaptiveProposer | None = None,
         seeded: bool = True) -> tuple[list[tuple], int, set[str]]:
    """Tokens of four requests in a cache that is too small for them, how many were preempted, and which passes ran.

    With the tokens of a request: at each place the ids whose log-probabilities it has, likeliest first, and the same
    of its prompt.
    """
    rng, sizes = np.random.default_rng(0), (5, 4, 3, 20)
    scheduler = Scheduler(5, 4, max_num_seqs=3, max_num_batched_tokens=8, max_model_len=20, speculator=speculator)
    runner = make(model, *sizes)
    core, requests = EngineCore(scheduler, runner, depth=int(speculator is None)), []
    for i in range(4):
        own = {"seed": i} if speculator and seeded else {}  # guesses of who has a seed leave the tokens as they are
        params = SamplingParams(temperature=(0, 0.8)[i % 2], max_tokens=5, **own, **(wishes if i == 1 else {}))
        requests.append(Request(str(i), rng.integers(0, 32, (7, 2, 5, 1)[i]).tolist(), params, seed=i * 7919 + 2**40))
        core.add(requests[-1])
    while any(r.finish_reason is None for r in requests):
        core.step()
    ids_of = [[[ids for ids, _, _ in lines] for lines in (r.logprobs, r.prompt_logprobs)] for r in requests]
    found = [(r.output_token_ids, *ids) for r, ids in zip(requests, ids_of, strict=True)]
    return found, scheduler.num_preemptions, set(runner.ran)


PLAIN, CARD = (partial(ModelRunner, kernels=name) for name in ("torch", "triton"))


if __name__ == "__main__":
    hurry()
    model = tiny_model()
    penalised = {"top_k": 9, "min_p": 0.1, "repetition_penalty": 1.3, "logprobs": 2}
    for wishes in ({}, {"top_k": 4, "top_p": 0.9}, penalised, {"prompt_logprobs": 2}):
        found, given_way, ran = play(model, CARD, wishes)
        assert ran == {"triton"}, f"{wishes}: steps left the card's kernels: {ran}"
        expected, _, ran = play(model, PLAIN, wishes)
        assert found == expected, (found, expected)
        assert ran == {"torch"} and ("prompt_logprobs" in wishes) == bool(found[1][2])
        assert given_way, "nobody was preempted: the cache is not small enough for this test"
        print("same tokens", [tokens for tokens, *_ in found])
    expected, *_ = play(model, PLAIN, {})
    draft = tiny_model(0.15)
    cases = (({}, True, model), ({}, False, draft), ({"top_k": 4}, True, None), ({"top_p": 0.9}, True, draft),
             ({"top_k": 9}, False, draft), (penalised, True, draft))
    for wishes, seeded, guesser in cases:
        made = []
        for make in (PLAIN, CARD):
            config = {"model": "itself"} if guesser else {"method": "ngram", "prompt_lookup_min": 1}
            speculator = AdaptiveProposer(SpeculativeConfig(num_speculative_tokens=2, adaptive=False, **config))
            found, _, ran = play(model, partial(make, num_guesses=2, draft=guesser), wishes, speculator, seeded)
            made.append((found, speculator.stats.proposed.tolist(), speculator.stats.accepted.tolist()))
        assert made[0] == made[1], (wishes, made)
        assert ran == {"triton"}, f"guesses left the card's kernels: {ran}"
        assert wishes or not seeded or found == expected, (found, expected)
        assert speculator.stats.accepted.sum() > 0, "no guess was right"
        print("same tokens with guesses", wishes, *made[0])
