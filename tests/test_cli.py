"""The command as a user, a pipe and a terminal meet it.

What it says is tried in this process (a start of torch costs seconds); how it ends, in real ones.
"""

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

import tinyllm as tinyllm_package

pytest.importorskip("torch")
COMMAND = [sys.executable, "-c", "from tinyllm.cli import main; raise SystemExit(main())"]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "error",
    "NO_COLOR": "",
    "PYTHONUNBUFFERED": "",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    import torch

    pytest.importorskip("numba")
    import tinyllm.kernels.cpu  # noqa: F401 (compiled and kept by now, so that no command has to say that it compiles)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint of random weights with Fable's tokenizer: fast, and it has no end token."""
    import torch

    from tinyllm.model.transformer import ModelConfig, Transformer
    from tinyllm.model.weights import save_model

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_model(Transformer(ModelConfig(4096, 32, 48, 1, 2, 1, 16, 128)), folder)
    for file in (Path(tinyllm_package.__file__).parent / "models" / "fable").glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def tinyllm(*words, input=b""):
    """Run a command line in this process, with files in memory for its three streams."""
    from tinyllm.cli import main

    streams = [io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") for data in (input, b"", b"")]
    with mock.patch("sys.stdin", streams[0]), redirect_stdout(streams[1]), redirect_stderr(streams[2]):
        code = main([os.fsdecode(word) for word in words])
    return SimpleNamespace(
        returncode=code, stdout=streams[1].buffer.getvalue(), stderr=streams[2].buffer.getvalue()
    )


def process(*words, **kwargs):
    """Run a command line in a process of its own."""
    return subprocess.run(
        [*COMMAND, *words], **{"capture_output": True, "timeout": 120, "env": ENVIRONMENT, **kwargs}
    )


def refused(*words, **kwargs):
    """The one line of a command that must fail with code 2 and say nothing on standard output."""
    done = tinyllm(*words, **kwargs)
    text = done.stderr.decode()
    assert done.returncode == 2 and done.stdout == b"", text
    assert text.count("\n") == 1 and text.startswith("tinyllm: error: ") and "Traceback" not in text
    return text


# ---- what it prints ----


def test_standard_output_is_the_continuation_and_nothing_else(model):
    from tinyllm.engine.generate import generate
    from tinyllm.engine.params import SamplingParams
    from tinyllm.model.hf_tokenizer import Detokenizer, load_tokenizer
    from tinyllm.model.weights import load_model

    tokenizer, params = (
        load_tokenizer(model),
        SamplingParams(temperature=0.9, top_k=50, seed=7, max_tokens=30),
    )
    ids = tokenizer.encode("Once upon a time")
    detokenizer = Detokenizer(tokenizer, ids)
    text = (
        "".join([detokenizer.add(t) for t in generate(load_model(model), ids, params)]) + detokenizer.finish()
    )
    done = process(
        "generate",
        "Once upon a time",
        "--model",
        model,
        "--temperature",
        "0.9",
        "--top-k",
        "50",
        "--seed",
        "7",
        "--max-tokens",
        "30",
    )
    assert done.returncode == 0 and done.stdout.decode() == text + "\n"
    stats = done.stderr.decode()
    assert stats.startswith("tinyllm: 30 tokens in ") and "tokens/s" in stats and "seed 7" in stats
    assert stats.count("\n") == 1


def test_quiet_leaves_standard_error_empty(model):
    assert tinyllm("generate", "Once", "--model", model, "--max-tokens", "2", "--quiet").stderr == b""


def test_a_run_without_a_seed_reports_the_one_that_repeats_it(model):
    words = ["generate", "Once", "--model", model, "--max-tokens", "12", "--temperature", "1.5"]
    first, second = tinyllm(*words), tinyllm(*words)
    assert first.stdout != second.stdout
    seed = first.stderr.decode().rsplit("seed ", 1)[1].strip()
    assert tinyllm(*words, "--seed", seed).stdout == first.stdout
    none = tinyllm(*words, "--seed", "-1").stderr.decode()  # as vLLM writes it
    assert none.rsplit("seed ", 1)[1].strip().isdigit()


def test_an_end_token_ends_the_text_and_is_not_printed(model, tmp_path):
    words = ["generate", "Once upon a time", "--temperature", "0", "--max-tokens", "8", "--model"]
    from tinyllm.engine.generate import generate
    from tinyllm.engine.params import SamplingParams
    from tinyllm.model.hf_tokenizer import load_tokenizer
    from tinyllm.model.weights import load_model

    tokenizer = load_tokenizer(model)
    ids = tokenizer.encode("Once upon a time")
    tokens = list(generate(load_model(model), ids, SamplingParams(temperature=0, max_tokens=8)))
    end = next(i for i in range(2, 8) if tokens[i] not in tokens[:i])
    shutil.copytree(model, tmp_path / "ends")
    config = tmp_path / "ends" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": tokens[end]}))

    done, on = tinyllm(*words, tmp_path / "ends"), tinyllm(*words, tmp_path / "ends", "--ignore-eos")
    assert done.stdout.decode() == tokenizer.decode(tokens[:end]) + "\n"
    assert f"tinyllm: {end + 1} tokens" in done.stderr.decode() and "at the end of the text" in done.stderr.decode()
    assert on.stdout == tinyllm(*words, model).stdout


def test_a_stop_text_ends_the_text_before_it_and_penalties_change_it(model):
    words = ["generate", "Once upon a time", "--temperature", "0", "--max-tokens", "30", "--model", model]
    whole = tinyllm(*words).stdout.decode().removesuffix("\n")
    stop = whole[len(whole) // 2 :][:3]
    done = tinyllm(*words, "--stop", stop, "--stop", "never said")
    assert done.stdout.decode() == whole[: whole.index(stop)] + "\n"
    assert f"ended before {stop!r}" in done.stderr.decode()
    assert tinyllm(*words, "--repetition-penalty", "1.8").stdout.decode() != whole + "\n"
    assert tinyllm(*words, "--max-num-batched-tokens", "2", "--block-size", "2").stdout.decode() == whole + "\n"


def test_presence_and_frequency_penalties_and_bad_words_reach_the_text(model):
    words = ["generate", "Once upon a time", "--temperature", "0", "--max-tokens", "30", "--quiet", "--model", model]
    whole = tinyllm(*words).stdout.decode()
    for name in ("presence", "frequency"):
        assert tinyllm(*words, f"--{name}-penalty", "2").stdout.decode() != whole
    assert tinyllm(*words, "--bad-words", *whole.split()).stdout.decode() != whole


def test_log_probabilities_are_a_line_for_each_token_on_standard_error(model):
    words = ["generate", "Once upon a time", "--max-tokens", "4", "--seed", "1", "--quiet", "--model", model]
    plain, done = tinyllm(*words), tinyllm(*words, "--logprobs", "2")
    assert done.stdout == plain.stdout
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 4 and all("rank" in line for line in lines)
    for line in lines:
        own, rank, *others = map(float, re.findall(r"-\d+\.\d{3}|(?<=rank )\d+", line))
        assert len(others) == (1 if rank <= 2 else 2)
        assert all(other <= own if rank == 1 else other >= own for other in others)
    alone = tinyllm(*words, "--logprobs", "0").stderr.decode().splitlines()
    assert [line.split("rank")[0] for line in alone] == [line.split("rank")[0] for line in lines]


def test_the_prompt_can_come_from_standard_input(model):
    words = ["--model", model, "--max-tokens", "8", "--temperature", "0", "--quiet"]
    expected = tinyllm("generate", "Once upon a time", *words).stdout
    for text in (b"Once upon a time", b"Once upon a time\n", b"Once upon a time\r\n"):
        assert tinyllm("generate", "-", *words, input=text).stdout == expected
    assert tinyllm("generate", "-", *words, input=b"Once upon a time\n\n").stdout != expected


def test_a_prompt_may_begin_with_a_dash(model):
    assert tinyllm("generate", "--model", model, "--max-tokens", "1", "--", "-- said the fox").returncode == 0


def test_without_max_tokens_it_writes_what_fits(model):
    done = tinyllm("generate", "a" * 2 + " a" * 120, "--model", model)
    assert done.returncode == 0 and int(done.stderr.split()[1]) <= 10


def test_on_a_terminal_the_dimmed_prompt_comes_first(model):
    reader, writer = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "generate", "Once upon", "--model", model, "--max-tokens", "3", "--quiet"],
        stdout=writer,
        env={**ENVIRONMENT, "TERM": "xterm"},
    ):
        os.close(writer)
        output = b""
        try:
            while piece := os.read(reader, 4096):
                output += piece
        except OSError:  # Linux says EIO when the other end has closed
            pass
        os.close(reader)
    assert output.startswith(b"\x1b[2mOnce upon\x1b[0m") and output.endswith(b"\r\n")


@pytest.mark.parametrize("variable, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_without_colours_gets_the_plain_prompt(monkeypatch, variable, value):
    from tinyllm.cli import prompt_for_terminal

    monkeypatch.setenv(variable, value)
    assert prompt_for_terminal("Once", mock.Mock(isatty=lambda: True)) == "Once"
    assert prompt_for_terminal("Once", mock.Mock(isatty=lambda: False)) == ""


def test_text_arrives_while_it_is_being_made(model):
    with subprocess.Popen(
        [*COMMAND, "generate", "Once", "--model", model, "--max-tokens", "120"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert os.read(process.stdout.fileno(), 1)
        assert process.poll() is None, "the first character came only with the last"
        process.stdout.read()


def test_an_old_locale_gets_question_marks_instead_of_a_traceback():
    code = (
        "import tinyllm.cli as cli; cli.run_generate = lambda args: cli.write('na\\xefve \\u2728\\n') or 0; "
        "raise SystemExit(cli.main(['generate', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"na?ve ?\n", b"")


# ---- what it refuses ----


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--temperature", "-1", "temperature is -1.0"),
        ("--temperature", "nan", "temperature is nan"),
        ("--temperature", "2.5", "between 0 and 2"),
        ("--top-p", "0", "top_p is 0.0"),
        ("--top-p", "1.5", "top_p is 1.5"),
        ("--min-p", "7", "min_p is 7.0"),
        ("--top-k", "-3", "top_k is -3"),
        ("--top-k", "2.5", "--top-k"),
        ("--max-tokens", "0", "max_tokens is 0"),
        ("--max-tokens", "many", "--max-tokens"),
        ("--seed", "x", "--seed"),
        ("--presence-penalty", "3", "presence_penalty is 3.0"),
        ("--frequency-penalty", "-9", "frequency_penalty is -9.0"),
        ("--logprobs", "30", "logprobs is 30"),
        ("--seed", str(2**64), "seed is"),
        ("--colour", "red", "--colour"),
        ("--device", "tpu", "device is 'tpu'"),
        ("--tensor-parallel-size", "3", "choose a size that does"),
        ("--speculative-config", "{bad", "no JSON object such as"),
        ("--speculative-config", '{"methud": 1}', "methud"),
        ("--skip-tokenizer-init", "--quiet", "--skip-tokenizer-init"),
        ("--max-tokens", "5000", "context of 128"),
    ],
)
def test_a_parameter_out_of_range_is_one_line(model, option, value, words):
    assert words in refused("generate", "Once", "--model", model, option, value)


def test_a_package_that_is_missing_is_named(model, monkeypatch):
    import importlib.util

    monkeypatch.setitem(sys.modules, "ray", None)
    assert "tinyllm-book[ray]" in refused("generate", "Once", "--model", model, "--distributed-executor-backend", "ray")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install httpx" in refused("bench", "serve")


def test_who_waits_long_on_a_terminal_is_told_why(capsys, monkeypatch):
    from tinyllm.cli import announce_slow_loading

    for terminal, seconds, said in ((True, 0, True), (True, 60, False), (False, 0, False)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        with announce_slow_loading(seconds):
            timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
            assert len(timers) <= terminal
            for one in timers if seconds == 0 else ():
                one.join()
        for one in timers:
            one.join()  # cancelled, it ends at once
        assert ("still loading" in capsys.readouterr().err) == said


def test_wrong_numbers_are_refused_before_any_model_is_looked_for():
    assert "top_p" in refused("generate", "Once", "--model", "no-such-model", "--top-p", "2")


def test_missing_words_point_at_the_help():
    assert "tinyllm generate --help" in refused("generate")
    assert "tinyllm --help" in refused()
    assert "sing" in refused("sing")
    assert "--colour red (see tinyllm generate --help)" in refused("generate", "Once", "--colour", "red")
    assert "(see tinyllm bench serve --help)" in refused("bench", "serve", "--colour", "red")
    assert "(see tinyllm --help)" in refused("--colour", "generate", "Once")


def test_the_module_of_the_command_can_be_run_itself():
    done = subprocess.run([sys.executable, "-m", "tinyllm.cli", "--version"], capture_output=True, env=ENVIRONMENT)
    assert done.returncode == 0 and done.stdout.startswith(b"tinyllm "), done.stderr


def test_a_command_says_that_it_compiles_and_which_variable_names_the_place_for_it(monkeypatch, capsys):
    from tinyllm.kernels import cpu
    from tinyllm.serve.request_log import log_startup

    def nowhere(**options):
        raise RuntimeError("cannot cache function: no locator available")

    log_startup()
    announcer = cpu.Announcer()
    for _ in range(2):
        announcer.on_start(None)
    monkeypatch.setattr(cpu, "njit", nowhere)
    assert not cpu.can_keep()
    compiles, kept = capsys.readouterr().err.splitlines()
    assert compiles.startswith("tinyllm: compiling the kernels") and "NUMBA_CACHE_DIR" in kept


# ---- instructed models ----


@pytest.fixture(scope="module")
def instructed(model, tmp_path_factory):
    """The same with a template that gives each message a role."""
    folder = tmp_path_factory.mktemp("instructed") / "model"
    shutil.copytree(model, folder)
    file = folder / "tokenizer_config.json"
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    return folder


def test_generate_offers_the_chat_template_and_uses_it_when_asked(model, instructed):
    from tinyllm.engine.params import SamplingParams
    from tinyllm.llm import LLM

    words = ["generate", "Who comes?", "--temperature", "0", "--max-tokens", "8", "--model"]
    assert b"chat template" not in tinyllm(*words, model).stderr
    plain, chat = tinyllm(*words, instructed), tinyllm(*words, instructed, "--chat")
    assert "add --chat" in plain.stderr.decode().splitlines()[-1] and b"add --chat" not in chat.stderr
    turn = [{"role": "user", "content": "Who comes?"}]
    llm = LLM(str(instructed), max_num_seqs=1)
    expected = llm.chat(turn, SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
    assert chat.stdout.decode() == expected[0].outputs[0].text + "\n" != plain.stdout.decode()


def test_a_talk_with_a_folder_needs_no_server_and_hears_all_that_was_said(instructed):
    from tinyllm.engine.params import SamplingParams
    from tinyllm.llm import LLM

    llm, turns, answers = LLM(str(instructed), max_num_seqs=1), [], []
    for line in ("Who comes?", "Who\nelse?"):
        turns.append({"role": "user", "content": line})
        said = llm.chat(turns, SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)[0].outputs[0].text
        turns.append({"role": "assistant", "content": said})
        answers.append(said)
    words = ["chat", "--model", instructed, "--temperature", "0", "--max-tokens", "8"]
    done = tinyllm(*words, input=b'Who comes?\n\n"""Who\nelse?"""\n')  # an empty line ends nothing
    assert done.returncode == 0 and done.stdout.decode() == "".join(f"{one}\n" for one in answers)
    assert done.stderr.decode().count("the answer was cut here") == 2
    longer = tinyllm(*words, input=b"king " * 200)
    assert longer.returncode == 2 and b"the model's context is 128" in longer.stderr


def test_what_the_command_line_leaves_open_is_as_the_makers_of_the_model_say(instructed, tmp_path):
    folder, said = tmp_path / "said", {"top_k": 1, "temperature": 1.5, "max_new_tokens": 6}
    shutil.copytree(instructed, folder)
    (folder / "generation_config.json").write_text(json.dumps(said))
    words = ["--model", folder, "--max-tokens", "4"]
    once, more = ["generate", "Once", "--quiet"], ["--temperature", "0"]
    likeliest = tinyllm(*once, *words, *more).stdout
    assert tinyllm(*once, *words).stdout == likeliest  # the one of top_k 1
    whole = tinyllm(*once, "--model", folder)
    assert whole.stdout != likeliest and whole.stdout.startswith(likeliest[:-1])
    off = [*once, *words, "--generation-config", "vllm", "--seed", "1"]
    assert tinyllm(*off).stdout == tinyllm(*off, "--temperature", "0.8", "--top-k", "0").stdout
    chat = ["chat", *words]
    assert tinyllm(*chat, input=b"Hi").stdout == tinyllm(*chat, *more, input=b"Hi").stdout


def test_a_message_that_is_not_utf8_is_refused_with_its_place_and_a_person_may_type_it_again(instructed, monkeypatch):
    import builtins

    from tinyllm.cli import Conversation, UserError, utf8_text

    words = "chat", "--model", instructed, "--max-tokens", "1"
    assert "the message is not UTF-8 text: byte 2 is 0xff" in refused(*words, input=b"ab\xff\n")
    lines = iter(["ab\udcff", "ab"])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(lines))
    assert Conversation(None, None, True).next_message("") == "ab"
    with pytest.raises(UserError, match="the prompt is not UTF-8"):
        utf8_text(b"\xff", "prompt")


def test_an_error_ends_no_persons_talk_and_an_answer_that_broke_off_is_an_error(capsys):
    from tinyllm.cli import Conversation, UserError, stream_text
    from tinyllm.engine.output_processor import CompletionOutput, RequestOutput

    def answer(turns):
        raise UserError(f"{len(turns)} are too many")
        yield

    for person in (True, False):
        model = type("Model", (), {"answer": staticmethod(answer)})
        conversation = Conversation(model, None, person)
        if person:
            conversation.send("Hi")
            assert not conversation.turns and "1 are too many: ask again" in capsys.readouterr().err
        else:
            with pytest.raises(UserError):
                conversation.send("Hi")
    broken = CompletionOutput(0, "On", [1], "error", "no token was left")
    with pytest.raises(UserError, match="no token was left"):
        stream_text([RequestOutput("0", "", [0], [broken], True, 0)])


@pytest.mark.parametrize("url, direct", [
    ("http://127.0.0.1:8000/v1", True), ("http://localhost/v1", True), ("http://[::1]:8000/v1", True),
    ("http://models.example/v1", False)])  # fmt: skip
def test_a_server_on_this_machine_is_asked_past_any_proxy(url, direct, monkeypatch):
    from tinyllm.cli import reach_directly

    names = ("http_proxy", "HTTPS_PROXY", "all_proxy")
    for name in names:
        monkeypatch.setenv(name, "http://proxy.example:3128")
    reach_directly(url)
    assert [name in os.environ for name in names] == [not direct] * 3


def test_numbers_and_names_with_which_a_server_answers_nobody_are_refused():
    for option, value, words in (
        ("--max-waiting", "-1", "--max-waiting is -1 but must be at least 0"),
        ("--max-body-bytes", "0", "--max-body-bytes is 0"),
        ("--request-seconds", "nan", "no finite number"),
        ("--drain-seconds", "-1", "--drain-seconds is -1 but must be at least 0"),
        ("--timeout-keep-alive", "-0.5", "--timeout-keep-alive is -0.5"),
        ("--served-model-name", " ", "--served-model-name is empty"),
    ):
        assert words in refused("serve", "--port", "0", option, value)


def test_a_model_is_called_by_its_folder_however_that_was_given(tmp_path, monkeypatch):
    from tinyllm.cli import model_name

    (tmp_path / "my model").mkdir()
    monkeypatch.chdir(tmp_path / "my model")
    for given in (".", "./", "../my model/", tmp_path / "my model", "../my model/../my model"):
        assert model_name(given) == "my model"
    assert model_name("fable") == "fable" and model_name("org/name/") == "name"


def test_a_report_that_could_not_be_written_is_refused_before_anything_is_measured(tmp_path):
    assert f"{tmp_path} cannot be written" in refused("bench", "latency", "--json", tmp_path)
    assert "must end in .svg, .png or .pdf" in refused("bench", "latency", "--plot", tmp_path / "speed.foo")


def test_a_model_without_a_template_cannot_be_talked_with(model, tmp_path):
    shutil.copytree(model, tmp_path / "mute")
    file = tmp_path / "mute" / "tokenizer_config.json"
    kept = {name: value for name, value in json.loads(file.read_text()).items() if name != "chat_template"}
    file.write_text(json.dumps(kept))
    assert "tinyllm generate goes without" in refused("chat", "--model", tmp_path / "mute", input=b"Hello\n")


def test_a_missing_model_says_what_may_be_given():
    line = refused("generate", "Once", "--model", "no-such-model")
    assert "no-such-model is no directory and no bundled model" in line and "config.json" in line


def test_broken_checkpoints_are_one_line(model, tmp_path):
    for name, spoil in {
        "no config": lambda d: (d / "config.json").unlink(),
        "no json": lambda d: (d / "config.json").write_text("{"),
        "no weights": lambda d: (d / "model.safetensors").unlink(),
        "cut short": lambda d: (d / "model.safetensors").write_bytes(
            (d / "model.safetensors").read_bytes()[:5000]
        ),
        "no tokenizer": lambda d: (d / "tokenizer.json").unlink(),
        "no tokenizer json": lambda d: (d / "tokenizer.json").write_text("[]"),
    }.items():
        folder = tmp_path / name
        shutil.copytree(model, folder)
        spoil(folder)
        assert name in refused("generate", "Once", "--model", folder)


def test_an_empty_prompt_and_one_too_long_are_refused(model):
    assert "empty" in refused("generate", "", "--model", model)
    assert "empty" in refused("generate", "-", "--model", model, input=b"")
    line = refused("generate", "fox " * 500, "--model", model)
    assert "context is 128" in line and "shorten" in line


def test_a_prompt_that_is_not_utf8_is_refused_with_the_place(model):
    assert "byte 5 is 0xff" in refused("generate", b"Once \xff", "--model", model)
    done = process("generate", b"Once \xff")
    assert done.returncode == 2 and b"byte 5 is 0xff" in done.stderr and done.stderr.count(b"\n") == 1
    assert "byte 2 is 0xe9" in refused("generate", "-", "--model", model, input=b"na\xe9ve")
    picture = bytes(range(256)) * 40
    assert "not UTF-8" in refused("generate", "-", "--model", model, input=picture)


def test_standard_input_that_cannot_be_read_is_one_line(model, tmp_path):
    with open(tmp_path / "write-only", "wb") as unreadable:
        done = process("generate", "-", "--model", model, stdin=unreadable)
    assert (
        done.returncode == 2
        and b"standard input cannot be read" in done.stderr
        and done.stderr.count(b"\n") == 1
    )
    shell = " ".join([*(f"'{word}'" for word in COMMAND), "generate - <&-"])
    done = subprocess.run(shell, shell=True, capture_output=True, env=ENVIRONMENT)
    assert done.returncode == 2 and b"standard input is closed" in done.stderr


def test_a_tiny_temperature_is_a_remark_and_no_python_warning(model):
    done = tinyllm(
        "generate", "Once", "--model", model, "--max-tokens", "1", "--temperature", "0.0001", "--quiet"
    )
    assert done.returncode == 0
    assert (
        done.stderr.decode() == "tinyllm: warning: temperature 0.0001 is raised to 0.01: use 0 for greedy\n"
    )


# ---- how it ends ----


def test_control_c_ends_quietly_with_130():
    """The answer is longer than the pipe, and nobody reads it: it cannot end before the signal comes."""
    with subprocess.Popen(
        [*COMMAND, "generate", "Once", "--max-tokens", "2000", "--ignore-eos"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=4096,
        env=ENVIRONMENT,
    ) as process:
        assert os.read(process.stdout.fileno(), 1)  # it is in the middle of the text
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == b"" and len(rest) < 6000


@pytest.mark.parametrize("words", [["generate", "Once"], ["generate", "--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_goes_away_ends_it_quietly_with_141(model, words):
    reader, writer = os.pipe()
    os.close(reader)
    words = [*words, "--model", model] if words == ["generate", "Once"] else words
    done = process(*words, stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line_and_code_1(model):
    with open("/dev/full", "wb") as full:
        done = process(
            "generate", "Once", "--model", model, stdout=full, stderr=subprocess.PIPE, capture_output=False
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "tinyllm: error: cannot write the output: No space left on device\n"


def test_closed_outputs_are_no_reason_to_fail(model):
    for redirect in (">&-", "2>&-"):
        shell = " ".join(
            [
                *(f"'{word}'" for word in COMMAND),
                "generate Once --max-tokens 2",
                f"--model '{model}'",
                redirect,
            ]
        )
        done = subprocess.run(shell, shell=True, capture_output=True, env=ENVIRONMENT, timeout=60)
        assert done.returncode == 0 and b"Traceback" not in done.stderr


# ---- and how fast it starts ----


def test_version_and_help_do_not_wait_for_torch():
    code = (
        "import sys; from tinyllm.cli import main\ntry: main(sys.argv[1:])\n"
        "except SystemExit: pass\nassert 'torch' not in sys.modules and 'tokenizers' not in sys.modules"
    )
    version = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, check=True, text=True
    )
    assert version.stdout == f"tinyllm {tinyllm_package.__version__}\n"
    text = subprocess.run(
        [sys.executable, "-c", code, "generate", "--help"], capture_output=True, check=True, text=True
    )
    for word in (
        "examples:",
        "--max-tokens",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--seed",
        "--ignore-eos",
    ):
        assert word in text.stdout
