"""The wheel, alone in an empty environment, away from the repository."""
import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from press import bundle

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    # a copy: an old build/ folder would leak into the wheel
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "tinyllm", source / "tinyllm", ignore=shutil.ignore_patterns("__pycache__", "static"))
    bundle.install(source / "tinyllm")  # as `make wheel` does
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, source]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("*.whl"))


def required(wheel: Path) -> dict[str, metadata.Distribution]:
    """What the wheel needs and what that needs, by name, as this environment has it."""
    name = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA"))
    waiting = metadata.PathDistribution(zipfile.Path(wheel, name.split("/")[0] + "/")).requires
    found: dict[str, metadata.Distribution] = {}
    while waiting:
        need = Requirement(waiting.pop())
        if need.name not in found and (need.marker is None or need.marker.evaluate({"extra": ""})):
            found[need.name] = metadata.distribution(need.name)
            waiting += found[need.name].requires or []
    return found


@pytest.fixture(scope="module")
def empty_environment(wheel, tmp_path_factory) -> Path:
    """A new virtual environment that holds the wheel and links to what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    for distribution in required(wheel).values():
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q"]
    result = subprocess.run([*pip, "--no-deps", "--no-index", wheel], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def test_pip_installs_the_wheel_and_all_that_it_needs(wheel, tmp_path):
    """From the package index, into an environment that has nothing: the versions are those of development."""
    import torch

    venv.create(tmp_path / "env", with_pip=True)
    pin = f"torch=={torch.__version__.split('+')[0]}"
    command = [tmp_path / "env" / "bin" / "pip", "install", "-q", pin, wheel]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = run(tmp_path / "env", tmp_path, "tinyllm", "generate", "Once upon a time", "--max-tokens", "5")
    assert said.returncode == 0 and said.stdout.strip(), said.stderr


def run(environment: Path, cwd: Path, *command) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([environment / "bin" / command[0], *command[1:]], cwd=cwd, env=clean, capture_output=True,
                          text=True, timeout=300)


def test_wheel_holds_the_package_and_the_weights_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert tops == {"tinyllm", next(t for t in tops if t.endswith(".dist-info"))}
    for model in ("fable", "fable-draft"):
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            assert f"tinyllm/models/{model}/{file}" in names
    assert b"tl-live" in zipfile.ZipFile(wheel).read("tinyllm/serve/static/live.js")
    assert "tinyllm/py.typed" in names  # its annotations count for whoever checks types
    licenses = {name.rsplit("/", 1)[1] for name in names if ".dist-info/licenses/" in name}
    assert licenses == {"LICENSE", "LICENSE-text.md"}  # the weights have another licence than the code
    assert wheel.stat().st_size < 25e6
    print(f"\nwheel: {wheel.stat().st_size / 1e6:.1f} MB")


def test_make_wheel_bundles_the_live_page_first():
    plan = subprocess.run(["make", "-n", "wheel"], cwd=ROOT, capture_output=True, text=True).stdout
    assert 0 < plan.index("press.bundle") < plan.index("build --wheel")
    assert "tinyllm/serve/static/" in (ROOT / ".gitignore").read_text().split()


def test_wheel_requires_no_development_tool(wheel):
    name = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA"))
    lines = zipfile.ZipFile(wheel).read(name).decode().splitlines()
    needs = [Requirement(line.split(": ", 1)[1]) for line in lines if line.startswith("Requires-Dist")]
    assert {r.name for r in needs if not r.marker} == {"torch", "numpy", "safetensors", "tokenizers", "jinja2", "tqdm"}


def test_installed_command_line_generates(empty_environment, tmp_path):
    flags = ("--max-tokens", "12", "--temperature", "0")
    result = run(empty_environment, tmp_path, "tinyllm", "generate", "Once upon a time", *flags)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) > 5
    again = run(empty_environment, tmp_path, "tinyllm", "generate", "Once upon a time", *flags)
    assert again.stdout == result.stdout


def test_example_of_chapter_nine_runs_away_from_the_repository(empty_environment, tmp_path):
    notebook = nbformat.read(ROOT / "nbs" / "09_full_model.ipynb", as_version=4)
    example = [c.source for c in notebook.cells if c.cell_type == "code" and "example" in c.metadata.get("tags", [])]
    assert len(example) == 1, "chapter 9 marks its stand-alone example with the tag `example`"
    result = run(empty_environment, tmp_path, "python", "-c", example[0])
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_example_of_the_readme_runs_away_from_the_repository(empty_environment, tmp_path):
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    result = run(empty_environment, tmp_path, "python", "-c", example)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Once upon a time") and "The king said" in result.stdout


def test_the_readme_installs_a_torch_without_cuda_before_the_package():
    readme = (ROOT / "README.md").read_text()
    block = next(block for block in re.findall(r"```\n(.*?)```", readme, re.S) if "pip install" in block)
    lines = [line for line in block.splitlines() if "pip install" in line]
    assert "torch" in lines[0] and "https://download.pytorch.org/whl/cpu" in lines[0] and "'.[cpu]'" in lines[1]


def test_the_names_at_the_top_are_listed_and_found():
    import tinyllm
    from tinyllm.engine.params import SamplingParams
    from tinyllm.llm import LLM, EngineArgs

    assert {"LLM", "EngineArgs", "SamplingParams", "__version__"} <= set(dir(tinyllm))
    assert (tinyllm.LLM, tinyllm.EngineArgs, tinyllm.SamplingParams) == (LLM, EngineArgs, SamplingParams)


def test_the_server_extra_brings_whatever_the_server_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    brought = {re.match(r"[\w-]+", need)[0].replace("-", "_") for need in brought}
    brought |= {"starlette", "pydantic", "pydantic_core", "h11"}  # what fastapi and uvicorn stand on
    brought |= {"matplotlib"}  # asked for by name when somebody wants a drawing
    package = ROOT / "tinyllm"  # the load generator asks a server, so it comes with the same extra
    paths = [*(package / "serve").glob("*.py"), package / "measure" / "load.py"]
    trees = (ast.parse(path.read_text()) for path in paths)
    nodes = [node for tree in trees for node in ast.walk(tree)]
    wanted = {name.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for name in node.names}
    wanted |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert "httpx" in wanted and wanted - set(sys.stdlib_module_names) - {"tinyllm"} <= brought
