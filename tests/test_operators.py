"""What an operator meets: strange folders, little memory, logs, drains, and the last words of what has died."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import tinyllm
from tinyllm.engine.kv_cache import bytes_per_token
from tinyllm.llm import LLM, EngineArgs
from tinyllm.model.config_reader import read_config, resolve
from tinyllm.model.memory import VERSION_1, VERSION_2, available_memory

PACKAGE = Path(tinyllm.__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


# ---- processes ----


def test_a_child_process_imports_what_its_parent_imported_wherever_it_is_started(tmp_path):
    (tmp_path / "tinyllm").mkdir()
    for trap in (tmp_path / "tinyllm" / "__init__.py", tmp_path / "argparse.py"):
        trap.write_text("raise SystemExit('the wrong module')\n")
    code = f"""
import os, sys
from tinyllm.parallel.executors import start_process
os.chdir({str(tmp_path)!r})
for more in ([], [""]):  # as an installed command, and as in a shell, where the folder comes first
    sys.path[:0] = more
    print([start_process("tinyllm.cli", "say")[0].wait(60)], flush=True)  # it says a number, and is done
    os.remove("argparse.py") if not more else None
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd="/", env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "[0]\n[0]\n", done.stderr
    assert re.fullmatch(r"\d+\n\d+\n", done.stderr)


def test_the_last_words_of_a_process_come_through_its_pipe_and_its_end_is_named():
    from tinyllm.parallel.executors import how_it_ended, start_process

    worker, pipe = start_process("tinyllm.parallel.executors", "no_such_function")
    kind, said = pipe.recv()
    assert kind == "error" and "cannot import name 'no_such_function'" in said
    assert worker.wait(60) == 1 and how_it_ended(worker) == "has ended with status 1"
    worker, pipe = start_process("time", "sleep")
    worker.kill()
    worker.wait(60)
    assert how_it_ended(worker) == "was ended by signal 9"


# ---- memory ----


def group(folder, names, limit, used, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in ((names.limits[0], limit), (names.used, used)):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names.prefix}inactive_file {files}\n{names.prefix}active_file 0\n")


sizes = st.integers(0, 2**35)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([VERSION_1, VERSION_2]), sizes, st.lists(st.tuples(st.none() | sizes, sizes, sizes), max_size=3))
def test_available_memory_is_the_least_of_the_machines_and_of_each_group_around(tmp_path_factory, names, here, limits):
    root, path, expected = tmp_path_factory.mktemp("root"), "", [here // 1024 * 1024]
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemFree: 1 kB\nMemAvailable:   {here // 1024} kB\n")
    for depth, (limit, used, files) in enumerate(limits):
        path += f"/g{depth}"
        none = "max" if names is VERSION_2 else 2**63 - 4096
        group(root / names.folder / path[1:], names, none if limit is None else limit, used, files)
        expected += [] if limit is None else [max(0, limit - used + files)]
    line = f"0::{path or '/'}" if names is VERSION_2 else f"9:cpu,memory:{path or '/'}"
    (root / "proc/self/cgroup").write_text(f"3:devices:/other\n{line}\n")
    assert available_memory(root) == min(expected)


def test_memory_is_asked_for_in_one_place_and_both_who_need_it_believe_the_answer(monkeypatch):
    asked = [path.name for path in PACKAGE.rglob("*.py") if re.search("SC_AVPHYS_PAGES|MemAvailable", path.read_text())]
    assert asked == ["memory.py"]
    from tinyllm.engine import kv_cache
    from tinyllm.model import whole_step

    cpu, model = torch.device("cpu"), SimpleNamespace(parameters=lambda: [torch.empty(1000)])
    for available, room in ((17_000, True), (15_000, False)):
        for module in (kv_cache, whole_step):
            monkeypatch.setattr(module, "available_memory", lambda available=available: available)
        assert kv_cache.free_memory(cpu, 0.9) == available // 2
        if room:
            assert whole_step.has_room(model)
        else:
            with pytest.warns(UserWarning, match="are available"):
                assert not whole_step.has_room(model)


def test_the_size_of_the_cache_can_be_set_in_bytes_for_an_engine_and_for_each_rank():
    from tinyllm.engine.memory_plan import count_blocks
    from tinyllm.parallel.executors import Deployment

    config, size = read_config(resolve("fable")), 20_000_000
    blocks = size // (16 * bytes_per_token(config, torch.float32)) - 1  # block 0 is nobody's
    llm = LLM("fable", device="cpu", enforce_eager=True, kv_cache_memory_bytes=size)
    assert llm.core.scheduler.kv_cache_manager.block_pool.num_blocks == blocks
    deployment = Deployment("fable", tensor_parallel_size=2, kv_cache_memory_bytes=size)
    assert count_blocks(llm.model, None, deployment.cache_sizes) == blocks
    with pytest.raises(ValueError, match="kv_cache_memory_bytes is 0"):
        EngineArgs("fable", kv_cache_memory_bytes=0)
    with pytest.raises(ValueError, match="raise gpu_memory_utilization or kv_cache_memory_bytes"):
        LLM("fable", device="cpu", kv_cache_memory_bytes=1000)


def test_copies_on_one_cpu_share_its_memory(monkeypatch):
    from tinyllm.parallel import build

    monkeypatch.setattr(build, "free_memory", lambda device, utilization: 1200)
    one = EngineArgs("fable", device="cpu", data_parallel_size=3)
    assert build.kv_cache_share(one) == 400
    assert build.kv_cache_share(replace(one, tensor_parallel_size=2)) == 200
    assert build.kv_cache_share(replace(one, kv_cache_memory_bytes=77)) == 77
    assert build.kv_cache_share(replace(one, distributed_executor_backend="ray")) is None


@pytest.mark.parametrize(
    "text, number", [("4000", 4000), ("4k", 4000), ("4K", 4096), ("1.5G", 3 * 2**29), ("2t", 2 * 10**12)]
)
def test_a_size_on_the_command_line_may_have_a_unit(text, number):
    from tinyllm.cli import build_parser

    args = build_parser().parse_args(["serve", "--kv-cache-memory-bytes", text])
    assert args.kv_cache_memory_bytes == number


# ---- a server and its log ----


def test_a_server_tells_its_operator_what_he_needs_and_ends_open_streams_with_an_error(tmp_path):
    for needed in ("httpx", "fastapi"):
        pytest.importorskip(needed)
    from server_process import Server

    (tmp_path / "tinyllm").mkdir()
    (tmp_path / "tinyllm" / "__init__.py").write_text("raise SystemExit('the wrong module')\n")
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    keys.chmod(0o644)
    options = ("--api-key-file", keys, "--log-requests", "--metrics-without-key", "--drain-seconds", 1,
               "--max-num-seqs", 4, "--max-model-len", 128, "--kv-cache-memory-bytes", "20M")  # fmt: skip
    heeds_hangups = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # also where these tests do not
    server = Server(*options, cwd=tmp_path, preexec_fn=heeds_hangups)
    mine = {"Authorization": "Bearer secret"}
    assert "can be read by every user" in "".join(server.said)

    def post(more=(), **wishes):
        body = {"model": "fable", "prompt": "Hush, a word", "max_tokens": 5, "ignore_eos": True, **wishes}
        return server.http.post("/v1/completions", json=body, headers=mine | dict(more))

    assert post({"X-Request-Id": "trace-7"}, n=2).headers["x-request-id"] == "trace-7"
    assert post({"X-Request-Id": "two words"}).headers["x-request-id"] != "two words"
    refused = server.http.get("/v1/models")
    assert refused.status_code == 401 and len(refused.headers["x-request-id"]) == 16
    untyped = server.http.post("/v1/completions", content='{"prompt": "Hush"}', headers=mine)
    assert untyped.status_code == 415 and "Content-Type: application/json" in untyped.json()["error"]["message"]
    page = server.http.get("/metrics").text
    for labels in ('handler="/v1/completions",method="POST",status="200"', 'status="401"', 'status="415"'):
        assert labels + "} " + ("2.0" if "200" in labels else "1.0") in page
    for name in ("process_resident_memory_bytes", "engine_process_resident_memory_bytes"):
        assert float(re.search(rf"^{name} (\S+)$", page, re.M)[1]) > 50e6

    stream = {"model": "fable", "prompt": "Hush, a word", "max_tokens": 100, "ignore_eos": True, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=stream, headers=mine) as answer:
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.iter_lines()
        next(lines)
        os.kill(server.engine_pid(), signal.SIGSTOP)  # so that the answer is never complete
        server.process.send_signal(signal.SIGHUP)
        rest = [line for line in lines if line]
    assert "shutting down" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]
    assert server.process.wait(60) == 0
    server.reader.join(30)
    said = "".join(server.said)
    assert re.search(r"weights: \d+\.\d MB in float32; KV cache: [\d.]+ MB, 512 tokens in 32 blocks of 16", said)
    line = next(line for line in server.said if "request trace-7 " in line)
    assert re.search(r"POST /v1/completions status=200 .*prompt=\d+ cached=\d+ tokens=10 first=\S+ ended=length", line)
    assert "GET /v1/models status=401" in said and "ended=abort:1" in said and "/metrics" not in said
    assert "Hush" not in said and "Traceback" not in said


@pytest.mark.parametrize("options, words", [
    (["--host", "0.0.0.0"], "--host 0.0.0.0 lets in every machine"),
    (["--host", "0.0.0.0", "--api-key", "x"], ""),
    ([], ""),
])  # fmt: skip
def test_an_open_door_is_warned_of(options, words, monkeypatch, capsys):
    from tinyllm.cli import main

    pytest.importorskip("fastapi")
    monkeypatch.delenv("TINYLLM_API_KEY", raising=False)
    monkeypatch.setattr("tinyllm.serve.api.serve", lambda *rest: 0)
    assert main(["serve", *options]) == 0
    said = capsys.readouterr().err
    assert words in said and bool(words) == bool(said)
