"""One page with every widget of the book, for those who work on them and for tests: gallery.html."""

from __future__ import annotations

import html

from . import pandoc
from .config import Book, Chapter

PAGE = "gallery.html"
HEAD = """<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Widgets · {title}</title>
{styles}
<script defer src="assets/widgets.js"></script>
<style>
main {{ max-width: 46rem; margin: 0 auto; padding: 2rem 1.15rem 5rem; }}
button.theme {{ float: right; }}
</style>
</head>
<body>
<main class="content">
<button class="theme" onclick="{toggle}">Light or dark</button>
<h1>Widgets</h1>
"""
TOGGLE = (
    "var d = document.documentElement.dataset; d.theme = (d.theme || (matchMedia('(prefers-color-scheme: dark)')"
    ".matches ? 'dark' : 'light')) === 'dark' ? 'light' : 'dark'"
)


class Widgets(pandoc.Walker):
    """Collects the elements of a tree."""

    def __init__(self):
        self.found: list[str] = []

    def on_RawBlock(self, content):
        if content[0] == "html" and content[1].lstrip().startswith("<tl-"):
            self.found.append(content[1])
        return []


def page(chapters: list[Chapter], book: Book, styles: list[str]) -> bytes:
    """The gallery: each widget as it stands in its chapter, with the chapter's data."""
    links = "\n".join(f'<link rel="stylesheet" href="assets/{name}">' for name in styles)
    lines = [HEAD.format(lang=html.escape(book.lang), title=html.escape(book.title), styles=links, toggle=TOGGLE)]
    for chapter in chapters:
        widgets = Widgets()
        widgets.walk(chapter.blocks)
        for element in widgets.found:
            name = element.lstrip()[1:].split(None, 1)[0]
            where = f'<a href="{chapter.page}">{html.escape(f"{chapter.number} {chapter.title}".strip())}</a>'
            lines += [f"<h2>&lt;{name}&gt;</h2>\n<p>{where}</p>", element]
    return "\n".join([*lines, "</main>\n</body>\n</html>\n"]).encode()
