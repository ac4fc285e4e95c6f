"""The runner for a card, on a CPU through Triton's interpreter, against the plain runner: a handful of requests.

    TRITON_INTERPRET=1 python tests/graph_engine.py
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.graphs import CudaSpeculativeRunner, GraphRunner
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.runner import Runner
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.speculative import SpeculativeConfig, Speculator
from tinyllm.model.backends import PagedAttention
from tinyllm.model.transformer import ModelConfig, Transformer


def tiny_model() -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=32,
                         qk_norm=True)
    model = Transformer(config, PagedAttention()).requires_grad_(False).eval()
    for weight in model.parameters():
        weight.normal_(0, 0.5) if weight.dim() > 1 else weight.uniform_(0.5, 1.5)
    return model


def play(model, make, wishes: dict, speculator: Speculator | None = None) -> tuple[list[tuple], int]:
    """Tokens of four requests in a cache that is too small for them, and how often somebody gave way.

    With the tokens of a request: at each place the ids whose log-probabilities it has, likeliest first.
    """
    rng, sizes = np.random.default_rng(0), (5, 4, 3, 20)
    scheduler = Scheduler(5, 4, max_num_seqs=3, max_num_batched_tokens=8, max_model_len=20, speculator=speculator)
    core, requests = EngineCore(scheduler, make(model, *sizes), depth=int(speculator is None)), []
    for i in range(4):
        own = {} if speculator is None else {"seed": i}  # guesses of who has a seed leave the tokens as they are
        params = SamplingParams(temperature=(0, 0.8)[i % 2], max_tokens=5, **own, **(wishes if i == 1 else {}))
        requests.append(Request(str(i), rng.integers(0, 32, (7, 2, 5, 1)[i]).tolist(), params, seed=i * 7919 + 2**40))
        core.add(requests[-1])
    while any(r.finish_reason is None for r in requests):
        core.step()
    return [(r.output_token_ids, [ids for ids, _, _ in r.logprobs]) for r in requests], scheduler.num_preemptions


if __name__ == "__main__":
    model = tiny_model()
    penalised = {"top_k": 9, "min_p": 0.1, "repetition_penalty": 1.3, "logprobs": 2}
    for wishes in ({}, {"top_k": 4, "top_p": 0.9}, penalised):
        (found, given_way), (expected, _) = (play(model, make, wishes) for make in (GraphRunner, Runner))
        assert found == expected, (found, expected)
        assert given_way, "nobody was preempted: the cache is not small enough for this test"
        print("same tokens", [tokens for tokens, _ in found])
    speculator = Speculator(SpeculativeConfig(num_speculative_tokens=2, model="itself"))
    found, _ = play(model, lambda model, *sizes: CudaSpeculativeRunner(model, *sizes, 2, model), {}, speculator)
    expected, _ = play(model, Runner, {})
    assert found == expected, (found, expected)
    assert speculator.gauge.accepted.sum() > 0, "no guess was right, although the draft is the model itself"
    print("same tokens with guesses", found)
