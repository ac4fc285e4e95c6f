"""Reading notebooks: a file that cannot be read is named, with the place and the way out.

`python -m press.nb FILE ...` only looks at them, before other people's tools do.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from .config import BookError

GIT = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.M)  # what git writes into a file that it cannot merge
MARKERS = ("`<<<<<<<", "`=======", "`>>>>>>>")  # how a cell begins that `merge.py` sets around two versions


def load(path: Path, name: str = "") -> dict:
    """The notebook as JSON; `name` is what the errors call it. BookError names what is wrong, and where."""
    name = name or named(path)
    try:
        notebook = json.loads(text := path.read_text(encoding="utf-8"))
        cells = notebook["cells"]
    except OSError as error:
        raise BookError([f"{name}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise BookError([f"{name}: cannot be read: byte {error.start} is not UTF-8"]) from None
    except ValueError as error:
        raise BookError([f"{name}: {conflicted(text) or f'not a notebook: {error}'}"]) from None
    except (KeyError, TypeError):
        raise BookError([f"{name}: not a notebook: it has no list of cells"]) from None
    if problems := unresolved(cells, name):
        raise BookError(problems)
    return notebook


def named(path: Path) -> str:
    """nbs/02_tokens.ipynb, as authors call it."""
    return f"{path.parent.name}/{path.name}" if path.parent.name == "nbs" else str(path)


def conflicted(text: str) -> str:
    """What to do about a file into which git wrote its markers; nothing where it did not."""
    found = GIT.search(text)
    line = text[: found.start()].count("\n") + 1 if found else 0
    way = "let the merge driver do it again: `make book`, then `git checkout --merge FILE`"
    return f"line {line} is git's mark of a conflict, {found[0].strip()}: {way}" if found else ""


def joined(source) -> str:
    return source if isinstance(source, str) else "".join(source)


def unresolved(cells: list, name: str) -> list[str]:
    """Two versions of a cell that nobody has chosen from yet."""
    marked = [n for n, cell in enumerate(cells) if joined(cell["source"]).startswith(MARKERS)]
    way = "keep one version and delete the cells that mark them"
    return [f"{name}, cells {', '.join(map(str, marked))}: a conflict: {way}"] if marked else []


def main(names: list[str]) -> int:
    problems = []
    for name in names:
        try:
            load(Path(name))
        except BookError as error:
            problems += error.problems
    print(*problems, sep="\n", end="\n" * bool(problems), file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
