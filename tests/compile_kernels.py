"""Compile every kernel for Hopper on a machine without a GPU, and print what each takes:

    python tests/compile_kernels.py
"""
import importlib
import sys
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BF, F32, I32, I64 = "*bf16", "*fp32", "*i32", "*i64"
HEADS = dict(HEADS=16, KV_HEADS=8, HEAD=128, WIDTH=128, PAGE=16, PRECISION="tf32", PDL=True)
KERNELS = {  # (module, kernel): types of arguments, constants, warps, stages
    ("norm", "add_rms_norm"): ([BF, BF, BF, BF, I32, "i32", "fp32"],
                               dict(ADD=True, LAST=False, PDL=True, BLOCK=1024), 4, 3),
    ("activation", "swiglu"): ([BF, BF, "i32"], dict(PDL=True, BLOCK=1024), 4, 3),
    ("rope", "norm_rope_write"): ([BF, BF, BF, F32, I32, I32, BF, BF, "fp32"], dict(
        Q_HEADS=16, KV_HEADS=8, HEAD=128, NORM=True, PDL=True, HEADS=8, HALF=64), 2, 3),
    ("paged_attention", "few_queries"): (
        [BF, BF, BF, F32, BF, BF, I32, I32, I32, I32, I32, BF, F32, "i32", "i32", "fp32", "fp32"],
        dict(QUERIES=1, ROWS=16, PACK=2, RAW=True, NORM=True, TILE=64, SPLITS=8, LEAST=64, **HEADS), 4, 3),
    ("paged_attention", "many_queries"): ([BF, BF, BF, I32, I32, I32, I32, BF, "i32", "i32", "fp32", "i32"],
                                          dict(ROWS=128, TILE=64, FEW=1, **HEADS), 8, 3),
    ("linear", "few_rows"): ([BF, BF, BF, BF, BF, BF, "i32", "i32", "fp32"], dict(
        M=1, NORM=True, GATE=True, ADD=False, BIAS=False, PDL=True, STEPS=2, OUTPUTS=4, TILE=512), 4, 3),
    ("linear", "one_row"): ([BF, BF, BF, BF, BF, "i32", "i32", "fp32"], dict(
        NORM=True, GATE=True, ADD=False, BIAS=False, PDL=True, OUTPUTS=4, TILE=512, STAGES=6), 2, 3),
    ("sampling", "gumbel_max"): (
        [BF, I32, F32, I64, I32, I32, F32, I32, F32, I32, I32, F32, I64, "i32", "i32", "i32", "i32"],
        dict(SKIP=1, FILTER=True, GUESS=True, FAST=True, PDL=True, BLOCK=2048), 4, 3),
    ("sampling", "verify_drawn"): ([BF, F32, I64, I32, I32, I32, I32, I32, F32, I64, I32, F32, I32, I64, I64, I64, I32,
                                    "i32", "i32", "i32"], dict(GUESSES=3, FILTER=True, FAST=True, BLOCK=2048), 8, 3),
    ("sampling", "best_of_chunks"): ([F32, I32, I32, I32, I32, I64, I64, "i32", "i32", "i32"],
                                     dict(PDL=True, BLOCK=64), 1, 3),
    ("thresholds", "find_cuts"): ([BF, I32, F32, F32, I32, F32, F32, I32, "i32", "i32"],
                                  dict(PDL=True, SAMPLE=1024, PIVOTS=8, BLOCK=1024, WIDE=4096), 8, 3),
    ("thresholds", "top_logprobs"): ([F32, I64, F32, I32, I64, I64, F32, I64, "i32", "i32", "i32"],
                                     dict(PDL=True, KEEP=32, SAMPLE=1024, PIVOTS=8, BLOCK=1024, WIDE=4096),
                                     8, 3),
    ("inputs", "admit"): ([I32, I64, F32, I64, I32, "i32"], dict(NEW=8, BLOCK=1024), 4, 3),
    ("inputs", "add_blocks"): ([I32, I32, I32], dict(PDL=False, BLOCK=256), 8, 3),
    ("inputs", "write_guesses"): ([I32, I32, I32, I64, "i32", "i32"], dict(GUESSES=3, BLOCK=128), 4, 3),
    ("inputs", "find_lines"): ([I32, I32, I32, I32, I64, I32, I64, I32, I32, I32, "i32"],
                               dict(LINES=4, BLOCK=128), 4, 3),
    ("inputs", "follow_step"): ([I32, I32, I32, I32, I32, I32, I32, I32, I32, I32, I64, "i32"], dict(BLOCK=256), 4, 3),
    ("inputs", "follow_guess"): ([I32, I32, I32, I64, "i32", "i32", "i32"], dict(BLOCK=256), 4, 3),
    ("inputs", "count_accepted"): ([I64, I64, I32, I32, I64, I32, "i32"], dict(GUESSES=3, BLOCK=128), 4, 3),
    ("inputs", "find_tokens"): ([I32, I32, I32, I64, I32, I64, I32, I32, "i32", "i32", "i32", "i32"],
                                dict(PAGE=16, SINGLE=False, PDL=True, BLOCK=128), 4, 3),
}


def compile_all(only=None):
    for (module, name), (types, constants, warps, stages) in KERNELS.items():
        if only and name not in only:
            continue
        function = getattr(importlib.import_module(f"tinyllm.kernels.{module}"), f"{name}_kernel")
        names = [n for n in function.arg_names if n not in constants]
        assert len(names) == len(types), (name, names)
        attrs = {(function.arg_names.index(n),): [["tt.divisibility", 16]] for n, t in zip(names, types, strict=True)
                 if t.startswith(("*", "i"))}
        source = ASTSource(function, dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr"),
                           constants, attrs)
        options = {"num_warps": warps, "num_stages": stages}
        yield name, triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


if __name__ == "__main__":
    for name, made in compile_all(sys.argv[1:]):
        ptx, found = made.asm["ptx"], ("wgmma.mma_async", "mma.sync", "cp.async.c", "griddepcontrol", ".v4.b32")
        counts = "  ".join(f"{word} {ptx.count(word)}" for word in found)
        print(f"{name:16s} shared memory {made.metadata.shared:7d}  {counts}")
