"""The book's pages in Chromium, opened from the file system as a reader opens them.

`page_factory` (conftest.py) fails a test on any error in the console and on any request that leaves
the page, so every test here checks that too.
"""

import ast
import html
import io
import itertools
import json
import re
import shutil
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from press import gallery, names
from press.__main__ import main
from press.config import read_config

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = [chapter.page for chapter in read_config(ROOT).chapters]
PAGES = [*CHAPTERS, gallery.PAGE]
SOME = [page for page in CHAPTERS if re.search(r"index|/(01|02|04|10)_|glossary", page)]
TOKENS, SAMPLING = "nbs/02_tokens.html", "nbs/10_sampling.html"
LOADED = re.compile(r'<(?:link rel="stylesheet" href|script[^>]* src|img src)="(?!data:)([^"]+)"')
LIMIT = 500_000  # bytes of a page with all that it loads, without the model

NOTES = """---
title: Notes
---

::: {.callout-note}
A note in a box.[^box]
:::

A paragraph with a note,[^first] and another.[^second]

[^box]: Said in a *box*.
[^first]: The first, with `code`.
[^second]: The second.
"""


def sideways(page) -> int:
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def open_all_code(page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")


# Every page


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_accessible_and_no_wider_than_a_phone(page_factory, axe, name):
    page = page_factory(name)
    assert page.title() and page.locator("h1").count() == 1
    assert axe(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    open_all_code(page)
    assert sideways(page) <= 0


@pytest.mark.parametrize("name", [*SOME, gallery.PAGE])
def test_pages_are_accessible_in_the_dark_with_all_code_open(page_factory, axe, name):
    page = page_factory(name, scheme="dark")
    open_all_code(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert axe(page) == []


@pytest.mark.parametrize("name", [*SOME, gallery.PAGE])
def test_pages_are_accessible_on_a_phone_for_who_wants_no_motion(page_factory, axe, name):
    page = page_factory(name, width=390, height=844, touch=True, reduced_motion=True)
    assert sideways(page) <= 0
    assert axe(page) == []
    moving = "document.getAnimations().filter(a => a.timeline instanceof DocumentTimeline).length"
    if name in CHAPTERS:
        page.locator("#menu").tap()
    assert page.evaluate(moving) == 0


def test_a_page_loads_the_scripts_of_its_own_widgets_and_no_others(book_html):
    for name in CHAPTERS:
        text = (book_html / name).read_text()
        loaded = re.findall(r'src="(?:\.\./)?assets/widgets/(tl-[a-z0-9-]+)\.js"', text)
        assert loaded == sorted(set(re.findall(r'<(tl-[a-z0-9-]+) id="tl-', text))) and "widgets.js" not in text
    assert 'src="assets/widgets.js"' in (book_html / gallery.PAGE).read_text()


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_page_with_all_it_loads_is_under_half_a_megabyte(book_html, name):
    page = book_html / name
    files = {
        page,
        *((page.parent / urllib.parse.unquote(f)).resolve() for f in LOADED.findall(page.read_text())),
    }
    sizes = {file.name: file.stat().st_size for file in files}
    assert sum(sizes.values()) < LIMIT, sizes


# The model at the top of a chapter

PARTS = {
    "01": "loop", "02": "tokens", "03": "embedding", "04": "attention", "05": "heads", "06": "positions",
    "07": "MLP", "08": "8 blocks", "09": "model", "10": "sampling",
}  # fmt: skip


@pytest.mark.parametrize("number, part", PARTS.items())
def test_the_model_stands_above_the_chapter_with_its_part_lit_and_leads_to_all_others(book_html, number, part):
    (page,) = (book_html / "nbs").glob(f"{number}_*.html")
    words, drawn = re.search(r'<nav class="model-map" aria-label="([^"]+)">(.*?)</nav>', page.read_text()).groups()
    boxes = re.findall(r'<a href="([^"]+)"( aria-current="true")?>([^<]+)</a>', drawn)
    assert [(address, name) for address, lit, name in boxes if lit] == [(page.name, part)]
    assert {address[:2] for address, _, _ in boxes} == PARTS.keys()
    assert all((page.parent / address).is_file() for address, _, _ in boxes)
    said = "block" if part == "8 blocks" else part
    assert words.startswith(f"Where this chapter stands in the model: {said}. ")


def test_other_pages_have_no_drawing_of_the_model(book_html):
    others = [name for name in CHAPTERS if not re.match(r"nbs/(0\d|10)_", name)]
    assert [name for name in others if "model-map" in (book_html / name).read_text()] == []


@pytest.mark.parametrize("width, height", [(1440, 100), (390, 180)])
def test_the_drawing_of_the_model_is_small(page_factory, width, height):
    drawn = page_factory("nbs/09_full_model.html", width=width).locator(".model-map")
    assert 0 < drawn.bounding_box()["height"] <= height
    lit, other = (drawn.locator(f"a{state}").first for state in ("[aria-current]", ":not([aria-current])"))
    ground = "e => getComputedStyle(e).backgroundColor"
    assert lit.evaluate(ground) != other.evaluate(ground)


def test_the_boxes_of_the_whole_model_lead_to_their_chapters(page_factory, book_html):
    page = page_factory("nbs/09_full_model.html")
    boxes = page.locator(".linked a")
    addresses = boxes.evaluate_all("links => links.map((a) => a.getAttribute('href'))")
    assert {address[:2] for address in addresses} == PARTS.keys() - {"01", "09"}
    assert all((book_html / "nbs" / address).is_file() for address in addresses)
    whole = page.locator(".linked img").bounding_box()
    for box in boxes.all():
        inside = box.bounding_box()
        assert whole["x"] <= inside["x"] and inside["x"] + inside["width"] <= whole["x"] + whole["width"] + 1
        assert whole["y"] <= inside["y"] and inside["y"] + inside["height"] <= whole["y"] + whole["height"] + 1
    with page.expect_navigation():
        page.get_by_role("link", name="positions", exact=True).last.click()
    assert page.url.endswith("nbs/06_positional_encoding.html")


# Type, code and pictures


@pytest.mark.parametrize("width", [1440, 1280, 1024, 768])
def test_code_of_88_columns_shows_without_scrolling(page_factory, width):
    page = page_factory(TOKENS, width=width)
    open_all_code(page)
    wide = page.evaluate(
        """() => [...document.querySelectorAll("article pre")].filter((pre) => {
          const columns = Math.max(...pre.textContent.split("\\n").map((line) => line.length));
          return columns <= 88 && pre.scrollWidth > pre.clientWidth;
        }).map((pre) => pre.textContent.slice(0, 60))"""
    )
    assert wide == []
    room = page.evaluate(
        """() => Math.min(...[...document.querySelectorAll("article pre:has(code)")].map((pre) => {
          const style = getComputedStyle(pre), probe = document.createElement("span");
          probe.textContent = "m".repeat(88);
          pre.querySelector("code").append(probe);
          const left = pre.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
          const room = left - probe.offsetWidth;
          probe.remove();
          return room;
        }))"""
    )
    assert room >= 0


def test_figures_in_text_stand_on_the_line(page_factory):
    page = page_factory(TOKENS)
    used = page.evaluate(
        """() => [...new Set([...document.querySelectorAll("body, body *")]
          .map((e) => getComputedStyle(e).fontVariantNumeric))]"""
    )
    assert used and not [value for value in used if "oldstyle" in value]
    faces = page.evaluate("getComputedStyle(document.querySelector('article')).fontFamily")
    assert "Georgia" not in faces  # its figures hang below the line whatever is asked for


def test_a_picture_is_shown_whole_on_a_phone_and_a_tap_enlarges_it(page_factory, axe):
    page = page_factory("nbs/01_what_is_an_llm.html", width=390, height=844, touch=True)
    pictures = page.locator("article .picture:has(img[width]):visible")
    assert pictures.count() > 1
    for picture in pictures.all():
        box = picture.locator("img").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert picture.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    first = page.locator("article .picture.smaller").first
    first.scroll_into_view_if_needed()
    first.tap()
    whole = page.locator("dialog.zoom[open] img")
    own = int(first.locator("img").get_attribute("width"))
    assert whole.bounding_box()["width"] == own > 390
    assert axe(page) == []
    page.keyboard.press("Escape")
    assert not whole.is_visible()
    first.press("Enter")
    page.get_by_role("button", name="Close").click()
    assert not whole.is_visible()
    page.set_viewport_size({"width": 1440, "height": 900})
    page.wait_for_function("!document.querySelector('article .picture.smaller')")


def test_the_ink_of_pictures_follows_the_theme_of_the_page(page_factory):
    page = page_factory("nbs/01_what_is_an_llm.html", scheme="dark", height=3000)
    picture = page.locator("article figure .picture img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].every((i) => i.complete || i.loading === 'lazy')")

    def darkest_and_lightest():
        drawn = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("L"))
        return int(drawn.min()), int(drawn.max())

    on_dark = darkest_and_lightest()
    page.locator("#theme").click()
    page.wait_for_timeout(300)
    on_light = darkest_and_lightest()
    assert on_dark[1] > 160 and on_light[0] < 110, (on_dark, on_light)


# Search


def look_for(page, words):
    """Type into the search; the titles that it shows, best first."""
    page.locator(".finder input").fill(words)
    return page.locator(".finder .found-title").all_text_contents()


def test_search_finds_a_term_a_heading_and_a_function_and_goes_there(page_factory):
    page = page_factory(TOKENS)
    page.keyboard.press("/")
    assert look_for(page, "blok table")[0] == "block table"  # the glossary's, though misspelt
    assert look_for(page, "text is bytes")[0] == "Text is bytes"
    assert look_for(page, "zyxwvutsr") == []
    assert "Nothing" in page.locator(".finder [role=status]").text_content()
    assert "gumbel_noise" in look_for(page, "gumbel")[:2]
    assert look_for(page, "gumbel_noise")[0] == "gumbel_noise"
    assert page.locator(".finder mark").first.text_content().lower() == "gumbel_noise"
    page.keyboard.press("Enter")
    page.wait_for_url("**/w52_noise.html#def-gumbel_noise")
    code = page.locator("#def-gumbel_noise pre")
    assert code.is_visible(), "folded code that is searched for is opened"
    assert "def gumbel_noise" in code.text_content()


@pytest.mark.parametrize("width", [390, 1440])
def test_a_search_for_something_long_stays_in_its_window(page_factory, width):
    page = page_factory("index.html", width=width)
    page.keyboard.press("/")
    page.locator(".finder input").fill("w" * 500)
    status = page.locator(".finder [role=status]")
    status.filter(has_text="Nothing in the book matches").wait_for()
    assert status.evaluate("e => e.scrollWidth - e.clientWidth") <= 0


def test_search_works_by_keyboard_from_opening_to_closing(page_factory):
    page = page_factory("index.html")
    button = page.locator(".sidebar .find")
    button.focus()
    page.keyboard.press("Control+k")
    field = page.locator(".finder input")
    assert field.evaluate("e => e === document.activeElement")
    look_for(page, "token")
    chosen = page.locator('.finder [aria-selected="true"]')
    first = chosen.get_attribute("id")
    assert field.get_attribute("aria-activedescendant") == first
    page.keyboard.press("ArrowDown")
    assert chosen.get_attribute("id") != first and chosen.count() == 1
    page.keyboard.press("ArrowUp")
    assert chosen.get_attribute("id") == first
    page.keyboard.press("Escape")
    assert not page.locator(".finder").is_visible()
    assert button.evaluate("e => e === document.activeElement")


@pytest.mark.parametrize("scheme, width", [("light", 1440), ("dark", 390)])
def test_the_search_is_accessible(page_factory, axe, scheme, width):
    page = page_factory(SAMPLING, scheme=scheme, width=width)
    page.locator(".find:visible").click()
    assert len(look_for(page, "temperature")) > 2
    assert axe(page) == []
    assert sideways(page) <= 0


def test_the_index_is_small_and_everything_in_it_has_an_address(book_html):
    script = (book_html / "assets/search.js").read_text()
    assert len(script) < 1_500_000
    index = json.loads(script.removeprefix("window.tinyllmIndex=").rstrip(";\n"))
    assert [page for page, *_ in index] == CHAPTERS
    kinds = set()
    for page, _, _, entries in index:
        names = set(re.findall(r'\bid="([^"]+)"', (book_html / page).read_text())) | {""}
        kinds |= {kind for kind, *_ in entries}
        assert [anchor for _, anchor, *_ in entries if anchor not in names] == [], page
    assert kinds == {"section", "code", "term"}


# The front page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height, doors", [(1280, 800, 3), (390, 844, 1)])
def test_the_first_screen_has_the_model_and_the_doors(page_factory, axe, scheme, width, height, doors):
    page = page_factory("index.html", scheme=scheme, width=width, height=height)
    model = page.locator("tl-loop section")
    box = model.bounding_box()
    assert box["y"] > 0 and box["y"] + box["height"] <= height
    seen = [door for door in page.locator(".door a, .door pre").all() if door.bounding_box()["y"] + 16 <= height]
    assert len(seen) >= doors
    assert page.locator(".door strong").all_inner_texts() == ["Read.", "Run.", "Look inside."]
    assert axe(page) == []


def reading_time(paths) -> tuple[float, float]:
    """Minutes of the short path and hours of the long one, at 200 words and 30 lines of code a minute."""
    minutes = hours = 0.0
    for path in paths:
        inside = True
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                for line in re.sub(r"(?s)```.*?```", "", source).splitlines():
                    words = len(re.findall(r"\w+", line))
                    hours += words / 200 / 60
                    if line.startswith("## "):
                        inside = line.startswith(("## The idea", "## Summary"))
                    else:
                        minutes += inside * words / 200
            elif cell["cell_type"] == "code" and not re.search(r"#\| *(include|echo): *false", source):
                code = [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]
                hours += len(code) / 30 / 60
    return minutes, hours


def test_the_front_page_says_how_long_reading_takes(page_factory):
    text = page_factory("index.html").locator("article").inner_text().replace("\xa0", " ")
    chapters = [c for c in read_config(ROOT).chapters if c.path.suffix == ".ipynb"]
    minutes, hours = reading_time(c.path for c in chapters if not c.part.startswith("The workshop"))
    said = int(re.search(r"21 chapters take (\d+) minutes", text)[1])
    assert abs(said - minutes) <= 3 and said <= 90
    assert abs(int(re.search(r"code of them takes (\d+) hours", text)[1]) - hours) <= 0.6
    workshop = reading_time(c.path for c in chapters if c.part.startswith("The workshop"))[1]
    assert abs(int(re.search(r"takes another (\d+) hours", text)[1]) - workshop) <= 0.6


def test_the_map_leads_to_every_notebook_of_the_workshop(page_factory):
    page = page_factory("index.html")
    workshop = [c for c in read_config(ROOT).chapters if c.part and c.part.startswith("The workshop")]
    hrefs = page.locator(".book-rooms a").evaluate_all("all => all.map((a) => a.getAttribute('href'))")
    assert hrefs == [c.page for c in workshop]
    for room in page.locator(".rooms a").all():
        href = room.get_attribute("href")
        assert not href.startswith("#") or page.locator(href).count() == 1


# Quick checks


def test_every_quick_check_is_one_to_try_and_has_one_right_answer(book_html):
    found = 0
    for chapter in read_config(ROOT).chapters:
        if chapter.path.suffix != ".ipynb":
            continue
        cells = json.loads(chapter.path.read_text())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        page = (book_html / chapter.page).read_text()
        checks = page.split('<div class="quick-check">')[1:]
        assert len(checks) == len(re.findall(r"^\*\*Quick check", text, re.M)), chapter.source
        for check in checks:
            kinds = re.findall(r'<details name="check-\d+" class="(right|wrong)">', check)
            assert kinds.count("right") == 1 and kinds.count("wrong") >= 2, f"{chapter.source}: {check[:200]}"
        found += len(checks)
    assert found >= 18


@pytest.mark.parametrize("javascript", [True, False])
def test_a_quick_check_says_right_or_wrong_and_why(page_factory, javascript):
    page = page_factory("nbs/04_attention.html", javascript=javascript)
    check = page.locator(".quick-check").first
    wrong, right = check.locator("details.wrong").first, check.locator("details.right")
    assert not check.locator(".reason:visible").count()
    wrong.locator("summary").focus()
    page.keyboard.press("Enter")
    assert wrong.locator(".reason").inner_text().startswith("No. A ")
    right.locator("summary").click()
    assert right.locator(".reason").inner_text().startswith("Right. ")
    assert check.locator("details[open]").count() == 1, "one answer at a time"
    assert check.locator("summary").all_inner_texts()[0].split("\n")[0].strip() == "A"


# Code: from a name to its definition, from a page to its files


def code_links(page: Path):
    """(word, page it leads to, anchor) of each link from a name of code in the text."""
    for address, word in re.findall(r'<a href="([^"]*)" class="code-link"><code>(.*?)</code>', page.read_text()):
        file, _, anchor = address.partition("#")
        yield word.removesuffix("()"), (page.parent / file).resolve() if file else page, anchor


def defines(code: str, word: str) -> bool:
    """Whether a cell defines a name, or a class with that method or field."""
    first, _, inner = word.partition(".")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.parse(code).body:
        if isinstance(node, kinds) and node.name == first:
            fields = [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
            return not inner or inner in [getattr(n, "name", getattr(n, "id", "")) for n in [*node.body, *fields]]
    return False


def test_a_name_in_the_text_leads_to_the_cell_that_defines_it(book_html):
    found = 0
    for name in CHAPTERS:
        headings = re.findall(r"(?s)<h[1-4][^>]*>(.*?)</h[1-4]>", (book_html / name).read_text())
        assert not any("code-link" in heading for heading in headings), name
        for word, page, anchor in code_links(book_html / name):
            cell = re.search(rf'id="{anchor}".*?<pre[^>]*><code[^>]*>(.*?)</code></pre>', page.read_text(), re.S)
            code = html.unescape(re.sub(r"<[^>]+>", "", cell[1]))
            assert defines(code, word), f"{name}: {word} leads to {page.name}#{anchor}"
            found += 1
    assert found > 100


def test_no_name_is_linked_where_the_text_speaks_of_vllm(book_html):
    for name in CHAPTERS:
        for paragraph in re.findall(r"(?s)<(?:p|li|td)>(.*?)</(?:p|li|td)>", (book_html / name).read_text()):
            assert "code-link" not in paragraph or "vLLM" not in re.sub(r"<[^>]+>", "", paragraph), paragraph


def test_each_page_leads_to_its_notebook_and_its_module(book_html):
    for chapter in read_config(ROOT).chapters:
        if chapter.path.suffix != ".ipynb":
            continue
        page = book_html / chapter.page
        line = re.search(r'<p class="module">(.*?)</p>', page.read_text())[1]
        notebook, *module = [(page.parent / a).resolve() for a in re.findall(r'href="([^"#]+)"', line)]
        assert notebook.read_bytes() == chapter.path.read_bytes()
        if code := re.search(r"<code>(.*?)</code>", line):
            assert module[0].read_bytes() == (ROOT / code[1]).read_bytes()
            begin = re.search(r'href="#([^"]+)"', line)
            assert begin is None or f'id="{begin[1]}"' in page.read_text()


def test_a_name_that_could_mean_two_things_is_not_linked():
    def page(*cells, text=""):
        cells = [{"cell_type": "code", "source": source} for source in cells]
        return names.read({"cells": [*cells, {"cell_type": "markdown", "source": text}]})

    text = "`Pool`, `Pool.take()`, `Pool.none`, `take_one`, `take`, `size_of`, `Twice`, `_own`"
    pool = "class Pool:\n    size: int\n    def take(self, size_of): ...\nclass Twice: ..."
    functions = "def take_one(): ...\ndef size_of(): ...\ndef _own(): ...\nclass Twice: ..."
    one = page("#| default_exp a.one", f"#| export\n{pool}")
    two = page("#| default_exp b.two", f"#| export\n{functions}")
    reader = page("from tinyllm.b.two import Twice", text=text)
    local = page("class Pool: ...", "from other import take_one", text=text)
    found = names.resolve({"nbs/1.ipynb": one, "nbs/2.ipynb": two, "nbs/3.ipynb": reader, "nbs/4.ipynb": local})
    assert found == {"nbs/3.ipynb": {
        "Pool": "nbs/1.ipynb#def-Pool", "Pool.take": "nbs/1.ipynb#def-Pool",
        "Twice": "nbs/2.ipynb#def-Twice", "take_one": "nbs/2.ipynb#def-take_one",
    }}  # fmt: skip


# Switches, the drawer, copying


def test_the_code_switch_opens_all_code_and_is_remembered(page_factory, book_html):
    page = page_factory(TOKENS)
    switch, code = page.locator("#unfold"), page.locator("details.code-fold pre")
    assert not code.first.is_visible()
    switch.click()
    assert switch.get_attribute("aria-checked") == "true" and code.first.is_visible()
    page.goto((book_html / SAMPLING).as_uri())
    assert switch.get_attribute("aria-checked") == "true" and code.first.is_visible()
    switch.press("Space")
    assert switch.get_attribute("aria-checked") == "false" and not code.first.is_visible()


def test_the_theme_switch_is_remembered(page_factory, book_html):
    page = page_factory("index.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    dark = page.evaluate(ground)
    page.goto((book_html / TOKENS).as_uri())
    assert light != dark and page.evaluate(ground) == dark


def test_the_drawer_works_by_keyboard_and_keeps_the_focus(page_factory):
    page = page_factory(TOKENS, width=800)
    menu, sidebar = page.locator("#menu"), page.locator("#sidebar")
    inside = "document.activeElement.closest('#sidebar') !== null"
    assert not sidebar.is_visible()
    menu.focus()
    page.keyboard.press("Enter")
    assert menu.get_attribute("aria-expanded") == "true" and page.evaluate(inside)
    page.locator("#shut").focus()
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
        assert page.evaluate(f"document.activeElement === document.body || {inside}")
    page.keyboard.press("Escape")
    assert menu.get_attribute("aria-expanded") == "false"
    assert menu.evaluate("e => e === document.activeElement")
    menu.click()
    page.locator("#shut").click()
    assert menu.get_attribute("aria-expanded") == "false"


@pytest.mark.parametrize("width", [390, 1440])
def test_the_workshop_is_folded_by_room_and_the_group_of_the_page_is_open(page_factory, book_html, width):
    page = page_factory("nbs/w06_kernel_norm.html", width=width)
    if width < 1020:
        page.locator("#menu").click()
    groups = page.locator("#sidebar details.group")
    parts = [c.part for c in read_config(ROOT).chapters if c.part and c.part.startswith("The workshop: ")]
    assert groups.locator("summary").all_text_contents() == [
        name[0].upper() + name[1:] for name in (part.partition(": ")[2] for part in dict.fromkeys(parts))
    ]
    assert page.locator("#sidebar .part", has_text="The workshop").count() == 1
    opened = groups.and_(page.locator("[open]"))
    assert opened.count() == 1 and "for the norm" in opened.text_content()
    first = groups.first.locator("summary")
    assert not groups.first.locator("a").first.is_visible()
    first.focus()
    page.keyboard.press("Enter")
    assert groups.first.locator("a").first.is_visible() and page.url.endswith("w06_kernel_norm.html")
    page.goto((book_html / TOKENS).as_uri())
    assert page.locator("#sidebar details.group[open]").count() == 0


def test_the_skip_link_comes_first_and_leads_to_the_text(page_factory):
    page = page_factory(TOKENS)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the text"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_code_and_outputs_are_copied_as_they_are(page_factory):
    page = page_factory(TOKENS)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_all_code(page)
    for holder in (page.locator("#def-BPE"), page.locator(".cell-output:has(pre)").first):
        button = holder.locator("button.copy").first
        button.click()
        page.wait_for_function("button => button.textContent === 'Copied'", arg=button.element_handle())
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.strip() == holder.locator("pre").first.text_content().strip()


def test_keys_that_turn_pages_leave_typing_alone(page_factory):
    page = page_factory(SAMPLING)
    page.keyboard.press("/")
    look_for(page, "mask")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert page.url.endswith(SAMPLING)
    with page.expect_navigation():
        page.keyboard.press("ArrowLeft")
    assert page.url.endswith("nbs/09_full_model.html")


def test_keys_typed_into_a_widget_stay_in_it(page_factory):
    page = page_factory(TOKENS)
    field = page.locator("tl-tokenizer textarea").first
    field.fill("a b")
    field.press("/")
    field.press("ArrowLeft")
    field.press("x")
    assert field.input_value() == "a bx/"
    button = page.locator("tl-tokenizer button:enabled").last
    button.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)  # a page that is turned would come
    assert page.url.endswith(TOKENS) and not page.locator(".finder").count()


def test_a_figure_is_its_own_address(page_factory):
    page = page_factory(TOKENS)
    page.locator("figcaption a.caption-number").first.click()
    assert re.search(r"#fig-[\w-]+$", page.url)


# Notes, paper, no scripts


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    """A page with footnotes, of a book of its own."""
    folder = tmp_path_factory.mktemp("notes")
    (folder / "index.qmd").write_text(NOTES)
    shutil.copytree(ROOT / "book/theme", folder / "book/theme")
    settings = {
        "project": {"type": "book"},
        "book": {"title": "Small", "chapters": ["index.qmd"]},
        "format": {"html": {"css": "book/theme/book.css"}},
    }
    (folder / "_quarto.yml").write_text(yaml.safe_dump(settings))
    assert main(["html", "--root", str(folder)]) == 0
    return folder / "_book/index.html"


def test_notes_stand_in_the_margin_where_there_is_one(page_factory, axe, notes):
    page = page_factory(notes)
    assert not page.locator(".find:visible").count(), "a book without an index has no search"
    margin, end = page.locator(".margin-note"), page.locator("section.footnotes")
    text = page.locator("main").bounding_box()
    boxes = [note.bounding_box() for note in margin.all()]
    assert [" ".join(note.inner_text().split()) for note in margin.all()] == [
        "1 Said in a box.",
        "2 The first, with code.",
        "3 The second.",
    ]
    assert all(box["x"] >= text["x"] + text["width"] for box in boxes)
    assert all(a["y"] + a["height"] <= b["y"] for a, b in itertools.pairwise(boxes))
    assert not end.is_visible() and axe(page) == []
    page.locator("a.footnote-ref").nth(1).click()
    assert margin.nth(1).evaluate("e => e === document.activeElement")
    page.set_viewport_size({"width": 1000, "height": 800})
    assert end.is_visible() and not margin.first.is_visible()
    page.set_viewport_size({"width": 1440, "height": 800})
    page.emulate_media(media="print")
    assert end.is_visible() and not margin.first.is_visible()


def test_paper_has_the_text_and_nothing_around_it(page_factory):
    page = page_factory(TOKENS, scheme="dark")
    page.emulate_media(media="print")
    for around in (".bar", ".sidebar", ".toc", ".turn", ".code-fold > summary"):
        assert not page.locator(around).first.is_visible(), around
    assert page.locator("article h2").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('article')).color") == "rgb(32, 36, 43)"
    page.emulate_media(media="screen")
    page.locator("#unfold").click()
    page.emulate_media(media="print")
    assert page.locator(".code-fold pre").first.is_visible(), "code that the reader opened is printed"


@pytest.mark.parametrize("name", SOME)
def test_without_scripts_there_is_still_a_book(page_factory, book_html, name):
    page = page_factory(name, width=390, height=844, javascript=False)
    assert len(page.locator("article").inner_text()) > 1000
    assert page.locator("button:visible").count() == 0, "no button that does nothing"
    assert page.locator(f'#sidebar a[href$="{Path(TOKENS).name}"]').first.is_visible()
    for twin in page.locator(".tl-static").all():
        assert twin.is_visible()
    fold = page.locator("details.code-fold")
    if fold.count():
        fold.first.locator("summary").click()
        assert fold.first.locator("pre").is_visible()


# Time


@pytest.mark.apart
def test_the_whole_book_is_made_from_nothing_with_little_work(whole_book, capsys):
    """In yardsticks, since no second is as long on another processor: 65 to 70 are needed today."""
    spent = json.loads((whole_book / "spent.json").read_text())
    with capsys.disabled():
        print("\n[book] all of it from nothing, pages and PDF: {seconds:.1f} s, {core:.1f} s of a core".format(**spent))
    assert spent["core"] < 100 * spent["yard"]
