"""The equality ladder: whatever the engine does with a request, it says what the naive loop says."""

import itertools
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.logits_edits import make_bans
from tinyllm.engine.scheduler import Scheduler
from tinyllm.model.backends import PagedAttention
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import load_model

TIE, LENGTH = 1e-4, 16


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny matrices lose more by waiting for threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**shape):
    """A random model with a small vocabulary, whose texts soon repeat tokens."""
    config = ModelConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, eos_token_ids=(3,), **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Transformer(config, PagedAttention()).requires_grad_(False).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


MODELS = {
    "fable": lambda: load_model("fable", backend=PagedAttention()),
    "llama": lambda: tiny(tie_word_embeddings=True),
    "qwen": lambda: tiny(qk_norm=True),
}
WISHES = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.3, "prompt_logprobs": 2},
    {
        "temperature": 0.7,
        "frequency_penalty": 2,
        "presence_penalty": -1,
        "logprobs": 3,
        "allowed_token_ids": [*range(4, 20)],
    },
    {"top_k": 20, "top_p": 0.9, "logit_bias": {7: 2.5, 50: -3}},
    {"temperature": 1.3, "min_p": 0.02},
    {"repetition_penalty": 0.8, "allowed_token_ids": [3, *range(20, 45)], "min_tokens": 6, "ignore_eos": False},
    {"temperature": 1.2, "logprobs": 0, "repetition_penalty": 2},
]
BAD_WORDS = {3: [[20], [21, 22]], 4: [[77], [42]]}  # as token ids, of the requests that have any


class Ladder:
    """A model, requests of all kinds, and what the naive loop answers."""

    def __init__(self, model):
        self.model, vocab = model, model.config.vocab_size
        rng = np.random.default_rng(0)
        shared = rng.integers(4, vocab, 40).tolist()
        self.prompts = [shared[:33], shared[:37], [5], [*shared, 7, 8, 9], rng.integers(4, vocab, 26).tolist()]
        self.prompts += [shared[:20], shared[:37]]
        self.params = [
            SamplingParams(**{"max_tokens": LENGTH - i, "seed": i, "ignore_eos": True, **w})
            for i, w in enumerate(WISHES)
        ]
        self.naive = [
            list(generate(model, p, w, bad_words=BAD_WORDS.get(i, ())))
            for i, (p, w) in enumerate(zip(self.prompts, self.params, strict=True))
        ]

    def request(self, i):
        params, ends = self.params[i], self.model.config.eos_token_ids
        return Request(str(i), self.prompts[i], params, seed=params.seed, stop_token_ids=params.stop_set(ends),
                       bans=make_bans(params, ends, BAD_WORDS.get(i, ())))  # fmt: skip

    def climb(self, depth=0, flat=False, **changes):
        """The same requests through the engine; returns the scheduler, after comparing every token."""
        options = {"num_blocks": 64, "block_size": 4, "max_num_seqs": 5, "max_num_batched_tokens": 64}
        options.update(max_model_len=128, **changes)
        scheduler = Scheduler(**options)
        make = partial(ModelRunner, kernels="cpu" if flat else "torch")
        runner = make(self.model, options["num_blocks"], options["block_size"], options["max_num_seqs"], 128)
        core = EngineCore(scheduler, runner, depth)
        requests = [self.request(i) for i in range(len(self.prompts))]
        for request in requests:
            core.add(request)
        while core.busy or any(r.finish_reason is None for r in requests):
            core.step()
        assert scheduler.kv_cache_manager.block_pool.num_free_blocks == options["num_blocks"]
        ties = sum(self.parts_at_a_tie(i, r.output_token_ids) for i, r in enumerate(requests))
        assert ties <= 0.001 * sum(map(len, self.naive))
        for request in requests:
            self.check_logprobs(request)
        return scheduler

    def check_logprobs(self, request):
        """Those of one pass over the whole text, whatever the engine did with it."""
        ids, prompt = torch.tensor(request.prompt_token_ids + request.output_token_ids), len(request.prompt_token_ids)
        hidden = self.model(ids, AttentionInputs.from_lengths([len(ids)]))
        wanted = self.model.logits(hidden).log_softmax(-1)
        p = request.params
        shown = [(p.prompt_logprobs, request.prompt_logprobs, range(1, prompt))]
        shown += [(p.logprobs, request.logprobs, range(prompt, len(ids)))]
        for k, found, places in shown:
            assert len(found) == (0 if k is None else len(places))
            for place, (token_ids, values, rank) in zip(places, found, strict=False):
                line = wanted[place - 1]
                assert token_ids[0] == ids[place] and len(values) == len(token_ids) == 1 + k
                assert torch.allclose(torch.tensor(values), line[token_ids], atol=1e-4)
                assert torch.allclose(torch.tensor(values[1:]), line.topk(k).values, atol=1e-4)
                assert (line > values[0] + 1e-4).sum() < rank <= (line > values[0] - 1e-4).sum()

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


@pytest.fixture(scope="module", params=MODELS)
def ladder(request):
    return Ladder(MODELS[request.param]())


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
    "in kernels": {"flat": True},
    "in kernels, in few rows": {"flat": True, "max_num_seqs": 2, "depth": 1},
    "in kernels, in blocks of 1": {"flat": True, "block_size": 1, "num_blocks": 200},
    "in kernels, chunked by 7": {"flat": True, "max_num_batched_tokens": 7, "block_size": 3},
    "overlapped": {"depth": 1},
    "two ahead": {"depth": 2},
}


@pytest.mark.parametrize("name", RUNGS)
def test_the_tokens_are_those_of_the_naive_loop(ladder, name):
    ladder.climb(**RUNGS[name])


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("caching, flat", [(True, False), (False, False), (True, True)])
def test_preempted_requests_say_the_same(ladder, caching, flat, depth):
    scheduler = ladder.climb(depth, flat, num_blocks=15, enable_prefix_caching=caching, max_num_batched_tokens=16)
    assert scheduler.num_preemptions > 0


def test_every_wish_leaves_its_trace():
    ladder = Ladder(tiny(qk_norm=True))
    for i, wishes in enumerate(WISHES):
        edits = {k for k in wishes if k.endswith("_penalty")} or {"logit_bias"} & set(wishes)
        if edits or i in BAD_WORDS:
            bare = SamplingParams(
                **{f: getattr(ladder.params[i], f) for f in SamplingParams.__dataclass_fields__ if f not in edits}
            )
            assert list(generate(ladder.model, ladder.prompts[i], bare)) != ladder.naive[i], wishes
    assert len(ladder.naive[5]) >= 6 and set(ladder.naive[5]) <= {3, *range(20, 45)}
    assert 20 not in ladder.naive[3] and (21, 22) not in itertools.pairwise(ladder.naive[3])


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_row_with_a_grammar_waits_for_its_last_token_alone(depth):
    model, seen = tiny(), []

    def grammar(said):
        seen.append(list(said))
        mask = np.zeros(97, bool)
        mask[10 + (said[-1] if said else 0) % 5 :: 5] = True  # what may come depends on what came
        return mask

    scheduler = Scheduler(64, 4, max_num_seqs=4, max_num_batched_tokens=64, max_model_len=128)
    core = EngineCore(scheduler, ModelRunner(model, 64, 4, 4, 128, kernels="torch"), depth)
    strict = Request("strict", [5, 6, 7], SamplingParams(max_tokens=12, seed=1), seed=1, grammar=grammar)
    free = [
        Request(str(i), [8, 9 + i], SamplingParams(max_tokens=30, seed=i, ignore_eos=True), seed=i) for i in range(2)
    ]
    for request in (strict, *free):
        core.add(request)
    together = 0
    while core.busy or any(r.finish_reason is None for r in (strict, *free)):
        core.step()
        together += bool(strict.finish_reason is None and len(core.in_flight) == depth)
    said = strict.output_token_ids
    assert seen == [said[:n] for n in range(12)]
    assert all(t % 5 == (10 + (before % 5)) % 5 for before, t in zip([0, *said], said, strict=False))
    for request in free:
        assert request.output_token_ids == list(generate(model, request.prompt_token_ids, request.params))
    assert depth == 0 or together > 0  # the others did not wait


def test_a_row_with_a_new_tenant_does_not_read_what_the_last_one_left():
    model = tiny()
    scheduler = Scheduler(64, 4, max_num_seqs=1, max_num_batched_tokens=64, max_model_len=128)
    core = EngineCore(scheduler, ModelRunner(model, 64, 4, 1, 128, kernels="cpu"))
    greedy = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    for prompt in ([5, 6, 7, 8, 9], [20, 21, 22, 23, 24, 25, 26, 27]):  # 5 + 3 computed, then 8: the same length
        core.add(request := Request("r", prompt, greedy))
        while request.finish_reason is None:
            core.step()
        assert request.output_token_ids == list(generate(model, prompt, greedy))


def test_a_second_run_finds_its_prompts_and_says_the_same(ladder):
    scheduler = ladder.climb(num_blocks=100)
    assert scheduler.kv_cache_manager.prefix_cache.hits >= 2 * 32  # the shared beginning, found by two of the others
