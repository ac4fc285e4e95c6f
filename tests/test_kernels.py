"""Kernels without a card: run by Triton's interpreter, compiled for Hopper, and never imported by accident."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, str(ROOT / "tests" / script), *arguments], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_kernel_agrees_with_its_reference_under_the_interpreter():
    assert "kernels agree" in run("kernel_checks.py", TRITON_INTERPRET="1")


def test_every_kernel_compiles_for_hopper_without_a_card():
    out = run("compile_kernels.py")
    kernels = (ROOT / "tinyllm/kernels").glob("*.py")
    names = [name for file in kernels for name in re.findall(r"@triton\.jit.*\ndef (\w+_kernel)\(", file.read_text())]
    assert len(names) >= 12
    for name in names:
        assert name.removesuffix("_kernel") in out, f"{name} is not compiled by compile_kernels.py"
    line = next(line for line in out.splitlines() if line.startswith("many_queries"))
    assert "wgmma.mma_async 0" not in line, "prompts miss the fast matrix units"


@pytest.mark.parametrize("tokens", [1, 5, 16, 17, 8192])
def test_the_step_that_is_tried_for_its_memory_is_one_that_could_be(tokens):
    """A request with more queries than context made kernels read in front of their tables."""
    import torch

    from tinyllm.engine.memory_plan import largest_step

    step = largest_step(tokens, torch.device("cpu"))
    pages = step.pages
    counts, width = pages.query_starts.diff(), pages.tables.shape[1]
    assert counts.sum() == tokens == len(step.positions) == len(step.slots)
    assert (pages.context_lens >= counts).all() and (pages.context_lens <= 16 * width).all()


def test_the_card_s_engine_says_what_the_plain_one_says():
    assert run("graph_engine.py", TRITON_INTERPRET="1").count("same") == 10


def test_ranks_of_cards_say_what_the_plain_runner_says():
    assert run("graph_ranks.py", TRITON_INTERPRET="1").count("same") == 3


@pytest.mark.parametrize("module", ["tinyllm.llm", "tinyllm.engine.model_runner"])
def test_triton_is_not_imported_before_it_is_needed(module):
    code = f"import sys; import {module}; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
