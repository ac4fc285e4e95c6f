"""These tests need a CUDA device, torch and pytest, and nothing of the development environment."""
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package need not be installed


@pytest.fixture(scope="session", autouse=True)
def cuda():
    if not torch.cuda.is_available():
        pytest.exit("tests/gpu needs a CUDA device, and torch sees none: run `make test` for the tests of a CPU", 2)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(2)  # several processes may share the tests
    return torch.device("cuda")
