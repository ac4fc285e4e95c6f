"""Each field of `SamplingParams` means the same on every way a request can take: no sampler and no door drops one.

A new field fails here until SHOWS says how it shows, and HTTP and COMMAND_LINE how it is asked for there, or why not.
"""

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from tinyllm.cli import build_parser, read_params
from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from tinyllm.engine.scheduler import Scheduler
from tinyllm.llm import LLM
from tinyllm.model.backends import PagedAttention
from tinyllm.model.config_reader import read_config, resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model
from tinyllm.parallel.replicas import make_replica_input, make_request
from tinyllm.measure.scaling import Rendezvous, ThreadGroup
from tinyllm.parallel.tensor import sample_apart, shard

FIELDS = [field.name for field in fields(SamplingParams)]
PROMPT = "Once upon a time there was a king"
SIZES = {"max_num_seqs": 4, "max_model_len": 128, "num_gpu_blocks_override": 40}


def grammar():
    """An answer that is one of two words."""
    from tinyllm.engine.grammar import JsonGrammar

    config = read_config(resolve("fable"))
    return JsonGrammar('{"enum": ["king", "wolf"]}', str(resolve("fable")), config.vocab_size, config.eos_token_ids)


GREEDY, END = {"temperature": 0, "max_tokens": 12}, 0  # Fable's end of text
WARM, ENDING = {"seed": 3, "max_tokens": 12}, {"temperature": 0, "max_tokens": 12, "logit_bias": {END: 100}}
# For each field, a request in which it shows: without it, the outcome is another one.
SHOWS = {
    "temperature": WARM | {"temperature": 0}, "seed": WARM, "top_k": WARM | {"top_k": 1},
    "top_p": WARM | {"top_p": 0.05}, "min_p": WARM | {"min_p": 1.0}, "max_tokens": {"temperature": 0, "max_tokens": 3},
    "stop_token_ids": GREEDY | {"stop_token_ids": range(250, 300)}, "ignore_eos": ENDING | {"ignore_eos": True},
    "n": GREEDY | {"n": 2}, "min_tokens": ENDING | {"min_tokens": 5}, "stop": GREEDY | {"stop": ["e"]},
    "include_stop_str_in_output": GREEDY | {"stop": ["e"], "include_stop_str_in_output": True},
    "presence_penalty": GREEDY | {"max_tokens": 30, "presence_penalty": 2.0},
    "frequency_penalty": GREEDY | {"max_tokens": 30, "frequency_penalty": 2.0},
    "repetition_penalty": GREEDY | {"repetition_penalty": 3.0}, "logit_bias": GREEDY | {"logit_bias": {77: 100}},
    "allowed_token_ids": GREEDY | {"allowed_token_ids": (50, 60, 70)},
    "bad_words": GREEDY | {"bad_words": ["who", "and"]},
    "grammar": GREEDY | {"grammar": grammar},
    "structured_outputs": GREEDY | {"structured_outputs": StructuredOutputsParams(choice=["king", "wolf"])},
    "logprobs": GREEDY | {"logprobs": 3},
    "prompt_logprobs": GREEDY | {"prompt_logprobs": 2}, "detokenize": GREEDY | {"detokenize": False},
    "skip_special_tokens": ENDING | {"ignore_eos": True, "skip_special_tokens": False},
    "output_kind": GREEDY | {"output_kind": RequestOutputKind.FINAL_ONLY},
}  # fmt: skip


def wishes(name, without=False):
    """The request in which the field shows, or the same without it."""
    given = {key: value for key, value in SHOWS[name].items() if not (without and key == name)}
    return SamplingParams(**given | ({"grammar": given["grammar"]()} if "grammar" in given else {}))


def test_every_field_says_how_it_shows():
    assert set(SHOWS) == set(FIELDS), "a field is new or gone: say in SHOWS what request shows it"
    for name in SHOWS:
        assert wishes(name) != wishes(name, without=True)


def outcome(llm, params):
    """All that a client can see, but for how fast it came and how likely it was."""
    *earlier, last = llm.stream(PROMPT, params)
    names = [[list(line) for line in one.logprobs or ()] for one in last.outputs]
    scores = last.prompt_logprobs and [line and list(line) for line in last.prompt_logprobs]
    return ([(one.token_ids, one.text, one.finish_reason, one.stop_reason) for one in last.outputs], names, scores,
            bool(earlier))  # fmt: skip


class Ranks:
    """An executor of two ranks that cut the vocabulary, each a thread."""

    def __init__(self, size=2):
        rendezvous, self.pool = Rendezvous(size), ThreadPoolExecutor(size)
        self.groups = [ThreadGroup(rank, rendezvous) for rank in range(size)]
        self.runners = list(self.pool.map(self.load, self.groups))

    def load(self, group):
        model = load_model("fable", "auto", "cpu", PagedAttention(), lambda empty: shard(empty, group))
        return ModelRunner(model, 40, 16, 4, 128, kernels="torch", sample_share=sample_apart)

    def submit(self, plan):
        list(self.pool.map(lambda runner: runner.submit(plan), self.runners))

    def collect(self):
        return [runner.collect() for runner in self.runners].pop()


def in_ranks():
    """An engine whose vocabulary is cut."""
    llm = LLM("fable", enforce_eager=True, **SIZES)
    llm.core = llm.engine.core = EngineCore(Scheduler(40, max_num_seqs=4, max_model_len=128), Ranks())
    return llm


PLAIN = SIZES | {"enforce_eager": True}
ENGINES = {
    "the CPU's step": lambda: LLM("fable", **SIZES),
    "ranks": in_ranks,
    "guesses by lookup": lambda: LLM("fable", speculative_config={"method": "ngram", "prompt_lookup_min": 1}, **SIZES),
    "guesses of a draft": lambda: LLM("fable", speculative_config={"model": "fable-draft"}, **PLAIN),
    "planned ahead": lambda: LLM("fable", async_scheduling=True, **PLAIN),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    """What torch's operations say, for each field: with it."""
    pytest.importorskip("llguidance")
    torch.set_num_threads(1)
    llm = LLM("fable", enforce_eager=True, **SIZES)
    found = {name: outcome(llm, wishes(name)) for name in FIELDS}
    for name in FIELDS:
        assert outcome(llm, wishes(name, without=True)) != found[name], f"{name} shows in nothing: change SHOWS"
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_drops_a_field(reference, engine):
    llm = ENGINES[engine]()
    for name in FIELDS:  # each alone: a neighbour with other wishes would change the way that the batch takes
        assert outcome(llm, wishes(name)) == reference[name], f"{engine}: {name}"


def test_no_field_is_lost_between_processes():
    for name in FIELDS:
        p = wishes(name)
        assert pickle.loads(pickle.dumps(p)) == p
        request = Request("0", [1, 2], p, 7, p.stop_set((END,)), 1, "salt", bans=((3, 2**31),))
        message = pickle.loads(pickle.dumps(make_replica_input(1, 1, request)))
        there = make_request(message, [])
        for field in ("prompt_token_ids", "params", "seed", "stop_token_ids", "priority", "salt", "bans"):
            assert getattr(there, field) == getattr(request, field)
        assert bool(there.grammar) == bool(p.grammar)


def test_the_cards_runner_drops_no_field(root):
    """On a CPU, in Triton's interpreter: every field that the sampler hears of."""
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "tests" / "graph_fields.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


# How a field is asked for over HTTP: by its own name, by other keys, or not at all.
HTTP = {
    "structured_outputs": "the server makes a grammar of it",
    "grammar": {"response_format": {"type": "json_object"}}, "max_tokens": {"max_tokens": 3}, "seed": {"seed": 3},
    "logprobs": {"completions": {"logprobs": 3}, "chat/completions": {"logprobs": True, "top_logprobs": 3}},
    "prompt_logprobs": "not offered", "detokenize": "answers are texts", "output_kind": "`stream` says it",
}  # fmt: skip


class Asked(Exception):
    """Carries what the engine was asked."""


class Deaf:
    """An engine as the server sees it, up to the moment at which it is asked."""

    dead, max_model_len, args, defaults = "", 128, SimpleNamespace(model="fable"), {}

    def __init__(self):
        self.tokenizer, self.config, self.asked = load_tokenizer(resolve("fable")), read_config(resolve("fable")), None

    def check_capacity(self):
        pass

    @contextlib.contextmanager
    def submit(self, prompt_token_ids, params, *rest):
        self.asked = params
        raise ValueError("asked")
        yield


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_the_server_takes_every_field(path):
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("llguidance")
    from tinyllm.serve.api import ServerArgs, build_app

    engine = Deaf()
    transport = httpx.ASGITransport(build_app(engine, ServerArgs("fable")))
    start = {"prompt": "Once"} if path == "completions" else {"messages": [{"role": "user", "content": "Once"}]}

    async def asked(**more):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            engine.asked = None
            answer = await client.post(f"/v1/{path}", json={"model": "fable", **start, **more})
            assert engine.asked is not None, answer.text
            return engine.asked

    def body(name):
        given = {key: value for key, value in SHOWS[name].items() if key != "grammar"}
        given["logit_bias"] = {str(key): value for key, value in given.get("logit_bias", {}).items()}
        given |= {key: list(value) for key, value in given.items() if isinstance(value, (range, tuple))}
        special = HTTP.get(name, {})
        return {key: value for key, value in given.items() if key != "logprobs"} | special.get(path, special)

    for name in FIELDS:
        if not isinstance(HTTP.get(name), str):
            params = asyncio.run(asked(**body(name) | {"max_tokens": body(name).get("max_tokens", 12)}))
            got, wanted = getattr(params, name), getattr(wishes(name), name)
            assert (got is not None) if name == "grammar" else got == wanted, name


ABOVE = "the command line gives one text, and no ids"
COMMAND_LINE = {
    "temperature": ["--temperature", "0"], "seed": ["--seed", "3"], "top_k": ["--top-k", "1"],
    "top_p": ["--top-p", "0.05"], "min_p": ["--min-p", "1"], "max_tokens": ["--max-tokens", "3"],
    "ignore_eos": ["--ignore-eos"], "min_tokens": ["--min-tokens", "5"], "stop": ["--stop", "e"],
    "presence_penalty": ["--presence-penalty", "2"],
    "frequency_penalty": ["--frequency-penalty", "2"], "repetition_penalty": ["--repetition-penalty", "3"],
    "bad_words": ["--bad-words", "who", "and"], "logprobs": ["--logprobs", "3"],
    **dict.fromkeys(("stop_token_ids", "n", "include_stop_str_in_output", "logit_bias", "allowed_token_ids",
                     "grammar", "structured_outputs", "prompt_logprobs", "detokenize", "skip_special_tokens",
                     "output_kind"), ABOVE),
}  # fmt: skip


def test_the_command_line_takes_every_field_or_says_why_not():
    assert set(COMMAND_LINE) == set(FIELDS), "a field is new: give it an option, or say why it has none"
    for name, options in COMMAND_LINE.items():
        if not isinstance(options, str):
            args = build_parser().parse_args(["generate", "Once", *options])
            assert getattr(read_params(args), name) == getattr(wishes(name), name), name
