"""What a second card brings: Llama-3.1-8B's shape on one card, on two ranks, on two stages and as two copies.

    python tests/gpu/cards.py result.json [one] [ranks] [stages] [copies] [sums]

A measurement, not a test. Random weights, bfloat16. one, ranks, stages: the throughput load, one request's tokens, the
first token of long prompts, each beside the limit that the cards' bytes and operations set; stages also with 1, 2 and
4 batches under way. copies: the same requests for one engine and twice as many for two behind a router. sums: bytes
and time of a sum among the ranks. What is asked for is added to the file.
"""
import gc
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch

from tinyllm.engine.params import SamplingParams
from tinyllm.llm import LLM
from tinyllm.measure.bench import figures, make_load
from tinyllm.measure.ceilings import measure_ceilings
from tinyllm.measure.offline import (
    OFFLINE,
    Settings,
    combine_cards,
    headline,
    limit_of,
    physical_limit,
    play_repeatedly,
    provenance,
)
from tinyllm.model.config_reader import read_config
from tinyllm.parallel.build import build_scheduler, with_token_budget

MODEL = ROOT / "book/measurements/configs/Llama-3.1-8B"
OPTIONS = {"load_format": "dummy", "dtype": "bfloat16", "device": "cuda", "skip_tokenizer_init": True,
           "max_model_len": 8192}
LAYOUTS = {"one": {}, "ranks": {"tensor_parallel_size": 2}, "stages": {"pipeline_parallel_size": 2}}
LOADS = {"throughput": ("throughput", OFFLINE["throughput"]), "latency": ("latency", OFFLINE["latency"]),
         "first of 2,048": ("ttft", OFFLINE["ttft"]),
         "first of 8,000": ("ttft", replace(OFFLINE["ttft"], input_len=(8000, 8000), repeats=3))}
DECODES = Settings(256, (128, 128), (256, 256), temperature=0.0)


def measure(llm, chip, cards: int) -> dict:
    """Every load, and the limit of each."""
    config, found = read_config(MODEL), {}
    for name, (kind, settings) in LOADS.items():
        load = make_load(config.vocab_size, settings.num_requests, settings.input_len, settings.output_len, 0)
        trace = play_repeatedly(llm, kind, settings, load, progress=False)
        result = figures(trace)
        limit = physical_limit(config, trace.plans, combine_cards(chip, cards), "bfloat16")
        found[name] = {"headline": headline(kind, result), "limit": limit_of(kind, result, limit),
                       "seconds": result["seconds"], "steps": result["steps"]}
        print(name, found[name]["headline"], f"{found[name]['limit']['share']:.2f} of the limit", flush=True)
    return found


def under_way(llm) -> dict:
    """Tokens a second of 256 requests that decode, with so many batches under way at once. An empty pipeline, with a
    new scheduler each time."""
    core, found = llm.core, {}
    args = with_token_budget(llm.engine.args, OPTIONS["max_model_len"])
    blocks = core.scheduler.kv_cache_manager.block_pool.num_blocks
    config = read_config(MODEL)
    load = make_load(config.vocab_size, DECODES.num_requests, DECODES.input_len, DECODES.output_len, 0)
    for batches in (1, 2, 4):
        split = replace(args, pipeline_parallel_size=batches)
        core.scheduler = build_scheduler(split, blocks, OPTIONS["max_model_len"])
        core.depth = batches - 1
        trace = play_repeatedly(llm, "throughput", DECODES, load, progress=False)
        found[batches] = {"output_tokens_per_second": headline("throughput", figures(trace)), "steps": len(trace.plans)}
        print(batches, "under way", found[batches], flush=True)
    return found


def copies() -> dict:
    """Output tokens a second of one engine, and of two copies that have twice as much to do."""
    found, vocab = {}, read_config(MODEL).vocab_size
    for count in (1, 2):
        llm = LLM(str(MODEL), data_parallel_size=count, **OPTIONS)
        settings = OFFLINE["throughput"]
        load = make_load(vocab, count * settings.num_requests, settings.input_len, settings.output_len, 0)
        params = [SamplingParams(temperature=0.6, seed=0, max_tokens=n, ignore_eos=True) for n in load.output_lens]
        asked = [{"prompt_token_ids": prompt} for prompt in load.prompts]
        llm.generate(asked[:16], params[:16], use_tqdm=False)
        start = time.perf_counter()
        llm.generate(asked, params, use_tqdm=False)
        found[count] = sum(load.output_lens) / (time.perf_counter() - start)
        print(count, "copies", found[count], flush=True)
        del llm
        gc.collect()
        torch.cuda.empty_cache()
    return found


def main(path: Path, kinds: list[str]) -> None:
    report = json.loads(path.read_text()) if path.exists() else {}
    chip = measure_ceilings("cuda", ("bfloat16",))
    report |= {"model": MODEL.name, "cards": torch.cuda.device_count(), "nccl": list(torch.cuda.nccl.version()),
               "ceilings": {"bandwidth": chip.bandwidth, "flops_per_second": chip.rate("bfloat16")},
               "provenance": provenance("cuda", f"python tests/gpu/cards.py {path} {' '.join(kinds)}")}
    torch.cuda.empty_cache()
    for kind in kinds:
        print("==", kind, flush=True)
        if kind == "copies":
            report[kind] = copies()
        elif kind == "sums":
            there = path.with_name("sums.json")
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            subprocess.run([*launch, "-m", "tinyllm.measure.steps", "sums", str(there)], cwd=ROOT, check=True)
            report[kind] = json.loads(there.read_text())["sums"]
            there.unlink()
        else:
            begun = time.perf_counter()
            llm = LLM(str(MODEL), **OPTIONS, **LAYOUTS[kind])
            report[kind] = {"ready after": time.perf_counter() - begun}
            report[kind] |= measure(llm, chip, 1 if kind == "one" else 2)
            if kind == "stages":
                report["under way"] = under_way(llm)
            del llm
            gc.collect()
            torch.cuda.empty_cache()
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["one", "ranks", "stages", "copies", "sums"])
