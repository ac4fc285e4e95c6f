"""Running pandoc, walking its trees, and remembering results by what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pypandoc

MARKDOWN = "markdown"  # pandoc's own, as Quarto reads it
HERE = Path(__file__).parent


@cache
def program() -> str:
    return pypandoc.get_pandoc_path()


def run(arguments: list[str], text: str, cwd: Path | None = None, warnings: list[str] | None = None) -> str:
    """Pandoc's answer. What it warns about goes to `warnings`; where nobody listens, it is an error."""
    done = subprocess.run(
        [program(), *arguments], input=text, capture_output=True, encoding="utf-8", cwd=cwd
    )
    if done.returncode or (done.stderr.strip() and warnings is None):
        raise RuntimeError(f"pandoc {' '.join(arguments)}: {done.stderr.strip()}")
    if done.stderr.strip():
        warnings += [" ".join(part.split()) for part in done.stderr.split("[WARNING]") if part.strip()]
    return done.stdout


@cache
def api_version() -> tuple[int, ...]:
    return tuple(json.loads(run(["-f", MARKDOWN, "-t", "json"], ""))["pandoc-api-version"])


def document(blocks: list, meta: dict | None = None) -> str:
    """A tree as pandoc reads it from JSON."""
    return json.dumps({"pandoc-api-version": api_version(), "meta": meta or {}, "blocks": blocks})


def text_of(node) -> str:
    """The letters of a tree."""
    if isinstance(node, list):
        return "".join(map(text_of, node))
    if not isinstance(node, dict):
        return ""
    kind, content = node.get("t"), node.get("c")
    if kind in ("Space", "SoftBreak", "LineBreak"):
        return " "
    if kind in ("Str", "MetaString"):
        return content
    if kind in ("Code", "Math"):
        return content[1]
    if kind == "Quoted":
        left, right = "“”" if content[0]["t"] == "DoubleQuote" else "‘’"
        return left + text_of(content[1]) + right
    if kind == "Note":
        return ""
    return text_of(content)


class Walker:
    """Rebuilds a tree in reading order. A method `on_<Type>(content)` returns the elements that
    stand in the place of one; what has no method is walked into."""

    def walk(self, node):
        if isinstance(node, list):
            return [
                new
                for item in node
                for new in (self.visit(item) if isinstance(item, dict) else [self.walk(item)])
            ]
        if isinstance(node, dict):
            return {**node, "c": self.walk(node["c"])} if "c" in node else node
        return node

    def visit(self, node: dict) -> list[dict]:
        method = getattr(self, f"on_{node.get('t')}", None)
        return method(node["c"]) if method else [self.walk(node)]


def element(kind: str, *content) -> dict:
    return {"t": kind, "c": list(content)}


def plain(text: str) -> dict:
    return {"t": "Str", "c": text}


def raw(html: str) -> dict:
    return element("RawBlock", "html", html)


def raw_inline(html: str) -> dict:
    return element("RawInline", "html", html)


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def own_code(*names: str) -> list[str]:
    """Hashes of the press's own files: a changed press makes everything anew."""
    return [file_hash(HERE / name) for name in names]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that another run never sees half of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    part.write_bytes(content)
    part.replace(path)


def remembered(folder: Path, name: str, inputs: list, make: Callable):
    """`make()`, a JSON value; or what it gave the last time if `inputs` are still the same."""
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
    store = folder / f"{name}.json"
    if store.exists():
        kept = json.loads(store.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return kept["value"]
    value = make()
    store.parent.mkdir(parents=True, exist_ok=True)
    write_whole(store, json.dumps({"key": key, "value": value}).encode())
    return value
