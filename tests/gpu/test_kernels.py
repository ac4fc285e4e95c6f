"""Every kernel on the card against float64, over odd shapes. The largest errors are printed (pytest -s)."""
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kernel_checks as checks

ALL = (torch.float32, torch.float16, torch.bfloat16)
HEADS = [(1, 1), (2, 1), (6, 2), (4, 1), (10, 2), (6, 1), (7, 1), (16, 2)]  # groups of 1 to 8
BATCHES = [((1,), (1,)), ((1,), (16,)), ((1,), (17,)), ((1, 1, 1), (15, 16, 33)), ((5,), (5,)), ((17,), (40,)),
           ((1, 1, 2, 33, 64), (31, 700, 2, 33, 129)), ((1,), (9001,)), ((300,), (1111,))]


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_norm_activation_and_rotation_agree_with_float64(dtype):
    worst = {}
    for tokens, dim in ((1, 1024), (7, 4096), (300, 576), (2, 80), (3, 5120)):
        worst["norm"] = max(worst.get("norm", 0), checks.check_norm("cuda", dtype, tokens, dim))
        worst["swiglu"] = max(worst.get("swiglu", 0), checks.check_swiglu("cuda", dtype, tokens, dim))
    for size in (16, 32, 64, 80, 96, 128):
        for heads, kv_heads in (HEADS[size % len(HEADS)], HEADS[size // 16 % len(HEADS)]):
            error = checks.check_rope("cuda", dtype, 21, heads, kv_heads, size, norm=size != 80, page=16)
            worst["rotation"] = max(worst.get("rotation", 0), error)
    print(f"\n{dtype}: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))


@pytest.mark.parametrize("size", [16, 32, 64, 80, 96, 128])
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_paged_attention_agrees_with_float64(dtype, size):
    worst = 0.0
    for i, (queries, contexts) in enumerate(BATCHES):
        for splits in (1, 8) if max(queries) == 1 else (2,):
            heads, kv_heads = HEADS[size // 16 % len(HEADS)]
            worst = max(worst, checks.check_attention("cuda", dtype, queries, contexts, heads, kv_heads, size, 16,
                                                      splits, seed=i, padding=i % 3))
    for contexts, splits in (((1,), 1), ((16, 17, 2500), 1), ((1, 130, 9001), 8)):
        heads, kv_heads = HEADS[size // 16 % len(HEADS)]
        worst = max(worst, checks.check_raw_attention("cuda", dtype, contexts, heads, kv_heads, size, 16, splits,
                                                      norm=size != 80))
    print(f"\n{dtype}, heads of {size}: {worst:.1e}")


@pytest.mark.parametrize("group", range(1, 9))
def test_paged_attention_packs_any_group(group):
    for queries, contexts in (((1, 1), (65, 200)), ((1, 70), (9, 90))):
        checks.check_attention("cuda", torch.bfloat16, queries, contexts, 2 * group, 2, 64, 16, splits=4)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("group", range(1, 9))
def test_queries_with_guesses_are_few(dtype, group):
    """Up to `few` queries of a request in one program, beside single ones, pieces of prompts and none at all."""
    for few, splits in ((2, 1), (4, 4), (5, 16), (8, 2)):
        queries = (few, 1, few, 3 * few, min(3, few), few, 1)
        contexts = (few, 700, 33, 64 + 3 * few, 17, 2500, 1)
        checks.check_attention("cuda", dtype, queries, contexts, 2 * group, 2, 64, 16, splits, padding=few % 3, few=few)


@pytest.mark.parametrize("heads, kv_heads", [(8, 8), (8, 2), (14, 2)])
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_many_requests_share_programs_by_pairs_of_heads(dtype, heads, kv_heads):
    count = 1608 // kv_heads
    contexts = tuple(1 + 37 * i % 300 for i in range(count))
    checks.check_attention("cuda", dtype, (1,) * count, contexts, heads, kv_heads, 64, 16)
    checks.check_raw_attention("cuda", dtype, contexts, heads, kv_heads, 64, 16)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_products_for_few_rows_agree_with_float64(dtype):
    worst = 0.0
    choices = ({}, {"gate": True}, {"norm": False, "add": True}, {"norm": False, "bias": True})
    for rows, outputs, width in ((1, 1027, 3072), (1, 33, 14336), (2, 10, 24), (4, 64, 1024)):
        for options in choices if width > 24 else choices[:2]:
            worst = max(worst, checks.check_linear("cuda", dtype, rows, outputs, width, **options))
    print(f"\n{dtype}: {worst:.1e}")


def test_noise_is_that_of_chapter_10_to_a_hundred_thousandth():
    print(f"\nworst: {checks.check_noise('cuda', 2**22):.1e}")


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_drawn_tokens_are_those_of_the_torch_sampler(dtype):
    for vocab in (50, 4096, 151_936):
        checks.check_sampler("cuda", dtype, vocab, requests=40)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("vocab", (2, 50, 1023, 4096, 32_000, 128_256, 151_936))
def test_top_k_and_top_p_leave_the_tokens_that_a_sort_leaves(dtype, vocab):
    for seed in range(2):
        checks.check_thresholds("cuda", dtype, vocab, number=36, seed=seed)


@pytest.mark.parametrize("vocab", (2, 50, 1023, 4096, 32_000, 128_256, 151_936))
def test_log_probabilities_and_the_likeliest_agree_with_float64(vocab):
    worst = max(checks.check_logprobs("cuda", dtype, vocab, 20, min(k, vocab), seed=k)
                for dtype in (torch.float32, torch.bfloat16) for k in (0, 1, 5, 20))
    print(f"\nvocabulary {vocab}: {worst:.1e}")


def test_step_inputs_are_found():
    checks.check_inputs("cuda")
    checks.check_inputs("cuda", counts=(1,) * 200, single=True)
    checks.check_inputs("cuda", counts=(1, 1, 5, 3, 4, 2, 5), padding=200)
    checks.check_inputs("cuda", counts=(1, 4, 2, 4, 3, 1) * 30, guesses=3)


@pytest.mark.parametrize("k", (1, 2, 3, 5, 8))
def test_lines_and_verdicts_are_found(k):
    for seed, requests in enumerate((1, 5, 300)):
        checks.check_verdicts("cuda", requests, k, seed)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("vocab", (50, 4096, 128_256))
def test_drawn_guesses_are_judged_as_chapter_18_has_it(vocab, dtype):
    counts = [checks.check_drawn("cuda", dtype, vocab, 40, k, seed=k, closeness=c)
              for k in (1, 3, 5) for c in (0.05, 0.5)]  # fmt: skip
    print(f"\n{[sum(some) / len(some) for some in counts]} guesses stand on average")
    assert any(max(some) == 5 for some in counts) and any(min(some) == 0 for some in counts)
