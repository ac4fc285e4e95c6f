"""The server as its clients see it: the real openai client, keys, limits, hang-ups, deaths and drains."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time

import pytest

torch = pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
fastapi = pytest.importorskip("fastapi")

from server_process import Server as ServerProcess

from tinyllm.engine.params import SamplingParams
from tinyllm.llm import LLM
from tinyllm.serve.api import stream_response

OPTIONS = ["--max-num-seqs", "32", "--max-model-len", "256", "--num-gpu-blocks-override", "300"]
OPTIONS += ["--max-body-bytes", "100000"]


class Server(ServerProcess):
    """A small server, and openai's clients for it."""

    def __init__(self, keys=(), waiting=500):
        super().__init__("--max-waiting", waiting, *OPTIONS, keys=keys)

    def client(self, kind=openai.OpenAI, key="none"):
        return kind(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server):
    return server.client()


@pytest.fixture(scope="module")
def llm():
    return LLM("fable", max_num_seqs=8, max_model_len=256)


def said(llm, prompt, **wishes):
    return llm.generate(prompt, SamplingParams(**wishes), use_tqdm=False)[0].outputs


def test_a_completion_is_what_the_engine_says(client, llm):
    wishes = {"max_tokens": 20, "temperature": 0, "stop": [" he"]}
    answer = client.completions.create(model="fable", prompt="Once upon a time", **wishes)
    want = said(llm, "Once upon a time", **wishes)[0]
    assert answer.choices[0].text == want.text and answer.choices[0].finish_reason == want.finish_reason == "stop"
    assert answer.usage.completion_tokens == len(want.token_ids) and answer.usage.prompt_tokens == 4


def test_several_prompts_and_answers_are_numbered(client, llm):
    prompts = ["Once upon a time", "The king"]
    answer = client.completions.create(model="fable", prompt=prompts, n=2, max_tokens=8, seed=5)
    want = [one.text for prompt in prompts for one in said(llm, prompt, n=2, seed=5, max_tokens=8)]
    assert [c.text for c in sorted(answer.choices, key=lambda c: c.index)] == want


def test_a_stream_adds_up_to_the_whole_and_says_what_it_has_cost(client, llm):
    chunks = list(client.completions.create(model="fable", prompt="The old woman", max_tokens=24, seed=3, stream=True,
                                            stream_options={"include_usage": True}))  # fmt: skip
    want = said(llm, "The old woman", max_tokens=24, seed=3)[0]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == want.text
    assert chunks[-1].usage.completion_tokens == len(want.token_ids) and not chunks[-1].choices
    assert [c.choices[0].finish_reason for c in chunks[-2:-1]] == [want.finish_reason]


STORY = "Once upon a time"
STOPS = [
    ["so happy"], ["a"], ["h", "so happy"], [" never", "king", "happy"], ["e", "he"], [".", "\n"], ["%%%%"],
]  # fmt: skip


def in_stream(client, **wishes):
    """The text of a streamed answer, why it ended, what stopped it, and how many tokens it has cost."""
    text, end, cost = "", None, None
    with client.completions.create(**wishes, stream=True, stream_options={"include_usage": True}) as chunks:
        for chunk in chunks:
            cost = chunk.usage or cost
            for choice in chunk.choices:
                text, end = text + choice.text, choice
    return text, end.finish_reason, end.stop_reason, cost.completion_tokens


@pytest.mark.parametrize("keep", [False, True])
def test_a_stop_text_cuts_the_text_at_its_first_place_whole_and_streamed(client, llm, server, keep):
    plain = said(llm, STORY, max_tokens=40, temperature=0)[0].text
    ends = [plain[-9:], plain[10:60], plain[-1]]  # of many tokens, of twelve words, at the last token
    for stops in [*STOPS, *([stop] for stop in ends)]:
        places = [(plain.find(stop), len(stop), stop) for stop in stops if stop in plain]
        place, length, stop = min(places, default=(len(plain), 0, None))
        want = plain[: place + length * keep], "stop" if stop else "length", stop
        wishes = {"model": "fable", "prompt": STORY, "max_tokens": 40, "temperature": 0, "stop": stops,
                  "extra_body": {"include_stop_str_in_output": keep}}  # fmt: skip
        whole = client.completions.create(**wishes)
        choice = whole.choices[0]
        assert (choice.text, choice.finish_reason, choice.stop_reason) == want, stops
        assert in_stream(client, **wishes) == (*want, whole.usage.completion_tokens), stops
        offline = said(llm, STORY, max_tokens=40, temperature=0, stop=stops, include_stop_str_in_output=keep)[0]
        assert (offline.text, offline.finish_reason, offline.stop_reason) == want
        assert whole.usage.completion_tokens == len(offline.token_ids)
    assert server.idle(), "an answer that a stop text has ended still has its blocks"


def test_of_several_answers_each_ends_at_its_own_stop_text_and_tokens_keep_their_places(client, llm):
    wishes = {"prompt": STORY, "max_tokens": 24, "seed": 4, "n": 3, "stop": [" the", "king"], "logprobs": 20}
    got = client.completions.create(model="fable", **wishes).choices
    want = said(llm, **wishes)
    assert [choice.text for choice in sorted(got, key=lambda c: c.index)] == [one.text for one in want]
    for choice in got:
        places = zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
        places = [(token, place) for token, place in places if place + len(token) <= len(choice.text)]
        assert places and all(choice.text[place:].startswith(token) for token, place in places)
        assert all(len(top) >= 20 for top in choice.logprobs.top_logprobs)


PARAMETERS = [{"temperature": 0.7, "top_p": 0.8, "seed": 1}, {"presence_penalty": 1.5, "temperature": 0},
              {"frequency_penalty": 1.5, "temperature": 0}, {"logit_bias": {"7": 100}, "temperature": 0},
              {"extra_body": {"top_k": 3, "seed": 2}}, {"extra_body": {"min_p": 0.3, "seed": 2}},
              {"extra_body": {"repetition_penalty": 1.5, "temperature": 0}},
              {"extra_body": {"min_tokens": 10, "temperature": 0}},
              {"extra_body": {"bad_words": ["the"], "temperature": 0}},
              {"extra_body": {"allowed_token_ids": [9, 10, 11], "seed": 1}},
              {"extra_body": {"ignore_eos": True, "temperature": 0}},
              {"extra_body": {"stop_token_ids": [11, 12, 13], "temperature": 0}},
              {"stop": [",", "."], "temperature": 0, "extra_body": {"include_stop_str_in_output": True}}]  # fmt: skip


@pytest.mark.parametrize("wishes", PARAMETERS, ids=lambda w: ",".join([*w.keys(), *w.get("extra_body", {})]))
def test_every_parameter_reaches_the_engine(client, llm, wishes):
    answer = client.completions.create(model="fable", prompt="Once upon a time", max_tokens=12, **wishes)
    flat = {**wishes, **wishes.get("extra_body", {})}
    flat.pop("extra_body", None)
    want = said(llm, "Once upon a time", max_tokens=12, **flat)[0]
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (want.text, want.finish_reason)


def test_log_probabilities_are_the_engines(client, llm):
    wishes = {"max_tokens": 4, "temperature": 0, "logprobs": 3}
    got = client.completions.create(model="fable", prompt="The king", **wishes).choices[0]
    want = said(llm, "The king", **wishes)[0]
    scores = [line[token].logprob for token, line in zip(want.token_ids, want.logprobs, strict=True)]
    assert got.logprobs.token_logprobs == pytest.approx(scores, abs=1e-4)
    assert "".join(got.logprobs.tokens) == got.text and all(len(top) >= 3 for top in got.logprobs.top_logprobs)


def test_a_conversation_is_answered_with_log_probabilities(client):
    talk = [{"role": "user", "content": "The old"}]
    got = client.chat.completions.create(model="fable", messages=talk, max_completion_tokens=5, logprobs=True,
                                         top_logprobs=2, temperature=0)  # fmt: skip
    entries = got.choices[0].logprobs.content
    assert "".join(e.token for e in entries) == got.choices[0].message.content
    assert all(len(e.top_logprobs) == 2 for e in entries)
    assert all(e.top_logprobs[0].logprob >= e.top_logprobs[1].logprob for e in entries)
    stream = client.chat.completions.create(model="fable", messages=talk, max_tokens=5, temperature=0, stream=True)
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == got.choices[0].message.content


def test_an_answer_keeps_to_a_json_schema(client):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "old": {"type": "boolean"}},
              "required": ["name", "old"], "additionalProperties": False}  # fmt: skip
    got = client.chat.completions.create(
        model="fable", messages=[{"role": "user", "content": "The king"}], max_tokens=60, seed=4,
        response_format={"type": "json_schema", "json_schema": {"name": "king", "schema": schema}},
    )  # fmt: skip
    value = json.loads(got.choices[0].message.content)
    assert set(value) == {"name", "old"} and isinstance(value["old"], bool) and got.choices[0].finish_reason == "stop"


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "foo"}}}
REFUSED = [
    ({"prompt": ""}, 400, "empty"),
    ({"max_tokens": 5000}, 400, "5,000"),
    ({"temperature": 3}, 400, "temperature"),
    ({"tempreature": 1}, 400, "tempreature"),
    ({"n": 1000}, 400, "n:"),
    ({"model": "gpt"}, 404, "not served"),
    ({"prompt": [99999]}, 400, "vocabulary"),
    ({"max_tokens": 0}, 400, "echo"),
    ({"suffix": "end"}, 400, "suffix"),
    ({"best_of": 3}, 400, "best_of"),
    ({"logprobs": 50}, 400, "max_logprobs"),
    ({"stop": ["x"] * 40}, 400, "stop"),
    ({"response_format": {"type": "json_schema"}}, 400, "json_schema"),
    ({"response_format": SCHEMA}, 400, "schema"),
    ({"prompt": "x" * 50_000}, 400, "characters"),
    ({"prompt": "y" * 200_000}, 413, "larger"),
]  # fmt: skip


@pytest.mark.parametrize("change, status, words", REFUSED, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_by_name_and_not_repeated(server, change, status, words, stream):
    body = {"model": "fable", "prompt": "Once", "max_tokens": 4, "stream": stream, **change}
    got = server.http.post("/v1/completions", json=body)
    assert got.status_code == status, got.text
    error = got.json()["error"]
    assert words in error["message"] and set(error) == {"message", "type", "param", "code"}
    assert "yyyy" not in got.text and "xxxx" not in got.text
    torn = server.http.post("/v1/completions", content=b"{not json", headers={"Content-Type": "application/json"})
    assert torn.status_code == 400


TOOL = [{"type": "function", "function": {"name": "now"}}]


def test_tools_are_refused_where_the_template_has_none(server):
    body = {"model": "fable", "messages": [{"role": "user", "content": "A"}], "tools": TOOL}
    assert "chat template" in server.http.post("/v1/chat/completions", json=body).json()["error"]["message"]


def test_tokens_there_and_back(server):
    ids = server.http.post("/tokenize", json={"prompt": "Once upon a time"}).json()["tokens"]
    assert server.http.post("/detokenize", json={"tokens": ids}).json()["prompt"] == "Once upon a time"
    assert server.http.get("/v1/models").json()["data"][0]["id"] == "fable"


TALK = [{"role": "user", "content": "Who was it?"}, {"role": "assistant", "content": "Once upon"}]


@pytest.mark.parametrize("wishes", [
    {}, {"add_generation_prompt": False}, {"continue_final_message": True, "add_generation_prompt": False},
    {"add_special_tokens": True}, {"chat_template_kwargs": {"eos_token": " the end"}}, {"reasoning_effort": "low"},
    {"return_token_strs": True, "tools": None}], ids=str)  # fmt: skip
def test_the_tokens_of_a_conversation_are_those_of_its_prompt(server, wishes):
    got = server.http.post("/tokenize", json={"model": "fable", "messages": TALK} | wishes).json()
    told = {name: value for name, value in wishes.items() if name != "return_token_strs"}
    body = {"messages": TALK, "max_tokens": 1, "return_token_ids": True} | told
    assert got["tokens"] == server.http.post("/v1/chat/completions", json=body).json()["prompt_token_ids"]
    assert got["count"] == len(got["tokens"]) and got["max_model_len"] == 256
    assert (got["token_strs"] is None) == ("return_token_strs" not in wishes)


@pytest.mark.parametrize("body, words", [
    ({}, "prompt"), ({"prompt": "A", "messages": TALK}, "one of"), ({"messages": []}, "messages"),
    ({"messages": TALK, "continue_final_message": True, "add_generation_prompt": True}, "both"),
    ({"messages": TALK, "tools": TOOL}, "chat template"), ({"prompt": "A", "tools": TOOL}, "tools"),
    ({"messages": TALK, "chat_template_kwargs": {"tools": []}}, "tools"), ({"messages": [{"role": "x"}]}, "role"),
    ({"messages": TALK, "prompt": 5}, "prompt"), ({"prompt": "A", "temperature": 1}, "temperature")], ids=str)
def test_what_cannot_be_tokenized_is_refused_by_name(server, body, words):
    answer = server.http.post("/tokenize", json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text


def test_token_strings_are_those_of_the_vocabulary(server, llm):
    got = server.http.post("/tokenize", json={"prompt": "Once caf\u00e9", "return_token_strs": True}).json()
    assert got["token_strs"] == [llm.tokenizer.backend.id_to_token(i) for i in got["tokens"]]
    assert server.http.post("/detokenize", json={"tokens": [-1]}).status_code == 400
    assert server.http.post("/detokenize", json={"tokens": [0]}).json()["prompt"] == llm.tokenizer.eos_token


@pytest.mark.parametrize("target", ["http://proxy:80/v1/models", "HTTP://[::1]/v1/models?x=1", "https://u@h/v1/models"])
def test_a_whole_url_in_the_request_line_is_taken_for_its_path(server, target):
    none = target.replace("models", "none")
    for what, status in ((target, 200), (none, 404), ("http://host", 200), ("http://host/health", 200)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
            line.sendall(f"GET {what} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 %d" % status), answer[:300]


def test_a_client_that_hangs_up_takes_its_request_with_it(server):
    before = server.metric("generation_tokens_total")
    for stream in (True, False):
        body = {"model": "fable", "prompt": "Once", "max_tokens": 200, "ignore_eos": True, "stream": stream, "n": 4}
        with socket.create_connection(("127.0.0.1", server.port)) as s:
            data = json.dumps(body).encode()
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n%s" % (len(data), data))  # fmt: skip
            while server.metric("num_requests_running") == 0:
                time.sleep(0.01)
        assert server.idle()
    assert server.metric("generation_tokens_total") - before < 2 * 4 * 200


def test_a_client_that_hangs_up_before_the_first_token_waits_no_longer():
    log = []

    async def pieces():
        try:
            log.append("begun")
            await asyncio.Event().wait()  # no token ever comes
            yield {}
        finally:
            log.append("left")

    async def receive():
        while log != ["begun"]:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def answer():
        http = fastapi.Request({"type": "http"}, receive)
        async with asyncio.timeout(20):
            return await stream_response(http, {}, pieces(), None)

    assert asyncio.run(answer()).status_code == 499 and log == ["begun", "left"]


def test_many_streams_at_once_each_get_their_own_answer(server, llm):
    prompts = [f"{word} {i % 7}" for i, word in enumerate(["Once", "The king", "A wolf", "One day"] * 15)]

    async def one(client, i):
        text = ""
        async for chunk in await client.completions.create(
            model="fable", prompt=prompts[i], seed=i, max_tokens=4 + i % 13, stream=True
        ):
            text += chunk.choices[0].text
            await asyncio.sleep(0.2 if i == 0 else 0)  # a slow reader stalls nobody
        return text

    async def all_of_them():
        async with server.client(openai.AsyncOpenAI) as client:
            return await asyncio.gather(*(one(client, i) for i in range(len(prompts))))

    found = asyncio.run(all_of_them())
    params = [SamplingParams(seed=i, max_tokens=4 + i % 13) for i in range(len(prompts))]
    assert found == [a.outputs[0].text for a in llm.generate(prompts, params, use_tqdm=False)]
    assert server.idle()


def test_keys_queues_and_a_drain():
    server = Server(keys=("first", "second"), waiting=0)
    assert server.http.get("/health", headers={"Authorization": ""}).status_code == 200
    for path in ("/metrics", "/v1/models", "/version", "/nothing"):
        assert server.http.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    prompt = "Once upon a time there was a king who had three daughters and a great castle by the sea"
    cached = []
    for key in ("first", "second", "second"):
        got = server.client(key=key).completions.create(model="fable", prompt=prompt, max_tokens=2)
        cached.append(got.usage.prompt_tokens_details.cached_tokens)
    assert cached[0] == cached[1] == 0 < cached[2]  # nobody sees what another key has cached

    async def load():
        async with server.client(openai.AsyncOpenAI, "first") as client:
            async def one(i):
                try:
                    got = await client.completions.create(
                        model="fable", prompt="A", max_tokens=60, seed=i, extra_body={"ignore_eos": True})  # fmt: skip
                    return got.usage.completion_tokens
                except openai.RateLimitError as error:
                    assert error.response.headers["retry-after"] == "1"
                    return 0
            tasks = [asyncio.create_task(one(i)) for i in range(40)]
            await asyncio.sleep(1.0)
            server.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*tasks)

    counts = asyncio.run(load())
    assert counts.count(60) == 32 and counts.count(0) == 8  # 32 rows, no room to wait; none lost by the drain
    assert server.process.wait(30) == 0


def test_when_the_engine_dies_everyone_is_told_and_the_server_ends():
    server = Server()
    body = {"model": "fable", "prompt": "Once", "max_tokens": 200, "ignore_eos": True, "stream": True, "n": 8}
    with server.http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(server.engine_pid(), signal.SIGKILL)
        rest = [line for line in lines if line]
    assert "engine" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]
    assert server.process.wait(30) == 1
    server.reader.join(30)
    assert "the engine's process was ended by signal 9: restart the server" in server.said[-1]  # for its operator, too


def test_a_model_can_be_looked_up_by_its_name(client):
    assert client.models.retrieve("fable") == next(iter(client.models.list()))
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.models.retrieve("other/name")


def test_an_address_that_is_taken_is_refused_before_the_model_is_loaded(server, capsys, monkeypatch):
    from tinyllm.cli import main

    monkeypatch.setattr("tinyllm.serve.api.AsyncEngine", None)
    for options, words in ((["--port", server.port], f"port {server.port} of 127.0.0.1: Address already in use"),
                           (["--port", 99_999], "port 99999"), (["--host", "no-such-host.invalid"], "choose another")):
        assert main(["serve", *map(str, options)]) == 2
        said = capsys.readouterr()
        warned = said.err.count("warning")  # of an address that others can reach
        assert said.out == "" and words in said.err and said.err.count("\n") == 1 + warned


def test_an_engine_that_cannot_be_says_why_in_one_line(capsys):
    from tinyllm.cli import main

    for options, words in ((["--max-model-len", 100_000], "max_model_len is 100,000"),
                           (["--tensor-parallel-size", 3], "choose a size"),
                           (["--scheduling-policy", "lottery"], "lottery")):
        assert main(["serve", "--port", "0", *map(str, options)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and words in said.err and said.err.count("\n") == 1, said.err


class Talk:
    """`tinyllm chat` on a terminal."""

    def __init__(self, server, *options):
        self.hand, end = pty.openpty()
        command = [sys.executable, "-m", "tinyllm", "chat", "--url", server.url + "/v1", *map(str, options)]
        self.process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                                        env={**os.environ, "TERM": "xterm"})  # fmt: skip
        os.close(end)
        self.seen = ""

    def until(self, words):
        """What comes up to these words."""
        while words not in self.seen:
            assert select.select([self.hand], [], [], 60)[0], self.seen
            self.seen += os.read(self.hand, 4096).decode(errors="replace")
        text, self.seen = self.seen.split(words, 1)
        return text

    def type(self, text):
        os.write(self.hand, text.encode())

    def rest(self):
        """What is left until it ends, and its exit code."""
        with contextlib.suppress(OSError):  # Linux says EIO when the other end has closed
            while piece := os.read(self.hand, 4096):
                self.seen += piece.decode(errors="replace")
        os.close(self.hand)
        return self.seen, self.process.wait(30)


def test_a_talk_on_a_terminal_can_be_edited_stopped_and_ended(server):
    talk = Talk(server, "--max-tokens", 100, "--temperature", 0)
    assert "You talk with fable" in talk.until("> ")
    talk.type("nce upon a time\x01O\x05 there\r")  # Ctrl-A: to the beginning, Ctrl-E: to the end
    talk.until("there")
    talk.until("> ")
    assert server.idle()
    talk.type("\x1b[A")  # the arrow up brings the last line back, whole
    talk.until("Once upon a time there")
    os.kill(server.engine_pid(), signal.SIGSTOP)  # so that there is time to press a key
    talk.type("\r")
    talk.until("\r\n")
    time.sleep(0.5)
    talk.type("\x03")  # Ctrl-C: enough of this answer
    talk.until("> ")
    os.kill(server.engine_pid(), signal.SIGCONT)
    assert server.idle()
    for line in ("And then?", "And after that?"):
        talk.type(line + "\r")
        talk.until(line)
        said = talk.until("> ")
    assert "what was said so far is forgotten" in said
    for line, answer in (("", ""), ("/sing", "/sing is no command"), ("/help", "/system TEXT")):
        talk.type(line + "\r")
        talk.until(line or "\r\n")
        assert answer in talk.until("> ")
    talk.type("\x04")
    text, code = talk.rest()
    assert code == 0 and text.endswith("\r\n") and "Traceback" not in text


def test_a_talk_with_a_server_that_goes_away_ends_with_a_sentence(server, capsys):
    from tinyllm.cli import main

    for url, words in (("127.0.0.1:9", "must be an address such as"), (server.url, "end in /v1"),
                       (server.url + "/metrics?", "no server of models"),
                       ("http://127.0.0.1:1/v1", "start one with")):
        assert main(["chat", "--url", url]) == 2
        assert words in (said := capsys.readouterr().err) and said.count("\n") == 1, said


def test_a_load_is_played_and_summed_up(server):
    from tinyllm.measure.load import RequestTraffic, describe_load, draw_load, sweep_rates

    traffic = RequestTraffic(6, (10, 20), (4, 8), shared_len=5)
    runs = sweep_rates(server.url + "/v1", traffic, [20.0, 50.0], "fable", 4096, promise={"ttft_ms": 60_000})
    for run in runs:
        found = run["result"]
        assert found["failed"] == 0 and found["goodput"] == found["requests_per_second"] > 0
        assert found["ttft_ms"]["p50"] <= found["e2el_ms"]["p50"]
    report = {"model": "fable", "runs": runs}
    assert "20/s" in describe_load(report) and draw_load(report).axes
    wrong = sweep_rates(server.url + "/v1", traffic, [50.0], "another", 4096)[0]["result"]
    assert wrong["failed"] == 6 and "not served" in wrong["errors"][0]
