"""Each field that a sampler hears of, on the card's runner, by Triton's interpreter: the tokens are the plain runner's.

    TRITON_INTERPRET=1 python tests/graph_fields.py
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from graph_engine import CARD, PLAIN, tiny_model
from interpreter import hurry

import tinyllm.engine.device_step as card_step
from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.params import NOTHING_LEFT, ROLES, SamplingParams
from tinyllm.engine.logits_edits import make_bans
from tinyllm.engine.scheduler import Scheduler

WARM, GREEDY = {"seed": 3}, {"temperature": 0}
WISHES = {
    "temperature": GREEDY, "seed": WARM, "top_k": WARM | {"top_k": 1}, "top_p": WARM | {"top_p": 0.05},
    "min_p": WARM | {"min_p": 1.0}, "presence_penalty": GREEDY | {"presence_penalty": 2.0},
    "frequency_penalty": GREEDY | {"frequency_penalty": 2.0},
    "repetition_penalty": GREEDY | {"repetition_penalty": 9.0}, "logit_bias": GREEDY | {"logit_bias": {7: 100}},
    "allowed_token_ids": GREEDY | {"allowed_token_ids": (5, 6)}, "bad_words": GREEDY | {"bad_words": ("x",)},
    "min_tokens": GREEDY | {"min_tokens": 4, "logit_bias": {0: 100}},
    "logprobs": GREEDY | {"logprobs": 2}, "prompt_logprobs": GREEDY | {"prompt_logprobs": 2},
}  # fmt: skip


def shrinks(said):
    """A grammar: fewer tokens each time, and after three none."""
    ids = np.arange(32)  # 0 would end it
    return (ids > 0) & (ids < (20, 10, 5, 0)[min(len(said), 3)])


def play(runner, wish: dict, bad: list[int], grammar=None):
    """What a request gets, with a neighbour that wishes nothing and one that filters."""
    core = EngineCore(Scheduler(12, 4, max_num_seqs=3, max_num_batched_tokens=8, max_model_len=20), runner, depth=1)
    params = SamplingParams(max_tokens=5, **wish)
    bans = make_bans(params, [0], [bad] if params.bad_words else [], 32)
    one = Request("0", [3, 9, 4], params, params.seed or 17, params.stop_set([0]), bans=bans, grammar=grammar)
    two = Request("1", [8, 2], SamplingParams(temperature=0, max_tokens=5), 0)
    for request in (one, two):
        core.add(request)
    while any(r.finish_reason is None for r in (one, two)):
        core.step()
    core.step()
    return [(r.output_token_ids, r.finish_reason, r.stop_reason, [ids for ids, _, _ in r.logprobs],
             [ids for ids, _, _ in r.prompt_logprobs]) for r in (one, two)]  # fmt: skip


if __name__ == "__main__":
    hurry()
    heard = {name for role in ("edits", "filters", "draws", "reports") for name in ROLES[role]}
    assert set(WISHES) == heard, f"give WISHES a request for {heard ^ set(WISHES)}"
    model = tiny_model()
    plain, card = (make(model, 12, 4, 3, 20) for make in (PLAIN, CARD))
    bad = play(plain, GREEDY, [])[0][0][1:2]  # what the plain request says second
    for name, wish in WISHES.items():
        expected, found = play(plain, wish, bad), play(card, wish, bad)
        assert found == expected, (name, found, expected)
        without = play(plain, {key: value for key, value in wish.items() if key != name}, bad)
        assert without != expected, f"{name} shows in nothing: give WISHES another request"
    for wish in (GREEDY, WARM, WARM | {"top_k": 3}, GREEDY | {"logprobs": 2}):
        expected, found = play(plain, wish, bad, shrinks), play(card, wish, bad, shrinks)
        assert found == expected, ("grammar", found, expected)
        assert found[0][1:3] == ("error", NOTHING_LEFT) and len(found[0][0]) == 3
        assert all(token < (20, 10, 5)[i] for i, token in enumerate(found[0][0]))
    # a filter that the kernels do not know goes to the reference
    logits = torch.randn(2, 32)
    inputs = card_step.SamplingInputs.from_params([SamplingParams(top_k=2)] * 2, [1, 2], [0, 0], 32)
    asked = []
    card_step.sample = lambda *rest: asked.append(rest)
    inputs = card_step.SamplingInputs(**{**vars(inputs), "filters": inputs.filters | {"a new one"}})
    card_step.sample_on_card(logits, inputs)
    assert asked, "the card's sampler has dropped a filter that it does not know"
    print("the same for", ", ".join(WISHES))
