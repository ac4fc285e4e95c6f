"""The sources that pages link to, in a folder of their own: a notebook beside a page would be taken for it.

After Quarto has rendered (`post-render` in `_quarto.yml`) this copies them; the press calls `files`.
"""

import os
from pathlib import Path

FOLDER = "source"


def files(root: Path, names: list[str]) -> dict[str, bytes]:
    """The files among `names` that exist, by their place in the output folder."""
    return {f"{FOLDER}/{name}": (root / name).read_bytes() for name in names if (root / name).is_file()}


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    out = Path(os.environ.get("QUARTO_PROJECT_OUTPUT_DIR", root / "_book"))
    found = [*(root / "nbs").glob("*.ipynb"), *(root / "tinyllm").rglob("*.py")]
    for name, content in files(root, [path.relative_to(root).as_posix() for path in found]).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
