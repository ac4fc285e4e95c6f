"""The glossary: what it promises of its entries, of the chapters' words, and of the pages."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from press import html, names, pandoc, refs, source
from press.config import read_config
from press.pandoc import text_of

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = yaml.safe_load((ROOT / "book/glossary.yml").read_text(encoding="utf-8"))
ENTRIES = {entry["term"]: entry for entry in GLOSSARY["terms"]}
BOOK = read_config(ROOT)


def number(chapter) -> str:
    """"04" or "w01"; empty for a page that is no chapter."""
    found = re.match(r"w?\d+", chapter.name)
    return found[0] if found else ""


CHAPTERS = {number(c): c for c in BOOK.chapters if number(c)}
ORDER = {name: place for place, name in enumerate(sorted(CHAPTERS))}  # 01 to 21, then w01 to w16


def slug(term: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")


def allowed_from(entry: dict) -> int:
    return ORDER[entry.get("preview", entry["chapter"])]


@cache
def words_of_code() -> dict[str, dict[str, str]]:
    """As the book's render has them: trees are remembered, and are made anew for other words."""
    return names.write(ROOT)


@cache
def tree(name: str) -> list:
    """A chapter's blocks as the filters leave them."""
    chapter = CHAPTERS[name]
    return source.read(chapter, BOOK, [], words_of_code().get(chapter.source, {})).blocks


def filtered(text: str, chapter: str = "nbs/05_multi_head_attention.ipynb") -> list:
    """Markdown as the glossary's filter leaves it in a chapter."""
    arguments = ["-f", pandoc.MARKDOWN, "-t", "json", f"--metadata=chapter-source:{chapter}"]
    arguments += [f"--lua-filter={ROOT / 'book/filters/glossary.lua'}"]
    return json.loads(pandoc.run(arguments, text, ROOT))["blocks"]


class Words(pandoc.Walker):
    """Collects what a tree marks, introduces and sets in italics: (paragraph, cell, term or text)."""

    def __init__(self):
        self.cell, self.paragraph = None, 0
        self.marked, self.introduced, self.italics, self.pointed = [], [], [], {}

    def on_RawBlock(self, content):
        if content[0] == "press":
            self.cell = int(content[1])
        return []

    def on_Para(self, content):
        self.paragraph += 1
        return [{"t": "Para", "c": self.walk(content)}]

    def on_Plain(self, content):
        self.paragraph += 1
        return [{"t": "Plain", "c": self.walk(content)}]

    def skip(self, content):
        return []

    on_CodeBlock = on_Header = on_Table = on_Figure = on_Note = skip

    def on_Div(self, content):
        return [] if "cell" in content[0][1] else self.walk(content[1])

    def on_Link(self, content):
        (_, classes, pairs), _, _ = content
        if "tl-term" in classes:
            self.marked.append((self.paragraph, self.cell, dict(pairs)["data-term"]))
        return [pandoc.element("Link", *content)]

    def on_Span(self, content):
        (_, classes, pairs), inlines = content
        if "tl-defined" in classes:
            self.introduced.append((self.paragraph, self.cell, dict(pairs)["data-term"]))
            return []
        return [pandoc.element("Span", content[0], self.walk(inlines))]

    def on_Emph(self, content):
        self.italics.append((self.paragraph, self.cell, text_of(content)))
        return [pandoc.element("Emph") | {"c": self.walk(content)}]

    def on_Cite(self, content):
        self.pointed.setdefault(self.paragraph, set()).update(c["citationId"] for c in content[0])
        return []


def words(blocks: list) -> Words:
    found = Words()
    found.walk(blocks)
    return found


def names_section(name: str) -> set[str]:
    """The identifiers of a chapter's sections, by which others point to it."""
    return {b["c"][1][0] for b in tree(name) if b["t"] == "Header"}


# ---- The entries ----


def test_every_entry_names_chapters_of_the_book():
    for term, entry in ENTRIES.items():
        assert entry["chapter"] in CHAPTERS, term
        for other in [entry.get("preview", "01"), *entry.get("except", [])]:
            assert other in CHAPTERS, term
        assert allowed_from(entry) <= ORDER[entry["chapter"]], f"{term}: a preview comes before the chapter"


def test_entries_have_the_fields_that_the_head_of_the_file_explains():
    assert len(ENTRIES) == len(GLOSSARY["terms"]), "two entries have one name"
    head = (ROOT / "book/glossary.yml").read_text().split("emphasis:")[0]
    explained = set(re.findall(r"^#   (\w+) ", head, re.M))
    for term, entry in ENTRIES.items():
        assert set(entry) <= explained, term
        assert {"term", "chapter", "definition"} <= set(entry), term
    assert len({slug(term) for term in ENTRIES}) == len(ENTRIES)


def test_see_also_leads_to_other_entries():
    for term, entry in ENTRIES.items():
        assert set(entry.get("see", [])) <= set(ENTRIES) - {term}, term


def test_no_two_entries_mark_the_same_words():
    owners: dict[str, str] = {}
    for term, entry in ENTRIES.items():
        for form in {f.lower() for f in entry.get("only", [term, *entry.get("forms", [])])}:
            assert form not in owners, f"{form!r} belongs to {owners[form]!r} and to {term!r}"
            owners[form] = term


@pytest.mark.parametrize("term", ENTRIES)
def test_a_definition_is_one_sentence(term):
    definition = ENTRIES[term]["definition"]
    assert definition.endswith(".") and definition[0].isupper()
    assert not re.search(r"[.!?] +[A-Z]", definition)
    assert len(definition.split()) <= 40


def test_a_definition_uses_later_words_only_with_a_see_also(glossary_page):
    """What a definition says must be known by then, or be one step away."""
    problems = []
    for term, used in glossary_page.items():
        here = ORDER[ENTRIES[term]["chapter"]]
        later = [u for u in used if allowed_from(ENTRIES[u]) > here and u not in ENTRIES[term].get("see", [])]
        problems += [f"{term}: uses {u!r}, which {ENTRIES[u]['chapter']} introduces" for u in later]
    assert not problems


@pytest.fixture(scope="module")
def glossary_page():
    """term -> the terms that its definition uses, from the page."""
    page = next(c for c in BOOK.chapters if c.name == "glossary")
    blocks, found = source.read(page, BOOK, []).blocks, {}

    class Lists(pandoc.Walker):
        def on_DefinitionList(self, items):
            for term, definitions in items:
                used = words(definitions[0])
                found[text_of(term)] = [t for _, _, t in used.marked]
            return []

    Lists().walk(blocks)
    return {term: used for term, used in found.items() if term in ENTRIES}


def test_the_page_has_every_entry(glossary_page):
    assert list(glossary_page) == sorted(ENTRIES, key=str.lower)


# ---- The chapters ----


@pytest.mark.parametrize("name", sorted(CHAPTERS, key=ORDER.get))
def test_no_term_is_used_before_its_chapter(name):
    """A paragraph may use a later chapter's word if it points to that chapter."""
    found, problems = words(tree(name)), []
    for paragraph, cell, term in [*found.marked, *found.introduced]:
        entry = ENTRIES[term]
        pointed = found.pointed.get(paragraph, set()) & names_section(entry["chapter"])
        if allowed_from(entry) > ORDER[name] and not pointed:
            problems.append(
                f"{CHAPTERS[name].source}, cell {cell}: {term!r} comes before {entry['chapter']} introduces it: "
                "explain it here (and give the entry this chapter as `preview`), or say it in other words"
            )
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", sorted(CHAPTERS, key=ORDER.get))
def test_every_word_in_italics_is_an_entry_or_known_to_be_stressed(name):
    problems = []
    for _, cell, text in words(tree(name)).italics:
        sentence = text[-1:] in ".!?…" or len(text.split()) > 4
        if not sentence and text.lower() not in {e.lower() for e in GLOSSARY["emphasis"]}:
            problems.append(
                f"{CHAPTERS[name].source}, cell {cell}: *{text}* has no entry in book/glossary.yml: "
                "write one, or list it under `emphasis` if the italics only stress it"
            )
    assert not problems, "\n".join(problems)


def test_emphasis_lists_nothing_that_is_an_entry():
    forms = {f.lower() for e in ENTRIES.values() for f in [e["term"], *e.get("forms", [])]}
    assert not forms & {e.lower() for e in GLOSSARY["emphasis"]}


@pytest.mark.parametrize("name", sorted(CHAPTERS, key=ORDER.get))
def test_a_chapter_is_where_the_glossary_says_that_words_are_introduced(name):
    there = refs.identifiers(tree(name))
    for term, entry in ENTRIES.items():
        if entry["chapter"] == name:
            assert f"word-{slug(term)}" in there


# ---- The filter ----


def marks(text: str, **more) -> list[str]:
    return [term for _, _, term in words(filtered(text, **more)).marked]


def test_only_the_first_use_in_a_chapter_is_marked():
    assert marks("A token, then a second token.\n\nAnd *more* tokens.") == ["token"]


def test_the_longest_words_win_and_plurals_and_capitals_count():
    assert marks("Query heads share key/value\nheads. Time to first token!") == [
        "attention head",
        "key/value head",
        "time to first token",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "`token`",
        "## A token {#sec-x}",
        "[a token](https://example.org)",
        "```\ntoken\n```",
        "$token$",
        "| token |\n|---|\n| token |\n\n: A token. {#tbl-x}",
        "![A token](x.png){#fig-x}",
        "::: {.cell}\nA token\n:::",
        "Text.^[A token.]",
        "tokenish untoken token-like",
    ],
)
def test_code_headings_links_captions_and_parts_of_words_are_left_alone(text):
    assert "tl-term" not in json.dumps(filtered(text))
    assert "tl-term" in json.dumps(filtered(f"A token.\n\n{text}"))


def test_where_a_chapter_introduces_a_word_it_gets_a_name_and_no_mark():
    blocks = filtered("Tokens come before.\n\nA *token* is a token.\n\nA token again.", chapter="nbs/01_x.ipynb")
    found = words(blocks)
    assert [(p, t) for p, _, t in found.marked] == [(1, "token")]
    assert [(p, t) for p, _, t in found.introduced] == [(2, "token")]
    assert "word-token" in refs.identifiers(blocks[1])
    assert "word-token" not in refs.identifiers(blocks[0])


def test_a_later_chapter_may_introduce_a_word_again_without_taking_its_name():
    blocks = filtered("A *token* is a token. \n\nA token again.")
    assert words(blocks).introduced and not words(blocks).marked
    assert "word-token" not in refs.identifiers(blocks)


def test_an_everyday_word_is_marked_from_its_chapter_on():
    assert marks("The decode of it.", chapter="nbs/02_tokens.ipynb") == []
    assert marks("The decode of it.", chapter="nbs/12_kv_cache.ipynb") == ["decode"]


def test_quotation_marks_breaks_and_possessives_end_a_word():
    assert marks('The “token’s” id, a *softmax*—and the KV\ncache.') == ["token", "KV cache"]


def test_the_same_letters_mean_what_the_chapter_means():
    def meant(chapter):
        return [t for _, _, t in words(filtered("To *decode* and the *head*.", chapter=chapter)).introduced]

    assert meant("nbs/02_tokens.ipynb") == ["decode (text)", "output head"]
    assert meant("nbs/11_prefill_and_decode.ipynb") == ["decode", "attention head"]


def test_a_mark_is_a_link_that_carries_the_definition(tmp_path):
    page = replace(CHAPTERS["05"], blocks=filtered("A token."), references=[], module="")
    text = html.write_body(page, replace(BOOK, root=tmp_path)).html
    found = re.search(r"<a\b[^>]*>token</a>", text)[0]
    assert 'class="tl-term"' in found and "glossary.qmd#term-token" in found
    assert ENTRIES["token"]["definition"] in found


# ---- The pages, in a browser ----

PAGE = "nbs/04_attention.html"


def term(page):
    """The first marked word of the page."""
    return page.locator("a.tl-term").first


def shows(page) -> None:
    """Wait for the tooltip of that word, and compare what it says and to whom."""
    page.locator("#tl-tip").wait_for(state="visible")
    text, name = page.locator("#tl-tip").inner_text(), term(page).get_attribute("data-term")
    assert text.startswith(name) and ENTRIES[name]["definition"] in text
    assert term(page).get_attribute("aria-describedby") == "tl-tip"
    assert page.locator("#tl-tip").get_attribute("role") == "tooltip"


def hidden(page) -> None:
    page.locator("#tl-tip").wait_for(state="hidden")
    assert page.locator("[aria-describedby=tl-tip]").count() == 0


def inside_the_window(page) -> bool:
    box = page.locator("#tl-tip").bounding_box()
    size = page.evaluate("[document.documentElement.clientWidth, innerHeight]")
    return (
        box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= size[0]
        and box["y"] + box["height"] <= size[1]
    )


def test_hovering_shows_the_meaning_which_stays_while_the_pointer_is_on_it(page_factory):
    page = page_factory(PAGE)
    term(page).hover()
    shows(page)
    page.locator("#tl-tip").hover()
    page.wait_for_timeout(500)
    shows(page)
    page.mouse.move(2, 2)
    hidden(page)


def test_the_keyboard_reaches_each_word_and_escape_closes(page_factory):
    page = page_factory(PAGE)
    term(page).focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    shows(page)
    page.keyboard.press("Escape")
    hidden(page)
    assert term(page).evaluate("e => e === document.activeElement")
    page.keyboard.press("Tab")  # the next word shows its own
    page.locator("#tl-tip").wait_for(state="visible")


def test_a_first_tap_shows_and_a_second_follows(page_factory):
    page = page_factory(PAGE, width=390, height=780, touch=True)
    term(page).tap()
    shows(page)
    assert page.url.endswith("04_attention.html")
    page.locator("h1").first.tap()
    hidden(page)
    term(page).tap()
    shows(page)
    name = slug(term(page).get_attribute("data-term"))
    term(page).tap()
    page.wait_for_url(f"**/book/glossary.html#term-{name}")


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_the_meaning_is_never_cut_off(page_factory, width):
    page = page_factory(PAGE, width=width, height=420)
    widest = page.evaluate("document.documentElement.scrollWidth")
    for link in page.locator("a.tl-term").all()[::3]:
        if link.evaluate("e => !!e.closest('details:not([open])')"):
            continue
        for block in ("start", "end"):  # below the bar, and at the lower edge
            link.evaluate("(e, block) => e.scrollIntoView({block, behavior: 'instant'})", block)
            link.evaluate(
                """e => { const at = e.getClientRects()[0];
                e.dispatchEvent(new PointerEvent('pointerenter', {pointerType: 'mouse', clientY: at.top + 2})) }"""
            )
            page.wait_for_function("document.querySelector('[aria-describedby=tl-tip]')")
            assert inside_the_window(page), link.get_attribute("data-term")
            assert page.evaluate("document.documentElement.scrollWidth") == widest
            page.keyboard.press("Escape")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_words_tooltip_and_glossary_pass_axe(page_factory, axe, scheme, width):
    page = page_factory(PAGE, width=width, scheme=scheme)
    term(page).hover()
    shows(page)
    assert axe(page) == []
    page = page_factory("book/glossary.html", width=width, scheme=scheme)
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_javascript_a_word_is_a_link(page_factory):
    page = page_factory(PAGE, javascript=False)
    assert page.locator("#tl-tip").count() == 0
    name = slug(term(page).get_attribute("data-term"))
    term(page).click()
    page.wait_for_url(f"**/book/glossary.html#term-{name}")
    assert page.locator(f"#term-{name}").is_visible()


def test_the_glossary_leads_back_to_where_a_word_is_introduced(page_factory):
    page = page_factory("book/glossary.html")
    page.locator('a[href$="02_tokens.html#word-byte-pair-encoding"]').click()
    page.wait_for_url("**/02_tokens.html#word-byte-pair-encoding")
    assert page.locator("#word-byte-pair-encoding").inner_text() == "byte-pair encoding"
