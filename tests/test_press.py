"""The press, on small books made here and on the real one."""

import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
import urllib.parse

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import typst
import yaml
from PIL import Image
from press.__main__ import main
from press.html import picture_bytes

BIBLIOGRAPHY = """
@book{knuth1984, author = {Knuth, Donald E.}, title = {The {TeX}book}, year = {1984}}
@article{turing1950, author = {Turing, Alan M.}, title = {Computing}, year = {1950}, journal = {Mind}}
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt"><path d="M0 0h9"/></svg>'


def text(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, *outputs):
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": None,
        "source": source,
        "outputs": list(outputs),
    }


def stream(words, name="stdout"):
    return {"output_type": "stream", "name": name, "text": words}


def display(**data):
    kinds = {"svg": "image/svg+xml", "html": "text/html", "plain": "text/plain", "markdown": "text/markdown"}
    return {"output_type": "display_data", "metadata": {}, "data": {kinds[k]: v for k, v in data.items()}}


def figure(name, caption="A line."):
    return code(
        f'#| label: {name}\n#| fig-cap: "{caption}"\n#| fig-alt: "a line"\ndraw()',
        display(svg=SVG, plain="<Figure size 1x1>"),
    )


def write_chapter(folder, name, cells, title=None):
    front = {
        "cell_type": "raw",
        "metadata": {},
        "source": f'---\ntitle: {title or name.title()}\nsubtitle: "About {name}"\n---',
    }
    notebook = {"cells": [front, *cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "nbs").mkdir(exist_ok=True)
    (folder / "nbs" / f"{name}.ipynb").write_text(json.dumps(notebook))


@pytest.fixture
def book(tmp_path, root):
    """book(one=[cells], two=[cells]) renders a book of these chapters; pages by name, or the exit code."""
    (tmp_path / "book").symlink_to(root / "book")
    (tmp_path / "references.bib").write_text(BIBLIOGRAPHY)
    (tmp_path / "index.qmd").write_text("# Preface {.unnumbered}\n\nWelcome.\n")

    def render(listed=None, fails=False, settings=None, **chapters):
        for name, cells in chapters.items():
            write_chapter(tmp_path, name, cells)
        names = listed or list(chapters)
        wanted = {
            "project": {"type": "book", "output-dir": "_book"},
            "number-depth": 2,
            "book": {
                "title": "Small",
                "chapters": ["index.qmd", {"part": "Part", "chapters": [f"nbs/{n}.ipynb" for n in names]}],
            },
            "bibliography": "references.bib",
            "ipynb-filters": ["book/filters/notebook.py"],
            "filters": ["book/filters/module.lua"],
            "format": {"html": {"css": "book/theme/book.css", "code-fold": True}},
        }
        (tmp_path / "_quarto.yml").write_text(yaml.safe_dump(wanted | (settings or {})))
        assert main(["html", "--root", str(tmp_path)]) == int(fails)
        return {p.stem: p.read_text() for p in (tmp_path / "_book").rglob("*.html")}

    render.folder = tmp_path
    return render


def article(page):
    return re.search(r"<article.*?</article>", page, re.S)[0]


def words(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", article(page))).replace("\xa0", " ")


# Numbers and references


def test_figures_are_numbered_by_chapter_and_references_lead_to_them_from_anywhere(book):
    pages = book(
        one=[text("See @fig-b."), figure("fig-a")],
        two=[text("As in @fig-a and [-@fig-b]."), figure("fig-x"), figure("fig-b", "Two *lines*.")],
    )
    assert "Figure 2.2: Two lines." in words(pages["two"])
    assert re.search(r'href="two.html#fig-b"[^>]*>Figure\s2.2</a>', pages["one"])
    assert re.search(
        r'href="one.html#fig-a"[^>]*>Figure\s1.1</a> and\s<a href="#fig-b"[^>]*>2.2</a>', pages["two"]
    )
    assert 'id="fig-b"' in pages["two"]


def test_tables_equations_and_sections_are_numbered_too(book):
    source = """## Sizes {#sec-sizes}

@tbl-a, @eq-a, @sec-sizes.

| a | b |
|---|---|
| 1 | 2 |

: The *caption* {#tbl-a}

Before
$$ x = 1 $$ {#eq-a}
after.
"""
    page = book(one=[text("## First\n\nx")], two=[text(source)])["two"]
    assert "Table 2.1, Equation 2.1, Section 2.1." in words(page)
    assert "Table 2.1: The caption" in words(page)
    assert re.search(r'id="eq-a".*?\(2\.1\)', page, re.S)
    assert "{#eq-a}" not in page


def test_a_table_that_code_made_is_a_table_with_its_number(book):
    output = display(html="<table><tr><th>h</th></tr><tr><td>17</td></tr></table>", plain="h")
    page = book(one=[text("@tbl-code"), code('#| label: tbl-code\n#| tbl-cap: "Made"\nshow()', output)])[
        "one"
    ]
    assert "Table 1.1: Made" in words(page) and '<div class="table-wrap">' in page and ">17</td>" in page


def test_a_chapter_that_moves_changes_the_numbers_elsewhere(book):
    chapters = {"one": [figure("fig-a")], "two": [text("See @fig-a.")]}
    assert "See Figure 1.1." in words(book(**chapters)["two"])
    assert "See Figure 2.1." in words(book(listed=["two", "one"], **chapters)["two"])


# Citations, notes, callouts


def test_citations_link_to_the_works_this_chapter_cites(book):
    page = book(
        one=[text("Set by [@knuth1984, p. 3].[^n]\n\n[^n]: The *note*.")], two=[text("@turing1950 asks.")]
    )["one"]
    assert "(Knuth 1984, 3)" in words(page)
    assert 'href="#ref-knuth1984"' in page and 'id="ref-knuth1984"' in page
    assert "The TeXbook" in words(page) and "Turing" not in words(page)
    assert words(page).index("The note.") < words(page).index("References")


def test_a_collapsed_callout_opens_with_its_title(book):
    source = """## Exercises

::: {.callout-tip collapse="true"}
## Solution
Forty-two.

### A closer look

Still so.
:::

::: {.callout-warning}
Mind it.
:::
"""
    page = book(one=[text(source)])["one"]
    assert re.search(
        r'<details class="callout callout-tip">\s*<summary class="callout-title">Solution</summary>', page
    )
    assert re.search(r'<aside class="callout callout-warning">\s*<p class="callout-title">Warning</p>', page)
    assert "#solution" not in page and "#a-closer-look" not in page, "a callout has no sections"


# Code and outputs


def test_code_is_folded_and_its_output_is_not(book):
    page = book(
        one=[code("#| export\ndef greet():\n    return 1"), code("greet()", stream("\x1b[31mred\x1b[0m\n"))]
    )["one"]
    folds = re.findall(r"<details class=\"code-fold\".*?</details>", page, re.S)
    assert len(folds) == 2 and "def greet" in folds[0] and "red" not in folds[1]
    assert "<pre><code>red</code></pre>" in page
    assert 'id="unfold" role="switch"' in page


@pytest.mark.parametrize(
    "options, code_stands, output_stands",
    [
        ("", True, True),
        ("#| echo: false", False, True),
        ("#| output: false", True, False),
        ("#| include: false", False, False),
        ("#| code-fold: false", True, True),
    ],
)
def test_cell_options_are_honoured(book, options, code_stands, output_stands):
    page = article(book(one=[code(f"{options}\nsecret_name = 1".strip(), stream("the result"))])["one"])
    assert ("secret_name" in page) == code_stands
    assert ("the result" in page) == output_stands
    assert ("<details" in page) == (code_stands and options != "#| code-fold: false")


def test_a_cell_of_directives_alone_leaves_no_trace(book):
    page = book(one=[code("#| default_exp model.tokenizer"), text("Words.")])["one"]
    assert 'class="cell"' not in page and "default_exp" not in page
    assert "<code>tinyllm/model/tokenizer.py</code>" in page


def test_a_widget_is_live_on_the_page_and_its_picture_is_not_there(book):
    page = book(
        one=[code("#| output: true\nwidget()", display(html='<tl-thing id="t"></tl-thing>', svg=SVG))]
    )["one"]
    assert '<tl-thing id="t"></tl-thing>' in page and "data:image" not in article(page)


def test_what_is_for_print_alone_is_not_on_the_page(book):
    source = '::: {.content-visible when-format="typst"}\npaper\n:::'
    source += '\n\n::: {.content-hidden when-format="html"}\nink\n:::'
    page = article(book(one=[text(source)])["one"])
    assert "paper" not in page and "ink" not in page


# Everything wrong is named, with its place

WRONG = {
    "a reference to nothing": (
        text("Fine.\n\nSee @fig-gone."),
        "nbs/one.ipynb, cell 2, line 3: @fig-gone refers to nothing",
    ),
    "an unknown citation": (
        text("As [@nobody1900] says."),
        "nbs/one.ipynb, cell 2, line 1: @nobody1900 is in no bibliography",
    ),
    "a reference to a heading without a number": (
        text("## One {#sec-one}\n\n### Deep {#sec-deep}\n\nSee @sec-deep."),
        "nbs/one.ipynb, cell 2, line 5: @sec-deep refers to a heading without a number: link to it: [words]",
    ),
    "a missing picture": (
        text("![A](gone.svg)"),
        "nbs/one.ipynb, cell 2, line 1: the picture gone.svg does not exist",
    ),
    "a picture from the network": (
        text("![A](https://example.com/a.png)"),
        "cell 2, line 1: the picture https://example.com/a.png is on another",
    ),
    "a link to no file": (
        text("[there](gone.ipynb)"),
        "cell 2, line 1: the link to gone.ipynb leads nowhere: that file does not exist",
    ),
    "a link to no anchor": (text("[there](#gone)"), "cell 2, line 1: the link to #gone leads nowhere"),
    "a traceback": (
        code(
            "1/0",
            {
                "output_type": "error",
                "ename": "ZeroDivisionError",
                "evalue": "division by zero",
                "traceback": [],
            },
        ),
        "nbs/one.ipynb, cell 2: holds a traceback: ZeroDivisionError: division by zero",
    ),
    "broken options": (code("#| label: [\nx"), "nbs/one.ipynb, cell 2: its #| options cannot be read"),
    "a figure never drawn": (
        code('#| label: fig-x\n#| fig-cap: "C"\n#| fig-alt: "a"\ndraw()'),
        "cell 2: fig-x has no output: run the notebook",
    ),
    "a figure without caption": (
        code('#| label: fig-x\n#| fig-alt: "a"\ndraw()', display(svg=SVG)),
        "cell 2: fig-x has no caption",
    ),
    "a picture without words": (code("draw()", display(svg=SVG)), "cell 2: a picture without words"),
    "a name used twice": (
        text("## B {#sec-first}"),
        "cell 2, line 1: #sec-first is already the name of something in nbs/one.ipynb",
    ),
}


@pytest.mark.parametrize("cell, message", WRONG.values(), ids=WRONG)
def test_what_is_wrong_stops_the_build_with_file_and_place(book, capsys, cell, message):
    pages = book(one=[text("## First {#sec-first}"), cell], fails=True)
    assert message in capsys.readouterr().err
    assert not pages, "nothing is written"


def test_all_problems_are_reported_in_one_run_and_again_in_the_next(book, capsys):
    cells = [cell for name, (cell, _) in WRONG.items() if name != "a name used twice"]
    for _ in range(2):
        book(one=cells, fails=True)
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1] == f"[book] stopped: {len(cells)} problems"


def test_a_chapter_that_is_listed_but_missing_stops_the_build(book, capsys):
    book(listed=["one", "gone"], one=[text("x")], fails=True)
    assert "_quarto.yml: nbs/gone.ipynb is listed but does not exist" in capsys.readouterr().err


# Second runs


def test_an_edit_rewrites_its_page_alone(book, capsys):
    chapters = {"one": [figure("fig-a")], "two": [text("See @fig-a.")]}
    book(**chapters)
    book(**chapters)
    assert "0 files changed" in capsys.readouterr().out
    book(one=[figure("fig-a"), text("More.")], two=chapters["two"])
    assert "2 files changed" in capsys.readouterr().out  # the page, and its notebook beside it


def test_a_picture_that_is_no_longer_drawn_is_removed(book):
    book(one=[figure("fig-a")])
    assert len(list((book.folder / "_book/assets/pictures").iterdir())) == 1
    book(one=[text("None.")])
    assert not list((book.folder / "_book/assets/pictures").iterdir())


def test_a_drawing_is_made_smaller_and_looks_the_same(tmp_path):
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.plot([0, 1, 3], [0.1, 0.7, 0.2], marker="o")
    axes.set(title="A title", xlabel="steps")
    axes.text(0.5, 0.5, "clipped", clip_on=True)
    figure.savefig(tmp_path / "a.svg")
    plt.close(figure)
    (tmp_path / "b.svg").write_bytes(picture_bytes(tmp_path / "a.svg"))
    before, after = ((tmp_path / n).read_text() for n in ("a.svg", "b.svg"))
    assert len(after) < 0.75 * len(before) and "metadata" not in after

    def drawn(name):
        page = f'#set page(width: auto, height: auto, margin: 0pt)\n#image("{name}", width: 400pt)'
        (tmp_path / "page.typ").write_text(page)
        picture = typst.compile(tmp_path / "page.typ", format="png", ppi=144)
        return np.asarray(Image.open(io.BytesIO(picture)).convert("L")).astype(int)

    different = np.abs(drawn("a.svg") - drawn("b.svg")) > 40
    assert different.mean() < 1e-4, "beyond a few dots on edges"


# The real book


class Page(html.parser.HTMLParser):
    """Identifiers, links and loaded files of a page."""

    def __init__(self, source):
        super().__init__()
        self.ids, self.links, self.loads, self.modules = set(), [], [], 0
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            assert attrs["id"] not in self.ids, f"two elements are called {attrs['id']}"
            self.ids.add(attrs["id"])
        self.modules += attrs.get("type") == "module"
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        elif tag in ("link", "img", "script"):
            self.loads += [attrs[k] for k in ("href", "src") if k in attrs]


@pytest.fixture(scope="module")
def pages(book_html):
    chapters = [path for path in sorted(book_html.rglob("*.html")) if path.name != "gallery.html"]
    return {path: Page(path.read_text()) for path in chapters}


def test_every_link_of_the_book_leads_somewhere(pages):
    assert len(pages) > 30
    for path, page in pages.items():
        for url in page.links:
            if re.match(r"https?:|mailto:", url):
                continue
            file, _, name = urllib.parse.unquote(url).partition("#")
            target = (path.parent / file).resolve() if file else path
            beside = target.suffix == ".pdf" or "source" in target.parts  # the notebook and module of the page
            assert target in pages or (beside and target.is_file()), f"{path.name}: {url}"
            assert not name or name in pages[target].ids, f"{path.name}: {url}"


def test_the_front_page_lists_every_chapter_with_its_title(pages):
    front = next(p for p in pages if p.name == "index.html")
    contents = re.search(r'<div class="book-contents">.*?</article>', front.read_text(), re.S)[0]
    assert '<a href="nbs/02_tokens.html">Tokens</a> <span class="subtitle">Text → numbers' in contents
    listed = re.findall(r'<li><a href="(nbs/[^"]+)">', contents)
    assert len(listed) == len(set(listed)) == sum(p.parent.name == "nbs" for p in pages)


def test_pages_need_no_network_and_no_module_scripts(pages):
    for path, page in pages.items():
        assert page.modules == 0
        for url in page.loads:
            assert url.startswith("data:") or (path.parent / urllib.parse.unquote(url)).is_file(), (
                f"{path.name}: {url}"
            )


def test_every_page_is_under_half_a_megabyte(pages):
    assert max(path.stat().st_size for path in pages) < 500_000


def test_every_chapter_has_the_sections_of_the_short_path(pages, root):
    for path, page in pages.items():
        if re.match(r"0[12]_", path.name):
            assert {"summary", "exercises"} <= page.ids, path.name


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_the_script_runs_on_a_page_opened_from_the_file_system(pages, tmp_path):
    page = next(p for p in pages if p.name == "02_tokens.html")
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=2000",
    ]
    dom = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60
    ).stdout
    assert 'class="copy"' in dom and 'class="peek"' in dom


def test_the_press_never_imports_torch(root):
    program = "import sys, press.__main__, press.pdf; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(root / "book")}).returncode
        == 0
    )


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True)
    )


def test_all_text_is_readable_in_both_themes(root):
    css = (root / "book/theme/book.css").read_text()
    colours = {n: pair for n, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)}
    surfaces = [colours[n] for n in ("paper", "tint", "raised")]
    for name in set(colours) - {"paper", "tint", "raised", "line", "accent-wash"}:
        for surface in surfaces:
            for theme in (0, 1):
                light, dark = sorted(
                    [luminance(colours[name][theme]), luminance(surface[theme])], reverse=True
                )
                assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{name} on {surface[theme]}"
