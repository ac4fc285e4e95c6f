"""No step leaves the kernels of its device: which pass ran, for every layout of ranks and every kind of request."""
import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pass_matrix

from tinyllm.model.weights import load_model

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


def whole_step(model):
    from tinyllm.engine.kv_cache import allocate_cache
    from tinyllm.model.whole_step import WholeStep

    return WholeStep(model, allocate_cache(model.config, 20, 4, torch.float32))


def step_inputs(tokens):
    from tinyllm.model.backends import PagedInputs

    positions = torch.arange(tokens)
    starts, tables = torch.tensor([0, tokens], dtype=torch.int32), torch.arange(1, 17, dtype=torch.int32)[None]
    return PagedInputs(positions, starts, torch.tensor([tokens], dtype=torch.int32), tokens, tokens, positions + 4,
                       tables, 1 if tokens == 1 else 0, 1)


@pytest.mark.parametrize("tokens", [1, 2, 5, 7])
def test_sixteen_bits_a_weight_give_the_very_numbers_where_they_hold_them(tokens, checkpoint, monkeypatch):
    """A checkpoint in bfloat16, in a model of either type; and one whose numbers do not fit stays as it is."""
    pytest.importorskip("numba")
    import tinyllm.model.whole_step as module

    rounded = load_model(checkpoint, "float32")
    for weight in rounded.parameters():
        weight.copy_(weight.bfloat16())
    ids, inputs = torch.arange(tokens), step_inputs(tokens)
    with torch.inference_mode():
        short, half = whole_step(rounded), whole_step(copy.deepcopy(rounded).bfloat16())
        monkeypatch.setattr(module, "is_short", lambda weight: False)
        long = whole_step(rounded)
        monkeypatch.undo()
        found = [(step(ids, inputs).clone(), step.scores(step(ids, inputs))) for step in (short, half, long)]
        assert [step.tiles[0]["qkv"].dtype for step in (short, half, long)] == [torch.bfloat16, torch.bfloat16,
                                                                                torch.float32]  # fmt: skip
        for hidden, scores in found:
            assert torch.equal(hidden, found[0][0]) and torch.equal(scores, found[0][1])
        rounded.layers[1].mlp.down_proj.weight[0, 0] = 1 + 2**-20
        assert whole_step(rounded).tiles[0]["qkv"].dtype == torch.float32


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
