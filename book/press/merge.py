"""Git's merge driver for notebooks: `python -m press.merge BASE OURS THEIRS NAME`; `make` tells git of it.

Cells are merged by their ids, the lines of a cell as git merges the lines of a file. Outputs never conflict: ours
stay, unless only theirs changed (`make run` makes those anew that belong to other code). Where both sides changed
the same lines of a cell, both versions stand in the notebook between cells that mark them: it can still be opened,
and no tool takes it before one version is chosen. The result replaces OURS; exit code 1 says that there is such a
cell.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .nb import joined

NOTHING = {"cell_type": "none", "source": "", "metadata": {}}  # a cell that one side does not have


def chosen(base, ours, theirs):
    """What changed on one side only; ours where both changed."""
    return theirs if ours == base else ours


def merge(base: dict, ours: dict, theirs: dict) -> tuple[dict, int]:
    """The merged notebook, and how many cells wait for a choice."""
    cells, conflicts = [], 0
    sides = [{cell["id"]: cell for cell in side["cells"]} for side in (base, ours, theirs)]
    for name in order(*map(list, sides)):
        made = merge_cells(*(side.get(name, NOTHING) for side in sides))
        cells += made
        conflicts += len(made) > 1
    whole = {key: chosen(*(side.get(key) for side in (base, ours, theirs))) for key in ours}
    return whole | {"cells": cells}, conflicts


def order(base: list[str], ours: list[str], theirs: list[str]) -> list[str]:
    """All ids: ours in our order, and theirs behind the one that they follow there."""
    if [name for name in ours if name in base] == [name for name in base if name in ours]:
        ours, theirs = theirs, ours  # we moved nothing: the order is theirs
    names = list(ours)
    for place, name in enumerate(theirs):
        if name not in names:
            before = next((known for known in reversed(theirs[:place]) if known in names), None)
            names.insert(names.index(before) + 1 if before else 0, name)
    return names


def merge_cells(base: dict, ours: dict, theirs: dict) -> list[dict]:
    """No cell where it was deleted, one that both can stand behind, or both versions between three that mark them."""
    said = [(cell["cell_type"], joined(cell["source"])) for cell in (base, ours, theirs)]
    if said[1] == said[2] or said[0] in said[1:]:
        kind, source = chosen(*said)
        clean = True
    elif NOTHING in (ours, theirs) or said[1][0] != said[2][0]:
        return between_marks(ours, theirs)
    else:
        kind, (source, clean) = said[1][0], merge_lines(*(text for _, text in said))
    if not clean:
        return between_marks(ours, theirs)
    if kind == "none":
        return []
    cell = copy.deepcopy(theirs if ours is NOTHING or kind != said[1][0] else ours)
    cell["source"] = source.splitlines(keepends=True)
    for key in ("metadata", "outputs"):
        if key in cell:
            cell[key] = chosen(*(side.get(key, cell[key]) for side in (base, ours, theirs)))
    if "outputs" in cell and said[1] != said[2] and (kind, source) in said[1:]:  # they belong to that side's code
        cell["outputs"] = (ours, theirs)[said[1:].index((kind, source))].get("outputs", [])
    return [cell]


def merge_lines(base: str, ours: str, theirs: str) -> tuple[str, bool]:
    """A text with the changes of both sides, and whether none of them touched the same lines."""
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, name) for name in ("ours", "base", "theirs")]
        for name, text in zip(names, (ours, base, theirs), strict=True):
            Path(name).write_text(text + "\n", encoding="utf-8")
        done = subprocess.run(["git", "merge-file", "-p", *names], capture_output=True)
    return done.stdout.decode().removesuffix("\n"), done.returncode == 0


def between_marks(ours: dict, theirs: dict) -> list[dict]:
    """Both versions of a cell, one of which may be nothing."""
    name = (theirs if ours is NOTHING else ours)["id"]

    def mark(n: int, text: str) -> dict:
        return {"cell_type": "markdown", "id": f"{name}-{n}", "metadata": {}, "source": [f"`{text}`"]}

    versions = [[] if side is NOTHING else [side] for side in (ours, copy.deepcopy(theirs))]
    if ours is not NOTHING and theirs is not NOTHING:
        versions[1][0]["id"] += "-theirs"
    return [mark(1, "<<<<<<< ours"), *versions[0], mark(2, "======="), *versions[1], mark(3, ">>>>>>> theirs")]


def main(argv: list[str]) -> int:
    *files, name = map(Path, argv)
    try:
        base, ours, theirs = (json.loads(file.read_text(encoding="utf-8") or '{"cells": []}') for file in files)
        merged, conflicts = merge(base, ours, theirs)
    except (ValueError, KeyError, TypeError) as error:
        print(f"{name}: one side is not a notebook with ids ({error}): left as ours", file=sys.stderr)
        return 1
    files[1].write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if conflicts:
        print(f"{name}: {conflicts} cells in two versions, between cells with <<<<<<< and >>>>>>>", file=sys.stderr)
    return int(conflicts > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
