"""A fault at any boundary of the server ends one request with an error, or turns health red and ends the process."""

import asyncio
import contextlib
import json
import os
import socket
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from tinyllm.engine.core import EngineCore
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.args import EngineArgs
from tinyllm.engine.output_processor import OutputProcessor
from tinyllm.parallel import executors
from tinyllm.engine import grammar
from tinyllm.serve import api, engine
from tinyllm.serve.api import ServerArgs, build_app
from tinyllm.serve.engine import AsyncEngine, EngineLoop, OutputCollector
from tinyllm.serve.metrics import Metrics

INJECTED = RuntimeError("injected")
VICTIM, PATIENCE = 666, 60  # a request's seed; the seconds that anything may take


class ThreadProcess:
    """The engine's process as a thread of this one: `engine_process`, word for word, on a pipe of its own."""

    def __init__(self, args):
        self.pipe, theirs = executors.mpc.Pipe()
        self.process = SimpleNamespace(wait=lambda seconds: 1, poll=lambda: 1, pid=os.getpid())
        self.thread = threading.Thread(target=self.live, args=[os.dup(theirs.fileno())], daemon=True)
        theirs.close()
        self.thread.start()
        self.pipe.send(args)

    def live(self, descriptor):
        with contextlib.suppress(SystemExit):
            engine.engine_process(descriptor)

    receive, wait_until_ready = engine.EngineProcess.receive, engine.EngineProcess.wait_until_ready

    def close(self):
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the engine goes on without its server"


class Poison:
    """Ends the thread that asks what kind of message it is."""

    @property
    def __class__(self):
        raise SystemExit


@pytest.fixture
def start(monkeypatch):
    """start() -> an engine that is ready, and an event that says that the server would end."""
    pipes, inboxes, started = [], [], []

    class Pipe(executors.mpc.Connection):
        def __init__(self, descriptor):
            super().__init__(descriptor)
            pipes.append(self)

    def leave(status):
        for pipe in pipes:  # the process is gone, and its end of the pipe with it
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        for inbox in inboxes:
            inbox.put(Poison())
        raise SystemExit(status)

    def listen(pipe):
        inboxes.append(executors.listen(pipe))
        return inboxes[-1]

    monkeypatch.setattr(executors.os, "_exit", leave)
    monkeypatch.setattr(engine.mpc, "Connection", Pipe)
    monkeypatch.setattr(engine, "listen", listen)
    monkeypatch.setattr(engine, "EngineProcess", ThreadProcess)

    def begin():
        made = AsyncEngine(EngineArgs("fable", max_num_seqs=4, max_model_len=128, num_gpu_blocks_override=40,
                                      enforce_eager=True))  # fmt: skip
        ended = threading.Event()
        made.on_death = ended.set
        made.wait_until_ready()
        started.append(made)
        return made, ended

    yield begin
    for made in started:
        made.close()


def is_victim(thing):
    """Whether this, or what it belongs to, is the request that the fault is for."""
    if isinstance(thing, (list, tuple)):
        return any(map(is_victim, thing))
    for name in ("params", "request", "output"):
        if hasattr(thing, name) and not callable(getattr(thing, name)):
            return is_victim(getattr(thing, name))
    return getattr(thing, "seed", None) == VICTIM


def fails(monkeypatch, owner, name, whose=lambda *args: True, error=INJECTED):
    """From now on `owner.name` raises where `whose`, given its arguments, is true."""
    real = getattr(owner, name)

    def faulty(*args, **named):
        if whose(*args):
            raise error
        return real(*args, **named)

    monkeypatch.setattr(owner, name, faulty)


def garbage(monkeypatch, made):
    """Bytes that are no message, from the server to the engine."""
    real = made.worker.pipe.send
    monkeypatch.setattr(made.worker.pipe, "send", lambda what: made.worker.pipe.send_bytes(b"garbage") or real(what))


class Unreadable:
    """Travels through a pipe and cannot be unpacked."""

    def __reduce__(self):
        return (int, ("no number",))


def unreadable(monkeypatch, made):
    """A message from the engine that the server cannot read."""
    monkeypatch.setattr(EngineLoop, "send_outputs", lambda self, _: self.pipe.send(Unreadable()))


def patch(owner, name, whose=lambda *args: True, error=INJECTED):
    return lambda monkeypatch, made: fails(monkeypatch, owner, name, whose, error)


SCHEMA = {"response_format": {"type": "json_object"}, "max_tokens": 30}
REQUEST, SERVER = "one request", "the server"
FAULTS = {
    # in the server's process: the event loop, the listening thread, and what it calls
    "encoding a prompt": (patch(api.Service, "encode", lambda service, text, *_: "victim" in text), REQUEST, {}),
    "checking a grammar": (patch(grammar.JsonGrammar, "check"), REQUEST, SCHEMA),
    "sending a request": (patch(AsyncEngine, "send", lambda _, what: is_victim(what)), REQUEST, {}),
    "an answer's pieces": (patch(OutputCollector, "process", lambda collector, *_: is_victim(collector)), REQUEST, {}),
    "text of tokens": (patch(OutputProcessor, "update", is_victim), REQUEST, {}),
    "log-probabilities": (patch(api, "completion_logprobs", lambda piece, _: piece.logprobs), REQUEST, {"logprobs": 2}),
    "times of tokens": (patch(Metrics, "record_end", lambda _, times, reason, prompt, tokens: tokens == 9), REQUEST,
                        {"max_tokens": 9}),
    "the engine's state": (patch(Metrics, "set_state"), SERVER, {}),
    "handling a message": (patch(AsyncEngine, "handle"), SERVER, {}),
    "an unreadable message": (unreadable, SERVER, {}),
    # in the engine's process
    "an unreadable request": (garbage, SERVER, {}),
    "adding a request": (patch(engine.LLMEngine, "add_requests", lambda _, parents: is_victim(parents[0].requests[0])),
                     REQUEST, {}),
    "queueing": (patch(Scheduler, "add", lambda _, request: is_victim(request)), REQUEST, {}),
    "starting a grammar": (patch(grammar.JsonGrammar, "__call__"), REQUEST, SCHEMA),
    "a grammar on its way": (patch(grammar.Constraint, "__call__", lambda _, ids: len(ids) == 3), REQUEST, SCHEMA),
    "looking for stop texts": (patch(OutputProcessor, "update", is_victim), REQUEST, {"stop": ["zzz"]}),
    "handing a piece over": (patch(OutputCollector, "put", lambda collector, _: is_victim(collector)), REQUEST, {}),
    "making an output": (patch(engine, "make_engine_output", lambda output, *_: is_victim(output)), REQUEST, {}),
    "a step": (patch(EngineCore, "step"), SERVER, {}),
    "planning": (patch(Scheduler, "schedule"), SERVER, {}),
    "computing": (patch(ModelRunner, "submit"), SERVER, {}),
    "collecting": (patch(ModelRunner, "collect", error=MemoryError()), SERVER, {}),
    "updating": (patch(Scheduler, "update"), SERVER, {}),
    "sending outputs": (patch(EngineLoop, "send_outputs"), SERVER, {}),
    "the engine's exit": (patch(EngineCore, "step", error=SystemExit(3)), SERVER, {}),
}


async def ask(client, prompt="Once upon a time", **more):
    """A status, and the answer's text or its error."""
    body = {"model": "fable", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True} | more
    answer = await asyncio.wait_for(client.post("/v1/completions", json=body), PATIENCE)
    if not answer.headers["content-type"].startswith("text/event-stream"):
        said = answer.json()
        return said["choices"][0]["text"] if answer.status_code == 200 else said["error"]["message"], answer.status_code
    lines = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    wrong = [line["error"]["message"] for line in lines if "error" in line]
    text = "".join(line["choices"][0]["text"] for line in lines if line.get("choices"))
    return (wrong[0], 500) if wrong else (text, 200)


async def life(made, ended, inject, outcome, more, stream):
    """A healthy request, a fault, two requests of which one meets it, and what the server is like afterwards."""
    transport = httpx.ASGITransport(build_app(made, ServerArgs("fable")), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=None) as client:
        healthy = await ask(client)
        assert healthy[1] == 200 and not ended.is_set()
        inject()
        victim, bystander = await asyncio.gather(
            ask(client, "The victim", seed=VICTIM, stream=stream, **more), ask(client, stream=stream))
        health = (await client.get("/health")).status_code
        if outcome == SERVER:
            assert victim[1] >= 500 and bystander[1] >= 500 and victim[0]
            assert await asyncio.to_thread(ended.wait, PATIENCE) and (await client.get("/health")).status_code == 503
            assert (await ask(client))[1] == 503
            return
        assert victim[1] >= 400 and "injected" not in victim[0], victim
        assert bystander == healthy and health == 200 and await ask(client) == healthy
        while made.metrics.state.running or made.metrics.state.blocks_used:  # the victim's row and blocks come back
            await asyncio.sleep(0.01)
            await ask(client, max_tokens=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_one_request_or_the_server_and_never_leaves_it_half_alive(start, monkeypatch, name):
    inject, outcome, more = FAULTS[name]
    made, ended = start()
    stream = list(FAULTS).index(name) % 2 == 1
    asyncio.run(asyncio.wait_for(life(made, ended, lambda: inject(monkeypatch, made), outcome, more, stream), 300))
