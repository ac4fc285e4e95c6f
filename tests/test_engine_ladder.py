"""The equality ladder: whatever the engine does with a request, it says what the naive loop says."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.runner import Runner
from tinyllm.engine.scheduler import Scheduler
from tinyllm.model.attention import AttentionInputs
from tinyllm.model.backends import PagedAttention
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import load_model

TIE, LENGTH = 1e-4, 20


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny matrices lose more by waiting for threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_qwen():
    config = ModelConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, qk_norm=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Transformer(config, PagedAttention()).requires_grad_(False).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


class Ladder:
    """A model, requests of all kinds, and what the naive loop answers."""

    def __init__(self, model):
        self.model, vocab = model, model.config.vocab_size
        rng = np.random.default_rng(0)
        shared = rng.integers(1, vocab, 40).tolist()
        self.prompts = [shared[:33], shared[:37], [5], [*shared, 7, 8, 9], rng.integers(1, vocab, 26).tolist()]
        wishes = [{"temperature": 0}, {"temperature": 0}, {"temperature": 0.7}, {"top_k": 20, "top_p": 0.9},
                  {"temperature": 1.3, "min_p": 0.02}]  # fmt: skip
        self.params = [
            SamplingParams(max_tokens=LENGTH - i, seed=i, ignore_eos=True, **w) for i, w in enumerate(wishes)
        ]
        self.naive = [list(generate(model, p, w)) for p, w in zip(self.prompts, self.params, strict=True)]

    def climb(self, depth=0, **changes):
        """The same requests through the engine; returns the scheduler, after comparing every token."""
        options = {"num_blocks": 64, "block_size": 4, "max_num_seqs": 5, "max_num_batched_tokens": 64}
        options.update(max_model_len=128, **changes)
        scheduler = Scheduler(**options)
        runner = Runner(self.model, options["num_blocks"], options["block_size"], options["max_num_seqs"], 128)
        core = EngineCore(scheduler, runner, depth)
        requests = [
            Request(str(i), p, w, seed=w.seed) for i, (p, w) in enumerate(zip(self.prompts, self.params, strict=True))
        ]
        for request in requests:
            core.add(request)
        while core.busy or any(r.finish_reason is None for r in requests):
            core.step()
        assert len(scheduler.home.pool.idle) == options["num_blocks"]
        ties = sum(self.parts_at_a_tie(i, r.output_token_ids) for i, r in enumerate(requests))
        assert ties <= 0.001 * sum(map(len, self.naive))
        return scheduler

    def parts_at_a_tie(self, i, found):
        """0: the same tokens. 1: they part where the reference all but ties. Otherwise they must not part."""
        for place, (a, b) in enumerate(itertools.zip_longest(found, self.naive[i])):
            if a != b:
                ids = torch.tensor(self.prompts[i] + self.naive[i][:place])
                hidden = self.model(ids, AttentionInputs.from_lengths([len(ids)]))
                top = self.model.logits(hidden[-1:])[0].topk(2).values
                assert top[0] - top[1] < TIE, f"request {i}, token {place}: {a}, the naive loop says {b}"
                return 1
        return 0


@pytest.fixture(scope="module", params=["fable", "qwen"])
def ladder(request):
    return Ladder(load_model("fable", backend=PagedAttention()) if request.param == "fable" else tiny_qwen())


RUNGS = {
    "cached": {"max_num_seqs": 1, "enable_prefix_caching": False, "max_num_batched_tokens": 128},
    "batched": {"enable_prefix_caching": False, "max_num_batched_tokens": 1024},
    "chunked by 7": {"max_num_batched_tokens": 7, "enable_prefix_caching": False},
    "chunked by 64": {"max_num_batched_tokens": 64, "enable_prefix_caching": False},
    "without chunks": {"max_num_batched_tokens": 128, "enable_chunked_prefill": False},
    "prefix-cached": {},
    "blocks of 1": {"block_size": 1, "num_blocks": 200},
    "blocks of 3": {"block_size": 3},
    "blocks of 16": {"block_size": 16, "num_blocks": 20},
    "overlapped": {"depth": 1},
    "two ahead": {"depth": 2},
}


@pytest.mark.parametrize("name", RUNGS)
def test_the_tokens_are_those_of_the_naive_loop(ladder, name):
    ladder.climb(**RUNGS[name])


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("caching", [True, False])
def test_preempted_requests_say_the_same(ladder, caching, depth):
    scheduler = ladder.climb(depth, num_blocks=17, enable_prefix_caching=caching, max_num_batched_tokens=16)
    assert scheduler.num_preemptions > 0


def test_a_second_run_finds_its_prompts_and_says_the_same(ladder):
    scheduler = ladder.climb(num_blocks=100)
    assert scheduler.home.cache.hits >= 2 * 32  # the shared beginning, found by two of the others
