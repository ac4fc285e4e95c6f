"""Before Quarto renders (`pre-render` in `_quarto.yml`): make what pages load and the repository does not hold.

That is where names of code are defined, the widgets' bundle, and Fable's weights as scripts. The last two
do not stop the render: what cannot be made here is said in one sentence, and the pages show the widgets'
pictures.
"""

import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from press import bundle, names, weights

ROOT = Path(__file__).resolve().parents[2]
FABLE = ROOT / ".make" / "fable"  # book/filters/widgets.lua puts it beside the bundle


def widgets() -> None:
    if not bundle.is_fresh() and not (shutil.which("node") and shutil.which("npm")):
        sys.exit("there is no Node on the PATH")
    bundle.build()


def fable() -> None:
    FABLE.mkdir(parents=True, exist_ok=True)
    for name, script in weights.assets(ROOT / "tinyllm" / "models" / "fable", FABLE.parent / "press").items():
        (FABLE / Path(name).name).write_bytes(script)


def main() -> None:
    names.write(ROOT)
    for step, lost in ((widgets, "pages show pictures in place of widgets"), (fable, "no model runs in the pages")):
        try:
            step()
        except (SystemExit, Exception) as error:
            print(f"[book] {lost}, because {error}; run `make widgets` first, then render again")


if __name__ == "__main__":
    main()
