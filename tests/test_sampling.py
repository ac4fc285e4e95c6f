"""The sampler against Random123's known answers, transformers' distributions, and itself in any company."""

import random
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.engine.params import NO_TOKEN, ROLES, SamplingParams
from tinyllm.engine.logits_edits import EditTable, edit_logits, make_bans, make_edits
from tinyllm.engine.noise import Purpose, gumbel_noise, philox, random_words, uniform
from tinyllm.engine.sampling import (SamplingInputs, apply_min_p, apply_top_k_top_p,
                                     filter_logits, gather_logprobs, sample)

words32 = st.integers(0, 2**32 - 1)


def inputs_for(params, vocab_size, seeds=None, indices=None):
    rows = len(params)
    return SamplingInputs.from_params(params, seeds or [0] * rows, indices or [0] * rows, vocab_size)


def some_logits(rows, vocab_size, seed=0, spread=3.0):
    return torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * spread


def probabilities(logits, **wishes):
    return filter_logits(logits, inputs_for([SamplingParams(**wishes)] * len(logits), logits.shape[1])).softmax(-1)


def chi_squared_excess(counts, expected):
    """Standard deviations by which Pearson's statistic exceeds its mean (Wilson and Hilferty)."""
    counts, expected = counts.double(), expected.double()
    assert counts[expected == 0].sum() == 0, "a token of probability zero was drawn"
    keep = expected > 0
    df = int(keep.sum()) - 1
    statistic = ((counts[keep] - expected[keep]) ** 2 / expected[keep]).sum().item()
    return ((statistic / df) ** (1 / 3) - (1 - 2 / (9 * df))) / (2 / (9 * df)) ** 0.5


# ---- noise ----


def test_philox_gives_the_published_known_answers():
    answers = [  # Random123, kat_vectors, lines "philox4x32 10": counter, key, result
        "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
        "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
    ]
    table = torch.tensor([[int(word, 16) for word in line.split()] for line in answers])
    assert torch.equal(torch.stack(philox(table[:, :4].T, table[:, 4:6].T), 1), table[:, 6:])


def philox_in_plain_python(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@given(st.tuples(words32, words32, words32, words32), st.tuples(words32, words32))
def test_philox_equals_exact_integers(counter, key):
    got = philox([torch.tensor([c]) for c in counter], [torch.tensor([k]) for k in key])
    assert [w.item() for w in got] == philox_in_plain_python(counter, key)


@given(seed=st.integers(0, 2**64 - 1), index=st.integers(0, 2**31), token=st.integers(0, 300_000))
def test_a_word_is_the_documented_function_of_seed_index_purpose_and_token(seed, index, token):
    row = SamplingInputs.from_params([SamplingParams()], [seed], [index], 8)
    word = random_words(row.seed, row.output_index, Purpose.RESAMPLE, range(token, token + 1))
    expected = philox_in_plain_python((token // 4, index, 3, 0), (seed % 2**32, seed >> 32))[token % 4]
    assert word.tolist() == [[expected]]


@settings(deadline=None)
@given(start=st.integers(0, 4095), length=st.integers(0, 600))
def test_noise_of_a_vocabulary_slice_is_a_slice_of_the_noise(start, length):
    seeds, indices = torch.tensor([1, -9, 2**40]), torch.tensor([0, 3, 77])
    whole = gumbel_noise(seeds, indices, Purpose.TARGET, 5000)
    part = gumbel_noise(seeds, indices, Purpose.TARGET, range(start, start + length))
    assert torch.equal(part, whole[:, start : start + length])


def test_uniform_is_never_0_or_1_and_noise_always_finite():
    ends = torch.tensor([*range(300), *range(2**31 - 300, 2**31 + 300), *range(2**32 - 300, 2**32)])
    u = uniform(ends)
    assert u.dtype == torch.float32 and u.min() > 0 and u.max() < 1
    noise = -torch.log(-torch.log1p(-u))
    assert noise.isfinite().all() and noise.max() > 22  # the winning tail reaches as far as 32 bits can
    assert noise[:300].unique().numel() == 300  # and is not a staircase


def test_noise_is_the_documented_function_of_the_word():
    seed, index = torch.tensor([3]), torch.tensor([4])
    u = uniform(random_words(seed, index, Purpose.TARGET, range(100_000))).double()
    exact = -torch.log(-torch.log1p(-u))
    torch.testing.assert_close(gumbel_noise(seed, index, Purpose.TARGET, 100_000).double(), exact, rtol=1e-5, atol=1e-6)


def test_noise_follows_the_gumbel_distribution():
    noise = gumbel_noise(torch.arange(50), torch.zeros(50, dtype=torch.int64), Purpose.TARGET, 4000).flatten()
    edges = torch.linspace(-1.5, 5, 40)
    cdf = torch.cat([torch.zeros(1), torch.exp(-torch.exp(-edges)), torch.ones(1)])
    counts = torch.bincount(torch.bucketize(noise, edges), minlength=41)
    assert chi_squared_excess(counts, cdf.diff() * noise.numel()) < 4


def test_both_halves_of_the_seed_and_every_other_input_change_the_noise():
    def noise(seed=5, index=5, purpose=Purpose.TARGET):
        row = SamplingInputs.from_params([SamplingParams()], [seed], [index], 4096)
        return gumbel_noise(row.seed, row.output_index, purpose, 4096)

    others = [
        noise(seed=6),
        noise(seed=5 + 2**32),
        noise(seed=5 + 2**63),
        noise(index=6),
        noise(purpose=Purpose.DRAFT),
    ]
    for other in others:
        assert (other == noise()).float().mean() < 0.01
        assert abs(torch.corrcoef(torch.cat([other, noise()]))[0, 1]) < 0.06


def test_a_strided_slice_of_token_ids_is_refused():
    with pytest.raises(ValueError, match="step"):
        gumbel_noise(torch.tensor([0]), torch.tensor([0]), Purpose.TARGET, range(0, 8, 2))


# ---- distributions, against transformers ----


def their_probabilities(logits, *steps):
    from transformers.generation import logits_process as lp

    makers = {
        "temperature": lp.TemperatureLogitsWarper,
        "top_k": lp.TopKLogitsWarper,
        "top_p": lp.TopPLogitsWarper,
        "min_p": lp.MinPLogitsWarper,
    }
    for name, value in steps:
        logits = makers[name](value)(None, logits)
    return logits.softmax(-1)


CASES = [
    *[[("temperature", t)] for t in (0.01, 0.3, 1.0, 1.7)],
    *[[("top_k", k)] for k in (1, 2, 17, 999, 1000, 5000)],
    *[[("top_p", p)] for p in (1e-6, 0.1, 0.5, 0.9, 0.999)],
    *[[("min_p", p)] for p in (1e-4, 0.05, 0.5, 1.0)],
    [("temperature", 0.7), ("top_k", 40)],
    [("temperature", 1.5), ("top_k", 40), ("top_p", 0.8)],
    [("temperature", 1.3), ("min_p", 0.03), ("top_k", 30), ("top_p", 0.9)],
]


@pytest.mark.parametrize("steps", CASES, ids=[" ".join(f"{n}={v:g}" for n, v in c) for c in CASES])
@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
def test_filtered_distribution_equals_transformers(steps, spread):
    logits = some_logits(6, 1000, seed=3, spread=spread)
    ours, theirs = probabilities(logits, **dict(steps)), their_probabilities(logits, *steps)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_min_p_comes_before_top_p_as_in_vllm_and_not_after_as_in_transformers():
    logits = torch.tensor([[0.4, 0.25, 0.2, 0.15]]).log()
    vllm_order = their_probabilities(logits, ("min_p", 0.55), ("top_p", 0.60))
    their_order = their_probabilities(logits, ("top_p", 0.60), ("min_p", 0.55))
    ours = probabilities(logits, top_p=0.60, min_p=0.55)
    torch.testing.assert_close(ours, vllm_order)
    assert not torch.equal(vllm_order > 0, their_order > 0)


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 1.8},
        {"top_k": 4},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"temperature": 1.4, "min_p": 0.05, "top_k": 9, "top_p": 0.9},
    ],
    ids=str,
)
def test_draws_follow_the_exact_distribution(wishes):
    draws, logits = 40_000, some_logits(1, 12, seed=5, spread=1.2)
    order = [n for n in ("temperature", "min_p", "top_k", "top_p") if n in wishes]
    expected = their_probabilities(logits, *[(n, wishes[n]) for n in order])[0] * draws
    inputs = inputs_for([SamplingParams(**wishes)] * draws, 12, seeds=[99] * draws, indices=range(draws))
    counts = torch.bincount(sample(logits.expand(draws, -1), inputs), minlength=12)
    assert chi_squared_excess(counts, expected) < 4


@pytest.mark.parametrize("which", ["consecutive output indices", "consecutive seeds", "target and draft"])
def test_draws_are_independent_of_each_other(which):
    draws, logits = 40_000, some_logits(1, 6, seed=8, spread=0.7)
    p = logits.softmax(-1)[0].double()
    n = torch.arange(draws)
    seeds, indices = (torch.full((draws,), 7), 2 * n) if which == "consecutive output indices" else (2 * n, n * 0 + 3)
    first = gumbel_noise(seeds, indices, Purpose.TARGET, 6)
    if which == "consecutive output indices":
        second = gumbel_noise(seeds, indices + 1, Purpose.TARGET, 6)
    elif which == "consecutive seeds":
        second = gumbel_noise(seeds + 1, indices, Purpose.TARGET, 6)
    else:
        second = gumbel_noise(seeds, indices, Purpose.DRAFT, 6)
    a, b = (logits + first).argmax(-1), (logits + second).argmax(-1)
    counts = torch.bincount(a * 6 + b, minlength=36)
    assert chi_squared_excess(counts, torch.outer(p, p).flatten() * draws) < 4


# ---- edges ----


def test_tokens_that_tie_with_the_kth_stay_as_in_transformers():
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    ours = probabilities(logits, top_k=2)
    assert (ours > 0).tolist() == [[True, True, True, True, False]]
    torch.testing.assert_close(ours, their_probabilities(logits, ("top_k", 2)))


def test_top_p_keeps_the_lower_id_of_equals_and_as_much_probability_as_transformers():
    logits = torch.zeros(1, 8)
    ours = probabilities(logits, top_p=0.55)
    assert (ours > 0).tolist() == [[True] * 5 + [False] * 3]
    theirs = their_probabilities(logits, ("top_p", 0.55))
    torch.testing.assert_close(ours.sort().values, theirs.sort().values)
    assert probabilities(logits, top_p=1e-9).argmax() == logits.argmax() == 0  # tiny top_p is greedy, ties included


def test_top_k_of_the_whole_vocabulary_or_more_changes_nothing():
    logits = some_logits(2, 50)
    for k in (0, -1, 50, 51, 10**9):
        rows = [SamplingParams(top_k=k), SamplingParams(top_p=0.5)]  # the second makes sure that filters run
        assert torch.equal(filter_logits(logits, inputs_for(rows, 50))[0], logits[0])


@pytest.mark.parametrize("p", [1e-300, 1e-45, 1e-6])
def test_a_tiny_top_p_keeps_the_top_token(p):
    logits = some_logits(4, 1000)
    kept = probabilities(logits, top_p=p)
    assert torch.equal(kept.argmax(-1), logits.argmax(-1)) and ((kept > 0).sum(-1) == 1).all()


def test_top_p_of_1_keeps_every_token_though_a_running_sum_reaches_1_early():
    logits = torch.linspace(0, -60, 5000)[None].repeat(2, 1)
    both = filter_logits(logits, inputs_for([SamplingParams(top_p=1.0), SamplingParams(top_p=0.5)], 5000))
    assert both[0].isfinite().all() and not both[1].isfinite().all()


def test_sharpest_and_flattest_settings_stay_finite():
    logits = some_logits(1, 100, spread=1e4)
    for wishes in (
        {"temperature": 0.01},
        {"temperature": 2.0},
        {"min_p": 1.0},
        {"temperature": 0.01, "top_p": 1e-9},
    ):
        p = probabilities(logits, **wishes)
        assert p.isfinite().all() and abs(p.sum() - 1) < 1e-5
        assert sample(logits, inputs_for([SamplingParams(**wishes)], 100)).item() == logits.argmax()


def test_the_only_survivor_wins_whatever_its_noise():
    logits = torch.full((4000, 5), 0.0)
    logits[:, 3] = 1.0
    inputs = inputs_for([SamplingParams(top_k=1)] * 4000, 5, seeds=list(range(4000)))
    assert (sample(logits, inputs) == 3).all()


def test_filters_leave_their_input_alone():
    logits = some_logits(2, 30)
    before = logits.clone()
    wishes = SamplingParams(temperature=0.5, top_k=3, top_p=0.5, min_p=0.1)
    sample(logits, inputs_for([wishes, SamplingParams(temperature=0)], 30))
    apply_min_p(logits, torch.tensor([0.5, 0.5]))
    apply_top_k_top_p(logits, torch.tensor([2, 2]), torch.tensor([0.5, 0.5]))
    assert torch.equal(logits, before)


# ---- the same row, the same token ----

WISHES = [
    SamplingParams(temperature=0),
    SamplingParams(),
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=5),
    SamplingParams(top_p=0.8),
    SamplingParams(min_p=0.1),
    SamplingParams(temperature=1.5, top_k=50, top_p=0.9, min_p=0.02),
    SamplingParams(temperature=0, top_p=0.1, min_p=0.5),
]


def mixed_batch(rows, vocab_size=999):
    pick = random.Random(4)
    return (
        some_logits(rows, vocab_size, seed=2),
        [pick.choice(WISHES) for _ in range(rows)],
        [pick.getrandbits(64) for _ in range(rows)],
        [pick.randrange(3000) for _ in range(rows)],
    )


def test_a_token_depends_on_its_own_row_only():
    logits, params, seeds, indices = mixed_batch(48)
    together = sample(logits, SamplingInputs.from_params(params, seeds, indices, 999)).tolist()
    alone = [
        sample(
            logits[i : i + 1],
            SamplingInputs.from_params(params[i : i + 1], seeds[i : i + 1], indices[i : i + 1], 999),
        ).item()
        for i in range(48)
    ]
    assert together == alone
    assert len(set(together)) > 20  # and they are not all the same


@given(st.permutations(range(24)), st.integers(1, 24))
@settings(deadline=None, max_examples=40)
def test_tokens_move_with_their_rows(order, size):
    logits, params, seeds, indices = mixed_batch(24)
    expected = sample(logits, SamplingInputs.from_params(params, seeds, indices, 999))
    order = order[:size]
    inputs = SamplingInputs.from_params(
        [params[i] for i in order], [seeds[i] for i in order], [indices[i] for i in order], 999
    )
    assert torch.equal(sample(logits[order], inputs), expected[order])


def test_greedy_rows_in_a_mixed_batch_take_the_likeliest_token():
    logits, _, seeds, indices = mixed_batch(10)
    params = [SamplingParams(temperature=0, top_k=3) if i % 2 else SamplingParams(temperature=2) for i in range(10)]
    tokens = sample(logits, SamplingInputs.from_params(params, seeds, indices, 999))
    assert torch.equal(tokens[1::2], logits.argmax(-1)[1::2])
    assert not torch.equal(tokens[::2], logits.argmax(-1)[::2])


def test_filters_leave_greedy_rows_as_they_are():
    logits = some_logits(2, 30)
    wishes = SamplingParams(temperature=0, top_k=1, top_p=0.1, min_p=0.9)
    filtered = filter_logits(logits, inputs_for([wishes, replace(wishes, temperature=1.0)], 30))
    assert torch.equal(filtered[0], logits[0]) and filtered[1].isfinite().sum() == 1
    assert inputs_for([wishes], 30).all_greedy and not inputs_for([wishes], 30).filters


def test_host_flags_change_the_cost_and_never_a_token():
    logits, params, seeds, indices = mixed_batch(16)
    params = [SamplingParams(temperature=p.temperature) for p in params]
    lean = SamplingInputs.from_params(params, seeds, indices, 999)
    assert not lean.filters
    assert torch.equal(sample(logits, lean), sample(logits, replace(lean, filters=frozenset(ROLES["filters"]))))


@pytest.mark.parametrize("cuts", [[500], [1, 2, 3], [333, 334, 900]])
def test_shards_of_the_vocabulary_agree_on_the_winner(cuts):
    logits, _, seeds, indices = mixed_batch(20)
    inputs = SamplingInputs.from_params([SamplingParams(temperature=0.9)] * 20, seeds, indices, 999)
    bests = []
    for start, stop in zip([0, *cuts], [*cuts, 999], strict=True):
        noise = gumbel_noise(inputs.seed, inputs.output_index, Purpose.TARGET, range(start, stop))
        value, place = (filter_logits(logits[:, start:stop], inputs) + noise).max(-1)
        bests.append((value, place + start))
    values, places = torch.stack([v for v, _ in bests]), torch.stack([p for _, p in bests])
    winners = places.gather(0, values.argmax(0, keepdim=True))[0]
    assert torch.equal(winners, sample(logits, inputs))


def test_the_global_generator_is_neither_read_nor_moved():
    logits, params, seeds, indices = mixed_batch(8)
    inputs = SamplingInputs.from_params(params, seeds, indices, 999)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sample(logits, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(sample(logits, inputs), first)


# ---- edits: penalties, biases, bans ----

TEXTS = [[5, 3, 9, 9], [1, 2, 3, 4, 5, 6], [7], [9, 8, 9, 8, 8, 9]]


def edited(logits, params, texts, done, bans=()):
    """What the edits make of the logits; done: how many tokens of each text are output."""
    return edit_logits(logits, make_edits(params, done, logits.shape[1], "cpu", texts, bans))


def transformed(processor, logits, texts):
    """The same by one of transformers' processors, which look at one text at a time."""
    return torch.cat([processor(torch.tensor([t]), line[None].clone()) for t, line in zip(texts, logits, strict=True)])


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.7])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = some_logits(4, 12)
    found = edited(logits, [SamplingParams(repetition_penalty=penalty)] * 4, TEXTS, [2, 0, 1, 6])
    assert torch.allclose(found, transformed(RepetitionPenaltyLogitsProcessor(penalty), logits, TEXTS))


def test_frequency_and_presence_count_the_output_only():
    logits = torch.zeros(2, 12)
    params = [SamplingParams(frequency_penalty=0.5), SamplingParams(presence_penalty=-0.25)]
    found = edited(logits, params, [[5, 9, 9, 3], [5, 9, 9, 3]], [3, 2])
    assert found[0].tolist() == [0, 0, 0, -0.5, 0, 0, 0, 0, 0, -1, 0, 0]
    assert found[1].tolist() == [0, 0, 0, 0.25, 0, 0, 0, 0, 0, 0.25, 0, 0]


def test_biases_and_bans_are_those_of_transformers():
    from transformers import NoBadWordsLogitsProcessor, SequenceBiasLogitsProcessor

    logits, words = some_logits(4, 12), [[3], [9, 4], [8, 9, 8]]
    bans = [make_bans(SamplingParams(), (), words)] * 4
    found = edited(logits, [SamplingParams()] * 4, TEXTS, [len(t) for t in TEXTS], bans)
    assert torch.equal(found, transformed(NoBadWordsLogitsProcessor(words), logits, TEXTS))
    assert found.isinf().sum() == 4 + 3  # 3 in each line, 4 after two of the texts, 8 after the last
    found = edited(logits, [SamplingParams(logit_bias={2: 1.5, 11: -4})] * 4, TEXTS, [0] * 4)
    wanted = SequenceBiasLogitsProcessor([[[2], 1.5], [[11], -4.0]])
    assert torch.allclose(found, transformed(wanted, logits, TEXTS))


def test_bad_words_do_not_match_the_prompt():
    ban = [make_bans(SamplingParams(), (), [[9, 4]])]
    for done, banned in ((0, False), (1, True)):
        found = edited(torch.zeros(1, 12), [SamplingParams()], [[5, 9]], [done], ban)
        assert found[0, 4].isinf() == banned


def test_no_end_before_min_tokens():
    from transformers import MinNewTokensLengthLogitsProcessor

    params, logits = SamplingParams(min_tokens=3), some_logits(1, 12)
    for done in range(6):
        text = [[5, 6, *range(done)]]
        found = edited(logits, [params], text, [done], [make_bans(params, (0, 4))])
        wanted = transformed(MinNewTokensLengthLogitsProcessor(2, 3, [0, 4], device="cpu"), logits, text)
        assert torch.equal(found, wanted)


def test_only_allowed_tokens_come_and_a_bias_works_among_them():
    params = SamplingParams(allowed_token_ids=[2, 5], logit_bias={5: 1.0, 7: 50.0})
    found = edited(torch.zeros(1, 12), [params], [[1]], [0])
    assert found[0].isfinite().nonzero().flatten().tolist() == [2, 5] and found[0, 5] == 1


def test_edits_touch_the_rows_that_ask_and_no_other():
    logits = some_logits(3, 12)
    before = logits.clone()
    params = [SamplingParams(), SamplingParams(repetition_penalty=2.0), SamplingParams(top_k=3)]
    found = edited(logits, params, [[1, 2], [3, 4], [5, 6]], [1, 1, 1])
    assert torch.equal(logits, before) and torch.equal(found[[0, 2]], logits[[0, 2]])
    assert not torch.equal(found[1], logits[1])
    assert make_edits([SamplingParams(temperature=0.5)], [0], 12, "cpu", [[1]], ()) is None


def test_a_table_forgets_who_was_in_the_row_before():
    table = EditTable(2, 12)
    text, one = torch.zeros(1, 4, dtype=torch.int64), torch.tensor([1])
    table.write(1, SamplingParams(logit_bias={3: 9}), [(4, 9, 1, 2), (5, 9)])
    table.write(0, SamplingParams(), [(6, 9, 1, 2, 3)])  # a longer ban makes all lines wider
    first = edit_logits(torch.zeros(1, 12), table.select(one, one * 0, text, one, one))
    assert first[0].isinf().nonzero().flatten().tolist() == [5] and first[0, 3] == 9
    table.write(1, SamplingParams(repetition_penalty=1.5))
    second = edit_logits(torch.zeros(1, 12), table.select(one, one * 0, text, one, one))
    assert torch.equal(second, torch.zeros(1, 12))


def test_greedy_rows_feel_their_edits():
    params = SamplingParams(temperature=0, logit_bias={7: 100})
    inputs = SamplingInputs.from_params([params], [0], [0], 12, texts=[[1]])
    assert inputs.all_greedy and sample(some_logits(1, 12), inputs).tolist() == [7]
    mixed = SamplingInputs.from_params([params, SamplingParams()], [0, 0], [0, 0], 12, texts=[[1], [1]])
    assert sample(some_logits(2, 12), mixed)[0] == 7


def test_logprobs_are_the_models_own_with_rank_and_the_likeliest():
    logits = some_logits(5, 12)
    token_ids = torch.tensor([0, 3, 3, 11, 7])
    wanted = logits.double().log_softmax(-1)
    for k in (0, 3, 12, -1):
        ids, values, ranks = gather_logprobs(logits, token_ids, k)
        assert ids.shape == values.shape == (5, 13 if k < 0 else 1 + k) and ids[:, 0].tolist() == token_ids.tolist()
        assert torch.allclose(values.double(), wanted.gather(1, ids), atol=1e-5)
        order = wanted.argsort(descending=True)
        assert ids[:, 1:].tolist() == order[:, : ids.shape[1] - 1].tolist()
        assert ranks.tolist() == [order[i].tolist().index(t) + 1 for i, t in enumerate(token_ids.tolist())]


def test_a_row_without_any_token_left_says_so_and_no_other_row_notices():
    """The reference, the CPU's step, and the drawing that all runners share; greedy or not, filtered or not."""
    pytest.importorskip("numba")
    from tinyllm.engine.sampler import sample_on_cpu, sample_what_is_left

    filters = ({}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1})
    wishes = [SamplingParams(temperature=t, **f) for t in (0, 0.7) for f in filters]
    hopeless = [replace(p, allowed_token_ids=(3,)) for p in wishes]
    logits = torch.randn(2 * len(wishes), 30, generator=torch.Generator().manual_seed(0))
    params = [p for pair in zip(wishes, hopeless, strict=True) for p in pair]
    bans = [((3, 2**31),) if p.allowed_token_ids else () for p in params]
    count = len(params)
    inputs = SamplingInputs.from_params(params, range(count), [0] * count, 30, texts=[[1, 2]] * count, bans=bans)
    alone = SamplingInputs.from_params(wishes, range(0, count, 2), [0] * len(wishes), 30)
    left = [lambda *two, draw=draw: sample_what_is_left(draw, *two) for draw in (sample_on_cpu, sample)]
    for draw in (sample, *left):
        found = draw(logits, inputs)
        assert found[1::2].tolist() == [NO_TOKEN] * len(wishes)
        assert torch.equal(found[::2], sample(logits[::2], alone))


def test_bans_outside_the_models_vocabulary_are_none():
    early = make_bans(SamplingParams(min_tokens=3), [0, 30, 99], [[7], [7, 30], [31, 7], [99]], vocab_size=30)
    assert early == ((0, 3), (7, 2**31))
    inputs = SamplingInputs.from_params([SamplingParams(min_tokens=3)], [0], [0], 30, texts=[[1]], bans=[early])
    assert edit_logits(torch.zeros(1, 30), inputs.edits)[0].isinf().nonzero().flatten().tolist() == [0, 7]
