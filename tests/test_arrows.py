"""The rooms of the package import one way: cli > serve, measure, train > llm > parallel > engine > model > kernels."""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tinyllm"
FLOOR = {"__main__": 7, "cli": 6, "serve": 5, "measure": 5, "train": 5, "llm": 4}
FLOOR |= {"parallel": 3, "engine": 2, "model": 1, "kernels": 0}
FORBIDDEN = {"nbdev", "fastcore", "execnb", "tinybook", "matplotlib", "transformers"}
OPTIONAL = {  # only inside functions: who asks for a plot or a peer has them
    "measure/offline.py": {"matplotlib"},
    "measure/peers.py": {"transformers"},
    "measure/load.py": {"matplotlib"},
    "measure/clock.py": {"matplotlib"},
}
MODULES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "_modidx.py"]


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py") if parts else ""


def imports(path: Path, package: Path = PACKAGE) -> list[tuple[str, ...]]:
    """Absolute names of everything a module imports, wherever in the file the import stands."""
    here = ("tinyllm", *path.relative_to(package).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            stem = base + tuple(node.module.split(".") if node.module else ())
            found += [(*stem, alias.name) for alias in node.names]
    return found


def backward_arrows(path: Path, package: Path = PACKAGE) -> list[str]:
    own = FLOOR.get(room(path.relative_to(package).parts))
    return [
        ".".join(name) for name in imports(path, package)
        if own is not None and name[0] == "tinyllm" and FLOOR.get(room(name[1:]), -1) > own
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_forward(path):
    assert room(path.relative_to(PACKAGE).parts) in {*FLOOR, "__init__"}, "a room that the design does not know"
    assert not backward_arrows(path)


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "nbs").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_chapter_imports_only_modules_that_are_there(path):
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    for name in re.findall(r"^\s*from tinyllm\.([\w.]+) import", "\n".join("".join(c["source"]) for c in cells), re.M):
        module = PACKAGE.joinpath(*name.split("."))
        assert module.is_dir() or module.with_suffix(".py").exists(), f"tinyllm.{name} is gone: mend its import"


def measuring_arrows(path: Path, package: Path = PACKAGE) -> list[str]:
    """What a module imports of measure and train, which only they and the command line may import."""
    if room(path.relative_to(package).parts) in {"measure", "train", "cli", "__main__"}:
        return []
    return [".".join(name) for name in imports(path, package)
            if name[0] == "tinyllm" and room(name[1:]) in {"measure", "train"}]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_that_serves_imports_what_measures_or_trains(path):
    assert not measuring_arrows(path)


def test_a_serving_module_that_measures_is_seen(tmp_path):
    lines = ("from ..measure.roofline import seconds", "from tinyllm.train import fable", "import tinyllm.measure",
             "from tinyllm import measure", "from .. import train")  # fmt: skip
    for folder in ("serve", "parallel", "measure"):
        (tmp_path / folder).mkdir()
        for line in lines:
            (tmp_path / folder / "some.py").write_text(f"def late():\n    {line}\n")
            assert bool(measuring_arrows(tmp_path / folder / "some.py", tmp_path)) == (folder != "measure"), line


def test_a_backward_arrow_is_seen(tmp_path):
    (tmp_path / "model").mkdir()
    arrows = ("from ..engine.params import LATER", "from tinyllm.engine import params", "import tinyllm.engine")
    for line in arrows:
        (tmp_path / "model" / "bad.py").write_text(f"def late():\n    {line}\n")
        assert backward_arrows(tmp_path / "model" / "bad.py", tmp_path), line


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_exported_code_needs_no_tool_of_the_book(path):
    allowed = OPTIONAL.get(str(path.relative_to(PACKAGE)), set())
    assert not {name[0] for name in imports(path)} & (FORBIDDEN - allowed)
    at_once = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not allowed & {ast.unparse(node).split()[1].split(".")[0] for node in at_once}


def run_without(blocked: set[str], code: str) -> subprocess.CompletedProcess:
    guard = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {sorted(blocked)!r}: raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    return subprocess.run([sys.executable, "-c", guard + code], capture_output=True, text=True)


@pytest.mark.parametrize("module", ["tinyllm", "tinyllm.cli", "tinyllm.engine.params", "tinyllm.parallel.routing",
                                    "tinyllm.measure.load", "tinyllm.measure.bench", "tinyllm.measure.ceilings"])
def test_light_modules_import_without_torch(module):
    result = run_without({"torch", "triton", "fastapi", "ray"}, f"import {module}")
    assert result.returncode == 0, result.stderr


def test_the_block_blocks():
    assert run_without({"torch"}, "import tinyllm.model.transformer").returncode != 0
