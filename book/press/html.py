"""Chapters -> pages. What a page looks like is in `book/theme`; this file says which piece goes where."""

from __future__ import annotations

import base64
import html
import json
import re
import string
import urllib.parse
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from . import gallery, pandoc, search, source, sources, weights
from .config import Book, Chapter
from .pandoc import Walker, element, plain, raw, raw_inline, text_of
from .refs import identifiers, relative

THEME = pandoc.HERE.parent / "theme"
TEMPLATE = THEME / "page.html"
ASSETS = ("press.css", "book.js", "glossary.js")
WRITER = ["-f", "json", "-t", "html5", "--mathml", "--wrap=none"]
WIDGETS = "assets/widgets.js"  # every widget, of `make widgets`; a page has the scripts of its own ones
WIDGET = re.compile(r"<(tl-[a-z0-9-]+)[ >]")
FINDER = "assets/finder.js"  # another: the search, over the index in the next
INDEX = "assets/search.js"
GLOSSARY = "assets/glossary.js"  # shows what a word of the glossary means
DATA_URI = re.compile(r'src="data:image/svg\+xml;base64,([^"]+)"')
LIMIT = 500_000  # bytes of one page
CALLOUTS = {
    "note": "Note",
    "tip": "Tip",
    "warning": "Warning",
    "important": "Important",
    "caution": "Caution",
}
escape = html.escape


@dataclass
class Body:
    """A chapter's text as HTML, its headings, and the pictures that it shows."""

    html: str
    headings: list = field(default_factory=list)  # [level, id, number, text]
    pictures: list = field(
        default_factory=list
    )  # [file in the output folder, file it is copied from or data URI]


class PageWriter(Walker):
    """Rewrites a resolved tree into one that pandoc's HTML writer writes as this book wants it."""

    def __init__(self, chapter: Chapter, book: Book):
        self.chapter, self.book = chapter, book
        self.headings: list = []
        self.pictures: dict[str, str] = {}
        self.defines: list[str] = []  # places to link to in the cell that comes
        self.target = ""  # the figure or table whose caption is being written
        self.exported = self.in_callout = False

    def on_RawBlock(self, content):
        kind, text = content
        return [raw(DATA_URI.sub(self.own_file, text))] if kind == "html" else []

    def own_file(self, found: re.Match) -> str:
        """A drawing that stands within HTML, as a file of its own."""
        svg = base64.b64decode(found[1]).decode()
        return f'src="{self.picture(source.store_picture(svg, "image/svg+xml", self.book))[0]}"'

    def on_Header(self, content):
        level, (name, classes, pairs), inlines = content
        if level == 1:  # the page's opening has the title
            return [raw(f'<span id="{escape(name)}"></span>')] if name else []
        number = dict(pairs).get("number", "")
        if self.in_callout:
            return [element("Header", level, ["", classes, []], self.walk(inlines))]
        self.headings.append([level, name, number, text_of(inlines)])
        before = [raw_inline(f'<span class="number">{number}</span> ')] if number else []
        after = [
            raw_inline(f'<a class="anchor" href="#{escape(name)}" aria-label="Link to this section">#</a>')
        ]
        return [element("Header", level, [name, classes, []], [*before, *self.walk(inlines), *after])]

    def on_CodeBlock(self, content):
        (name, classes, pairs), code = content
        if "cell-code" not in classes:
            return [element("CodeBlock", *content)]
        options = dict(pairs)
        block = element("CodeBlock", [name, classes, []], code)
        fold = options.get("code-fold", "true" if self.book.code_fold else "false")
        label, anchors = "", ""
        if self.exported and self.chapter.module:
            new, self.defines = self.defines, []
            label = f' data-module="{escape(self.chapter.module)}"' + "".join(f' id="{n}"' for n in new[:1])
            anchors = "".join(f'<span id="{n}"></span>' for n in new[1:])
        if fold == "false":
            return [raw(f'<div class="code-open"{label}>{anchors}'), block, raw("</div>")]
        lines = code.count("\n") + 1
        what = escape(options.get("code-summary", ""))
        summary = f"<b>Code</b> <code>{what}</code> <i>{lines} line{'s' * (lines > 1)}</i>"
        if label:
            summary += f' <em title="This cell is exported to the package">{escape(self.chapter.module)}</em>'
        state = " open" if fold == "show" else ""
        return [
            raw(f'<details class="code-fold"{label}{state}><summary>{summary}</summary>{anchors}'),
            block,
            raw("</details>"),
        ]

    def on_Div(self, content):
        (name, classes, pairs), blocks = content
        options = dict(pairs)
        if ("content-visible" in classes) != shown_in_html(options) and {
            "content-visible",
            "content-hidden",
        } & set(classes):
            return []
        for kind, title in CALLOUTS.items():
            if f"callout-{kind}" in classes:
                return self.callout(name, kind, options, title, blocks)
        if "numbered-equation" in classes:
            number = raw(f'<a class="equation-number" href="#{escape(name)}">({options["number"]})</a>')
            return [element("Div", [name, classes, []], [*self.walk(blocks), number])]
        if "cell-defines" in classes:
            self.defines = sorted(identifiers(blocks), key=json.dumps(blocks).index)
            return []
        if "cell" in classes:
            self.exported = "exported" in classes
        return [element("Div", [name, classes, []], self.walk(blocks))]

    def callout(self, name: str, kind: str, options: dict, default: str, blocks: list) -> list:
        title = [plain(options.get("title", default))]
        if blocks and blocks[0]["t"] == "Header":
            title, blocks = blocks[0]["c"][2], blocks[1:]
        outer, inner = ("details", "summary") if "collapse" in options else ("aside", "p")
        state = " open" if options.get("collapse") == "false" else ""
        start = f'<{outer} class="callout callout-{kind}"{state}' + (
            f' id="{escape(name)}">' if name else ">"
        )
        before, self.in_callout = self.in_callout, True
        head = element(
            "Plain",
            raw_inline(f'<{inner} class="callout-title">'),
            *self.walk(title),
            raw_inline(f"</{inner}>"),
        )
        body = element("Div", ["", ["callout-body"], []], self.walk(blocks))
        self.in_callout = before
        return [raw(start), head, body, raw(f"</{outer}>")]

    def on_Table(self, content):
        attr, caption, columns, *rest = content
        columns = [
            [alignment, {"t": "ColWidthDefault"}] for alignment, _ in columns
        ]  # the browser knows better
        self.target = attr[0] or self.target  # without a name it stands in a figure, which has one
        table = element("Table", [attr[0], attr[1], []], self.walk(caption), columns, *self.walk(rest))
        return [raw('<div class="table-wrap">'), table, raw("</div>")]

    def on_Span(self, content):
        attr, inlines = content
        if "caption-number" in attr[1] and self.target:  # a caption's number is the figure's address
            return [element("Link", ["", ["caption-number"], []], inlines, [f"#{self.target}", ""])]
        return [element("Span", attr, self.walk(inlines))]

    def on_Figure(self, content):
        attr, caption, blocks = content
        self.target = attr[0]
        return [element("Figure", attr, self.walk(caption), self.walk(blocks))]

    def on_Image(self, content):
        (_, _, pairs), inlines, (target, _) = content
        options = dict(pairs)
        alt = options.get("fig-alt") or options.get("alt") or text_of(inlines)
        source, size = self.picture(target)
        if "width" in options:
            size += f' style="width: {escape(options["width"])}"'
        image = f'<img src="{source}" alt="{escape(alt)}"{size} loading="lazy">'
        return [raw_inline(f'<span class="picture">{image}</span>')]

    def picture(self, target: str) -> tuple[str, str]:
        """The address of a picture on this page, and its size if it says one."""
        if target.startswith("data:"):
            return target, ""
        path = Path(urllib.parse.unquote(target))
        name = f"assets/pictures/{pandoc.file_hash(path)[:16]}{path.suffix.lower()}"
        self.pictures[name] = str(path)
        return relative(name, self.chapter.page), picture_size(path)


def picture_size(path: Path) -> str:
    """Width and height in CSS pixels, so that the page does not jump while pictures arrive."""
    if path.suffix == ".svg":
        head = re.search(r"<svg[^>]*>", path.read_text(encoding="utf-8"), re.S)
        found = re.findall(r'\b(width|height)="([\d.]+)(pt|px)?"', head[0]) if head else []
        sizes = {side: round(float(value) * (4 / 3 if unit == "pt" else 1)) for side, value, unit in found}
    elif path.suffix == ".png":  # drawn at twice the size
        header = path.read_bytes()[16:24]
        sizes = {"width": int.from_bytes(header[:4]) // 2, "height": int.from_bytes(header[4:]) // 2}
    else:
        sizes = {}
    return f' width="{sizes["width"]}" height="{sizes["height"]}"' if len(sizes) == 2 else ""


def picture_bytes(path: Path) -> bytes:
    """A picture as it is shown: a drawing of matplotlib without what only programs read, to 0.01 points."""
    content = path.read_bytes()
    if path.suffix != ".svg" or b'<g id="figure_1">' not in content:
        return content
    svg = content.decode()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE.*?>|<\?xml.*?\?>", "", svg, flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("xlink:href", "href")
    names: dict[str, str] = {}
    short = lambda m: m[1] + names.setdefault(m[2], f"a{len(names):x}")  # noqa: E731
    svg = re.sub(r'(\sid="|href="#|url\(#)([^")]+)', short, svg)
    places = r'\s(?:d|x|y)="[^"]*"|translate\([^)]*\)'
    svg = re.sub(places, lambda m: re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", m[0]), svg)
    return re.sub(r">\s+<", "><", re.sub(r"\s+", " ", svg)).strip().encode()


def shown_in_html(options: dict) -> bool:
    if "when-format" in options:
        return options["when-format"] == "html"
    return options.get("unless-format") != "html"


def write_body(chapter: Chapter, book: Book) -> Body:
    """The chapter's text as HTML; remembered while its tree stays the same."""
    code = pandoc.own_code("html.py", "pandoc.py", "search.py")
    inputs = [chapter.blocks, chapter.references, chapter.module, chapter.page, code]

    def make():
        writer = PageWriter(chapter, book)
        blocks = writer.walk(chapter.blocks)
        if chapter.references:
            title = element("Header", 2, ["references", ["unnumbered"], []], [plain("References")])
            blocks += writer.walk([title]) + chapter.references
        text = pandoc.run(WRITER, pandoc.document(blocks))
        notes = re.search(r'<section id="footnotes".*?</section>\n?', text, re.S)
        if notes and chapter.references:  # pandoc puts them last
            text = text.replace(notes[0], "").replace(
                '<h2 class="unnumbered" id="references"', notes[0] + '<h2 class="unnumbered" id="references"'
            )
        text = re.sub(r'<span id="cb[\d-]+"><a href="#cb[\d-]+"[^>]*></a>', "<span>", text)
        return {
            "html": re.sub(r' id="cb\d+"', "", text),
            "headings": writer.headings,
            "pictures": sorted(writer.pictures.items()),
        }

    return Body(**pandoc.remembered(book.cache / "bodies", chapter.name, inputs, make))


# The page around the text


def titled(chapter: Chapter) -> str:
    number = f'<span class="number">{chapter.number}</span> ' if chapter.number else ""
    return number + escape(chapter.title)


def sidebar(chapters: list[Chapter], here: Chapter, headings: list) -> str:
    """All chapters by part; below the present one its sections, for screens without a third column.

    Parts called "The workshop: kernels" stand together under the first half of their names, each folded
    unless it holds the present chapter.
    """
    lines, shelf = [], ""
    for part, members in groupby(chapters, key=lambda c: c.part):
        name, _, group = (part or "").partition(": ")
        if name and not (group and name == shelf):
            lines.append(f'<p class="part">{escape(name)}</p>')
        shelf = name if group else ""
        members = list(members)
        if group:
            state = " open" if any(c.path == here.path for c in members) else ""
            title = escape(group[0].upper() + group[1:])
            lines.append(f'<details class="group"{state}><summary>{title}</summary>')
        lines.append("<ul>")
        for chapter in members:
            current = ' aria-current="page"' if chapter.path == here.path else ""
            lines.append(f'<li><a href="{relative(chapter.page, here.page)}"{current}>{titled(chapter)}</a>')
            if current:
                sections = [
                    f'<li><a href="#{escape(name)}">{escape(text)}</a></li>'
                    for level, name, _, text in headings
                    if level == 2
                ]
                lines += ['<ul class="sections">', *sections, "</ul>"] if sections else []
            lines.append("</li>")
        lines.append("</ul>" + "</details>" * bool(group))
    return "\n".join(lines)


def contents(headings: list) -> str:
    items = [
        f'<li class="level-{level}"><a href="#{escape(name)}">{escape(text)}</a></li>'
        for level, name, _, text in headings
        if level in (2, 3)
    ]
    return "\n".join(["<p>On this page</p>", "<ul>", *items, "</ul>"]) if len(items) > 1 else ""


def opening(chapter: Chapter, book: Book, body: Body) -> str:
    if chapter.name == "index":
        title, subtitle, above = escape(book.title), book.subtitle, ""
    else:
        title, subtitle, above = titled(chapter), chapter.subtitle, chapter.part or ""
    lines = ['<header class="opening">']
    lines += [f'<p class="part">{escape(above)}</p>'] if above else []
    lines += [f"<h1>{title}</h1>"]
    lines += [f'<p class="subtitle">{escape(subtitle)}</p>'] if subtitle else []
    if chapter.path.suffix == ".ipynb":
        lines += [f'<p class="module">{files_of(chapter, body)}</p>']
    return "\n".join([*lines, "</header>"])


def files_of(chapter: Chapter, body: Body) -> str:
    """The notebook that the chapter is and the module that it exports, with links."""

    def link(target: str, text: str, more: str = "") -> str:
        return f'<a href="{escape(target)}"{more}>{text}</a>'

    up = relative(sources.FOLDER, chapter.page)
    notebook = link(f"{up}/{chapter.source}", "the notebook", " download")
    if not chapter.module:
        return f"This chapter is a notebook without a module of its own: {notebook}"
    first = re.search(r'<(?:details|div) class="code-\w+" data-module="[^"]*" id="([^"]+)"', body.html)
    begins = [link(f"#{first[1]}", "where it begins")] if first else []
    plain = link(f"{up}/{chapter.module}", "the plain file")
    return " · ".join([f"This chapter is <code>{escape(chapter.module)}</code>", *begins, notebook, plain])


def turn(chapter: Chapter | None, here: Chapter, rel: str, word: str) -> str:
    if chapter is None:
        return "<span></span>"
    address = relative(chapter.page, here.page)
    return f'<a class="{rel}" rel="{rel}" href="{address}"><span>{word}</span>{titled(chapter)}</a>'


def write_page(chapter: Chapter, body: Body, chapters: list[Chapter], book: Book, with_pdf: bool) -> str:
    place = [c.path for c in chapters].index(chapter.path)
    before = chapters[place - 1] if place else None
    after = chapters[place + 1] if place + 1 < len(chapters) else None
    home = relative(chapters[0].page, chapter.page)
    style = '<link rel="stylesheet" href="{}">'.format
    link = '<link rel="{}" href="{}">'.format
    front = chapter.name == "index"
    crumbs = f'<a href="{home}">{escape(book.title)}</a>'
    if chapter.part:
        crumbs += f' <span class="crumb-part">{escape(chapter.part)}</span>'
    return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        lang=escape(book.lang),
        head_title=escape(f"{book.title}: {book.subtitle}" if front else f"{chapter.title} · {book.title}"),
        description=escape(
            " ".join((book.description if front else chapter.subtitle or chapter.title).split())
        ),
        styles="\n".join(
            [style(relative(f"assets/{f}", chapter.page)) for f in stylesheets(book)]
            + [f'<script defer src="{relative(name, chapter.page)}"></script>' for name in scripts(body, book)]
            + [f'<script defer src="{relative(GLOSSARY, chapter.page)}"></script>'] * ("tl-term" in body.html)
        ),
        script=relative("assets/book.js", chapter.page),
        search=" data-search" if finder(book).exists() else "",
        page_class="front" if front else "chapter",
        previous_link=link("prev", relative(before.page, chapter.page)) if before else "",
        next_link=link("next", relative(after.page, chapter.page)) if after else "",
        crumbs=crumbs + f' <span class="crumb-title">{titled(chapter)}</span>',
        home=home,
        book_title=escape(book.title),
        book_subtitle=escape(book.subtitle),
        pdf=f' <a href="{relative(book.pdf.name, chapter.page)}">PDF</a>' if with_pdf else "",
        sidebar=sidebar(chapters, chapter, body.headings),
        opening=opening(chapter, book, body),
        body=body.html,
        toc=contents(body.headings),
        previous=turn(before, chapter, "prev", "Previous"),
        next=turn(after, chapter, "next", "Next"),
    )


def finder(book: Book) -> Path:
    return book.root / ".make" / "finder.js"


def scripts(body: Body, book: Book) -> list[str]:
    """Of the widgets that stand in the body; the one with all of them where one has no script of its own."""
    found = sorted({tag for tag in WIDGET.findall(body.html) if tag != "tl-term"})
    own = [f"assets/widgets/{tag}.js" for tag in found if (book.root / ".make" / "widgets" / f"{tag}.js").exists()]
    return own if len(own) == len(found) else [WIDGETS]


def stylesheets(book: Book) -> list[str]:
    return [f.name for f in book.css] + [f for f in ASSETS if f.endswith(".css")]


def build(book: Book, chapters: list[Chapter], chosen: list[Chapter], problems: list, with_pdf: bool) -> int:
    """Write the chosen chapters' pages and what they need. Returns how many files changed."""
    with_pdf = with_pdf or book.pdf.exists()
    files: dict[str, bytes] = {}
    for path in (*book.css, *(THEME / name for name in ASSETS)):
        files[f"assets/{path.name}"] = path.read_bytes()
    bundle = book.root / ".make" / "widgets.js"
    if bundle.exists():  # without it, a page shows the pictures
        files[WIDGETS] = bundle.read_bytes()
        own = (book.root / ".make" / "widgets").glob("tl-*.js")
        files |= {f"assets/widgets/{path.name}": path.read_bytes() for path in own}
    if finder(book).exists():
        files |= {FINDER: finder(book).read_bytes(), INDEX: search.index(chapters)}
    for chapter in chosen:
        body = write_body(chapter, book)
        page = write_page(chapter, body, chapters, book, with_pdf).encode()
        if len(page) > LIMIT:
            problems.append(f"{chapter.source}: its page has {len(page):,} bytes, the limit is {LIMIT:,}")
        files[chapter.page] = page
        if chapter.path.suffix == ".ipynb":
            files |= sources.files(book.root, [chapter.source, chapter.module])
        files |= {name: picture_bytes(Path(file)) for name, file in body.pictures}
        if weights.USES in body.html and weights.PLACE not in files:
            files |= weights.assets(book.root / "tinyllm" / "models" / "fable", book.cache)
    if bundle.exists() and len(chosen) == len(chapters):
        files[gallery.PAGE] = gallery.page(chapters, book, stylesheets(book))
    changed = 0
    for name, content in files.items():
        target = book.out / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            changed += 1
    if len(chosen) == len(chapters):
        forget_old(book, set(files))
    return changed


def forget_old(book: Book, written: set[str]) -> None:
    """Remove what an earlier build wrote and this one did not."""
    note = book.cache / "written.txt"
    earlier = set(note.read_text(encoding="utf-8").splitlines()) if note.exists() else set()
    for name in earlier - written:
        (book.out / name).unlink(missing_ok=True)
    note.write_text("\n".join(sorted(written)), encoding="utf-8")
