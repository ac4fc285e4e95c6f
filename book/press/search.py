"""What can be found in the book: its sections, the functions and classes it exports, its terms.

The index is a script that assigns a list to a global, since pages opened from the file system can
load nothing else. It holds texts only; `book/widgets/finder.js` makes the inverted index when the
reader opens the search, in less time than it would take to load one.
"""

from __future__ import annotations

import ast
import json

from .config import Chapter
from .pandoc import Walker, text_of



def definitions(code: str) -> list[tuple[str, str]]:
    """(name, what its docstring says first) of each function, class and public method of a cell."""
    try:
        nodes = ast.parse(code).body
    except SyntaxError:
        return []
    found = []
    for node in nodes:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append((node.name, about(node)))
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
            found += [(f"{node.name}.{m.name}", about(m)) for m in methods if not m.name.startswith("_")]
    return found


def about(node) -> str:
    return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")


def anchor(name: str) -> str:
    """Identifier of the cell that defines `name`, on its page."""
    return f"def-{name.split('.')[0]}"


class Sections(Walker):
    """Collects a chapter's entries: [kind, anchor, title, words]. Kinds: section, code, term."""

    def __init__(self, chapter: Chapter):
        self.exported = self.in_callout = False
        self.entries: list[list] = [["section", "", chapter.title, chapter.subtitle]]
        self.walk(chapter.blocks)

    def add(self, words: str) -> None:
        if words := " ".join(words.split()):
            section = next(e for e in reversed(self.entries) if e[0] == "section")
            section[3] = f"{section[3]} {words}".strip()

    def on_Header(self, content):
        level, (name, _, _), inlines = content
        if self.in_callout:  # a title without an address
            self.add(text_of(inlines))
        elif level > 1:
            self.entries.append(["section", name, text_of(inlines), ""])
        return []

    def on_Div(self, content):
        (_, classes, _), blocks = content
        before = self.exported, self.in_callout
        self.exported |= "exported" in classes
        self.in_callout |= any(c.startswith("callout-") for c in classes)
        self.walk(blocks)
        self.exported, self.in_callout = before
        return []

    def on_Figure(self, content):
        self.walk(content[1][1])
        return []

    def on_CodeBlock(self, content):
        if self.exported and "cell-code" in content[0][1]:
            self.entries += [["code", anchor(name), name, words] for name, words in definitions(content[1])]
        return []

    def on_DefinitionList(self, content):
        for term, meanings in content:
            name = next((i["c"][0][0] for i in term if i["t"] == "Span" and i["c"][0][0]), "")
            definition = meanings[0][:1]  # what follows it says where else to look
            self.entries.append(["term", name, text_of(term).strip(), text_of(definition)])
        return []

    def on_Para(self, inlines):
        self.add(text_of(inlines))
        return []

    on_Plain = on_Para

    def on_RawBlock(self, content):
        return []


def index(chapters: list[Chapter]) -> bytes:
    """The script: pages with their entries, in reading order."""
    pages = [
        [chapter.page, chapter.number, chapter.title, Sections(chapter).entries] for chapter in chapters
    ]
    return b"window.tinyllmIndex=" + json.dumps(pages, separators=(",", ":")).encode() + b";\n"
