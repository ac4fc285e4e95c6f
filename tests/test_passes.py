"""No step leaves the kernels of its device: which pass ran, for every layout of ranks and every kind of request."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pass_matrix

CARD = [pytest.param(layout, id=f"card-{layout}") for layout in pass_matrix.LAYOUTS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    pass_matrix.make_checkpoint(folder)
    return folder


@pytest.mark.parametrize("kind", pass_matrix.KINDS)
@pytest.mark.parametrize("layout", pass_matrix.LAYOUTS)
def test_a_cpu_runs_every_step_in_its_kernels(layout, kind, checkpoint):
    pytest.importorskip("numba")
    with torch.inference_mode():
        pass_matrix.check(checkpoint, "cpu", layout, kind)


@pytest.mark.parametrize("kernels", ["torch", "cpu"])
def test_a_runner_goes_with_its_last_reference(kernels, checkpoint):
    pytest.importorskip("numba")
    pass_matrix.check_that_it_goes(checkpoint, kernels)


@pytest.mark.parametrize("layout", CARD)
def test_a_card_runs_every_step_in_its_kernels(layout):
    """Under Triton's interpreter, in a process of its own."""
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, Path(__file__).with_name("pass_matrix.py"), "triton", layout],
                          env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("the same tokens") == len(pass_matrix.KINDS)


def test_a_step_that_leaves_the_kernels_is_noticed(checkpoint, monkeypatch):
    """A runner that chooses plain torch, whatever it is asked for."""
    import tinyllm.engine.model_runner as module

    choose = module.choose_kernels
    monkeypatch.setattr(module, "choose_kernels", lambda model, *_: choose(model, "torch"))
    with torch.inference_mode(), pytest.raises(AssertionError, match=r"plain: steps ran in \{'torch'\}"):
        pass_matrix.check(checkpoint, "cpu", "one", "plain")
