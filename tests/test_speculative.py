"""Speculation changes the speed and nothing else: the same tokens, or the same distribution, whoever guesses."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.noise import Purpose, gumbel_noise
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.proposers import AdaptiveProposer, SpeculativeConfig
from tinyllm.engine.speculative import best_k, lookup, verify_drawn
from tinyllm.engine.draft import DraftProposer
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.llm import LLM
from tinyllm.model.backends import PagedAttention
from tinyllm.model.transformer import ModelConfig, Transformer

NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "adaptive": False}
DRAFT = {"model": "fable-draft", "num_speculative_tokens": 3, "adaptive": False}
TIGHT = {"max_num_seqs": 6, "max_model_len": 128, "num_gpu_blocks_override": 20, "max_num_batched_tokens": 24,
         "block_size": 4}  # fmt: skip
SHARED = "Once upon a time there was a king who had three daughters"
PROMPTS = [SHARED, SHARED + " and a horse", "The wolf said the wolf said the wolf", SHARED + " and a garden"]
PROMPTS += ["One day", "A"]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=24, ignore_eos=True),
    SamplingParams(temperature=0.8, seed=3, max_tokens=24, ignore_eos=True, repetition_penalty=1.2, logprobs=2),
    SamplingParams(top_k=20, top_p=0.9, seed=5, max_tokens=16, presence_penalty=0.5),
    SamplingParams(temperature=0, max_tokens=12, n=2, stop=["king", "daughter"]),
    SamplingParams(temperature=0, max_tokens=30, ignore_eos=True, logprobs=1, min_tokens=4),
    SamplingParams(seed=1, max_tokens=18, bad_words=["the"]),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def answers(llm):
    return llm.generate(PROMPTS, PARAMS, use_tqdm=False)


@pytest.fixture(scope="module")
def plain():
    return answers(LLM("fable", **TIGHT))


CONFIGS = {"ngram": NGRAM, "draft": DRAFT, "draft of one": {**DRAFT, "num_speculative_tokens": 1},
           "ngram as it pays": {**NGRAM, "adaptive": True}}  # fmt: skip
PLACES = {"tight": {}, "no prefix cache": {"enable_prefix_caching": False}, "plain pass": {"enforce_eager": True},
          "roomy": {"num_gpu_blocks_override": 200, "max_num_batched_tokens": 512, "block_size": 16}}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("place", PLACES)
def test_greedy_and_seeded_requests_get_the_very_tokens_of_no_speculation(plain, config, place):
    changes = PLACES[place]
    llm = LLM("fable", speculative_config=config, **{**TIGHT, **changes})
    for found, wanted in zip(answers(llm), plain, strict=True):
        for a, b in zip(found.outputs, wanted.outputs, strict=True):
            assert (a.token_ids, a.text, a.finish_reason, a.stop_reason) == (
                b.token_ids, b.text, b.finish_reason, b.stop_reason)  # fmt: skip
            if b.logprobs:
                assert a.cumulative_logprob == pytest.approx(b.cumulative_logprob, abs=1e-3)
                assert [list(line) for line in a.logprobs] == [list(line) for line in b.logprobs]
    pool, gauge = llm.core.scheduler.kv_cache_manager.block_pool, llm.core.scheduler.speculator.stats
    assert pool.num_free_blocks == pool.num_blocks
    assert gauge.accepted.sum() > 0 and (gauge.accepted <= gauge.proposed).all()
    if place == "tight":
        assert llm.core.scheduler.num_preemptions > 0


def test_a_draft_with_the_targets_noise_is_right_more_often_and_changes_no_token(monkeypatch):
    def seeded():
        llm = LLM("fable", speculative_config=DRAFT, max_num_seqs=8, max_model_len=128)
        params = [SamplingParams(temperature=1.0, seed=seed, max_tokens=40, ignore_eos=True) for seed in range(8)]
        tokens = [o.outputs[0].token_ids for o in llm.generate(["Once upon a time"] * 8, params, use_tqdm=False)]
        return tokens, llm.core.scheduler.speculator.stats.acceptance_rate

    tokens, rate = seeded()
    monkeypatch.setattr(DraftProposer, "guess", lambda self, logits, *rest: logits.argmax(-1))
    same, likeliest = seeded()
    assert same == tokens and rate > 1.2 * likeliest


@pytest.mark.parametrize("eager", [False, True])
def test_a_model_that_guesses_for_itself_is_always_right(eager):
    """Also across the ends of blocks, where the guesses of several requests met in a block that is nobody's."""
    itself = {"model": "fable", "num_speculative_tokens": 4, "adaptive": False}
    llm = LLM("fable", speculative_config=itself, dtype="float32", max_num_seqs=4, max_model_len=256, block_size=8,
              enforce_eager=eager)
    params = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True)
    llm.generate(["Once upon a time", "The king said", "A wolf", "In the forest there was"], params, use_tqdm=False)
    stats = llm.core.scheduler.speculator.stats
    assert stats.accepted.tolist() == stats.proposed.tolist() and stats.proposed[0] >= 4 * 80 // 5 - 4


def test_a_first_unseeded_request_may_join_a_greedy_one_with_guesses():
    llm = LLM("fable", speculative_config=DRAFT, max_num_seqs=8, max_model_len=128)
    greedy = llm.stream("Once upon a time", SamplingParams(temperature=0, max_tokens=60, ignore_eos=True))
    for _ in range(5):
        next(greedy)  # its guesses are judged from now on
    unseeded = SamplingParams(temperature=0.8, max_tokens=10, ignore_eos=True)
    joined = llm.generate("There was a king", unseeded, use_tqdm=False)
    assert len(joined[0].outputs[0].token_ids) == 10
    assert len([*greedy][-1].outputs[0].token_ids) == 60


def test_k_guesses_cost_k_passes_of_the_draft():
    llm = LLM("fable", speculative_config=DRAFT, max_num_seqs=8, max_model_len=128, max_num_batched_tokens=16)
    runner, passes = llm.core.executor, []
    submit, draft = runner.submit, runner.proposer.draft
    forward, per_step = draft.forward, []

    def counted(plan):
        passes.clear()
        submit(plan)
        per_step.append((bool(plan.samples.any()), len(passes)))

    runner.submit, draft.forward = counted, lambda *rest: (passes.append(1), forward(*rest))[1]
    for prompts in (PROMPTS, [SHARED * 3]):
        llm.generate(prompts, SamplingParams(temperature=0, max_tokens=12), use_tqdm=False)
    assert set(per_step) == {(True, 3), (False, 1)}  # a piece of a prompt needs one, so that the cache has it


@pytest.mark.parametrize("depth", [0, 1])
def test_a_draft_that_has_rested_catches_up(depth):
    """With guesses on and off in turn, each guess is what the draft says after the whole text, and no token changes."""
    target, draft, turns, guessed = tiny(20, 0), tiny(20, 1), itertools.count(), []
    speculator = AdaptiveProposer(SpeculativeConfig(2, model="x", adaptive=False))
    speculator.wants = lambda *_: next(turns) % 12 > 6  # a prompt's step comes while the draft rests
    scheduler = Scheduler(40, 4, max_num_seqs=2, max_num_batched_tokens=64, max_model_len=32, speculator=speculator)
    runner = ModelRunner(target, 40, 4, 2, 32, kernels="torch", num_guesses=2, draft=draft)
    core, greedy = EngineCore(scheduler, runner, depth), SamplingParams(temperature=0, max_tokens=24)
    requests = [Request(str(i), [5 + i, 2, 9], greedy) for i in range(2)]
    submit = runner.submit

    def watched(plan):
        if plan.drafts is not None:
            for row, drafts in zip(plan.rows.tolist(), plan.drafts, strict=True):
                request = next(r for r in requests if r.row == row)
                text = request.prompt_token_ids + request.output_token_ids
                own = list(generate(draft, text, SamplingParams(temperature=0, max_tokens=2)))
                guessed.append(([int(t) for t in drafts if t >= 0], own))
        submit(plan)

    runner.submit = watched
    for request in requests:
        core.add(request)
    while any(r.finish_reason is None for r in requests):
        core.step()
    for request in requests:
        assert request.output_token_ids == list(generate(target, request.prompt_token_ids, greedy))
    assert len(guessed) >= 4 and all(own[: len(drafts)] == drafts for drafts, own in guessed)


def tiny(vocab, seed, layers=1):
    config = ModelConfig(vocab_size=vocab, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, head_dim=8,
                         num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32)  # fmt: skip
    torch.manual_seed(seed)
    model = Transformer(config, PagedAttention()).requires_grad_(False).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


def draw(target, draft, n, params, k):
    """The first three tokens of n unseeded requests with the prompt [1, 2]."""
    scheduler = Scheduler(600, 8, max_num_seqs=n, max_num_batched_tokens=4096, max_model_len=16,
                          speculator=AdaptiveProposer(SpeculativeConfig(k, model="x", adaptive=False)))  # fmt: skip
    core = EngineCore(scheduler, ModelRunner(target, 600, 8, n, 16, kernels="torch", num_guesses=k, draft=draft))
    rng = np.random.default_rng(0)
    requests = [Request(str(i), [1, 2], params, int(rng.integers(2**62))) for i in range(n)]
    for request in requests:
        core.add(request)
    while any(r.finish_reason is None for r in requests):
        core.step()
    return np.array([r.output_token_ids for r in requests]), scheduler.speculator.stats


def exact(target, params, length=3):
    """The probability of every text of three tokens after [1, 2]."""
    from tinyllm.engine.sampling import SamplingInputs, filter_logits
    from tinyllm.model.batch_inputs import AttentionInputs

    vocab = target.config.vocab_size
    probs = {}
    for text in itertools.product(range(vocab), repeat=length - 1):
        ids = torch.tensor([1, 2, *text])
        hidden = target(ids, AttentionInputs.from_lengths([len(ids)]))
        inputs = SamplingInputs.from_params([params] * length, [0] * length, range(length), vocab)
        p = filter_logits(target.logits(hidden[1:]), inputs).softmax(-1)
        first = np.prod([float(p[i, text[i]]) for i in range(length - 1)])
        for last in range(vocab):
            probs[(*text, last)] = first * float(p[length - 1, last])
    return probs


def chi_squared(found, probs):
    """The statistic over cells that expect at least five, scaled to have mean 0 and deviation 1."""
    n, cells, rest_found, rest_expected = len(found), [], 0, 0.0
    counts = {}
    for text in map(tuple, found.tolist()):
        counts[text] = counts.get(text, 0) + 1
    for text, p in probs.items():
        if n * p >= 5:
            cells.append((counts.get(text, 0), n * p))
        else:
            rest_found, rest_expected = rest_found + counts.get(text, 0), rest_expected + n * p
    if rest_expected >= 5:
        cells.append((rest_found, rest_expected))
    statistic, freedom = sum((o - e) ** 2 / e for o, e in cells), len(cells) - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize("wishes", [{}, {"temperature": 0.6, "top_k": 4}, {"top_p": 0.8, "min_p": 0.05}])
def test_unseeded_requests_have_the_targets_distribution(wishes):
    target, draft = tiny(6, 0), tiny(6, 1)
    params = SamplingParams(max_tokens=3, **wishes)
    found, gauge = draw(target, draft, 500, params, k=2)
    assert 0 < gauge.acceptance_rate < 1
    assert abs(chi_squared(found, exact(target, params))) < 4


def test_a_wrong_rule_is_noticed(monkeypatch):
    """Accept whatever was guessed: the tokens are the draft's, and the statistic says so."""
    import tinyllm.engine.draft as module

    def gullible(p, q, drafts, seed, output_index):
        return (drafts >= 0).sum(1), drafts[:, 0]

    monkeypatch.setattr(module, "verify_drawn", gullible)
    params = SamplingParams(max_tokens=3)
    found, _ = draw(tiny(6, 0), tiny(6, 1), 500, params, k=2)
    assert chi_squared(found, exact(tiny(6, 0), params)) > 10


def test_the_rule_accepts_as_much_as_the_distributions_overlap():
    torch.manual_seed(0)
    p, q = torch.randn(50).softmax(0), torch.randn(50).softmax(0)
    n = 20_000
    seeds, zero = torch.arange(n), torch.zeros(n, dtype=torch.int64)
    guesses = (q.log() + gumbel_noise(seeds, zero, Purpose.DRAFT, 50)).argmax(-1)
    count, instead = verify_drawn(p.expand(n, 1, 50), q.expand(n, 1, 50), guesses[:, None], seeds, zero)
    assert float(count.float().mean()) == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.015)
    tokens = torch.where(count > 0, guesses, instead).bincount(minlength=50) / n
    assert (tokens - p).abs().max() < 0.012


def test_lookup_prefers_long_endings_and_late_occurrences():
    text = np.array([1, 2, 3, 9, 2, 3, 8, 7, 1, 2, 3])
    assert lookup(text, 3, 1, 2).tolist() == [9, 2]  # 1 2 3 stood at the beginning
    assert lookup(text, 2, 1, 2).tolist() == [8, 7]  # 2 3 stood last before the 8
    assert lookup(text[:2], 3, 1, 2).tolist() == [] and lookup(text[:1], 3, 1, 2).tolist() == []


def test_guesses_stop_where_they_do_not_pay():
    assert best_k(0.9, 1, 5, 0.0, 256) == 5 and best_k(0.9, 256, 5, 0.0, 256) == 0
    assert best_k(0.5, 1, 5, 0.9, 256) == 0


class Machine:
    """A clock, and a loop whose steps take the times that it is told."""

    def __init__(self, k=3):
        self.now, self.tokens, self.steps = 0.0, 0, {False: 0, True: 0}
        self.proposer = AdaptiveProposer(SpeculativeConfig(k), clock=lambda: self.now)

    def run(self, seconds, brings, steps, batch=1):
        """seconds, brings: for steps without and with guesses; tokens are for each request."""
        for _ in range(steps):
            guess = self.proposer.limit(batch) > 0
            self.proposer.begin_step()
            self.now += seconds[guess]
            self.tokens += brings[guess] * batch
            self.steps[guess] += 1
            self.proposer.end_step(batch, guess, brings[guess] * batch)


@given(st.floats(0.5, 8), st.floats(1, 4), st.integers(1, 60), st.floats(1e-4, 1))
@settings(max_examples=80, deadline=None)
def test_what_brings_more_tokens_a_second_goes_on(cost, brings, batch, second):
    machine = Machine()
    machine.run((second, cost * second), (1, brings), 6000, batch)
    best = max(1, brings / cost) * batch / second
    assert machine.tokens / machine.now > 0.93 * best
    assert machine.steps[False] and machine.steps[True]


def test_a_choice_is_thought_over_when_the_text_or_the_machine_changes():
    machine = Machine()
    machine.run((1, 1.2), (1, 2.5), 2000)
    assert machine.steps[True] > 1900
    machine.run((1, 1.2), (1, 1.0), 300)  # guesses are wrong now
    assert machine.steps[False] > 250
    machine.run((1, 1.2), (1, 2.5), 3000)  # and right again
    assert machine.steps[True] > 1900 + 2000


def test_idle_time_and_steps_with_prompts_are_not_counted():
    machine = Machine()
    machine.run((1, 1.5), (1, 2.5), 40)
    rates = {guess: rate.value for guess, rate in machine.proposer.comparison(1).rates.items()}
    machine.now += 1000  # nobody asks for anything
    machine.proposer.begin_step()
    machine.now += 50  # a prompt
    machine.proposer.end_step(0, True, 1)
    machine.run((1, 1.5), (1, 2.5), 1)
    assert {guess: rate.value for guess, rate in machine.proposer.comparison(1).rates.items()} == pytest.approx(rates)


@pytest.mark.parametrize("config, said", [
    ({"method": "medusa"}, "must be 'ngram' or 'draft_model'"),
    ({"num_speculative_tokens": 0, "method": "ngram"}, "between 1 and 32"),
    ({"model": "fable-draft", "method": "ngram"}, "looking up needs no model"),
    ({"prompt_lookup_min": 5, "prompt_lookup_max": 2}, "1 <= min <= max"),
])  # fmt: skip
def test_a_wrong_configuration_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        LLM("fable", speculative_config=config)


def test_an_unknown_key_is_refused():
    with pytest.raises(TypeError, match="num_tokens"):
        LLM("fable", speculative_config={"num_tokens": 3})
