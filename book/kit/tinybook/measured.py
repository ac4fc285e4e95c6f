"""What needs a GPU is measured once and stored; chapters load it here and let code say the numbers."""
import json
from pathlib import Path

STORED = Path("../book/measurements")  # as seen from a notebook


def measured(name: str, folder: Path = STORED) -> dict:
    """The stored measurement of this name, such as "latency_llama-3.1-8b_h200". ValueError names those there are."""
    found = {path.stem.removeprefix("e_"): path for path in sorted(folder.glob("*.json"))}
    if name not in found:
        raise ValueError(f"no measurement {name!r} is stored: there are {', '.join(found)}")
    return json.loads(found[name].read_text(encoding="utf-8"))


class Said:
    """A paragraph whose numbers were put in by code: Markdown in Jupyter, in the book and on paper."""

    def __init__(self, text: str):
        self.text = " ".join(text.split())

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text


def say(text: str) -> Said:
    """Prose for a cell's last line, an f-string: what was measured again then says itself anew."""
    return Said(text)
