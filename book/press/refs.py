"""Numbers over the whole book, and everything that points: references, links, citations, pictures.

After `resolve` a chapter's tree means the same on a page and on paper:
- figures and tables carry "Figure 2.1: " in their caption, headings have an attribute `number`;
- a numbered equation is a Div of class `numbered-equation` with the attribute `number`;
- a reference is a Link ("Figure 2.1") to `#fig-x`, or to `../nbs/02_tokens.html#fig-x` in another chapter;
- a citation is what citeproc made of it, linked to `#ref-key`; the works cited are in `references`;
- a picture's target is an absolute path or a data URI.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from dataclasses import replace
from pathlib import Path

from . import pandoc
from .config import Book, Chapter
from .pandoc import Walker, element, plain, text_of
from .source import line_of

NAMES = {"fig": "Figure", "tbl": "Table", "eq": "Equation", "sec": "Section"}
REFERENCE = re.compile(r"(fig|tbl|eq|sec)-", re.I)
EQUATION = re.compile(r"\{#(eq-[^}\s]+)\}(.*)")


def resolve(chapters: list[Chapter], book: Book, problems: list[str]) -> list[Chapter]:
    """Number all chapters, then replace everything that points by what it points to."""
    targets: dict[str, tuple[Chapter, str]] = {}
    numbered, count = [], 0
    for chapter in chapters:
        if counted(chapter):
            count += 1
            chapter = replace(chapter, number=str(count))
        numbering = Numbering(chapter, book.number_depth, targets, problems)
        numbered.append(replace(chapter, blocks=numbering.walk(chapter.blocks)))
    known, names = known_keys(book), {}
    resolved = []
    for chapter in numbered:
        pointing = Pointing(chapter, numbered, targets, known, book, problems, names)
        blocks = pointing.walk(chapter.blocks)
        pointing.check_anchors(blocks)
        resolved.append(
            cite(replace(chapter, blocks=blocks), pointing.cited, book)
            if pointing.cited
            else replace(chapter, blocks=blocks)
        )
    return resolved


def counted(chapter: Chapter) -> bool:
    """Every chapter of a part is numbered, unless its own level 1 heading says otherwise."""
    first = next((b for b in chapter.blocks if b["t"] == "Header" and b["c"][0] == 1), None)
    return bool(chapter.part) if first is None else "unnumbered" not in first["c"][1][1]


class Placed(Walker):
    """A walk that knows in which cell it is."""

    def __init__(self, chapter: Chapter, problems: list[str]):
        self.chapter, self.problems, self.cell = chapter, problems, None

    def on_RawBlock(self, content):
        if content[0] != "press":
            return [element("RawBlock", *content)]
        self.cell = int(content[1])
        return [element("RawBlock", *content)]

    def problem(self, what: str, needle: str = "") -> None:
        self.problems.append(f"{line_of(self.chapter, self.cell, needle)}: {what}")


class Numbering(Placed):
    """Gives numbers to headings, figures, tables and equations, and notes where each is."""

    def __init__(self, chapter, depth, targets, problems):
        super().__init__(chapter, problems)
        self.depth, self.targets = depth, targets
        self.counts = {"fig": 0, "tbl": 0, "eq": 0}
        self.sections = [0] * 7
        self.in_callout = False

    def target(self, name: str, text: str) -> None:
        if not REFERENCE.match(name):
            return
        if name in self.targets:
            self.problem(f"#{name} is already the name of something in {self.targets[name][0].source}", name)
        self.targets[name] = (self.chapter, text)

    def next_number(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"{self.chapter.number}.{self.counts[kind]}" if self.chapter.number else str(self.counts[kind])

    def on_Header(self, content):
        level, (name, classes, pairs), inlines = content
        number = ""
        if level == 1:
            number = self.chapter.number
            self.target(name, f"Chapter {number}" if number else text_of(inlines))
        elif not self.in_callout:
            self.sections[level] += 1
            self.sections[level + 1 :] = [0] * (6 - level)
            if self.chapter.number and level <= self.depth and "unnumbered" not in classes:
                number = ".".join([self.chapter.number, *map(str, self.sections[2 : level + 1])])
            self.target(name, f"Section {number}" if number else "")
        pairs = [*pairs, ["number", number]] if number else pairs
        return [element("Header", level, [name, classes, pairs], inlines)]

    def caption(self, name: str, caption: list) -> list:
        """[short caption, blocks] with the number in front."""
        label = f"{NAMES[name[:3]]} {self.next_number(name[:3])}"
        self.target(name, label.replace(" ", "\u00a0"))
        prefix = element("Span", ["", ["caption-number"], []], [plain(f"{label}:".replace(" ", "\u00a0"))])
        blocks = caption[1] or [element("Plain")]
        first = {**blocks[0], "c": [prefix, element("Space"), *(blocks[0].get("c") or [])]}
        return [None, [first, *blocks[1:]]]

    def on_Figure(self, content):
        attr, caption, blocks = content
        if attr[0].startswith(("fig-", "tbl-")):
            caption = self.caption(attr[0], caption)
        return [element("Figure", attr, caption, blocks)]

    def on_Table(self, content):
        attr, caption, *rest = content
        if attr[0].startswith("tbl-"):
            caption = self.caption(attr[0], caption)
        elif attr[0].startswith("fig-"):
            self.problem(f"a table is named {attr[0]}: names of tables begin with tbl-", attr[0])
        return [element("Table", attr, caption, *rest)]

    def on_Div(self, content):
        attr, blocks = content
        callout = any(c.startswith("callout-") for c in attr[1])
        if attr[0].startswith(
            ("fig-", "tbl-")
        ):  # a figure of several parts; its last paragraph is the caption
            *body, last = blocks or [element("Plain")]
            if last["t"] != "Para":
                self.problem(f"{attr[0]} has no caption: its last paragraph must be one", attr[0])
                return []
            if len(body) == 1 and body[0]["t"] == "Table":
                return self.on_Table([attr, [None, [last]], *body[0]["c"][2:]])
            return [element("Figure", attr, self.caption(attr[0], [None, [last]]), self.walk(body))]
        before, self.in_callout = self.in_callout, self.in_callout or callout
        blocks = self.walk(blocks)
        self.in_callout = before
        return [element("Div", attr, blocks)]

    def on_Para(self, content):
        """Split a paragraph at its numbered equations: $$ ... $$ {#eq-x}."""
        out, line, rest = [], [], list(content)
        while rest:
            node = rest.pop(0)
            if node["t"] != "Math" or node["c"][0]["t"] != "DisplayMath":
                line.append(node)
                continue
            after = rest[1:] if rest and rest[0]["t"] in ("Space", "SoftBreak") else rest
            match = EQUATION.fullmatch(after[0]["c"]) if after and after[0]["t"] == "Str" else None
            if not match:
                line.append(node)
                continue
            number = self.next_number("eq")
            self.target(match[1], f"Equation\u00a0{number}")
            out += [element("Para", *[]) | {"c": line}] if trimmed(line) else []
            out.append(
                element(
                    "Div",
                    [match[1], ["numbered-equation"], [["number", number]]],
                    [{"t": "Para", "c": [node]}],
                )
            )
            line, rest = [plain(match[2])] if match[2] else [], after[1:]
        if trimmed(line):
            out.append({"t": "Para", "c": self.walk(line)})
        return out


def trimmed(inlines: list) -> bool:
    return any(i["t"] not in ("Space", "SoftBreak") for i in inlines)


class Pointing(Placed):
    """Replaces what points by links that are known to lead somewhere."""

    def __init__(self, chapter, chapters, targets, known_keys, book, problems, names):
        super().__init__(chapter, problems)
        self.names = names  # the identifiers of chapters that links lead to, found once
        self.targets, self.known_keys, self.book = targets, known_keys, book
        self.pages = {c.path: c for c in chapters}
        self.cited: set[str] = set()
        self.anchors_to_check: list[tuple[str, int | None]] = []

    def href(self, other: Chapter, name: str = "") -> str:
        page = "" if other.path == self.chapter.path else relative(other.page, self.chapter.page)
        return page + (f"#{name}" if name else "")

    def on_Cite(self, content):
        citations, inlines = content
        references = [c for c in citations if REFERENCE.match(c["citationId"])]
        unknown = [
            c["citationId"]
            for c in citations
            if c not in references and c["citationId"] not in self.known_keys
        ]
        for key in unknown:
            self.problem(f"@{key} is in no bibliography", f"@{key}")
        if unknown:
            return inlines
        if not references:
            self.cited |= {c["citationId"] for c in citations}
            return [element("Cite", citations, inlines)]
        if len(references) < len(citations):
            self.problem("one bracket mixes citations with references", f"@{references[0]['citationId']}")
        out = []
        for n, citation in enumerate(references):
            out += ([plain(","), element("Space")] if n else []) + self.reference(citation)
        return out

    def reference(self, citation: dict) -> list:
        written = citation["citationId"]
        name = written[0].lower() + written[1:]
        if name not in self.targets:
            self.problem(f"@{written} refers to nothing in the book", f"@{written}")
            return [plain(f"@{written}")]
        chapter, text = self.targets[name]
        if not text:  # Quarto would print a number that stands at no heading
            way = f"link to it: [words](#{name})"
            self.problem(f"@{written} refers to a heading without a number: {way}", f"@{written}")
        if citation["citationMode"]["t"] == "SuppressAuthor":
            text = re.split(r"[\s\u00a0]", text)[-1]
        elif citation["citationPrefix"]:
            text = f"{text_of(citation['citationPrefix']).strip()} {re.split(chr(160) + '| ', text)[-1]}"
        label = [plain(text.replace(" ", "\u00a0") if text.split(" ")[0] in ("Section", "Chapter") else text)]
        link = element("Link", ["", ["quarto-xref"], []], label, [self.href(chapter, name), ""])
        return [link, *citation["citationSuffix"]]

    def on_Link(self, content):
        attr, inlines, (url, title) = content
        inlines = self.walk(inlines)
        if not re.match(r"[a-z][a-z0-9+.-]*:|//", url, re.I):
            url = self.inside(url)
        return [element("Link", attr, inlines, [url, title])]

    def inside(self, url: str) -> str:
        """A link within the book, from file to page."""
        file, _, name = url.partition("#")
        if not file:
            self.anchors_to_check.append((name, self.cell))
            return url
        path = (self.chapter.path.parent / urllib.parse.unquote(file)).resolve()
        if path not in self.pages:
            what = (
                "is not part of the book: link to its address instead" if path.exists() else "does not exist"
            )
            self.problem(f"the link to {file} leads nowhere: that file {what}", file)
            return url
        other = self.pages[path]
        if name and name not in self.names_in(other):
            self.problem(f"the link to {url} leads nowhere: {other.source} has no #{name}", url)
        return self.href(other, name)

    def names_in(self, other: Chapter) -> set[str]:
        if other.path not in self.names:
            self.names[other.path] = identifiers(other.blocks)
        return self.names[other.path]

    def check_anchors(self, blocks: list) -> None:
        names = identifiers(blocks)
        for name, cell in self.anchors_to_check:
            if name and name not in names:
                self.cell = cell
                self.problem(f"the link to #{name} leads nowhere in this chapter", f"#{name}")

    def on_Image(self, content):
        attr, inlines, (url, title) = content
        if url.startswith("data:"):
            return [element("Image", attr, inlines, [url, title])]
        if re.match(r"[a-z][a-z0-9+.-]*:|//", url, re.I):
            self.problem(f"the picture {url} is on another machine: the book must be readable offline", url)
        elif not (path := self.chapter.path.parent / urllib.parse.unquote(url)).is_file():
            self.problem(f"the picture {url} does not exist", url)
        else:
            url = urllib.parse.quote(str(path.resolve()))
        return [element("Image", attr, self.walk(inlines), [url, title])]


def relative(page: str, start: str) -> str:
    """The way from one page to another."""
    return Path(os.path.relpath(page, Path(start).parent)).as_posix()


# in which place of an element its attributes stand
ATTRIBUTES = {
    "Header": 1, "Div": 0, "Span": 0, "Figure": 0, "Table": 0, "CodeBlock": 0, "Code": 0, "Link": 0, "Image": 0,
}  # fmt: skip


def identifiers(node) -> set[str]:
    """Every identifier in a tree that a link can lead to."""
    found, left = set(), [node]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += [item for item in node if isinstance(item, (list, dict))]
        elif "c" in node:
            if node["t"] in ATTRIBUTES:
                found.add(node["c"][ATTRIBUTES[node["t"]]][0])
            if isinstance(node["c"], (list, dict)):
                left.append(node["c"])
    return found - {""}


# Citations


def known_keys(book: Book) -> set[str]:
    files = [pandoc.file_hash(f) for f in book.bibliography]

    def make():
        return [
            e["id"] for f in book.bibliography for e in json.loads(pandoc.run([str(f), "-t", "csljson"], ""))
        ]

    return set(pandoc.remembered(book.cache, "keys", files, make)) if files else set()


def citeproc(blocks: list, book: Book, nocite: tuple[str, ...] = ()) -> list:
    meta: dict = {"link-citations": {"t": "MetaBool", "c": True}}
    if nocite:
        mode = {"t": "NormalCitation"}
        cites = [
            {
                "citationId": k,
                "citationPrefix": [],
                "citationSuffix": [],
                "citationMode": mode,
                "citationNoteNum": 0,
                "citationHash": 0,
            }
            for k in nocite
        ]
        meta["nocite"] = element("MetaInlines", element("Cite", cites, [])) | {
            "c": [element("Cite", cites, [])]
        }
    files = [f"--bibliography={f}" for f in book.bibliography]
    return json.loads(
        pandoc.run(["-f", "json", "-t", "json", "--citeproc", *files], pandoc.document(blocks, meta))
    )["blocks"]


def cite(chapter: Chapter, cited: set[str], book: Book) -> Chapter:
    """Citations as text with links, and the list of what they cite."""
    inputs = [chapter.blocks, [pandoc.file_hash(f) for f in book.bibliography]]
    blocks = pandoc.remembered(
        book.cache / "cited", chapter.name, inputs, lambda: citeproc(chapter.blocks, book)
    )
    is_list = lambda b: b["t"] == "Div" and b["c"][0][0] == "refs"  # noqa: E731
    return replace(
        chapter, blocks=[b for b in blocks if not is_list(b)], references=[b for b in blocks if is_list(b)]
    )


def all_references(chapters: list[Chapter], book: Book) -> list:
    """One list of every work that the book cites, for print."""
    keys = {e["c"][0][0].removeprefix("ref-") for c in chapters for div in c.references for e in div["c"][1]}
    return citeproc([], book, tuple(sorted(keys & known_keys(book)))) if keys else []
