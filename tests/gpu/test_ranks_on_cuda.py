"""Two cards say what one says: ranks that share layers, recorded or not, and stages of a pipeline."""

import os
import signal
import subprocess

import pytest
import torch
from test_engine_on_cuda import SHARE_OF_TIES, TIE, compare, prompts, reference, wishes  # noqa: F401

from tinyllm.llm import LLM, SamplingParams
from tinyllm.parallel.executors import EngineDeadError

CARDS = torch.cuda.device_count()
pytestmark = pytest.mark.skipif(CARDS < 2, reason=f"needs two cards, and this machine has {CARDS}")
FEW = {"device": "cuda", "dtype": "float32", "num_gpu_blocks_override": 2000, "max_num_seqs": 40}


@pytest.fixture(scope="module")
def one_card():
    llm = LLM("fable", **FEW)
    return llm.generate(prompts(30), wishes(30), use_tqdm=False)


def check(llm, one_card, reference):  # noqa: F811
    """The tokens of one card up to ties, twice: the second time with what the prefix cache holds."""
    params = wishes(30)
    greedy = [i for i, p in enumerate(params) if p.greedy]
    total = sum(len(o.outputs[0].token_ids) for o in one_card)
    for _ in range(2):
        found = llm.generate(prompts(30), params, use_tqdm=False)
        compare([found[i] for i in greedy], [one_card[i] for i in greedy], reference, TIE)
        ties = sum(a.outputs[0].token_ids != b.outputs[0].token_ids for a, b in zip(found, one_card, strict=True))
        assert ties <= max(1, SHARE_OF_TIES * total), f"{ties} of 30 answers differ"
    pool = llm.core.scheduler.kv_cache_manager.block_pool
    assert pool.num_free_blocks == pool.num_blocks


@pytest.mark.parametrize("options", [
    {}, {"enforce_eager": True}, {"num_gpu_blocks_override": 40, "max_model_len": 300, "async_scheduling": False}],
    ids=["recorded", "eager", "preempted, no overlap"])  # fmt: skip
def test_two_ranks_say_what_one_card_says(options, one_card, reference):  # noqa: F811
    check(LLM("fable", tensor_parallel_size=2, **(FEW | options)), one_card, reference)


def test_two_ranks_draw_alike_with_filters_penalties_and_log_probabilities():
    params = [SamplingParams(temperature=0.8, seed=i, max_tokens=30, top_p=(1.0, 0.9)[i % 2], top_k=(0, 5)[i % 3 == 0],
                             repetition_penalty=(1.0, 1.2)[i % 4 == 0], logprobs=(None, 3)[i % 5 == 0],
                             prompt_logprobs=(None, 1)[i == 7]) for i in range(12)]  # fmt: skip
    found, expected = (LLM("fable", tensor_parallel_size=n, **FEW).generate(prompts(12, 1), params, use_tqdm=False)
                       for n in (2, 1))  # fmt: skip
    differ = sum(a.outputs[0].token_ids != b.outputs[0].token_ids for a, b in zip(found, expected, strict=True))
    assert differ <= 1
    assert found[5].outputs[0].logprobs and found[7].prompt_logprobs


def test_two_stages_say_what_one_card_says(one_card, reference):  # noqa: F811
    check(LLM("fable", pipeline_parallel_size=2, **FEW), one_card, reference)


def test_bfloat16_greedy_tokens_of_two_ranks_are_ties_of_the_reference(reference):  # noqa: F811
    from tinyllm.model.batch_inputs import AttentionInputs

    llm = LLM("fable", tensor_parallel_size=2, **(FEW | {"dtype": "bfloat16"}))
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    same = total = 0
    for output in llm.generate(["Once upon a time", "In the forest", "A wolf"], params, use_tqdm=False):
        said, ids = output.outputs[0].token_ids, output.prompt_token_ids + output.outputs[0].token_ids
        logits = reference.logits(reference(torch.tensor(ids), AttentionInputs.from_lengths([len(ids)])))
        for row, token in zip(logits[len(ids) - len(said) - 1 : -1], said, strict=True):
            assert row.max() - row[token] < 0.2, f"{token} is no tie"  # some steps of bfloat16
            same += int(row.argmax()) == token
        total += len(said)
    print(f"\n{same} of {total} greedy tokens equal, the others ties of bfloat16")
    assert same > 0.95 * total


@pytest.mark.parametrize("ranks", [1, 2])
def test_guesses_change_no_token(ranks, one_card, reference):  # noqa: F811
    draft = {"model": "fable-draft", "num_speculative_tokens": 3}
    params = wishes(30)
    llm = LLM("fable", tensor_parallel_size=ranks, speculative_config=draft, **FEW)
    check(llm, one_card, reference)
    assert any(p.greedy for p in params) and llm.core.scheduler.speculator.stats.accepted.sum() > 0


@pytest.mark.parametrize("guesser", [None, {"model": "fable-draft", "num_speculative_tokens": 3}],
                         ids=["plain", "draft"])
@pytest.mark.parametrize("layout", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_every_feature_of_the_engine_holds_on_two_cards(layout, guesser):
    params = [SamplingParams(temperature=0.8 * (i % 2), seed=i, max_tokens=24, ignore_eos=True, **wish) for i, wish in
              enumerate(({}, {"top_p": 0.9}, {"logprobs": 2}, {"prompt_logprobs": 1}, {"repetition_penalty": 1.2},
                         {"logit_bias": {5: 4.0}}, {"bad_words": ["king"]}, {"min_tokens": 9, "top_k": 20}) * 2)]
    found, expected = (LLM("fable", speculative_config=guesser, **options, **FEW).generate(
        prompts(16, 3), params, use_tqdm=False) for options in ({layout: 2}, {}))
    differ = sum(a.outputs[0].token_ids != b.outputs[0].token_ids for a, b in zip(found, expected, strict=True))
    assert differ <= 1
    for ours, theirs in zip(found[2::8], expected[2::8], strict=True):
        assert ours.outputs[0].cumulative_logprob == pytest.approx(theirs.outputs[0].cumulative_logprob, abs=0.05)
    assert all(out.prompt_logprobs[1] for out in found[3::8] if len(out.prompt_token_ids) > 1)


def test_drawn_guesses_are_judged_alike_by_two_ranks():
    draft = {"model": "fable-draft", "num_speculative_tokens": 3, "adaptive": False}
    params = [SamplingParams(temperature=0.8, max_tokens=40, ignore_eos=True, top_p=p) for p in (1.0, 0.9) * 8]
    llm = LLM("fable", tensor_parallel_size=2, speculative_config=draft, **FEW)
    assert all(len(o.outputs[0].token_ids) == 40 for o in llm.generate(prompts(16, 4), params, use_tqdm=False))
    assert llm.core.scheduler.speculator.stats.accepted.sum() > 100


@pytest.mark.parametrize("layout", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_a_rank_that_dies_ends_every_request_with_the_reason(layout):
    llm = LLM("fable", **{layout: 2}, **FEW)
    workers = llm.core.executor.workers
    streams = [llm.stream("Once upon a time", SamplingParams(max_tokens=1500, ignore_eos=True)) for _ in range(3)]
    for stream in streams:
        next(stream)
    os.kill(workers[1].pid, signal.SIGKILL)
    for stream in streams:
        with pytest.raises(EngineDeadError, match=r"signal 9|make a new one"):
            list(stream)
    for worker in workers:
        worker.wait(30)


def test_copies_on_cards_of_their_own_say_the_same_and_outlive_each_other(one_card):
    llm, params = LLM("fable", data_parallel_size=2, **FEW), wishes(30)
    found = llm.generate(prompts(30), params, use_tqdm=False)
    differ = sum(a.outputs[0].token_ids != b.outputs[0].token_ids for a, b in zip(found, one_card, strict=True))
    assert differ <= 2
    workers = [transport.worker for transport in llm.core.transports.values()]
    cards = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,gpu_uuid", "--format=csv,noheader"],
                           capture_output=True, text=True).stdout  # fmt: skip
    where = {line.split(", ")[0]: line.split(", ")[1] for line in cards.splitlines() if ", " in line}
    if {str(worker.pid) for worker in workers} <= set(where):  # a container may hide processes
        assert len({where[str(worker.pid)] for worker in workers}) == 2
    streams = [llm.stream("Once upon a time", SamplingParams(max_tokens=400, temperature=0, ignore_eos=True))
               for _ in range(4)]  # fmt: skip
    for stream in streams:
        next(stream)
    os.kill(workers[0].pid, signal.SIGKILL)
    last = [list(stream)[-1].outputs[0].token_ids for stream in streams]
    assert all(len(tokens) == 400 for tokens in last) and list(llm.core.transports) == [1]


def test_more_ranks_than_cards_are_refused_with_both_figures():
    with pytest.raises(ValueError, match=f"{2 * CARDS} ranks on this machine, which has {CARDS} GPUs"):
        LLM("fable", device="cuda", tensor_parallel_size=2, pipeline_parallel_size=CARDS)
