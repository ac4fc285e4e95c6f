"""Whatever a client sends, the server answers in OpenAI's form, repeats nothing, and goes on.

Bodies come from the server's own OpenAPI description: values that it allows, and values that it does not.
TINYLLM_EXAMPLES=3000 tries more of them, and others each time.
"""

import json
import os
import socket
import time

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import Server

OPTIONS = ("--max-num-seqs", 16, "--max-model-len", 64, "--num-gpu-blocks-override", 100, "--max-body-bytes", 100_000,
           "--request-seconds", 2)  # fmt: skip
PATHS = {
    "/v1/completions": {"model": "fable", "prompt": "Once", "max_tokens": 2},
    "/v1/chat/completions": {"model": "fable", "messages": [{"role": "user", "content": "Once"}], "max_tokens": 2},
    "/tokenize": {"prompt": "Once"},
    "/detokenize": {"tokens": [5]},
}
SECRET = "the secret that nobody may repeat"
DEEP = 1000 * "[" + 1000 * "]"
ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                        lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=9), some),
                        max_leaves=8)  # fmt: skip
HOSTILE = [None, True, 0, -1, 1.5, 2**31, 2**63, 2**70, 10**400, 1e308, float("nan"), float("inf"), float("-inf"),
           "", " ", "\0", "\ud800", "a" * 3000, SECRET, [], [[]], [None], [""], [" "], [SECRET], [-1], [2**70], {},
           {"": {}}, {"\ud800": 1}, {"1": float("nan")}, {"9" * 5000: 1}, {"type": SECRET},
           json.loads(900 * "[" + 900 * "]"), {"type": "json_object"},
           {"type": "json_schema", "json_schema": {"name": "a", "schema": {"pattern": "("}}},
           {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}}]  # fmt: skip
MORE = int(os.environ.get("TINYLLM_EXAMPLES", "0"))


@pytest.fixture(scope="module")
def server():
    server = Server(*OPTIONS)
    yield server
    assert server.idle(), "something was not given back"
    assert ask(server, "/v1/completions", PATHS["/v1/completions"])[0] == 200
    assert server.stop() == 0
    said = "".join(server.said)
    assert "Traceback" not in said and SECRET not in said, said[-2000:]


@pytest.fixture(scope="module")
def description(server):
    return server.http.get("/openapi.json").json()


def strict(text):
    """JSON as its standard has it: no NaN, no Infinity."""
    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def is_refusal(value):
    kinds = {"message": str, "type": str, "param": (str, type(None)), "code": (str, type(None))}
    error = value["error"]
    return set(value) == {"error"} and set(error) == set(kinds) and all(isinstance(error[k], kinds[k]) for k in kinds)


def ask(server, path, body, kind="application/json"):
    """Send a body, and look at whatever comes back: the status, and the whole text."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = server.http.post(path, content=data, headers={"content-type": kind}, timeout=20)
    assert answer.status_code in (200, 400, 404, 413, 415), (answer.status_code, answer.text[:300])
    if answer.status_code != 200:
        assert is_refusal(answer.json()), answer.text
        assert SECRET not in answer.text and len(answer.text) < 1000
    elif answer.headers["content-type"].startswith("text/event-stream"):
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        values = [strict(line) for line in lines if line != "[DONE]"]
        assert lines[-1] == "[DONE]" or is_refusal(values[-1])
    else:
        strict(answer.text)
    return answer.status_code, answer.text


def allowed(schema, parts):
    """Values that a JSON schema of the description allows, for what pydantic writes into one."""
    if "$ref" in schema:
        return st.deferred(lambda: allowed(parts[schema["$ref"].rsplit("/", 1)[1]], parts))
    if "anyOf" in schema:
        return st.one_of(*(allowed(one, parts) for one in schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    least, most = schema.get("minimum"), schema.get("maximum")
    if schema.get("type") == "array":
        few = min(schema.get("maxItems", 4), 4)
        return st.lists(allowed(schema["items"], parts), min_size=schema.get("minItems", 0), max_size=few)
    if schema.get("type") == "object" and "properties" in schema:
        fields, needed = schema["properties"], schema.get("required", [])
        return st.fixed_dictionaries({name: allowed(fields[name], parts) for name in needed},
                                     optional={n: allowed(f, parts) for n, f in fields.items() if n not in needed})
    if schema.get("type") == "object":
        more = schema.get("additionalProperties", True)
        return st.dictionaries(st.text(max_size=6), ANYTHING if more is True else allowed(more, parts), max_size=4)
    simple = {"string": st.text(max_size=min(schema.get("maxLength", 40), 40)), "boolean": st.booleans(),
              "null": st.none(), "integer": st.integers(least, most), "number": st.floats(least, most)}
    return simple[schema["type"]] if "type" in schema else ANYTHING


def bodies(description, path):
    """The ordinary body of a path with some of its properties changed, taken away, or joined by strange ones."""
    schema = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rsplit("/", 1)[1]
    fields = description["components"]["schemas"][name]["properties"]
    parts = description["components"]["schemas"]
    some, hostile = st.sampled_from(sorted(fields)), st.sampled_from(HOSTILE)
    changes = st.one_of(
        some.flatmap(lambda name: st.tuples(st.just(name), allowed(fields[name], parts))),
        st.tuples(some, hostile),
        st.tuples(st.text(max_size=8), hostile),
    )
    return st.builds(lambda new, gone: {k: v for k, v in (PATHS[path] | dict(new)).items() if k not in gone},
                     st.lists(changes, min_size=1, max_size=4), st.sets(some, max_size=1))  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_any_body_is_answered_or_refused_in_the_right_form(server, description, path):
    @given(bodies(description, path))
    @settings(max_examples=MORE or 120, deadline=None, derandomize=not MORE, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def tried(body):
        ask(server, path, body)

    tried()
    assert server.http.get("/health").status_code == 200


KILLED = [{"bad_words": [" "]}, {"bad_words": ["\t", "\n "]}, {"logit_bias": {"9" * 5000: 1}}, {"prompt": []},
          {"logprobs": 3, "response_format": {"type": "json_object"}, "max_tokens": 9}]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("change", KILLED, ids=lambda change: str(change)[:40])
def test_what_once_did_harm_does_none(server, change, stream):
    ask(server, "/v1/completions", PATHS["/v1/completions"] | change | {"stream": stream})
    assert server.http.get("/health").status_code == 200


def test_one_body_cannot_ask_for_thousands_of_answers(server):
    body = PATHS["/v1/completions"] | {"prompt": ["a"] * 256, "n": 32}
    status, text = ask(server, "/v1/completions", body)
    assert status == 400 and "8,192 answers" in text


RAW_BODIES = {
    "nothing": b"", "no JSON": b"{not json", "half": b'{"model": "fable", "prompt": "' + SECRET.encode(),
    "null": b"null", "a list": b"[]", "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "UTF-16": json.dumps(PATHS["/tokenize"]).encode("utf-16"),
    "NaN": b'{"model": "fable", "prompt": "a", "temperature": NaN}', "a NUL": b'{"model": "fable", "prompt": "a\0"}',
    "too large a number": b'{"model": "fable", "prompt": "a", "seed": %s}' % (b"9" * 5000),
    "twice the same key": b'{"model": "fable", "prompt": "a", "prompt": "b", "max_tokens": 1, "max_tokens": 2}',
    "deep": b'{"model": "fable", "prompt": %s}' % DEEP.encode(), "deeper": b"[" * 90_000, "too long": b" " * 100_001,
}  # fmt: skip


@pytest.mark.parametrize("name", RAW_BODIES)
def test_any_bytes_are_answered_or_refused_in_the_right_form(server, name):
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x", ""):
        for path in PATHS:
            status, _ = ask(server, path, RAW_BODIES[name], kind)
            told = (200, 400) if kind == "application/json" else (400, 415)  # it was not said to be JSON
            assert status in told or name == "too long", (kind, path, status)


def talk(server, *parts, wait=0.0):
    """Send bytes to the server's port, part by part; what comes back until it hangs up, and after how many seconds."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        got = b""
        try:
            for part in parts:
                s.sendall(part)
                time.sleep(wait)
            while data := s.recv(65536):
                got += data
        except ConnectionError:
            pass
    return got, time.monotonic() - begun


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
NO_HTTP = {
    "words": b"What a nice day!\r\n\r\n", "TLS": b"\x16\x03\x01\x02\x00" * 50,
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a huge header": b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2**20,
    "a huge address": b"GET /" + b"a" * 2**20, "no end of headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n",
    "a long length": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_http_is_refused_in_openais_form(server, name):
    got, _ = talk(server, NO_HTTP[name])
    if got:  # a client that still sends when the server hangs up may not see its last words
        head, _, body = got.partition(b"\r\n\r\n")
        assert b" 400 " in head.splitlines()[0] and is_refusal(json.loads(body))
    else:
        assert "huge" in name or "no end" in name
    assert server.http.get("/health").status_code == 200


def test_chunks_are_counted_and_too_many_are_refused(server):
    got, _ = talk(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"2710\r\n" + b"a" * 10_000 + b"\r\n"] * 11)
    assert b" 413 " in got.splitlines()[0] and is_refusal(json.loads(got.partition(b"\r\n\r\n")[2]))


UNFINISHED = {"a head": b"POST /v1/comp", "a body": HEAD + b"Content-Length: 500\r\n\r\n{", "nothing": b""}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_request_that_never_ends_is_given_up(server, name):
    """The server waits for two seconds here, however slowly more comes."""
    got, seconds = talk(server, UNFINISHED[name], *[b"x"] * 12, wait=0.3)
    assert 1.5 < seconds < 15
    if got:
        assert b" 408 " in got.splitlines()[0] and is_refusal(json.loads(got.partition(b"\r\n\r\n")[2]))
    assert server.idle()


def test_a_patient_client_may_keep_its_connection(server):
    """Neither a long answer nor a pause within the keep-alive time is taken for a request that never ends."""
    with httpx.Client(base_url=server.url) as client:
        for _ in range(2):
            assert client.get("/health").status_code == 200
            time.sleep(2.5)
