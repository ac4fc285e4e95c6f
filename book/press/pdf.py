"""The book as a PDF: pandoc trees as `refs.resolve` leaves them -> Typst -> PDF.

Everything that decides how a page looks is in `book/theme/typst-template.typ`; this file only says
which piece of the book is which piece of that template. It knows nothing of notebooks, and neither
numbers nor resolves anything: numbers and references are those of the web pages.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
import re
import shutil
import tempfile
import urllib.parse
from dataclasses import replace
from pathlib import Path

import typst

from . import pandoc
from .config import Book, BookError, Chapter
from .pandoc import element, text_of
from .refs import Placed, all_references, identifiers

TEMPLATE = Path(__file__).parent.parent / "theme" / "typst-template.typ"
CALLOUTS = ("note", "tip", "warning", "important", "caution")
SUFFIXES = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif"}


def quoted(text: str) -> str:
    """A Typst string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def raw(code: str) -> dict:
    return element("RawBlock", "typst", code)


def raw_inline(code: str) -> dict:
    return element("RawInline", "typst", code)


def plain(inlines: list) -> dict:
    return {"t": "Plain", "c": inlines}


class Pictures:
    """The picture files of the book, written once each under a name made from their bytes."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, source: str, base: Path) -> str:
        """Store the picture at `source` (data URI, or path relative to `base`) and return its name."""
        data, suffix = self.read(source, base)
        if not data:
            raise ValueError("the picture is empty")
        path = self.folder / (hashlib.sha256(data).hexdigest()[:16] + suffix)
        if not path.exists():
            path.write_bytes(data)
            try:  # on its own, where the chapter is still known
                page = f"#image({quoted(path.name)})".encode()
                typst.compile(page, root=self.folder, ignore_system_fonts=True)
            except typst.TypstError as error:
                raise ValueError(f"the picture cannot be read: {error.message}") from None
        return f"/{self.folder.name}/{path.name}"

    @staticmethod
    def read(source: str, base: Path) -> tuple[bytes, str]:
        if not source.startswith("data:"):
            path = base / urllib.parse.unquote(source)
            if not path.is_file():
                raise ValueError(f"no such picture: {path}")
            return path.read_bytes(), path.suffix.lower()
        head, _, body = source.partition(",")
        kind = head[5:].split(";")[0]
        if kind not in SUFFIXES:
            raise ValueError(f"a picture of type {kind} cannot be printed: use SVG or PNG")
        if not head.endswith(";base64"):
            return urllib.parse.unquote_to_bytes(body), SUFFIXES[kind]
        try:
            return base64.b64decode(body, validate=True), SUFFIXES[kind]
        except binascii.Error as error:
            raise ValueError(f"the picture's base64 is broken: {error}") from None


SHORT = 20  # lines; longer code may be parted from its output, or half a page would stay empty


class Printer(Placed):
    """Rewrites one chapter's tree into what pandoc's Typst writer and the template print well.

    Identifiers become `chapter#id`, so that two chapters may both have a section called "Summary".
    What cannot be printed is added to `problems`.
    """

    def __init__(self, chapter: Chapter, labels: set[str], pictures: Pictures, problems: list[str]):
        super().__init__(chapter, problems)
        self.labels, self.pictures, self.in_output = labels, pictures, False

    def blocks(self) -> list:
        """The whole chapter. A paragraph stays with the code it leads to, and code with its output."""
        blocks, out = [*self.walk(self.chapter.blocks), {"t": "Null"}], []
        for block, after in itertools.pairwise(blocks):
            out += [raw("#lead["), block, raw("]")] if leads(block, after) else [block]
        return out

    def label(self, name: str) -> str:
        """Typst code that labels the element it stands after; nothing without a name."""
        return f" #label({quoted(f'{self.chapter.name}#{name}')})" if name else ""

    def anchor(self, name: str) -> str:
        """A place to link to that prints nothing."""
        return f"#metadata(none){self.label(name)}" if name else ""

    # Blocks

    def on_Header(self, content):
        level, (name, classes, pairs), inlines = content
        if level == 1:  # the title, which `opening` has printed
            return [raw(self.anchor(name))]
        number = dict(pairs).get("number")
        numbering = f"(..) => {quoted(number)}" if number else "none"
        listed = ", outlined: false" if "unlisted" in classes else ""
        start = raw_inline(f"#heading(depth: {level}, numbering: {numbering}{listed})[")
        return [plain([start, *self.walk(inlines), raw_inline("]" + self.label(name))])]

    def on_CodeBlock(self, content):
        attr, text = content
        if not text.strip():
            return []
        language = [] if self.in_output else [c for c in attr[1] if not c.startswith(("cell-", "source"))][:1]
        block = {"t": "CodeBlock", "c": [["", language, []], text.rstrip("\n")]}
        return [raw(self.anchor(attr[0])), block] if attr[0] else [block]

    def on_RawBlock(self, content):
        kind, text = content
        super().on_RawBlock(content)  # notes the cell
        if kind == "html" and not text.lstrip().startswith(("<!--", "</")):
            self.problem(f"raw HTML has no printed form: {text.strip()[:60]}", text.split("\n")[0])
        return [raw(text)] if kind == "typst" else []

    def on_Para(self, inlines):
        if len(inlines) == 1 and inlines[0]["t"] == "Image":
            return [raw(f"#align(center, {self.picture(inlines[0]['c'])})")]
        return [{"t": "Para", "c": self.walk(inlines)}]

    on_Plain = on_Para

    def on_Figure(self, content):
        attr, caption, blocks = content
        kind = "table" if attr[0].startswith("tbl-") else quoted("figure")
        live = self.live(attr[0]) if "live" in attr[1] else []
        return self.figure(attr[0], kind, caption[1], self.walk(blocks) + live)

    def live(self, name: str) -> list:
        """Below the picture of a widget: the page beside the PDF that holds the widget itself."""
        page, address = quoted(self.chapter.page), quoted(f"{self.chapter.page}#{name}")
        return [raw(f"#align(center, text(size: 0.8em)[Live: #link({address}, raw({page}))])")]

    def on_Table(self, content):
        attr, caption, columns, *rows = content
        sides = [{"t": "AlignLeft"} if side["t"] == "AlignDefault" else side for side, _ in columns]
        columns = [[side, {"t": "ColWidthDefault"}] for side in sides]  # as wide as what stands in it
        bare = ["", ["typst:no-figure"], []]
        table = element("Table", bare, [None, []], columns, *self.walk(rows))
        return self.figure(attr[0], "table", caption[1], [table])

    def figure(self, name, kind, caption, body):
        number, caption = split_number(caption)
        about = f"kind: {kind}" + (f", number: {quoted(number)}" if number else "")
        start = [raw(f"#numbered-figure({about})[")]
        if caption:
            start = [raw(f"#numbered-figure({about}, caption: ["), *self.walk(caption), raw("])[")]
        return [*start, *body, raw("]" + self.label(name))]

    def on_Div(self, content):
        attr, blocks = content
        name, classes, pairs = attr
        options = dict(pairs)
        if {"chapter-module", "cell-defines"} & set(classes):  # the first stands in the chapter's head
            return []
        if "glossary-entries" in classes:
            return [raw("#glossary["), *self.walk(blocks), raw("]")]
        if "numbered-equation" in classes:
            start = raw(f"#numbered-equation({quoted(options['number'])})[")
            return [start, *self.walk(blocks), raw("]" + self.label(name))]
        for kind in CALLOUTS:
            if f"callout-{kind}" in classes:
                return self.callout(name, kind, options.get("title"), blocks)
        before, self.in_output = self.in_output, self.in_output or "cell-output" in classes
        body = self.walk(blocks)
        self.in_output = before
        return [raw(self.anchor(name)), *body] if name else body

    def callout(self, name, kind, title, blocks):
        title = [{"t": "Str", "c": title}] if title else None
        if not title and blocks and blocks[0]["t"] == "Header":
            title, blocks = blocks[0]["c"][2], blocks[1:]
        start = [raw_inline(f"#aside(kind: {quoted(kind)}" + (", title: [" if title else ")["))]
        if title:
            start += [*self.walk(title), raw_inline("])[")]
        return [plain(start), *self.walk(blocks), raw("]" + self.label(name))]

    # Inlines

    def on_Image(self, content):
        return [raw_inline(f"#box({self.picture(content, fit=False)})")]

    def picture(self, content, fit=True):
        attr, inlines, target = content
        options = dict(attr[2])
        alt = options.get("fig-alt") or options.get("alt") or text_of(inlines)
        try:
            source = self.pictures.add(target[0], self.chapter.path.parent)
        except ValueError as error:
            self.problem(str(error), target[0])
            return "none"
        function = "picture" if fit else "image"
        width = length(options["width"]) if "width" in options else "auto"
        return f"{function}({quoted(source)}, alt: {quoted(alt) if alt else 'none'}, width: {width})"

    def on_Link(self, content):
        (anchor, classes, _), inlines, (url, _) = content
        inlines = [raw_inline(self.anchor(anchor))] * bool(anchor) + self.walk(inlines)
        if re.match(r"[a-z]+:", url):
            return [{"t": "Link", "c": [["", [], []], inlines, [url, ""]]}]
        file, _, name = url.partition("#")
        if "code-link" in classes:  # to the chapter that defines it: a cell has no number
            name = ""
            if not file:
                return inlines
        chapter = "references" if name.startswith("ref-") else Path(file).stem or self.chapter.name
        if f"{chapter}#{name}" not in self.labels:
            self.problem(f"the link to {url} leads nowhere in the printed book", f"({url})")
            return inlines
        kinds = {"tl-term": "quiet-link", "code-link": "quiet-link", "tl-home": "paged-link"}
        function = kinds.get("".join(classes[:1]), "link")
        return [raw_inline(f"#{function}(label({quoted(f'{chapter}#{name}')}))["), *inlines, raw_inline("]")]

    def on_Cite(self, content):
        return self.walk(content[1])

    def on_Span(self, content):
        attr, inlines = content
        inlines = self.walk(inlines)
        return [raw_inline(self.anchor(attr[0])), *inlines] if attr[0] else inlines

    def on_RawInline(self, content):
        kind, text = content
        return [raw_inline(text)] if kind == "typst" else []


def split_number(caption: list) -> tuple[str, list]:
    """"Figure 2.1", and the caption without it; no number where the caption has none."""
    first = (caption[0].get("c") or [{}])[0] if caption else {}
    if first.get("t") != "Span" or "caption-number" not in first["c"][0][1]:
        return "", caption
    return text_of(first).rstrip(":"), [{**caption[0], "c": caption[0]["c"][2:]}, *caption[1:]]


def leads(block: dict, after: dict) -> bool:
    """Whether a block may not stand alone at the end of a page: a text before code, short code before its output."""
    if after["t"] != "CodeBlock":
        return False
    is_output = not after["c"][0][1]
    return block["t"] == "Para" or (block["t"] == "CodeBlock" and is_output and block["c"][1].count("\n") < SHORT)


class ForPrint(pandoc.Walker):
    """Leaves out what is only for the screen. A figure that is a widget there gets the class `live`."""

    def on_Figure(self, content):
        (name, classes, pairs), *rest = content
        live = ["live"] * ("<tl-" in json.dumps(rest))
        return [element("Figure", [name, [*classes, *live], pairs], *self.walk(rest))]

    def on_Div(self, content):
        (_, classes, pairs), blocks = content
        named = {word for key, word in pairs if key in ("when-format", "unless-format")}
        here = bool(named & {"typst", "pdf"}) != ("unless-format" in dict(pairs))
        if ("content-visible" in classes and not here) or ("content-hidden" in classes and here):
            return []
        return [element("Div", content[0], self.walk(blocks))]


def length(text: str) -> str:
    """An HTML width as a Typst length: `400px` is 300pt, `50%` stays."""
    number, unit = re.fullmatch(r"([\d.]+)\s*(%|px|pt|in|cm|mm|em)?", text).groups()
    return f"{float(number) * 0.75:g}pt" if unit in (None, "px") else number + unit


MARK = "//@@ "  # a comment line in pandoc's Typst output, before each chapter


def to_typst(documents: dict[str, list]) -> dict[str, str]:
    """Typst source of each document (name -> pandoc blocks), by one run of pandoc for all of them."""
    blocks = [block for name, content in documents.items() for block in [raw(MARK + name), *content]]
    arguments = ["-f", "json", "-t", "typst", "--syntax-highlighting=idiomatic", "--wrap=none"]
    source = pandoc.run(arguments, pandoc.document(blocks))
    pieces = re.split(rf"^{MARK}(\S+)$", source, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def call(function: str, *content: str, **options: str | None) -> str:
    """A call of a template function, with strings as named arguments and Typst code as content."""
    named = "".join(f"{key}: {quoted(value)}, " for key, value in options.items() if value)
    return f"#{function}({named}{', '.join(content)})"


def opening(chapter) -> dict:
    """The head of a chapter: number, title (labelled with the chapter's name), subtitle, module."""
    numbering = f"(..) => {quoted(chapter.number)}" if chapter.number else "none"
    title = f"heading(level: 2, numbering: {numbering}, {quoted(chapter.title)})"
    title = f"[#{title} #label({quoted(chapter.name + '#')})]"
    about = {"number": chapter.number, "subtitle": chapter.subtitle, "module": chapter.module}
    return raw(call("chapter", title, **about))


def write_sources(book: Book, chapters: list[Chapter], folder: Path) -> None:
    """Everything that Typst needs, in `folder`: template, a file per chapter, pictures, `book.typ`."""
    chapters = [*chapters, *references(book, chapters)]
    chapters = [replace(chapter, blocks=ForPrint().walk(chapter.blocks)) for chapter in chapters]
    labels = {f"{chapter.name}#{name}" for chapter in chapters for name in identifiers(chapter.blocks) | {""}}
    pictures, problems = Pictures(folder / "pictures"), []
    documents = {}
    for chapter in chapters:
        documents[chapter.name] = [opening(chapter), *Printer(chapter, labels, pictures, problems).blocks()]
    if problems:
        raise BookError(problems)
    use_template = '#import "/template.typ": *\n'
    shutil.copy(TEMPLATE, folder / "template.typ")
    for name, source in to_typst(documents).items():
        (folder / f"{name}.typ").write_text(use_template + source, encoding="utf-8")
    (folder / "book.typ").write_text(use_template + "\n".join(frame(book, chapters)), encoding="utf-8")


def references(book: Book, chapters: list[Chapter]) -> list[Chapter]:
    """A last chapter with every work that the book cites; none if it cites nothing."""
    if not (blocks := all_references(chapters, book)):
        return []
    path, part = book.root / "references", chapters[-1].part
    return [Chapter(path=path, source=path.name, part=part, title="References", blocks=blocks)]


def frame(book: Book, chapters: list[Chapter]) -> list[str]:
    """The lines of `book.typ`: title page and contents, then the parts with their chapters."""
    about = {"title": book.title, "subtitle": book.subtitle, "author": book.author, "lang": book.lang}
    lines = [call("show: book.with", **about)]
    numerals = iter(("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"))
    for part, members in itertools.groupby(chapters, key=lambda chapter: chapter.part):
        if part:
            numeral = None if part == "Appendices" else next(numerals)
            lines.append(call("part-page", quoted(part), number=numeral))
        lines += [f"#include {quoted(chapter.name + '.typ')}" for chapter in members]
    return lines


def compile_pdf(folder: Path) -> bytes:
    """The PDF of `folder/book.typ`, without a date or a machine's fonts: the same book, the same bytes."""
    try:
        source = folder / "book.typ"
        pdf, warnings = typst.compile_with_warnings(source, root=folder, ignore_system_fonts=True)
    except typst.TypstError as error:  # the diagnostic names the chapter's file and shows the line
        raise BookError([f"typst: {error.message}\n{error.diagnostic}"]) from None
    for warning in warnings:
        print(f"[pdf] {warning.message}\n{warning.diagnostic}")
    return pdf


def build(book: Book, chapters: list[Chapter], out: Path) -> None:
    """Write the book to `out`. Raises `BookError` with the chapter and place of what cannot be printed."""
    with tempfile.TemporaryDirectory() as folder:
        write_sources(book, chapters, Path(folder))
        pdf = compile_pdf(Path(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pdf)
