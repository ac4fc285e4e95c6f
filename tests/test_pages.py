"""The book's pages in Chromium, opened from the file system as a reader opens them.

`page_factory` (conftest.py) fails a test on any error in the console and on any request that leaves
the page, so every test here checks that too.
"""

import itertools
import json
import re
import shutil
import urllib.parse
from pathlib import Path

import pytest
import yaml
from press import gallery
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
        loaded = re.findall(r'src="\.\./assets/widgets/(tl-[a-z0-9-]+)\.js"', text)
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
    page.wait_for_url("**/10_sampling.html#def-gumbel_noise")
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
    for holder in (page.locator("#def-BPE"), page.locator(".cell-output").first):
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
def test_the_whole_book_is_made_from_nothing_with_two_core_minutes(whole_book, capsys):
    spent = json.loads((whole_book / "spent.json").read_text())
    with capsys.disabled():
        print("\n[book] all of it from nothing, pages and PDF: {seconds:.1f} s, {core:.1f} s of a core".format(**spent))
    assert spent["core"] < 120
