"""Several ranks, one model: the tokens of one process, less to read for each, and a clean end whatever happens."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.proposers import AdaptiveProposer, SpeculativeConfig
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.llm import LLM
from tinyllm.model.backends import PagedAttention
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import load_model, save_model
from tinyllm.parallel.executors import EngineDeadError
from tinyllm.parallel.pipeline import deal_layers
from tinyllm.measure.scaling import run_ranks, step_traffic
from tinyllm.parallel.tensor import sample_apart, shard, share_config

# a pool that is too small for all, a budget that cuts prompts, prompts that share a beginning
TIGHT = {"max_num_seqs": 6, "max_model_len": 128, "num_gpu_blocks_override": 24, "max_num_batched_tokens": 20,
         "block_size": 4}  # fmt: skip
SHARED = "Once upon a time there was a king who had three daughters"
PROMPTS = [SHARED, SHARED + " and a horse", "The wolf said", SHARED + " and a garden", "One day", "A"]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=20, ignore_eos=True),
    SamplingParams(temperature=0.8, seed=3, max_tokens=24, ignore_eos=True),
    SamplingParams(top_k=20, top_p=0.9, seed=5, max_tokens=16),
    SamplingParams(temperature=0, max_tokens=12, n=2),
    SamplingParams(temperature=1.2, min_p=0.02, seed=9, max_tokens=30, ignore_eos=True),
    SamplingParams(seed=1, max_tokens=18),
]


def answers(llm):
    return [[o.token_ids for o in r.outputs] for r in llm.generate(PROMPTS, PARAMS, use_tqdm=False)]


@pytest.fixture(scope="module")
def alone():
    return answers(LLM("fable", **TIGHT))


def runs(pid) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between opening and reading
        return False


def gone(pids, within=20.0):
    """Whether these processes have ended, or do so soon."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(map(runs, pids)):
            return True
        time.sleep(0.05)
    return False


def spread(**options):
    """An engine of several processes, what says that it has ended, and its check that nothing is left of it."""
    llm = LLM("fable", **options, **TIGHT)
    workers, folder = llm.core.executor.workers, Path(llm.core.executor.folder.name)
    assert folder.exists()
    return llm, workers, lambda: gone([w.pid for w in workers]) and not folder.exists()


def ends_when_killed(llm, pid, reason):
    """Kill that process under an answer: this request and the next end, and say why."""
    stream = llm.stream("Once upon a time", SamplingParams(max_tokens=50, ignore_eos=True))
    next(stream)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDeadError, match=reason):
        for _ in stream:
            pass
    with pytest.raises(EngineDeadError, match="make a new one"):
        llm.generate("Again", use_tqdm=False)


def check(llm, alone):
    """The tokens of one process, with preemption and a prefix cache on the way, and every block back."""
    assert answers(llm) == alone
    assert llm.core.scheduler.num_preemptions > 0 and llm.core.scheduler.kv_cache_manager.prefix_cache.hits > 0
    pool = llm.core.scheduler.kv_cache_manager.block_pool
    assert pool.num_free_blocks == pool.num_blocks


def interrupt(llm, name, after):
    """Cut a step off at the executor's `name`, before or after it has done its work."""
    executor = llm.core.executor

    def cut_off(*rest):
        delattr(executor, name)
        if after:
            getattr(executor, name)(*rest)
        raise KeyboardInterrupt

    setattr(executor, name, cut_off)
    with pytest.raises(KeyboardInterrupt):
        answers(llm)


# A launch takes seconds, what is checked with it hardly any: so each launch has several checks.


def test_four_ranks_say_what_one_process_says_and_leave_nothing_behind(alone):
    llm, workers, ended = spread(tensor_parallel_size=2, pipeline_parallel_size=2)
    assert len(workers) == 4
    check(llm, alone)
    for name in ("submit", "collect"):
        for after in (False, True):
            interrupt(llm, name, after)
            assert answers(llm) == alone
    greedy = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    want = llm.generate(PROMPTS[:1] * 4, greedy, use_tqdm=False)[0].outputs[0].token_ids
    for step in range(1, 6):  # the token of a request that has left comes back when its row has another
        others = [llm.stream("A", SamplingParams(max_tokens=60, ignore_eos=True)) for _ in range(6)]
        for _ in range(step):
            list(map(next, others))
        others.pop(step % 2).close()
        for stream in others[1:]:
            stream.close()
        assert llm.generate(PROMPTS[:1] * 4, greedy, use_tqdm=False)[-1].outputs[0].token_ids == want
        others[0].close()
    del llm
    assert ended()


def test_ranks_guess_ahead_and_one_that_dies_ends_every_request_with_the_reason(alone):
    draft = {"model": "fable-draft", "num_speculative_tokens": 3}
    llm, workers, ended = spread(tensor_parallel_size=2, speculative_config=draft)
    check(llm, alone)
    assert llm.core.scheduler.speculator.stats.accepted.sum() > 0
    ends_when_killed(llm, workers[1].pid, "rank 1 of 2 was ended by signal 9")
    assert ended()


def count_under_way(core):
    """A list that gets, at each step, how many steps are under way with it."""
    counts, submit = [], core.executor.submit

    def watched(plan):
        counts.append(len(core.in_flight) + 1)
        submit(plan)

    core.executor.submit = watched
    return counts


@pytest.mark.parametrize("guesser", [{"method": "ngram", "prompt_lookup_min": 1},
                                     {"model": "fable-draft", "num_speculative_tokens": 3}], ids=["ngram", "draft"])
def test_stages_guess_ahead_and_several_batches_are_under_way(alone, guesser):
    llm, _, ended = spread(pipeline_parallel_size=2, speculative_config=guesser | {"adaptive": False})
    under_way = count_under_way(llm.core)
    check(llm, alone)
    stats = llm.core.scheduler.speculator.stats
    assert max(under_way) > 1 and stats.proposed.sum() > 0 and ("model" not in guesser or stats.accepted.sum() > 0)
    del llm.core.executor.submit
    del llm
    assert ended()


def test_stages_say_the_same_and_one_that_hangs_ends_the_engine_in_bounded_time(alone):
    llm, workers, ended = spread(pipeline_parallel_size=2)
    check(llm, alone)
    object.__setattr__(llm.core.executor.d, "timeout", 1.0)
    os.kill(workers[0].pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(EngineDeadError, match="no rank has answered for 1 s"):
        llm.generate("Once upon a time", SamplingParams(max_tokens=5), use_tqdm=False)
    assert time.monotonic() - begun < 20 and ended()


def threads(size, params, config=None):
    """Ranks as threads, each with an engine of its own, as under a launcher: tokens, traffic and plans of each."""

    def work(group):
        model = load_model("fable", "auto", "cpu", PagedAttention(), lambda empty: shard(empty, group))
        sizes, plans = (200, 4, 6, 128), []
        speculator = config and AdaptiveProposer(SpeculativeConfig.from_dict(config))
        if config is None:
            runner = ModelRunner(model, *sizes, kernels="torch", sample_share=sample_apart)
        else:
            draft = load_model(config["model"], "auto", "cpu", PagedAttention()) if "model" in config else None
            runner = ModelRunner(model, *sizes, kernels="torch", num_guesses=speculator.k, draft=draft)
        submit = runner.submit
        runner.submit = lambda plan: (plans.append(plan), submit(plan))
        core = EngineCore(Scheduler(200, 4, max_num_seqs=6, max_num_batched_tokens=20, max_model_len=128,
                                    speculator=speculator), runner)  # fmt: skip
        requests = [Request(str(i), tokenizer.encode(text), p, p.seed or 0)
                    for i, (text, p) in enumerate(zip(PROMPTS, params, strict=True))]  # fmt: skip
        for request in requests:
            core.add(request)
        while any(r.finish_reason is None for r in requests):
            core.step()
        return [r.output_token_ids for r in requests], getattr(group, "traffic", None), plans

    tokenizer = load_tokenizer(resolve("fable"))
    return run_ranks(size, work)


NO_SIBLINGS = [replace(p, n=1, ignore_eos=True) for p in PARAMS]
PLAIN = [replace(p, top_k=0, top_p=1.0, min_p=0.0) for p in NO_SIBLINGS]


@pytest.fixture(scope="module")
def one_rank():
    return {"mixed": threads(1, NO_SIBLINGS)[0][0], "plain": threads(1, PLAIN)[0][0]}


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_sample_without_all_logits_and_draw_the_same(one_rank, size):
    config = load_model("fable").config
    for tokens, traffic, plans in threads(size, PLAIN):
        assert tokens == one_rank["plain"]
        steps = [step_traffic(config, int(p.counts.sum()), int(p.samples.sum()), size, 4, apart=True) for p in plans]
        silent = sum(not p.samples.any() for p in plans)  # nobody samples: nothing is said
        assert traffic.bytes == sum(step.bytes for step in steps)
        assert traffic.calls == sum(step.calls for step in steps) - silent
    for tokens, _, _ in threads(size, NO_SIBLINGS):  # some rows want top-k, top-p or min-p
        assert tokens == one_rank["mixed"]


@pytest.mark.parametrize("config", [{"method": "ngram", "prompt_lookup_min": 1}, {"model": "fable-draft"}],
                         ids=["ngram", "draft"])  # fmt: skip
def test_ranks_make_the_same_guesses_and_judge_them_alike(one_rank, config):
    (tokens, _, plans), *others = threads(2, NO_SIBLINGS, config)
    assert tokens == one_rank["mixed"] and any(plan.drafts is not None for plan in plans)
    for other, _, theirs in others:
        assert other == tokens
        assert [np.array(plan.drafts).tolist() for plan in theirs] == [np.array(plan.drafts).tolist() for plan in plans]


def test_more_ranks_than_cards_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"puts 4 ranks on this machine, which has 2 GPUs: ask for at most 2"):
        LLM("fable", device="cuda", tensor_parallel_size=2, pipeline_parallel_size=2)


PROGRAM = """
from tests.test_parallel import PARAMS, PROMPTS, TIGHT, answers
from tinyllm.llm import LLM
import os
found = answers(LLM("fable", tensor_parallel_size=2, pipeline_parallel_size={pp}, **TIGHT))
from pathlib import Path
Path(__file__).with_name(f"rank_{{os.environ['RANK']}}.txt").write_text(str(found))
"""


def test_ranks_that_torchrun_starts_all_say_the_same(alone, tmp_path, root):
    """Each writes a file of its own: a pipe that they share would mix their lines."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(pp=1))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)],
        capture_output=True, text=True, timeout=120, cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}:{root / 'book'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = {path.name: path.read_text() for path in tmp_path.glob("rank_*.txt")}
    assert said == {"rank_0.txt": str(alone), "rank_1.txt": str(alone)}


def random_model(**changes):
    shape = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 8,
             "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**{**shape, **changes})).requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["llama", "biased llama", "tied qwen3"])
def test_each_rank_reads_its_slices_and_all_give_the_same_logits(tmp_path, kind, size):
    changes = {"biased llama": {"attention_bias": True, "attention_output_bias": True, "mlp_bias": True},
               "tied qwen3": {"qk_norm": True, "tie_word_embeddings": True}}.get(kind, {})  # fmt: skip
    whole = random_model(**changes)
    save_model(whole, tmp_path, torch.float32)
    ids = torch.arange(1, 12)
    inputs = AttentionInputs.from_lengths([11])
    want = whole.logits(whole(ids, inputs))

    def work(group):
        mine = load_model(tmp_path, shard=lambda empty: shard(empty, group))
        return mine.logits(mine(ids, inputs)), sum(p.numel() for p in mine.parameters()), group.traffic

    for logits, numbers, traffic in run_ranks(size, work):
        torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-4)
        assert numbers <= whole.config.num_parameters() / size + 48 * 16 * 3 * 2 + 5000
        assert traffic.calls == 2 * 3 + 1 + 1  # two sums a layer, the embedding, the head
        share = -(-97 // size)
        assert traffic.bytes == 7 * (2 * (size - 1) * 11 * 48 * 4 // size) + (size - 1) * 11 * share * 4


@pytest.mark.parametrize("size, changes, said", [
    (3, {}, "num_attention_heads is 8"),
    (8, {"intermediate_size": 60}, "intermediate_size is 60"),
    (4, {"num_attention_heads": 12, "num_key_value_heads": 6, "intermediate_size": 64}, "num_key_value_heads is 6"),
])  # fmt: skip
def test_a_size_that_does_not_fit_is_refused_by_name(size, changes, said):
    config = random_model(**changes).config
    with pytest.raises(ValueError, match=said):
        share_config(config, size)


def test_layers_are_dealt_so_that_no_stage_is_much_slower():
    config = load_model("fable").config
    for stages in range(1, 9):
        layers = deal_layers(config, stages)
        assert [i for stage in layers for i in stage] == list(range(8)) and all(len(stage) for stage in layers)
    assert len(deal_layers(config, 2)[1]) < 4  # the head weighs as much as several layers
    with pytest.raises(ValueError, match="pipeline_parallel_size is 9 but the model has 8 layers"):
        deal_layers(config, 9)


def test_micro_batches_take_turns_and_no_row_waits_for_itself():
    scheduler = Scheduler(64, 4, max_num_seqs=6, max_num_batched_tokens=64, max_model_len=64, micro_batches=3)
    for i in range(6):
        scheduler.add(Request(str(i), [1, 2, 3], SamplingParams(max_tokens=9)))
    plans = [scheduler.schedule() for _ in range(9)]
    for before, after in pairwise(plans):
        assert not set(before.rows.tolist()) & set(after.rows.tolist())
    assert all(len(plan.rows) == 2 for plan in plans)
    assert np.array_equal(plans[0].rows, plans[3].rows)


def test_requests_that_come_together_are_shared_out_among_micro_batches():
    """One batch would have room for all of them, and every other stage would wait."""
    scheduler = Scheduler(64, 4, max_num_seqs=30, max_num_batched_tokens=64, max_model_len=64, micro_batches=3)
    for i in range(8):
        scheduler.add(Request(str(i), [1, 2, 3], SamplingParams(max_tokens=9)))
    assert [len(scheduler.schedule().rows) for _ in range(6)] == [3, 3, 2, 3, 3, 2]
