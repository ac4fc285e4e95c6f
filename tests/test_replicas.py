"""Copies behind one door: the tokens of one engine, whoever computes and whoever dies; nothing is left behind."""

import os
import signal

import pytest

pytest.importorskip("torch")

from tests.test_parallel import PARAMS, PROMPTS, TIGHT, answers, ends_when_killed, gone
from tinyllm.engine.params import SamplingParams
from tinyllm.llm import LLM


def test_copies_say_what_one_engine_says_and_the_death_of_one_changes_nothing():
    alone = answers(LLM("fable", **TIGHT))
    llm = LLM("fable", data_parallel_size=2, **TIGHT)
    workers = [transport.worker for transport in llm.core.transports.values()]

    assert answers(llm) == alone
    assert not llm.core.busy and not llm.core.table.assignments

    with pytest.raises(ValueError, match="has room for 96"):  # refused at once, and nothing is queued
        llm.generate({"prompt_token_ids": [1] * 100}, SamplingParams(max_tokens=9), use_tqdm=False)

    # log-probabilities and stop texts come through the door
    params = SamplingParams(temperature=0, max_tokens=20, logprobs=1, prompt_logprobs=0, stop=[" the"])
    one, whole = (engine.generate(PROMPTS[0], params, use_tqdm=False)[0] for engine in (llm, LLM("fable", **TIGHT)))
    assert (one.outputs[0].text, one.outputs[0].stop_reason) == (whole.outputs[0].text, whole.outputs[0].stop_reason)
    assert one.outputs[0].cumulative_logprob == pytest.approx(whole.outputs[0].cumulative_logprob, abs=1e-4)
    assert len(one.prompt_logprobs) == len(whole.prompt_logprobs)

    # one hangs: it is given up, and its requests go on elsewhere
    parents = [llm.engine.process_inputs(*two) for two in zip(PROMPTS, PARAMS, strict=True)]
    llm.engine.add_requests(parents)
    while not all(parent.num_tokens for parent in parents[:2]):
        llm.engine.step()
    assert len({where for _, where in llm.core.table.assignments.values()}) == 2
    os.kill(workers[0].pid, signal.SIGSTOP)
    llm.core.timeout = 2.0
    while not all(parent.finished for parent in parents):
        llm.engine.step()
    assert [[r.output_token_ids for r in parent.requests] for parent in parents] == alone
    assert list(llm.core.transports) == [1] and gone([workers[0].pid])
    llm.engine.abort_requests(parents)

    # the last one dies: now everything ends, with the reason
    ends_when_killed(llm, workers[1].pid, "the last replica, number 1, was ended by signal 9")
    assert gone([worker.pid for worker in workers])
