"""The book as a PDF: pandoc blocks with numbers already resolved -> Typst -> PDF.

Everything that decides how a page looks is in `book/theme/typst-template.typ`; this file only says
which piece of the book is which piece of that template. What it does not know: numbering and
cross-references (they come resolved, so they are the HTML's), and notebooks.
"""
import base64
import binascii
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from pathlib import Path

import pypandoc
import typst

TEMPLATE = Path(__file__).parent.parent / "theme" / "typst-template.typ"
PANDOC_API = [1, 23, 1]  # of the JSON tree
CALLOUTS = ("note", "tip", "warning", "important", "caution")
SUFFIXES = {"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}


class PdfError(Exception):
    """Something that cannot be printed, with the chapter it stands in."""


def quoted(text: str) -> str:
    """A Typst string literal."""
    return json.dumps(text, ensure_ascii=False).replace("\\/", "/").replace("\\b", "").replace("\\f", "")


def raw(code: str) -> dict:
    return {"t": "RawBlock", "c": ["typst", code]}


def raw_inline(code: str) -> dict:
    return {"t": "RawInline", "c": ["typst", code]}


def plain(inlines: list) -> dict:
    return {"t": "Plain", "c": inlines}


def text_of(node) -> str:
    """The letters of a pandoc tree."""
    if isinstance(node, list):
        return "".join(map(text_of, node))
    if not isinstance(node, dict):
        return ""
    kind, content = node.get("t"), node.get("c")
    if kind in ("Space", "SoftBreak", "LineBreak"):
        return " "
    if kind == "Str":
        return content
    if kind in ("Code", "Math"):
        return content[1]
    return text_of(content)


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
        name = hashlib.sha256(data).hexdigest()[:16] + suffix
        (self.folder / name).write_bytes(data)
        return f"{self.folder.name}/{name}"

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
        try:
            data = base64.b64decode(body, validate=True) if head.endswith(";base64") else urllib.parse.unquote_to_bytes(body)
        except binascii.Error as error:
            raise ValueError(f"the picture's base64 is broken: {error}") from None
        return data, SUFFIXES[kind]


class Printer:
    """Rewrites one chapter's pandoc blocks into what pandoc's Typst writer and the template print well.

    Elements without a method `print_<Type>` are left to pandoc. Identifiers become `chapter#id`, so
    that two chapters may both have a section called "Summary".
    """

    def __init__(self, chapter: str, base: Path, pictures: Pictures, labels: set[str]):
        self.chapter, self.base, self.pictures, self.labels = chapter, base, pictures, labels
        self.in_output = False

    def fail(self, why: str, node) -> None:
        raise PdfError(f"{self.chapter}: {why}, near {text_of(node).strip()[:60]!r}")

    def walk(self, node):
        if isinstance(node, list):
            return [new for item in node for new in (self.visit(item) if isinstance(item, dict) else [self.walk(item)])]
        if isinstance(node, dict) and "c" in node:
            return {**node, "c": self.walk(node["c"])}
        return node

    def chapter_blocks(self, blocks: list) -> list:
        """A whole chapter. A paragraph that leads up to a listing stays on its page."""
        blocks = [block for block in self.walk(blocks)]
        return [
            new
            for block, after in zip(blocks, [*blocks[1:], {"t": "Null"}], strict=True)
            for new in ([raw("#lead["), block, raw("]")] if (block["t"], after["t"]) == ("Para", "CodeBlock") else [block])
        ]

    def visit(self, node: dict) -> list:
        handler = getattr(self, f"print_{node.get('t')}", None)
        if not handler:
            return [self.walk(node)]
        return handler(node["c"]) if node["t"] in ("Para", "Plain") else handler(*node["c"])

    def label(self, name: str) -> str:
        """Typst code that labels the element it stands after; nothing without a name."""
        return f" #label({quoted(f'{self.chapter}#{name}')})" if name else ""

    def anchor(self, name: str) -> str:
        """A place to link to that prints nothing."""
        return f"#metadata(none){self.label(name)}" if name else ""

    # Blocks

    def print_Header(self, level, attr, inlines):
        open_ = f"#heading(depth: {level}, numbering: none, outlined: {str('unlisted' not in attr[1]).lower()})["
        return [plain([raw_inline(open_), *self.walk(inlines), raw_inline("]" + self.label(attr[0]))])]

    def print_CodeBlock(self, attr, text):
        if not text.strip():
            return []
        language = [] if self.in_output else [c for c in attr[1] if not c.startswith(("cell-", "source"))][:1]
        block = {"t": "CodeBlock", "c": [["", language, []], text.rstrip("\n")]}
        return [raw(self.anchor(attr[0])), block] if attr[0] else [block]

    def print_RawBlock(self, kind, text):
        if kind == "html" and not text.lstrip().startswith(("<!--", "</")):
            self.fail("raw HTML has no printed form", {"t": "Str", "c": text})
        return [raw(text)] if kind == "typst" else []

    def print_Para(self, inlines):
        if len(inlines) == 1 and inlines[0]["t"] == "Image":
            return [raw(f"#align(center, {self.picture(*inlines[0]['c'])})")]
        return [{"t": "Para", "c": self.walk(inlines)}]

    print_Plain = print_Para

    def print_Figure(self, attr, caption, blocks):
        kind = "table" if attr[0].startswith("tbl-") else quoted("figure")
        return self.figure(attr[0], kind, caption[1], self.walk(blocks))

    def print_Table(self, attr, caption, columns, *rows):
        left = {"t": "AlignLeft"}
        columns = [[left if how["t"] == "AlignDefault" else how, {"t": "ColWidthDefault"}] for how, _ in columns]
        attr_, rows = ["", ["typst:no-figure"], []], self.walk(list(rows))
        table = {"t": "Table", "c": [attr_, [None, []], columns, *rows]}
        return self.figure(attr[0], "table", caption[1], [table])

    def figure(self, name, kind, caption, body):
        if not caption:
            return [raw(f"#figure(kind: {kind}, supplement: none, numbering: none)["), *body, raw("]" + self.label(name))]
        start = raw(f"#numbered-figure(kind: {kind}, caption: [")
        return [start, *self.walk(caption), raw("])["), *body, raw("]" + self.label(name))]

    def print_Div(self, attr, blocks):
        name, classes, pairs = attr
        options = dict(pairs)
        if "content-visible" in classes and not printed(options) or "content-hidden" in classes and printed(options):
            return []
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

    def print_Image(self, *content):
        return [raw_inline(f"#box({self.picture(*content, fit=False)})")]

    def picture(self, attr, inlines, target, fit=True):
        options = dict(attr[2])
        alt = options.get("fig-alt") or options.get("alt") or text_of(inlines)
        try:
            source = self.pictures.add(target[0], self.base)
        except ValueError as error:
            self.fail(str(error), {"t": "Str", "c": alt or target[0]})
        function = "picture" if fit else "image"
        width = length(options["width"]) if "width" in options else "auto"
        return f"{function}({quoted('/' + source)}, alt: {quoted(alt) if alt else 'none'}, width: {width})"

    def print_Link(self, attr, inlines, target):
        inlines, url = self.walk(inlines), target[0]
        if re.match(r"[a-z]+:", url):
            return [{"t": "Link", "c": [["", [], []], inlines, [url, ""]]}]
        file, _, name = url.partition("#")
        found = f"{Path(file).stem or self.chapter}#{name}"
        if found not in self.labels:  # identifiers of figures, sections and references are the book's
            found = next((known for known in self.labels if name and known.endswith(f"#{name}")), None)
        if not found:
            self.fail(f"the link to {url} leads nowhere in the printed book", inlines)
        return [raw_inline(f"#link(label({quoted(found)}))["), *inlines, raw_inline("]")]

    def print_Cite(self, citations, inlines):
        return self.walk(inlines)

    def print_Span(self, attr, inlines):
        anchor = [raw_inline(self.anchor(attr[0]))] if attr[0] else []
        return anchor + self.walk(inlines)

    def print_RawInline(self, kind, text):
        return [raw_inline(text)] if kind == "typst" else []


def printed(options: dict) -> bool:
    """Whether content with these `when-format`/`unless-format` options is for print."""
    formats = {"typst", "pdf"}
    if "when-format" in options:
        return options["when-format"] in formats
    return options.get("unless-format") not in formats


def length(text: str) -> str:
    """An HTML width as a Typst length: `400px` is 300pt, `50%` stays."""
    number, unit = re.fullmatch(r"([\d.]+)\s*(%|px|pt|in|cm|mm|em)?", text).groups()
    return f"{float(number) * 0.75:g}pt" if unit in (None, "px") else number + unit


def identifiers(node) -> set[str]:
    """Every identifier in a pandoc tree that something can link to."""
    if isinstance(node, list):
        return set().union(*map(identifiers, node))
    if not isinstance(node, dict) or "c" not in node:
        return set()
    places = {"Header": 1, "Div": 0, "Span": 0, "Figure": 0, "Table": 0, "CodeBlock": 0}
    own = {node["c"][places[node["t"]]][0]} - {""} if node["t"] in places else set()
    return own | identifiers(node["c"])


MARK = "//@@ "  # a comment line in pandoc's Typst output, before each chapter


def to_typst(documents: dict[str, list]) -> dict[str, str]:
    """Typst source of each document (name -> pandoc blocks), by one run of pandoc for all of them."""
    blocks = [block for name, content in documents.items() for block in [raw(MARK + name), *content]]
    tree = {"pandoc-api-version": PANDOC_API, "meta": {}, "blocks": blocks}
    command = [pypandoc.get_pandoc_path(), "-f", "json", "-t", "typst", "--syntax-highlighting=idiomatic", "--wrap=none"]
    done = subprocess.run(command, input=json.dumps(tree), capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise PdfError(f"pandoc: {done.stderr.strip()}")
    pieces = re.split(rf"^{MARK}(\S+)$", done.stdout, flags=re.MULTILINE)[1:]
    return {name: words(source) for name, source in zip(pieces[::2], pieces[1::2], strict=True)}


def words(source: str) -> str:
    """Words in formulas as words: pandoc writes `upright(s o f t m a x)`, letter by letter."""
    return re.sub(r"\bupright\(((?:\w )+\w)\)", lambda m: f'upright("{m[1].replace(" ", "")}")', source)


def call(function: str, *content: str, **options: str | None) -> str:
    """A call of a template function, with strings as named arguments and Typst code as content."""
    named = "".join(f"{key}: {quoted(value)}, " for key, value in options.items() if value)
    return f"#{function}({named}{', '.join(content)})"


def opening(chapter) -> dict:
    """The head of a chapter: number, title (labelled with the chapter's name), subtitle, module."""
    numbering = f"(..) => {quoted(chapter.number)}" if chapter.number else "none"
    title = f"heading(level: 2, numbering: {numbering}, {quoted(chapter.title)})"
    title = f"[#{title} #label({quoted(chapter.name + '#')})]"
    return raw(call("chapter", title, number=chapter.number, subtitle=chapter.subtitle, module=chapter.module))


def compile_pdf(folder: Path) -> bytes:
    """The PDF of `folder/book.typ`. No date goes into it: the same book gives the same bytes."""
    try:
        pdf, warnings = typst.compile_with_warnings(folder / "book.typ", root=folder, ignore_system_fonts=True, timestamp=0)
    except typst.TypstError as error:  # the diagnostic names the file, which is the chapter's, and shows the line
        raise PdfError(f"{error.message}\n{error.diagnostic}") from None
    for warning in warnings:
        print(f"[pdf] {warning.message}\n{warning.diagnostic}")
    return pdf


def write_sources(book, folder: Path) -> None:
    """Everything that Typst needs, in `folder`: template, a file per chapter, pictures, `book.typ`."""
    chapters = [chapter for part in book.parts for chapter in part.chapters]
    labels = {f"{chapter.name}#{name}" for chapter in chapters for name in identifiers(chapter.blocks) | {""}}
    pictures = Pictures(folder / "pictures")
    documents = {
        chapter.name: [opening(chapter), *Printer(chapter.name, chapter.folder, pictures, labels).chapter_blocks(chapter.blocks)]
        for chapter in chapters
    }
    use_template = '#import "/template.typ": *\n'
    shutil.copy(TEMPLATE, folder / "template.typ")
    for name, source in to_typst(documents).items():
        (folder / f"{name}.typ").write_text(use_template + source)
    lines = [call("show: book.with", title=book.title, subtitle=book.subtitle, author=book.author, lang=book.lang)]
    numbered = 0
    for part in book.parts:
        if part.title:
            numbered += 1
            lines.append(call("part-page", quoted(roman(numbered)), quoted(part.title)))
        lines += [f"#include {quoted(chapter.name + '.typ')}" for chapter in part.chapters]
    (folder / "book.typ").write_text(use_template + "\n".join(lines))


def roman(number: int) -> str:
    return ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")[number]


def build(book, out: Path) -> None:
    """Write the book to `out`. Raises `PdfError` naming the chapter for what cannot be printed."""
    with tempfile.TemporaryDirectory() as folder:
        write_sources(book, Path(folder))
        pdf = compile_pdf(Path(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pdf)
