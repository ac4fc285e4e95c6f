"""What `tinyllm bench` promises: the load that others publish, figures that add up, a limit, an equal peer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_cli import refused, tinyllm

from tinyllm.measure import bench, offline, peers
from tinyllm.measure.bench import Load
from tinyllm.measure.offline import Settings
from tinyllm.engine.core import EngineCoreOutput, Request
from tinyllm.engine.params import SamplingParams
from tinyllm.measure.roofline import Hardware, seconds, step_work
from tinyllm.llm import LLM
from tinyllm.engine.args import EngineArgs
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.config_reader import read_config
from tinyllm.model.weights import save_model

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "book" / "measurements" / "configs"
TINY = Settings(5, (4, 9), (3, 6), temperature=0.6)
CHIP = Hardware("a chip", memory=0, bandwidth=1e9, rates={"float32": 1e11, "bfloat16": 2e11}, source="made up")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_stopwatch(monkeypatch):
    """The ceilings of this machine take seconds to measure; a made-up chip is as good here."""
    monkeypatch.setattr(offline, "measure_ceilings", lambda device, dtypes: CHIP)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a small random model, and no tokenizer."""
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    torch.manual_seed(0)
    save_model(Transformer(ModelConfig(300, 32, 48, 2, 4, 2, 8, 64, eos_token_ids=(0,))), folder)
    return folder


def run(kind, model, settings=TINY, **options):
    return offline.run_offline(kind, str(model), settings, progress=False, **options)


def test_the_throughput_load_is_the_one_that_small_engines_publish():
    default = offline.OFFLINE["throughput"]
    assert default == Settings(256, (100, 1024), (100, 1024), 0.6, None, 1, 0)
    load = bench.make_load(151_936)
    assert sum(load.output_lens) == 133_966  # the figure beside nano-vllm's, whose load is drawn like this
    for lengths in (load.output_lens, list(map(len, load.prompts))):
        assert len(lengths) == 256 and min(lengths) >= 100 and max(lengths) <= 1024
    assert bench.make_load(151_936) == load != bench.make_load(151_936, seed=1)


def test_every_prompt_is_in_the_vocabulary_and_rewording_changes_all_of_it():
    load = bench.make_load(50, 20, (1, 30), (1, 5))
    other = load.reworded(3, 50)
    for before, after in zip(load.prompts, other.prompts, strict=True):
        assert len(before) == len(after) and all(x != y and 0 <= y < 50 for x, y in zip(before, after, strict=True))
    assert (other.output_lens, other.arrivals) == (load.output_lens, load.arrivals)


def test_arrivals_follow_the_rate_asked_for():
    load = bench.make_load(50, 4000, (1, 1), (1, 1), request_rate=20)
    gaps = np.diff(load.arrivals)
    assert (gaps >= 0).all() and abs(gaps.mean() - 0.05) < 0.003 and abs(gaps.std() - 0.05) < 0.004
    assert set(bench.make_load(50, 5, (1, 1), (1, 1)).arrivals) == {0}


def test_a_played_load_gives_each_request_its_tokens_and_leaves_the_engine_as_it_was(model):
    llm = LLM(str(model), skip_tokenizer_init=True, max_num_seqs=3, num_gpu_blocks_override=30)
    load, core, executor = bench.make_load(300, 7, (3, 20), (2, 9)), llm.core, llm.core.executor
    trace = bench.play_load(llm, load, SamplingParams(temperature=0.6, seed=1))
    assert list(map(len, trace.token_times())) == load.output_lens  # the end token ends nothing
    assert core.executor is executor and not llm.engine.requests
    assert core.scheduler.kv_cache_manager.block_pool.num_free_blocks == 30
    computed = sum(int(plan.counts.sum()) for plan in trace.plans)
    assert computed == sum(map(len, load.prompts)) + sum(load.output_lens) - 7


def test_a_broken_run_gives_the_executor_back(model):
    llm = LLM(str(model), skip_tokenizer_init=True, num_gpu_blocks_override=30)
    executor = llm.core.executor
    with pytest.raises(ValueError, match="context"):
        bench.play_load(llm, Load([[1] * 60], [9], [0.0]), SamplingParams())
    assert llm.core.executor is executor


def test_a_benchmark_of_several_copies_is_refused(model):
    with pytest.raises(ValueError, match="data_parallel_size is 2, but a benchmark follows the steps of one engine"):
        offline.run_offline("latency", str(model), offline.Settings(1, (4, 4), (2, 2)), data_parallel_size=2)


def test_nobody_is_served_before_they_come(model):
    llm = LLM(str(model), skip_tokenizer_init=True, num_gpu_blocks_override=30)
    load = Load([[1, 2], [3, 4], [5, 6]], [2, 2, 2], [0.0, 0.15, 0.3])
    trace = bench.play_load(llm, load, SamplingParams())
    assert all(times[0] >= at for times, at in zip(trace.token_times(), load.arrivals, strict=True))
    assert bench.figures(trace)["ttft_ms"]["max"] <= 1e3 * trace.seconds


def by_hand():
    """Two requests whose tokens came at known times."""
    a, b = (Request(name, [1] * 10, SamplingParams()) for name in "ab")
    steps = [(1.0, [EngineCoreOutput(a, [5], None)]),
             (1.5, [EngineCoreOutput(a, [5], None), EngineCoreOutput(b, [5], None)]),
             (3.5, [EngineCoreOutput(a, [5], "length"), EngineCoreOutput(b, [5], "length")])]  # fmt: skip
    return bench.Trace([a, b], [0.0, 0.5], 4.0, 2.0, steps, [])


def test_figures_are_those_of_a_run_written_by_hand():
    found = bench.figures(by_hand())
    assert (found["prompt_tokens"], found["output_tokens"], found["output_tokens_per_second"]) == (20, 5, 1.25)
    assert (found["ttft_ms"]["mean"], found["ttft_ms"]["max"]) == (1000, 1000)  # the second came half a second later
    assert found["tpot_ms"]["mean"] == pytest.approx((1250 + 2000) / 2)
    assert found["itl_ms"]["max"] == 2000 and found["itl_ms"]["mean"] == pytest.approx((500 + 2000 + 2000) / 3)
    assert found["e2el_ms"]["max"] == 3500
    assert offline.headline("throughput", found) == 1.25 and offline.headline("ttft", found) == 1000


def test_percentiles_are_those_of_numpy_and_nothing_for_nothing():
    values = np.random.default_rng(0).exponential(size=1000)
    found = bench.percentiles(values)
    assert [found[k] for k in ("p50", "p90", "p99")] == pytest.approx(np.percentile(values, [50, 90, 99]))
    assert found["max"] == values.max() and bench.percentiles([]) == {}


def test_the_limit_counts_what_the_plans_computed(model):
    llm = LLM(str(model), skip_tokenizer_init=True, max_num_seqs=1, num_gpu_blocks_override=30,
              enable_prefix_caching=False)  # fmt: skip
    trace = bench.play_load(llm, Load([[1] * 8], [3], [0.0]), SamplingParams())
    config = read_config(model)
    steps = [step_work(config, [one], dtype="float32") for one in ((8, 8), (1, 9), (1, 10))]
    limit = offline.physical_limit(config, trace.plans, CHIP, "float32")
    assert limit["seconds"] == pytest.approx(sum(seconds(parts, CHIP, "float32") for parts in steps))
    assert limit["bytes"] == pytest.approx(sum(part.bytes for parts in steps for part in parts.values()))
    half = offline.limit_of("latency", {"seconds": 2 * limit["seconds"], "tpot_ms": {"p50": 8.0}}, limit)
    assert half["share"] == pytest.approx(0.5) and half["headline"] == pytest.approx(4.0)
    half = offline.limit_of("throughput", {"seconds": 2 * limit["seconds"], "output_tokens_per_second": 8.0}, limit)
    assert half["headline"] == pytest.approx(16.0)


@pytest.mark.parametrize("kind", offline.OFFLINE)
def test_a_report_is_json_with_machine_versions_date_and_command(model, kind):
    settings = replace(TINY, num_requests=1, output_len=(1, 1) if kind == "ttft" else (6, 6), repeats=3)
    report = json.loads(json.dumps(run(kind, model, settings, command="tinyllm bench x"), allow_nan=False))
    assert report["headline"] > 0 and report["unit"] == offline.UNITS[kind] and report["benchmark"] == kind
    assert report["limit"]["source"] == "made up" and report["limit"]["share"] > 0
    origin = report["provenance"]
    assert origin["command"] == "tinyllm bench x" and origin["torch"] == torch.__version__ and origin["threads"] == 1
    assert {"date", "cpu", "cores", "load_average", "python", "tinyllm"} <= origin.keys()
    text = offline.describe_report(report)
    assert "1 request: 4 to 9 tokens in" in text and "physical limit" in text and "made up" in text


@pytest.mark.parametrize("shape", ["Qwen3-0.6B", "Llama-3.1-8B"])
def test_the_published_shapes_can_be_measured_from_their_config_alone(shape, tmp_path):
    raw = json.loads((SHAPES / shape / "config.json").read_text())
    raw |= {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 500, "max_window_layers": 2}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(raw))
    report = run("throughput", tmp_path, load_format="dummy", dtype="bfloat16")
    assert report["dtype"] == "bfloat16" and report["result"]["requests"] == 5
    assert report["parameters"] == read_config(tmp_path).num_parameters()
    full = read_config(SHAPES / shape)
    assert full.num_parameters() == {"Qwen3-0.6B": 596_049_920, "Llama-3.1-8B": 8_030_261_248}[shape]


@pytest.mark.parametrize("dummy", [False, True])
def test_transformers_answers_alike_in_both_ways_and_is_timed_beside(model, dummy):
    report = run("throughput", model, peer=True, dtype="float32", **({"load_format": "dummy"} if dummy else {}))
    assert set(report["peer"]) == {"generate", "generate_batch"}
    for other in report["peer"].values():
        assert other["checked"]["tokens"] == 4 * 3 + sum(
            n - 3 for n in bench.make_load(300, 5, (4, 9), (3, 6)).output_lens[:4]
        ) and not other["checked"]["ties"]  # fmt: skip
        assert other["output_tokens_per_second"] > 0
    assert offline.describe_report(report).count("times as fast") == 2


def test_a_peer_that_says_something_else_is_no_peer(model):
    peer = peers.transformers_model(model, None, torch.float32, "cpu", dummy=False)
    load = Load([[5, 6, 7], [8, 9]], [4, 4], [0.0, 0.0])
    theirs, spent = peers.answer_padded(peer, load, Settings(temperature=0.0))
    assert spent > 0 and peers.compare_answers(peer, load, theirs, theirs) == {"tokens": 8, "ties": 0}
    changed = [[*theirs[0][:2], (theirs[0][2] + 1) % 300, 0], theirs[1]]
    with pytest.raises(offline.BenchError, match=r"token 2 of an answer is .* not the same model"):
        peers.compare_answers(peer, load, changed, theirs)


def test_what_the_two_would_say_at_a_tie_is_counted_as_one():
    class Even(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, ids):
            return type("Out", (), {"logits": torch.zeros(1, ids.shape[1], 9)})

    assert peers.compare_answers(Even(), Load([[1]], [3], [0.0]), [[2, 3, 4]], [[2, 5, 6]]) == {"tokens": 1, "ties": 1}


def test_a_drawing_shows_ours_the_limit_and_the_peer(model):
    report = run("throughput", model)
    figure = offline.draw_report({**report, "peer": {"generate": {"output_tokens_per_second": 7.0}}})
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["tinyllm", "physical limit", "generate"]
    assert left.get_xlabel() == "output tokens/s" and len(right.lines) == 2


@pytest.mark.parametrize("path", sorted((ROOT / "book" / "measurements").glob("bench_*.json")), ids=lambda p: p.stem)
def test_stored_measurements_say_where_they_come_from_and_can_be_read(path):
    report = json.loads(path.read_text())
    origin = report["provenance"]
    assert path.name in origin["command"] and origin["date"] and origin["torch"] and "load_average" in origin
    text = offline.describe_report(report)
    assert "physical limit" in text and "/tmp" not in path.read_text()
    assert all(other["checked"]["tokens"] > 0 for other in report.get("peer", {}).values())


# ---- the command ----


def test_the_command_prints_writes_and_draws(tmp_path, model):
    words = ["bench", "throughput", "--model", model, "--load-format", "dummy", "--num-requests", "3", "--quiet",
             "--input-len", "4", "9", "--output-len", "3", "--max-num-seqs", "2"]  # fmt: skip
    done = tinyllm(*words, "--json", tmp_path / "r.json", "--plot", tmp_path / "r.svg")
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert b"3 requests: 4 to 9 tokens in, 3 out, temperature 0.6, seed 0" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["engine"]["max_num_seqs"] == 2 and report["load"]["output_len"] == [3, 3]
    assert report["provenance"]["command"].startswith("tinyllm bench throughput --model ")
    assert (tmp_path / "r.svg").read_text().lstrip().startswith("<?xml")
    assert json.loads(tinyllm(*words, "--json", "-").stdout)["result"]["requests"] == 3


def test_a_bar_shows_how_far_it_is_unless_told_not_to(model):
    words = ["bench", "latency", "--model", model, "--load-format", "dummy", "--input-len", "4", "--output-len", "3"]
    assert "latency, 3 of 3" in tinyllm(*words).stderr.decode()


def test_a_default_prompt_is_cut_to_the_context_and_one_asked_for_is_refused(model):
    words = ["bench", "ttft", "--model", model, "--load-format", "dummy", "--repeats", "1", "--quiet"]
    assert b"1 request: 63 tokens in, 1 out" in tinyllm(*words).stdout
    assert "trained for 64" in refused(*words, "--input-len", "2048")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--input-len", "5", "4"], "--input-len is 5 4"),
        (["--output-len", "0"], "--output-len is 0"),
        (["--num-requests", "0"], "--num-requests is 0 but must be above 0"),
        (["--request-rate", "-1"], "--request-rate is -1.0"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--temperature", "3"], "temperature is 3.0"),
        (["--json", "no/such/x.json"], "no/such is no folder"),
        (["--peer", "vllm"], "--peer"),
        (["--max-num-seqs", "0"], "max_num_seqs is 0"),
        (["--load-format", "gguf"], "load_format is 'gguf'"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_be_measured_is_one_line(model, words, said):
    assert said in refused("bench", "latency", "--model", model, "--quiet", "--output-len", "4", *words)


def test_every_option_of_the_engine_can_be_given():
    from tinyllm.cli import build_parser

    words, wanted = [], {}
    for name, field in EngineArgs.__dataclass_fields__.items():
        if name in ("model", "seed"):
            continue
        kind = str(getattr(field.type, "__name__", field.type)).split(" ")[0]
        value = {"str": "x", "int": 3, "float": 0.5, "bool": True, "dict": {"method": "ngram"}}[kind]
        wanted[name], option = value, f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, json.dumps(value) if kind == "dict" else str(value)]
    args = vars(build_parser().parse_args(["bench", "latency", *words]))
    assert {name: args[name] for name in wanted} == wanted


# ---- kernels, and a step's timeline ----


def test_on_a_processor_torch_s_operations_are_timed_beside_their_limit_and_it_is_said(monkeypatch, tmp_path):
    clock = pytest.importorskip("tinyllm.measure.clock")
    chip = replace(CHIP, source="measured on CPU, made up")
    monkeypatch.setattr(clock, "measure_ceilings", lambda device, dtypes: chip)

    def few(draw):
        x = draw(4, 8)
        yield clock.Case("swiglu", "4 tokens", "torch", lambda: x + 1, 1e6)
        yield clock.Case("norm", "4 tokens", "torch", lambda: x + 1, 0.0, 1e8)

    monkeypatch.setattr(clock, "cpu_cases", few)
    words = ["bench", "kernels", "--device", "cpu", "--json", tmp_path / "k.json", "--plot", tmp_path / "k.svg"]
    done = tinyllm(*words)
    assert done.returncode == 0 and b"none of our kernels ran" in done.stdout and b"swiglu" in done.stderr
    report = json.loads((tmp_path / "k.json").read_text())
    assert [row["limit_seconds"] for row in report["kernels"]] == [1e6 / CHIP.bandwidth, 1e8 / CHIP.rates["float32"]]
    assert report["provenance"]["command"].startswith("tinyllm bench kernels --device cpu")
    assert (tmp_path / "k.svg").read_text().lstrip().startswith("<?xml")
    done = tinyllm(*words, "--quiet", "--only", "norm")
    assert done.stderr == b"" and b"norm" in done.stdout and b"swiglu" not in done.stdout
    assert "--only attention" in refused(*words, "--quiet", "--only", "attention")


def test_what_a_processor_is_asked_has_bytes_and_runs():
    clock = pytest.importorskip("tinyllm.measure.clock")
    cases = list(clock.cpu_cases(lambda *shape: torch.zeros(shape)))
    assert {case.who for case in cases} == {"torch", "library"} and all(case.num_bytes > 0 for case in cases)
    for kernel in ("add and norm", "swiglu", "norm, rope, write", "log-probabilities", "down"):
        next(case for case in cases if case.kernel == kernel).run()


def test_a_step_s_timeline_shows_the_four_parts_of_the_host_and_torch_s_operations(model, tmp_path):
    pytest.importorskip("triton")
    words = ["bench", "profile", "--model", model, "--load-format", "dummy", "--num-requests", "2", "--input-len", "5",
             "--steps", "2", "--device", "cpu", "--quiet"]  # fmt: skip
    done = tinyllm(*words, "--json", tmp_path / "p.json", "--plot", tmp_path / "p.svg")
    assert done.returncode == 0 and b"submit" in done.stdout, done.stderr
    spans = json.loads((tmp_path / "p.json").read_text())["spans"]
    names = [name for name, _, _ in spans["host"]]
    assert sorted(names) == sorted(2 * ["schedule", "submit", "collect", "update"])
    parts = [(start, start + length) for _, start, length in spans["host"]]
    assert spans["operations"] and all(any(a <= start <= b for a, b in parts) for _, start, _ in spans["operations"])
    assert (tmp_path / "p.svg").read_text().lstrip().startswith("<?xml")
    assert "--steps is 0" in refused(*words, "--steps", "0")
