"""The printed book: what stands in it, that links lead somewhere, and that nothing leaves the page."""
import base64
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdf
import pypdfium2
import pytest
import yaml
from conftest import the_whole_book_is_made

from press import __main__ as press
from press import pdf
from press.config import Book, BookError, Chapter, read_config
from press.pandoc import text_of

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="900"><circle r="450"/></svg>'
ARGUMENTS = ", ".join(f"argument_{i}=None" for i in range(12))
LONG = f"def f({ARGUMENTS}):\n        return '{'x' * 200}'"

HEAD = "---\ntitle: {title}\nsubtitle: Text → numbers\nmodule: tinyllm/model/tokenizer.py\n---\n"
TOKENS = HEAD.format(title="Tokens") + f"""
A question: what does a model see?[^note] Compare @fig-circle, @tbl-numbers, @eq-softmax and
[the second chapter](second.qmd), or [its summary](second.qmd#summary).
Café, naïve, 🙂, 日本; \\$ # \\@ \\_ \\* < > \\` ~ in text [@first2020].

[^note]: A footnote at the foot.

## The idea {{#sec-idea}}

```python
{LONG}
```

::: {{.cell-output}}
```
{" ".join(str(n) for n in range(80))}
```
:::

$$ \\mathrm{{softmax}}(z)_i = \\frac{{e^{{z_i}}}}{{\\sum_j e^{{z_j}}}} $$ {{#eq-softmax}}

![A circle. It is black.](circle.svg){{#fig-circle fig-alt="A black circle"}}

| name | {" | ".join("a_very_long_column_name_" + str(i) for i in range(7))} |
|------|{"---|" * 7}
| row  | {" | ".join("1,234,567.89" for _ in range(7))} |

: Numbers. {{#tbl-numbers}}

::: {{.callout-tip collapse="true"}}
## Solution
The answer is `{"answer_" * 30}`.
:::

::: {{.content-visible when-format="html"}}
Only on screen.
:::

::: {{.content-visible unless-format="html"}}
Only on paper.
:::

## Summary

Three lines.
"""
PAGEBREAK = "\n\n```{=typst}\n#pagebreak()\n```\n\n"
SECOND = HEAD.format(title="Second") + f"Another chapter, see @sec-idea.{PAGEBREAK}## Summary\n\nIts own.\n"
WORKS = "@book{first2020, title={A First Book}, author={Doe, Jane}, year={2020}, publisher={A Press}}"


def read(folder: Path, **texts: str) -> tuple[Book, list[Chapter]]:
    """A book of these chapters, as the press reads it."""
    (folder / "works.bib").write_text(WORKS)
    for name, text in texts.items():
        (folder / f"{name}.qmd").write_text(text)
    chapters = [{"part": "Foundations", "chapters": [f"{name}.qmd" for name in texts]}]
    front = {"title": "A book", "subtitle": "and what it says", "author": "An author", "chapters": chapters}
    settings = {"project": {"type": "book"}, "book": front, "bibliography": "works.bib", "number-depth": 2}
    (folder / "_quarto.yml").write_text(yaml.safe_dump(settings))
    book, problems = read_config(folder), []
    chapters = press.read(book, problems)
    if problems:
        raise BookError(problems)
    return book, chapters


def build(folder: Path, **texts: str) -> None:
    pdf.build(*read(folder, **texts), folder / "out.pdf")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder with a book of two chapters that uses everything a chapter may use, and its PDF."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "circle.svg").write_text(SVG)
    build(folder, tokens=TOKENS, second=SECOND)
    return folder


@pytest.fixture(scope="module")
def reader(small) -> pypdf.PdfReader:
    return pypdf.PdfReader(small / "out.pdf")


@pytest.fixture(scope="module")
def text(reader) -> str:
    return "\n".join(page.extract_text() for page in reader.pages)


def words(page) -> str:
    return " ".join(page.extract_text().replace("\xad\n", "").split())  # without the hyphens at line ends


def unwrapped(text: str) -> str:
    return "".join(text.split())


def test_title_author_and_language_stand_in_the_file_and_no_date(reader):
    assert not [key for key in reader.metadata if "Date" in key]
    assert (reader.metadata.title, reader.metadata.author) == ("A book", "An author")
    assert reader.trailer["/Root"]["/Lang"].startswith("en")
    assert "/StructTreeRoot" in reader.trailer["/Root"]  # tagged: readable by a screen reader


def test_title_page_contents_part_and_chapters_come_in_this_order(reader):
    starts = [page.extract_text() for page in reader.pages]
    assert starts[0].split("\n")[:2] == ["A book", "and what it says"]
    assert starts[1].startswith("Contents")
    assert starts[2].split("\n") == ["PART I", "Foundations"]
    assert starts[3].split("\n")[:4] == ["1", "Tokens", "Text → numbers", "tinyllm/model/tokenizer.py"]


def test_contents_give_each_part_chapter_and_section_the_page_where_it_stands(reader):
    contents = reader.pages[1].extract_text()
    for title in ("Foundations", "Tokens", "Second", "The idea", "Summary"):
        assert title in contents
    outline = [entry for entry in flat(reader.outline) if entry.title not in ("Contents", "Figures", "Tables")]
    assert [entry.title for entry in outline] == [
        "Foundations", "1 Tokens", "1.1 The idea", "1.2 Summary", "2 Second", "2.1 Summary", "References",
    ]  # fmt: skip
    for entry in outline:
        page = reader.get_destination_page_number(entry)
        assert entry.title in words(reader.pages[page])
    assert {reader.get_destination_page_number(entry) for entry in outline} <= set(link_targets(reader, 1))


def test_figures_and_tables_are_listed_with_the_first_sentence_of_their_caption_and_their_page(reader):
    contents = words(reader.pages[1])
    page = next(n for n, p in enumerate(reader.pages) if "Figure 1.1: A circle." in words(p))
    assert f"Figures 1.1 A circle {page + 1} Tables 1.1 Numbers " in contents
    assert "It is black" not in contents and "It is black" in words(reader.pages[page])
    assert page in link_targets(reader, 1)
    assert {"Figures", "Tables"} <= {entry.title for entry in flat(reader.outline)}


def flat(outline) -> list:
    return [entry for item in outline for entry in (flat(item) if isinstance(item, list) else [item])]


def link_targets(reader, *numbers: int) -> list[int]:
    """Page numbers that the internal links of these pages lead to."""
    targets = []
    for number in numbers:
        for annotation in reader.pages[number].get("/Annots") or []:
            link = annotation.get_object()
            action = link.get("/A", {}).get_object() if "/A" in link else {}
            destination = link.get("/Dest", action.get("/D"))
            if isinstance(destination, str):
                targets.append(reader.get_destination_page_number(reader.named_destinations[destination]))
            elif destination is not None:
                targets.append(reader.get_page_number(destination[0].get_object()))
    return targets


def test_links_to_chapters_sections_figures_and_works_land_where_they_say(reader):
    links = {number: words(reader.pages[number]) for number in link_targets(reader, 3)}
    assert any("Another chapter" in text for text in links.values())
    assert any("2.1 Summary Its own." in text for text in links.values())  # not the first chapter's
    assert not any("Three lines." in text for text in links.values())
    assert any("Figure 1.1: A circle." in text for text in links.values())
    assert any("A First Book" in text for text in links.values())
    assert "(1.1)" in "".join(links.values()) and "Table 1.1: Numbers." in "".join(links.values())


def test_a_link_to_what_is_only_on_screen_is_an_error_with_its_place(tmp_path):
    text = '::: {#demo .content-visible when-format="html"}\nA demo.\n:::\n\nSee [the demo](#demo).'
    with pytest.raises(BookError, match=r"a\.qmd, line 10: the link to #demo leads nowhere"):
        build(tmp_path, a=HEAD.format(title="Seen") + text)


def test_long_code_and_output_lines_are_wrapped_whole_and_keep_their_indent(text):
    assert unwrapped(LONG) in unwrapped(text)
    assert "\n        return " in text
    assert " ".join(str(n) for n in range(80)) in " ".join(text.split())


def test_text_of_every_kind_is_printed(text):
    whole = " ".join(text.split())
    for sentence in (
        "what does a model see?", "A footnote at the foot.", "Café, naïve", "$ # @ _ * < > ` ~ in text",
        "softmax", "Figure 1.1: A circle.", "Table 1.1: Numbers.", "Solution The answer is", "Only on paper.",
    ):  # fmt: skip
        assert sentence in whole
    assert "answer_" * 30 in unwrapped(text)
    assert "Only on screen." not in whole


def test_code_of_88_columns_is_printed_on_one_line(tmp_path):
    lines = [line.ljust(88, "#") for line in ("total = " + "one + " * 12, "        return (one" + ", two" * 13)]
    code = "\n".join(lines)
    text = f"\n```python\n{code}\n```\n\n::: {{.cell-output}}\n```\n{code}\n```\n:::\n"
    build(tmp_path, code=HEAD.format(title="Code") + text)
    printed = "\n".join(page.extract_text() for page in pypdf.PdfReader(tmp_path / "out.pdf").pages).splitlines()
    for line in lines:
        assert len(line) == 88
        assert [unwrapped(p) for p in printed].count(unwrapped(line)) == 2  # as code and as output


def test_characters_without_a_glyph_are_printed_as_their_code_point(text):
    assert "1F642" in text and "65E5" in text and "672C" in text


def test_pictures_keep_their_alternative_text(reader):
    assert "A black circle" in alternatives(reader.trailer["/Root"]["/StructTreeRoot"])


def alternatives(node) -> list[str]:
    """The /Alt entries of a PDF's structure tree."""
    node = node.get_object()
    if isinstance(node, list):
        return [alt for child in node for alt in alternatives(child)]
    if not isinstance(node, dict):
        return []
    own = [str(node["/Alt"])] if "/Alt" in node else []
    return own + (alternatives(node["/K"]) if "/K" in node else [])


def outside_the_text_block(file: Path) -> list[int]:
    """Numbers of the pages with ink in the left or right margin, looking at the pages as pictures."""
    dots = 40  # per inch
    found = []
    with pypdfium2.PdfDocument(file) as document:
        for number, page in enumerate(document, start=1):
            ink = np.asarray(page.render(scale=dots / 72).to_pil().convert("L")) < 200
            left, right = (0.8, 0.65) if number % 2 else (0.65, 0.8)  # the margin inside the binding is wider
            if ink[:, : int(left * dots) - 2].any() or ink[:, ink.shape[1] - int(right * dots) + 2 :].any():
                found.append(number)
    return found


def test_nothing_runs_into_the_margins(small):
    assert outside_the_text_block(small / "out.pdf") == []


def test_the_margin_check_sees_what_runs_out(tmp_path):
    bad = "```{=typst}\n#box(width: 7in, fill: black, height: 4pt)\n```"
    build(tmp_path, bad=HEAD.format(title="Seen") + bad)
    assert outside_the_text_block(tmp_path / "out.pdf") == [4]


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        ("missing.svg", "does not exist"),
        (data_uri("image/png", b""), "the picture is empty"),
        ("data:image/png;base64,a", "base64 is broken"),
        (data_uri("image/tiff", b"II"), "image/tiff cannot be printed"),
        (data_uri("image/png", b"no picture"), "failed to decode image"),
        (data_uri("image/svg+xml", b"<svg"), "failed to parse SVG"),
    ],
)
def test_a_broken_picture_is_an_error_that_names_the_chapter(tmp_path, picture, why):
    with pytest.raises(BookError, match=f"(?s){why}") as error:
        build(tmp_path, seen=HEAD.format(title="Seen") + f"Look:\n\n![A view]({picture})")
    assert str(error.value).startswith("seen.qmd, line ")
    assert not (tmp_path / "out.pdf").exists()


def test_raw_html_without_a_printed_twin_is_an_error(tmp_path):
    with pytest.raises(BookError, match=r"seen\.qmd, line 6: raw HTML has no printed form: <video>"):
        build(tmp_path, seen=HEAD.format(title="Seen") + "<video>\n</video>")


def test_the_same_book_gives_the_same_bytes(small, tmp_path):
    for name in ("a.pdf", "b.pdf"):
        pdf.build(*read(small, tokens=TOKENS, second=SECOND), tmp_path / name)
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


# The book itself


@dataclass
class Whole:
    """The real book: its chapters, its PDF and the text of each page."""

    chapters: list[Chapter]
    file: Path
    reader: pypdf.PdfReader
    pages: list[str]


@pytest.fixture(scope="module")
def whole(request, root, tmp_path_factory) -> Whole:
    made = the_whole_book_is_made(request)
    book, problems = read_config(request.getfixturevalue("whole_book") if made else root), []
    chapters = press.read(book, problems)
    assert problems == []
    file = book.pdf if made else tmp_path_factory.mktemp("whole") / "book.pdf"
    if not made:
        pdf.build(book, chapters, file)
    with pypdfium2.PdfDocument(file) as document:  # twenty times as fast as pypdf at reading text
        pages = [page.get_textpage().get_text_range() for page in document]
    pages = [" ".join(page.replace("\ufffe\r\n", "").replace("\ufffe", "").split()) for page in pages]
    return Whole(chapters, file, pypdf.PdfReader(file), pages)


def first_page_of(reader: pypdf.PdfReader, title: str) -> int:
    """The page, counted from 0, on which the outline's entry `title` begins."""
    return next(reader.get_destination_page_number(entry) for entry in flat(reader.outline) if entry.title == title)


def test_the_book_has_every_part_chapter_and_level_two_section_in_its_contents(whole):
    outline = [entry.title for entry in flat(whole.reader.outline)]
    contents = " ".join(whole.pages[1 : first_page_of(whole.reader, "Figures") + 1])
    for chapter in whole.chapters:
        title = f"{chapter.number} {chapter.title}".strip()
        assert title in outline and title in contents
        assert not chapter.part or chapter.part in outline
        headings = [block["c"] for block in chapter.blocks if block["t"] == "Header"]
        for section in (text_of(inlines) for level, _, inlines in headings if level == 2):
            assert any(section in entry for entry in outline)


def test_the_sentence_that_the_front_page_plays_is_printed_with_its_probabilities(whole):
    page = next(" ".join(page.split()) for page in whole.pages if "Written by the model of this book" in page)
    assert re.search(r"Once upon a time.*\d+%.*\d+%", page)


def set_words(page) -> list[tuple[str, str, float]]:
    """What is set on a page: words, font and size."""
    found = []
    page.extract_text(visitor_text=lambda text, _, __, font, size: found.append((text.strip(), font, size)))
    return [(text, font["/BaseFont"], size) for text, font, size in found if text]


def test_chapters_1_to_10_open_with_the_model_and_their_part_of_it_lit(whole):
    lit = []
    for chapter in whole.chapters:
        if not re.match(r"0\d_|10_", chapter.name):
            continue
        page = whole.reader.pages[first_page_of(whole.reader, f"{chapter.number} {chapter.title}")]
        small = [(text, font) for text, font, size in set_words(page) if size == 7.5]
        assert {"loop", "tokens", "model", "8 blocks", "output head", "sampling"} <= {text for text, _ in small}
        lit += [text for text, font in small if "Bold" in font]
    parts = "loop tokens embedding attention heads positions MLP 8_blocks model sampling"
    assert lit == [part.replace("_", " ") for part in parts.split()]


def test_the_book_prints_the_caption_of_every_figure_and_table(whole):
    printed = unwrapped("".join(whole.pages))
    captions = [caption for chapter in whole.chapters for caption in captions_in(chapter.blocks)]
    assert captions
    assert [caption for caption in captions if unwrapped(caption) not in printed] == []


def test_the_glossary_stands_before_the_references_and_names_the_pages_of_its_words(whole):
    first = next(n for n, page in enumerate(whole.pages) if "The words of this book in plain language" in page)
    last = next(n for n, page in enumerate(whole.pages) if n > first and "References" in page)
    glossary = " ".join(whole.pages[first:last])
    for term in ("byte-pair encoding", "residual stream", "arithmetic intensity", "learning rate"):
        entry = re.search(rf"{term} [A-Z].*?Chapter \d+, [^.]*?, page (\d+)\.", glossary)
        assert term in whole.pages[int(entry[1]) - 1], term
    terms = [item for c in whole.chapters for b in c.blocks if c.name == "glossary" for item in entries_in(b)]
    assert len(terms) > 90
    assert [term for term in terms if unwrapped(term) not in unwrapped(glossary)] == []


def entries_in(node) -> list[str]:
    if isinstance(node, list):
        return [term for item in node for term in entries_in(item)]
    if not isinstance(node, dict) or "c" not in node:
        return []
    if node["t"] == "DefinitionList":
        return [text_of(term) for term, _ in node["c"]]
    return entries_in(node["c"])


def captions_in(node) -> list[str]:
    """The captions of figures and tables in a tree, up to the first thing that is not plain words."""
    if isinstance(node, list):
        return [caption for item in node for caption in captions_in(item)]
    if not isinstance(node, dict) or "c" not in node:
        return []
    caption = node["c"][1][1] if node["t"] in ("Figure", "Table") else []
    return ([re.match(r"[\w\s:,.]*", text_of(caption))[0]] if caption else []) + captions_in(node["c"])


def test_the_book_has_a_plausible_number_of_pages_and_all_its_links_resolve(whole):
    count = len(whole.pages)
    assert 2 * len(whole.chapters) < count < 40 * len(whole.chapters)
    assert len(link_targets(whole.reader, *range(count))) > 5 * len(whole.chapters)  # a dead link would raise


def test_nothing_in_the_book_runs_into_the_margins(whole):
    assert outside_the_text_block(whole.file) == []


@pytest.mark.parametrize(("lines", "stays"), [(3, True), (20, True), (21, False)])
def test_only_short_code_stays_with_its_output(lines, stays):
    code = {"t": "CodeBlock", "c": [["", ["python"], []], "\n".join(["x = 1"] * lines)]}
    output = {"t": "CodeBlock", "c": [["", [], []], "1"]}
    assert pdf.leads(code, output) is stays
    assert pdf.leads({"t": "Para", "c": []}, code) and not pdf.leads(output, {"t": "Para", "c": []})
