"""Which words of code in the prose stand for a definition of the book, and where it is: `.make/names.json`.

`book/filters/module.lua` turns them into links. A wrong link is worse than none, so a word is left
alone wherever it may mean something else: it is a plain word, or also a parameter, a field or
a variable, or a name of another package on this page, or two modules define it and the page imports neither.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

MADE = ".make/names.json"  # {page: {word: "nbs/x.ipynb#def-Name"}}
DIRECTIVE = re.compile(r"^#\s*\|\s*(?:(export)s?\b|(hide)\b|(include): *false)", re.M)
MODULE = re.compile(r"^#\s*\|\s*default_exp (\S+)", re.M)
CODE = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)(?:\(\))?`(?!`)")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Page:
    """What a notebook says: words of code in its text, and the names in its cells."""

    module: str = ""
    words: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)  # by exported cells that are shown: `f`, `Class`, `Class.method`
    imported: dict[str, str] = field(default_factory=dict)  # name -> module of the package
    taken: set[str] = field(default_factory=set)  # by something else on this page alone
    bound: set[str] = field(default_factory=set)  # parameters, fields and variables of exported code
    methods: set[str] = field(default_factory=set)


def read(notebook: dict) -> Page:
    page = Page()
    for cell in notebook["cells"]:
        source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            page.words.update(CODE.findall(source))
        elif cell["cell_type"] == "code":
            if found := MODULE.search(source):
                page.module = found[1]
            marks = DIRECTIVE.findall(source)
            try:
                tree = ast.parse(source)
            except SyntaxError:  # of IPython
                continue
            exported = any(mark[0] for mark in marks)
            look(page, tree, exported, shown=not any(mark[1] or mark[2] for mark in marks))
    return page


def look(page: Page, tree: ast.Module, exported: bool, shown: bool) -> None:
    other = page.bound if exported else page.taken
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinyllm"):
            inner = (node.module or "").partition(".")[2]
            page.imported.update({alias.name: inner for alias in node.names if not alias.asname})
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            page.taken.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            other.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            other.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            other.add(node.attr)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not exported:
            page.taken.add(node.name)
    for node in tree.body if exported else ():
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            page.defined |= {node.name} if shown else set()
        if isinstance(node, ast.ClassDef):
            methods = {n.name for n in node.body if isinstance(n, FUNCTIONS)}
            fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
            page.methods |= methods
            if shown and not node.name.startswith("_"):
                page.defined |= {f"{node.name}.{n}" for n in methods | fields if not n.startswith("_")}


def resolve(pages: dict[str, Page]) -> dict[str, dict[str, str]]:
    """For each page, its words that stand for one definition and nothing else: {word: file#anchor}."""
    homes = defaultdict(list)
    for source, page in pages.items():
        for name in page.defined:
            homes[name].append(source)
    bound = set().union(*(page.bound for page in pages.values()))
    methods = set().union(*(page.methods for page in pages.values()))

    def home(word: str, source: str, page: Page) -> str | None:
        first, dot, _ = word.partition(".")
        if first in page.taken or not homes.get(word):
            return None
        if not dot and not word[0].isupper() and ("_" not in word or word in bound | methods):
            return None  # `serve` may be a command, `attend` a method
        if source in homes[word]:
            return source
        near = [s for s in homes[word] if page.imported.get(first) == pages[s].module]
        found = near or homes[word]
        return found[0] if len(found) == 1 else None

    found: dict[str, dict[str, str]] = defaultdict(dict)
    for source, page in pages.items():
        for word in sorted(page.words):
            if at := home(word, source, page):
                found[source][word] = f"{at}#def-{word.partition('.')[0]}"
    return dict(found)


def index(root: Path) -> dict[str, dict[str, str]]:
    pages = {}
    for path in sorted((root / "nbs").glob("*.ipynb")):
        try:
            pages[f"nbs/{path.name}"] = read(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):  # the press says what is wrong with it
            continue
    return resolve(pages)


def write(root: Path) -> dict[str, dict[str, str]]:
    """Leave the index where the filter looks for it; untouched if it is the same."""
    made, target = index(root), root / MADE
    text = json.dumps(made, indent=1)
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return made
