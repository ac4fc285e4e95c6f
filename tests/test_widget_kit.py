"""widget(): one cell, four faces. The bundle, and what all widgets share."""
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt
from press import bundle
from press.execute import ENVIRONMENT
from tinybook import COLORS, pack_merges, plot_style, widget, widgets

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
WORDS = {"caption": "What is it?", "description": "It is a line from low to high."}
sys.path.insert(0, str(ROOT / "book" / "filters"))
import notebook as notebook_filter


def figure():
    plot_style()
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    return fig


def data_in(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


# The four faces


def test_a_widget_is_an_element_a_picture_and_words():
    line = widget("tl-line", {"values": [1, 2]}, figure=figure(), table=[["x", "y"], [1, 2]], **WORDS)
    shown = line._repr_mimebundle_()
    assert set(shown) == {"text/html", "image/svg+xml", "text/plain"}
    html = shown["text/html"]
    assert re.match(r'<tl-line id="tl-line-[0-9a-f]{8}" class="tl-widget">', html) and html.endswith("</tl-line>")
    assert data_in(html) == {"values": [1, 2]}
    assert all(words in html and words in shown["text/plain"] for words in WORDS.values())
    assert '<th scope="col">x</th>' in html and "<td>2</td>" in html
    assert shown["image/svg+xml"].startswith("<?xml") and not plt.get_fignums()


def test_without_a_figure_or_a_table_there_is_still_an_element():
    shown = widget("tl-line", [1], **WORDS)._repr_mimebundle_()
    assert "image/svg+xml" not in shown and "<table" not in shown["text/html"]


def test_the_same_state_is_the_same_output_and_another_state_has_another_id():
    data = {"a": 1, "b": 0.1 + 0.2}
    one, two, other = (widget("tl-line", d, **WORDS) for d in (data, {"b": 0.3, "a": 1}, {"a": 2, "b": 0.3}))
    assert one.html == two.html
    assert len({one.id, other.id, widget("tl-other", data, **WORDS).id}) == 3


def test_arrays_and_numbers_of_any_kind_become_json():
    data = {"w": np.arange(4, dtype=np.float32).reshape(2, 2) / 3, "n": np.int64(3), "t": (1, 2), 5: None}
    assert data_in(widget("tl-line", data, **WORDS).html) == {
        "w": [[0, 0.333333], [0.666667, 1]], "n": 3, "t": [1, 2], "5": None}
    with pytest.raises(ValueError):
        widget("tl-line", [float("nan")], **WORDS)


@pytest.mark.parametrize(
    "text", ["</script><b>", "<!--<script>", "<!-- picture -->", "&amp;", "x\u2028", "\ud7ff\U0010ffff\x80"]
)
def test_data_and_words_cannot_break_out_of_their_place(text):
    html = widget("tl-line", [text], caption=text, description=text, table=[[text], [text]]).html
    assert data_in(html) == [text]
    assert html.count("</script>") == 1 and html.count("<!--") == 1 and "<b>" not in html


@pytest.mark.parametrize("name", ["tokenizer", "tl-", "tl-Line", "tl-a b", "tl_a"])
def test_a_name_that_no_element_can_have_is_refused(name):
    with pytest.raises(ValueError, match="not the name of a widget"):
        widget(name, 1, **WORDS)


def test_a_widget_without_words_is_refused():
    with pytest.raises(ValueError, match="caption"):
        widget("tl-line", 1, caption="What?", description=" ")


def test_rows_may_be_dicts():
    html = widget("tl-line", 1, table=[{"id": 1, "text": "<"}, {"id": 2, "text": ">"}], **WORDS).html
    assert '<th scope="col">id</th><th scope="col">text</th>' in html and "<td>2</td><td>&gt;</td>" in html


def test_the_filter_puts_the_stored_picture_into_the_element():
    shown = widget("tl-line", 1, figure=figure(), **WORDS)._repr_mimebundle_()
    text = notebook_filter.filter_output({"output_type": "execute_result", "data": shown})["data"]["text/markdown"]
    when, unless = text.split("unless-format")
    assert '<img class="tl-picture" src="data:image/svg+xml;base64,' in when and "<tl-line" in when
    assert "<tl-line" not in unless and "data:image/svg+xml;base64," in unless


# In Jupyter


LIVE = """
    import nbformat
    from nbclient import NotebookClient
    code = "from tinybook import widget\\nw = widget('tl-tokenizer', 1, caption='a?', description='b')\\nw"
    cells = [nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell("w")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3").execute()
    for cell in notebook.cells:
        print(len(cell.outputs[-1]["data"]["text/html"]))
"""


@pytest.mark.parametrize("stored", [False, True])
def test_a_live_kernel_gets_the_script_once_and_a_stored_output_never(stored):
    size = len(bundle.build().read_text(encoding="utf-8"))
    environment = os.environ | {"TINYBOOK_STORE": "1" if stored else ""}
    command = [sys.executable, "-c", textwrap.dedent(LIVE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    first, second = map(int, done.stdout.split())
    assert (first > size) is not stored and second < 1000, done.stderr
    assert ENVIRONMENT["TINYBOOK_STORE"] == "1"


def test_the_script_inside_a_page_cannot_end_early(monkeypatch, tmp_path):
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "_emitted", False)
    monkeypatch.setattr(widgets, "BUNDLE", tmp_path / "widgets.js")
    assert "make widgets" in widgets.script() and "make widgets" in widgets.script()
    (tmp_path / "widgets.js").write_text("a = '<script></script><!-- -->'")
    assert widgets.script() == "<script>a = '<script><\\/script>\\x3c!-- -->'</script>"
    assert widgets.script() == ""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs_hold_elements_and_never_the_script(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            assert "customElements" not in html
            # a hidden one is for the front page, whose print has text in its place (test_pdf.py)
            if html.startswith("<tl-") and "#| include: false" not in cell.source:
                assert "image/svg+xml" in output["data"], "a widget in a chapter needs a figure for print"
                assert "#| label: fig-" in cell.source and "#| fig-cap:" in cell.source and "#| fig-alt:" in cell.source


# The bundle


def test_every_widget_is_one_small_classic_script_that_needs_nothing_from_elsewhere():
    everything = bundle.build()
    own = {tag: everything.parent / "widgets" / f"{tag}.js" for source in bundle.WIDGETS.glob("*.js")
           for tag in re.findall(r'^define\("(tl-[a-z0-9-]+)"', source.read_text(), re.M)}
    assert len(own) > 5
    for script in (everything, *own.values()):
        text = script.read_bytes()
        assert len(text) < (300_000 if script is everything else 80_000), script
        assert not re.search(rb"\bimport\s*[({\"']|\bexport\s", text)
        addresses = set(re.findall(rb"https?://[\w./-]+", text))
        assert all(b"w3.org" in a or b"npm.im" in a or b"lit.dev" in a for a in addresses), addresses


def test_the_bundle_is_made_again_only_when_a_source_is_younger(monkeypatch, tmp_path):
    folder = tmp_path / "widgets"
    shutil.copytree(bundle.WIDGETS, folder, ignore=shutil.ignore_patterns("node_modules"))
    assert bundle.build().exists() and bundle.is_fresh()
    monkeypatch.setattr(bundle, "WIDGETS", folder)
    os.utime(folder / "base.js", (4e9, 4e9))
    assert not bundle.is_fresh()


def test_no_code_of_others_is_committed_and_no_address_of_a_registry():
    lock = json.loads((bundle.WIDGETS / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    own = json.loads((bundle.WIDGETS / "package.json").read_text())
    versions = {**own["dependencies"], **own["devDependencies"]}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", v) for v in versions.values()), versions
    assert "node_modules/" in (ROOT / ".gitignore").read_text().split()


def test_colours_are_those_of_the_figures():
    text = (bundle.WIDGETS / "colors.js").read_text()
    names = dict(re.findall(r'(\w+) = "(#\w{6})"', text))
    body = re.search(r"COLORS = \{(.*?)\};", text, re.S)[1]
    ours = {name: names.get(value, value.strip('"')) for name, value in re.findall(r'(\w+): ("#\w{6}"|\w+)', body)}
    assert ours == COLORS


def test_merges_are_packed_two_bytes_an_id():
    import base64

    assert base64.b64decode(pack_merges([(1, 256), (4095, 2)])) == bytes([1, 0, 0, 1, 255, 15, 2, 0])


# What all widgets share, in the browser


@pytest.fixture
def gallery(page_factory):
    def opened(**options):
        page = page_factory("gallery.html", **options)
        page.locator("tl-tokenizer [role=option]").first.wait_for()
        return page

    return opened


def test_the_gallery_shows_every_widget_of_the_book_alive(gallery, book_html):
    page = gallery()
    stored = [
        "".join(output["data"]["text/html"])
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if "".join(output.get("data", {}).get("text/html", "")).startswith("<tl-")
    ]
    ids = [re.search(r'id="([^"]+)"', html)[1] for html in stored]
    assert sorted(page.locator(".tl-widget").evaluate_all("all => all.map((e) => e.id)")) == sorted(ids) and ids
    for name in ids:
        element = page.locator(f"#{name}")
        assert element.locator(".question").is_visible() and not element.locator(".tl-static").is_visible()


def test_a_page_with_all_that_it_loads_is_under_half_a_megabyte(book_html):
    """Pictures come as they are scrolled to, the search's index and Fable's weights when they are asked for."""
    sizes = {}
    for path in sorted(book_html.glob("nbs/*.html")):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<script[^>]* src="([^"]+)"|<link rel="stylesheet" href="([^"]+)"', text)
        files = [path, *(path.parent / (script or style) for script, style in loaded)]
        sizes[path.name] = sum(file.stat().st_size for file in files)
    print(f"\n[pages] the heaviest, with scripts and styles: {max(sizes.values()) / 1e3:.0f} KB")
    assert not {name: size for name, size in sizes.items() if size > 500_000}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_gallery(gallery, axe, scheme):
    page = gallery(scheme=scheme, width=390)
    found = [v for v in axe(page) if "tl-" in v]
    assert not found, found


PROBE = """() => {
    const make = (inner) => {
        const e = document.createElement("tl-tokenizer");
        e.innerHTML = inner;
        document.body.append(e);
        return e;
    };
    const still = '<div class="tl-static"><p class="tl-question">Still?</p></div>';
    return [still, '<script type="application/json">{"merges": 5}<' + '/script>' + still].map(make)
        .map((e) => e.updateComplete.then(() => e.querySelector(".tl-static").checkVisibility()));
}"""


def test_a_widget_that_cannot_start_leaves_the_picture_where_it_was(browser, book_html):
    page = browser.new_page()
    page.goto((book_html / "gallery.html").as_uri())
    page.locator("tl-tokenizer [role=option]").first.wait_for()
    assert page.evaluate(f"Promise.all(({PROBE})())") == [True, True]
    page.close()


def test_keys_inside_a_widget_do_not_reach_the_page_and_escape_does(gallery):
    page = gallery()
    page.evaluate("seen = []; addEventListener('keydown', (event) => seen.push(event.key))")
    page.locator("tl-tokenizer textarea").first.focus()
    for key in ("ArrowLeft", "/", "Escape"):
        page.keyboard.press(key)
    assert page.evaluate("seen") == ["Escape"]


# From a notebook to a page and to paper


@pytest.fixture
def small_book(tmp_path):
    """A book of one notebook with one widget in it."""
    import yaml

    shown = widget("tl-line", 1, figure=figure(), **WORDS)._repr_mimebundle_()
    outputs = [nbformat.v4.new_output("execute_result", shown)]
    source = '#| label: fig-line\n#| fig-cap: "A line."\n#| fig-alt: "A line that rises."\nw'
    cells = [nbformat.v4.new_raw_cell("---\ntitle: Lines\n---"), nbformat.v4.new_code_cell(source, outputs=outputs)]
    (tmp_path / "nbs").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "nbs" / "lines.ipynb")
    settings = {
        "project": {"type": "book"}, "book": {"title": "Small", "author": "A", "chapters": ["nbs/lines.ipynb"]},
        "ipynb-filters": ["notebook.py"], "filters": ["widgets.lua"],
    }
    for name in ("notebook.py", "widgets.lua"):
        shutil.copy(ROOT / "book" / "filters" / name, tmp_path)
    (tmp_path / "_quarto.yml").write_text(yaml.safe_dump(settings))
    (tmp_path / ".make").mkdir()
    (tmp_path / ".make" / "widgets.js").write_text("// the script")
    return tmp_path


def test_a_page_with_a_widget_loads_the_script_and_keeps_the_picture(small_book):
    from press.__main__ import main

    assert main(["html", "--root", str(small_book)]) == 0
    page = (small_book / "_book" / "nbs" / "lines.html").read_text()
    assert '<script defer src="../assets/widgets.js"></script>' in page and '<img class="tl-picture"' in page
    assert (small_book / "_book" / "assets" / "widgets.js").read_text() == "// the script"
    assert re.search(r'<figure id="fig-line".*<tl-line id=.*</tl-line>.*<figcaption>.*A line\.', page, re.S)
    assert "<tl-line" in (small_book / "_book" / "gallery.html").read_text()


def test_without_the_script_pages_are_made_all_the_same(small_book):
    from press.__main__ import main

    (small_book / ".make" / "widgets.js").unlink()
    assert main(["html", "--root", str(small_book)]) == 0
    assert not (small_book / "_book" / "gallery.html").exists()


def test_on_paper_stands_the_picture_with_the_address_of_the_live_page(small_book, tmp_path):
    from press import pdf
    from press.__main__ import read
    from press.config import read_config

    problems = []
    book = read_config(small_book)
    pdf.write_sources(book, read(book, problems), tmp_path)
    text = "\n".join(path.read_text() for path in tmp_path.glob("*.typ"))
    assert problems == [] and "image(" in text
    assert '#link("nbs/lines.html#fig-line"' in text and "<tl-line" not in text


def test_every_text_area_has_the_one_look_that_base_gives_it(page_factory):
    scripts = (ROOT / "book/widgets").glob("*.js")
    assert {path.name for path in scripts if re.search(r"^ *textarea\b.*{", path.read_text(), re.M)} == {"base.js"}
    looks = []
    for name in ("nbs/02_tokens.html", "nbs/16_prefix_caching.html"):
        area = page_factory(name, width=390).locator("textarea").first
        names = ["border", "padding", "font", "background", "margin", "minHeight", "resize"]
        looks.append(area.evaluate("(e, names) => names.map((name) => getComputedStyle(e)[name])", names))
    assert looks[0] == looks[1]
