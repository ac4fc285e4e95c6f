"""Run notebooks top to bottom, store their outputs, or compare a fresh run with what is stored.

    python -m press.execute nbs/02_tokens.ipynb ...    run and store
    python -m press.execute --check                    run all, store nothing, exit 1 on a difference
    python -m press.execute --stale                    run and store only notebooks whose code or package changed
    python -m press.execute --fresh ...                store every output anew, times and pictures too
    python -m press.execute --tidy                     run nothing, drop what editors leave in the metadata

A fresh run is compared by meaning: numbers in text to 1e-3 relative, pictures by presence and size
(their bytes differ between processors), cells tagged `timing` only by the kinds of their outputs.

What is stored changes only where a reader would see it: a cell keeps its outputs when the fresh ones say the same.
Times, which nobody can compare, are stored anew where code above them is not that of the last commit.
A `claim` whose words do not stand in the text is told too.
"""
from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from . import nb
from .config import BookError

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT / "nbs"
SEAL = ROOT / ".make" / "executed"
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
DECIMAL = re.compile(r"(?<![\w.])-?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)", re.I)  # in the data of a widget
RELATIVE, ABSOLUTE = 1e-3, 1e-6
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # two notebooks run side by side; one thread each also sums in a fixed order
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
    "TINYBOOK_STORE": "1",  # outputs of widgets are kept without the script that makes them live
}


@dataclass
class Outcome:
    path: Path
    seconds: float
    notebook: nbformat.NotebookNode | None = None
    error: str = ""
    differences: list[str] = field(default_factory=list)


def execute(path: Path, timeout: int = 600) -> Outcome:
    """Run a copy of the notebook in a fresh kernel in its own folder; the file is not touched."""
    from nbclient import NotebookClient  # not in the tools that only render
    from nbclient.exceptions import CellExecutionError

    from . import warm

    start = time.perf_counter()
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}}, kernel_manager_class=warm.manager(),
    )
    try:
        client.execute(env={**os.environ, **ENVIRONMENT})
    except CellExecutionError as failure:
        failed = next(i for i, c in enumerate(notebook.cells) if has_error(c))
        return Outcome(path, time.perf_counter() - start, error=f"{path.name}, cell {failed}:\n{failure}")
    return Outcome(path, time.perf_counter() - start, notebook=clean(notebook))


def read(path: Path):
    """The notebook. BookError names a file that is none."""
    nb.load(path)
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def has_error(cell) -> bool:
    return any(o.output_type == "error" for o in cell.get("outputs", []))


def clean(notebook):
    """Keep only what a reader or the next diff needs: sources, outputs, tags, the kernel's name."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
                output.get("metadata", {}).clear()
    return notebook


def numbers_and_rest(text: str) -> tuple[list[float], str]:
    """Split a text into its numbers and what stands between them, white space folded."""
    numbers = [float(n.replace(",", "")) for n in NUMBER.findall(text)]
    return numbers, re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip()


def same_text(stored: str, fresh: str) -> bool:
    a, rest_a = numbers_and_rest(stored)
    b, rest_b = numbers_and_rest(fresh)
    return rest_a == rest_b and len(a) == len(b) and all(
        x == y or abs(x - y) <= max(ABSOLUTE, RELATIVE * max(abs(x), abs(y))) for x, y in zip(a, b, strict=True)
    )


def same_widget(stored: str, fresh: str) -> bool:
    """The same but for what another processor may change: a float's last written digit, and so the id's hash."""
    stored, fresh = (re.sub(r'(id="tl-[a-z0-9-]+-)[0-9a-f]{8}"', r'\1"', text) for text in (stored, fresh))
    if DECIMAL.sub("#", stored) != DECIMAL.sub("#", fresh):
        return False
    pairs = zip(DECIMAL.findall(stored), DECIMAL.findall(fresh), strict=True)
    return all(a == b or close_decimals(a, b) for a, b in pairs)


def close_decimals(a: str, b: str) -> bool:
    x, y = float(a), float(b)
    return abs(x - y) <= max(1.01 * last_digit(a), 1.01 * last_digit(b), RELATIVE * max(abs(x), abs(y)))


def last_digit(number: str) -> float:
    """What one step in a decimal number's last place is worth."""
    digits, _, power = number.lower().partition("e")
    return 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))


def picture_size(kind: str, data: str) -> str:
    """The size an SVG declares; other pictures count by presence."""
    if kind != "image/svg+xml":
        return ""
    head = re.search(r"<svg[^>]*>", data, re.S)
    return " ".join(re.findall(r'\b(?:width|height)="([\d.]+)', head.group(0))) if head else ""


def mime(output) -> dict[str, str]:
    """An output as {kind: text}."""
    if output.output_type == "stream":
        return {f"stream/{output.name}": output.text}
    return {k: "".join(v) if isinstance(v, list) else str(v) for k, v in output.get("data", {}).items()}


def cell_differences(stored, fresh) -> list[str]:
    """What a reader would notice between the stored outputs of one cell and fresh ones."""
    timing = "timing" in stored.metadata.get("tags", [])
    old, new = [mime(o) for o in stored.outputs], [mime(o) for o in fresh.outputs]
    if [sorted(o) for o in old] != [sorted(o) for o in new]:
        return [f"outputs stored {[sorted(o) for o in old]}, fresh {[sorted(o) for o in new]}"]
    if timing:
        return []
    found = []
    for a, b in zip(old, new, strict=True):
        for kind in a:
            if kind.startswith("image/"):
                size_a, size_b = picture_size(kind, a[kind]), picture_size(kind, b[kind])
                if not same_text(size_a, size_b):
                    found.append(f"{kind} was {size_a}, is {size_b}")
            elif any(k.startswith("image/") for k in a) and kind == "text/plain":
                continue  # "<Figure size ...>" beside its picture
            elif not (same_widget if a[kind].startswith("<tl-") else same_text)(a[kind], b[kind]):
                found.append(f"{kind}\n  stored: {a[kind].strip()[:400]!r}\n  fresh:  {b[kind].strip()[:400]!r}")
    return found


def differences(stored, fresh) -> list[str]:
    """All differences between a notebook as stored and as just run."""
    return [
        f"cell {i}: {d}"
        for i, (a, b) in enumerate(zip(stored.cells, fresh.cells, strict=True)) if a.cell_type == "code"
        for d in cell_differences(a, b)
    ]


# ---- what is stored ----


def same_picture(stored: str, fresh: str) -> bool:
    """Whether two SVGs draw the same: the same shapes and words, every number within a tenth of a point or 1e-3."""
    if DECIMAL.sub("#", stored) != DECIMAL.sub("#", fresh):
        return False
    pairs = zip(map(float, DECIMAL.findall(stored)), map(float, DECIMAL.findall(fresh)), strict=True)
    return all(abs(a - b) <= max(0.1, RELATIVE * max(abs(a), abs(b))) for a, b in pairs)


def looks_the_same(stored, fresh) -> bool:
    """Whether a cell's fresh outputs say and draw what the stored ones do."""
    drawn = [[o.get("data", {}).get("image/svg+xml", "") for o in cell.outputs] for cell in (stored, fresh)]
    return not cell_differences(stored, fresh) and all(map(same_picture, *drawn))


def committed(path: Path) -> list[str] | None:
    """The code of the notebook's cells in the last commit; None where there is no such notebook, or no git."""
    command = ["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"]
    try:
        done = subprocess.run(command, capture_output=True)
        cells = json.loads(done.stdout)["cells"] if done.returncode == 0 else None
    except (OSError, ValueError, KeyError):
        return None
    return cells and [nb.joined(c["source"]) for c in cells if c["cell_type"] == "code"]


def keep_outputs(stored, fresh, before: list[str] | None) -> None:
    """Give cells of the fresh notebook the stored outputs that still hold. `before`: the code that made those."""
    code = [cell.source for cell in code_cells(fresh)]
    changed = next((n for n, (a, b) in enumerate(zip(code, before or [], strict=False)) if a != b), len(before or []))
    for n, (old, new) in enumerate(zip(code_cells(stored), code_cells(fresh), strict=True)):
        timing = "timing" in new.metadata.get("tags", [])
        if (n < changed and timing and not cell_differences(old, new)) or (not timing and looks_the_same(old, new)):
            new.outputs = old.outputs


# ---- claims ----


def claims_of(source: str):
    """The texts that a cell claims, where they are written out."""
    source = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    for node in ast.walk(ast.parse(source)):
        called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim"
        if called and isinstance(node.args[0], ast.Constant):
            yield node.args[0].value


def prose_of(path: Path) -> str:
    """The notebook's text and captions, with single spaces."""
    cells = read(path).cells
    texts = {kind: [c.source for c in cells if c.cell_type == kind] for kind in ("markdown", "code")}
    captions = re.findall(r"^#\| *(?:fig-cap|tbl-cap): *(.*)$", "\n".join(texts["code"]), re.M)
    return " ".join("\n".join(texts["markdown"] + captions).split())


def missing_claims(path: Path) -> list[str]:
    """Texts that cells claim, but that stand neither in the prose nor in a caption."""
    prose = prose_of(path)
    claimed = [text for cell in code_cells(read(path)) for text in claims_of(cell.source)]
    return [text for text in claimed if " ".join(text.split()) not in prose]


def notebooks(names=()) -> list[Path]:
    return [Path(n).resolve() for n in names] or sorted(NBS.glob("*.ipynb"))


def has_code(path: Path) -> bool:
    return bool(code_cells(read(path)))


def run_all(paths, workers=2):
    """Outcomes as they finish, in the order given."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(execute, [p for p in paths if has_code(p)])


def fingerprint(path: Path) -> str:
    """Changes when the notebook's code or anything it could import changes."""
    digest = hashlib.sha256()
    for cell in read(path).cells:
        if cell.cell_type == "code":
            digest.update(cell.source.encode() + b"\0")
    package = [*ROOT.glob("tinyllm/**/*"), *ROOT.glob("book/kit/tinybook/**/*"), *ROOT.glob("book/measurements/**/*")]
    for file in sorted(p for p in package if p.is_file() and p.suffix not in (".pyc", ".js")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_stale(path: Path) -> bool:
    seal = SEAL / path.stem
    return not seal.exists() or seal.read_text() != fingerprint(path)


def tidy(paths) -> int:
    """Clean notebooks in place; only those that change are written."""
    for path in paths:
        after = nbformat.writes(clean(read(path))) + "\n"
        if after.strip() != path.read_text(encoding="utf-8").strip():
            path.write_text(after, encoding="utf-8")
    return 0


def compare(outcome: Outcome) -> list[str]:
    """What is not as stored, and which claims are not in the text."""
    return differences(read(outcome.path), outcome.notebook) + unsaid(outcome.path)


def unsaid(path: Path) -> list[str]:
    return [f"{path.name}: claim({text!r}): these words do not stand in the text" for text in missing_claims(path)]


def store(outcome: Outcome, fresh: bool = False) -> list[str]:
    """Write the outputs that changed into the notebook. Returns claims that its text does not make."""
    if not fresh:
        keep_outputs(read(outcome.path), outcome.notebook, committed(outcome.path))
    text = nbformat.writes(outcome.notebook) + "\n"
    if text.strip() != outcome.path.read_text(encoding="utf-8").strip():
        outcome.path.write_text(text, encoding="utf-8")
    SEAL.mkdir(parents=True, exist_ok=True)
    (SEAL / outcome.path.stem).write_text(fingerprint(outcome.path))
    return unsaid(outcome.path)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="press.execute", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="default: all of nbs/")
    parser.add_argument("--check", action="store_true", help="compare with the stored outputs, store nothing")
    parser.add_argument("--stale", action="store_true", help="only notebooks whose code or package changed")
    parser.add_argument("--fresh", action="store_true", help="store every output anew, times and pictures too")
    parser.add_argument("--tidy", action="store_true", help="run nothing, drop what editors leave in the metadata")
    args = parser.parse_args(argv)
    try:
        paths = notebooks(args.notebooks)
        return tidy(paths) if args.tidy else run(paths, args)
    except BookError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1


def run(paths: list[Path], args) -> int:
    """Run and store, or compare; exit code 1 when something is wrong in any."""
    if args.stale:
        paths = [p for p in paths if has_code(p) and is_stale(p)]
    failed = 0
    for outcome in run_all(paths):
        wrong = outcome.error or "\n".join(compare(outcome) if args.check else store(outcome, args.fresh))
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ok':>6}  {outcome.path.name}  {outcome.seconds:.1f} s", flush=True)
        if wrong:
            print(wrong, file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
