"""tinyllm/ is exported from nbs/ and from nowhere else."""
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
BY_HAND = {"__init__.py", "__main__.py"}
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))


def package_files(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in sorted((root / "tinyllm").rglob("*.py"))}


def export_copy(tmp_path: Path) -> Path:
    """A copy of the project, exported afresh into an empty package."""
    for name in ("nbs", "settings.ini", "pyproject.toml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for file in (file for name in BY_HAND for file in (ROOT / "tinyllm").rglob(name)):
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    subprocess.run([BIN / "nbdev_export"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_export_changes_no_file_of_the_package(tmp_path):
    fresh, here = package_files(export_copy(tmp_path)), package_files(ROOT)
    assert sorted(fresh) == sorted(here), "a module without a notebook, or a notebook never exported: make export"
    changed = [name for name in fresh if fresh[name] != here[name]]
    assert not changed, f"edited by hand, or not exported: {changed}: run make export"


def test_every_module_says_which_notebook_it_comes_from():
    for name, text in package_files(ROOT).items():
        if Path(name).name in BY_HAND or name.endswith("_modidx.py"):
            continue
        source = re.search(r"File to edit: (\S+\.ipynb)", text)
        assert source, f"{name} names no notebook"
        assert (ROOT / name).parent.joinpath(source.group(1)).resolve() in NOTEBOOKS


def test_versions_agree():
    import tinyllm

    config = configparser.ConfigParser()
    config.read(ROOT / "settings.ini")
    assert config["DEFAULT"]["version"] == tinyllm.__version__


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_clean(path):
    """No execution counts, editor metadata or tracebacks: they make every diff unreadable."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}, sorted(notebook.metadata)
    assert notebook.metadata.get("kernelspec", {}).get("name") == "python3"
    for i, cell in enumerate(notebook.cells):
        assert set(cell.metadata) <= {"tags"}, f"cell {i}: metadata {dict(cell.metadata)}"
        if cell.cell_type == "code":
            assert cell.execution_count is None, f"cell {i}"
            assert not any(o.output_type == "error" for o in cell.outputs), f"cell {i}: a stored traceback"
            warned = [o for o in cell.outputs if o.get("name") == "stderr"]
            assert not warned, f"cell {i}: a stored warning, with the paths of whoever ran it"
    first = notebook.cells[0]
    assert first.cell_type == "raw" and "title:" in first.source and "subtitle:" in first.source
    assert len(json.dumps(notebook)) < 2_000_000, "outputs over 2 MB: store less"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_picture_has_a_caption_and_alt_text(path):
    for i, cell in enumerate(nbformat.read(path, as_version=4).cells):
        pictures = [o for o in cell.get("outputs", []) if any(k.startswith("image/") for k in o.get("data", {}))]
        if pictures:
            for option in ("fig-cap:", "fig-alt:"):
                assert option in cell.source, f"cell {i} shows a picture without {option}"
