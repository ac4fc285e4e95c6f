"""A notebook or a .qmd file -> one pandoc tree, by the same Markdown that Quarto makes of it.

The tree carries raw blocks of the format `press` that say which cell of the notebook follows, so
that everything found wrong later can name its place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import yaml

from . import nb, pandoc
from .config import Book, Chapter

OPTION = re.compile(r"#\s*\|\s?(.*)")
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
PICTURES = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif"}
ORDER = ("text/markdown", "text/html", *PICTURES, "text/latex", "text/plain")
NOT_SHOWN = re.compile(r"(<Figure size|<matplotlib|\[<matplotlib|<Axes|Text\(|\(?array\(.*matplotlib)", re.S)
TOLD_LATER = re.compile(r"Duplicate identifier '(fig|tbl|eq|sec)-")  # refs.py knows the cell
TABLE = re.compile(r"<table[\s>]", re.I)


def read(chapter: Chapter, book: Book, problems: list[str], words: dict[str, str] | None = None) -> Chapter:
    """The chapter with what stands in its file. The tree is remembered while nothing changes.

    words: names of code in its text that a filter links, with where to (`names.index`).
    """
    filters = [pandoc.file_hash(f) for f in (*book.notebook_filters, *book.lua_filters)]
    generated = chapter.path.suffix == ".qmd"  # may list the chapters
    titles = [pandoc.file_hash(c.path) for c in book.chapters] if generated else []
    inputs = [
        str(book.root),
        chapter.source,
        pandoc.file_hash(chapter.path),
        filters,
        [pandoc.file_hash(f) for f in sorted((book.root / "book").glob("*.yml"))],  # filters read them
        titles,
        words or {},
        pandoc.own_code("source.py"),
    ]
    found: list[str] = []

    def make():
        tree = to_tree(chapter, book, found)
        meta = {key: pandoc.text_of(value) for key, value in tree["meta"].items()}
        return {"meta": meta, "blocks": tree["blocks"], "problems": found}

    made = pandoc.remembered(book.cache / "trees", chapter.name, inputs, make)
    problems.extend(made["problems"])
    meta, blocks = made["meta"], made["blocks"]
    title = meta.get("title", "")
    if not title:  # a .qmd file may have a heading of level 1 in place of front matter
        first = next((b for b in blocks if b["t"] == "Header" and b["c"][0] == 1), None)
        title = pandoc.text_of(first["c"][2]) if first else ""
        if not first:
            problems.append(
                f"{chapter.source}: no title: the first cell must be raw front matter with `title:`"
            )
    return replace(
        chapter, title=title, subtitle=meta.get("subtitle", ""), module=meta.get("module", ""), blocks=blocks
    )


def to_tree(chapter: Chapter, book: Book, problems: list[str]) -> dict:
    if chapter.path.suffix == ".ipynb":
        text = from_notebook(chapter, book, problems)
    else:
        text = chapter.path.read_text(encoding="utf-8")
    arguments = ["-f", pandoc.MARKDOWN, "-t", "json", f"--metadata=chapter-source:{chapter.source}"]
    arguments += [f"--lua-filter={f}" for f in book.lua_filters]
    warnings: list[str] = []
    tree = json.loads(pandoc.run(arguments, text, book.root, warnings))
    problems += [f"{chapter.source}: {w}" for w in warnings if not TOLD_LATER.match(w)]
    module = lambda b: b["t"] == "Div" and "chapter-module" in b["c"][0][1]  # noqa: E731  (the opening has it)
    tree["blocks"] = HtmlTables().walk([b for b in tree["blocks"] if not module(b)])
    return tree


class HtmlTables(pandoc.Walker):
    """Tables that come as HTML become pandoc's, so that they can be printed; a widget keeps its own."""

    def on_RawBlock(self, content):
        if content[0] == "html" and TABLE.search(content[1]) and "<tl-" not in content[1]:
            return json.loads(pandoc.run(["-f", "html", "-t", "json"], content[1]))["blocks"]
        return [pandoc.element("RawBlock", *content)]


def notebook_of(chapter: Chapter, book: Book) -> dict:
    """The notebook as the filters leave it."""
    nb.load(chapter.path, chapter.source)
    text = chapter.path.read_text(encoding="utf-8")
    for script in book.notebook_filters:
        command = [sys.executable, str(script)]
        text = subprocess.run(
            command, input=text, capture_output=True, encoding="utf-8", check=True, cwd=chapter.path.parent
        ).stdout
    return json.loads(text)


def joined(source) -> str:
    return source if isinstance(source, str) else "".join(source)


def from_notebook(chapter: Chapter, book: Book, problems: list[str]) -> str:
    """The notebook as one Markdown text."""
    parts = []
    for number, cell in enumerate(notebook_of(chapter, book)["cells"]):
        source = joined(cell["source"])
        if cell["cell_type"] == "code":
            place = f"{chapter.source}, cell {number}"
            source = "\n".join(code_cell(source, cell.get("outputs", []), place, book, problems))
        marker = f"```{{=press}}\n{number}\n```\n\n" if number and source.strip() else ""
        parts.append(marker + source)
    return "\n\n".join(parts) + "\n"


def cell_options(source: str, place: str, problems: list[str]) -> tuple[dict, str]:
    """The `#| key: value` lines at the head of a cell, and the code below them."""
    lines, count = source.split("\n"), 0
    while count < len(lines) and OPTION.match(lines[count]):
        count += 1
    text = "\n".join(OPTION.match(line)[1] for line in lines[:count])
    try:
        options = yaml.safe_load(text) or {}
        if not isinstance(options, dict):
            raise yaml.YAMLError(f"{text.splitlines()[0]!r} is not `key: value`")
    except yaml.YAMLError as error:
        problems.append(f"{place}: its #| options cannot be read: {' '.join(str(error).split())}")
        options = {}
    return options, "\n".join(lines[count:]).strip("\n")


def code_cell(source: str, outputs: list, place: str, book: Book, problems: list[str]) -> list[str]:
    """Markdown lines of a code cell; none for a cell that shows nothing."""
    for output in outputs:
        if output["output_type"] == "error":
            problems.append(f"{place}: holds a traceback: {output.get('ename')}: {output.get('evalue')}")
    options, code = cell_options(source, place, problems)
    if options.get("include") is False:
        return []
    shown = []
    if options.get("echo", True) and code:
        attributes = {k: options[k] for k in ("code-fold", "code-summary") if k in options}
        shown += fence(code, ".python .cell-code", attributes)
    if options.get("output", True) is not False:
        shown += cell_outputs(
            options, [o for o in outputs if o["output_type"] != "error"], place, book, problems
        )
    if not shown:
        return []
    classes = options.get("classes") or []
    classes = [".cell", *("." + c for c in (classes.split() if isinstance(classes, str) else classes))]
    return [f"::: {{{' '.join(classes)}}}", *shown, ":::"]


def fence(text: str, classes: str, attributes: dict | None = None) -> list[str]:
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    words = [classes, *(f'{k}="{quoted(v)}"' for k, v in (attributes or {}).items())]
    return [f"{ticks} {{{' '.join(words)}}}" if classes else ticks, text, ticks, ""]


def quoted(value) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def cell_outputs(options: dict, outputs: list, place: str, book: Book, problems: list[str]) -> list[str]:
    outputs = [o for o in map(simplified, outputs) if o]
    if any(kind in PICTURES for _, kind, _ in outputs):
        outputs = [o for o in outputs if not (o[1] == "text/plain" and NOT_SHOWN.match(o[2]))]
    label, alt = str(options.get("label", "")), options.get("fig-alt")
    caption = " ".join(str(options.get("tbl-cap" if label.startswith("tbl-") else "fig-cap", "")).split())
    numbered = label.startswith(("fig-", "tbl-"))
    display = [o for o in outputs if o[0] == "display"]
    if numbered and not caption:
        problems.append(
            f"{place}: {label} has no caption: add #| {'tbl' if label.startswith('tbl-') else 'fig'}-cap"
        )
    if numbered and not display:
        problems.append(f"{place}: {label} has no output: run the notebook")
    if any(kind in PICTURES for _, kind, _ in outputs) and not alt:
        problems.append(f"{place}: a picture without words for those who cannot see it: add #| fig-alt")
    single = len(display) == 1 and display[0][1] in PICTURES
    lines, inside = [], []
    for kind_of_output, kind, data in outputs:
        if kind in PICTURES:
            name, text = store_picture(data, kind, book), quoted(alt or "")
            attributes = (f"#{label} " if numbered and single else "") + f'fig-alt="{text}"'
            body = [f"![{caption if single else ''}](<{name}>){{{attributes}}}", ""]
        elif kind == "text/plain":
            body = fence(data.rstrip("\n"), "")
        elif kind == "text/html":
            body = fence(data, "=html")
        else:
            body = [data, ""]
        classes = f".cell-output .cell-output-{kind_of_output}" + (
            " .cell-output-markdown" if kind == "text/markdown" else ""
        )
        target = inside if kind_of_output == "display" and numbered and not single else lines
        target += ["", f"::: {{{classes}}}", *body, ":::"]
    if inside or (numbered and not display):
        lines += ["", f":::: {{#{label}}}", *inside, "", caption, "::::"]
    return lines


def simplified(output: dict) -> tuple[str, str, str] | None:
    """(what it is, its kind, its text): the best of the forms that an output has."""
    if output["output_type"] == "stream":
        text = ANSI.sub("", joined(output["text"]))
        return (output["name"], "text/plain", text) if text.strip() else None
    data = output.get("data", {})
    kind = next((k for k in ORDER if k in data), None)
    if kind is None:
        return None
    text = joined(data[kind])
    return ("display", kind, ANSI.sub("", text) if kind == "text/plain" else text)


def store_picture(data: str, kind: str, book: Book) -> str:
    """Write a picture once, under a name made from its bytes."""
    content = data.encode() if kind == "image/svg+xml" else base64.b64decode(data)
    path = book.cache / "pictures" / (hashlib.sha256(content).hexdigest()[:16] + PICTURES[kind])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pandoc.write_whole(path, content)
    return str(path)


def line_of(chapter: Chapter, cell: int | None, needle: str) -> str:
    """Where `needle` stands, for a message: "nbs/02_tokens.ipynb, cell 12, line 3"."""
    text, place = "", chapter.source
    if chapter.path.suffix != ".ipynb":
        text = chapter.path.read_text(encoding="utf-8")
    elif cell is not None:
        text = joined(json.loads(chapter.path.read_text(encoding="utf-8"))["cells"][cell]["source"])
        place += f", cell {cell}"
    line = next((n for n, line in enumerate(text.split("\n"), 1) if needle and needle in line), None)
    return f"{place}, line {line}" if line else place
