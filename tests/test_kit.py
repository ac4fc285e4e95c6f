"""The kit: claims that can fail, one style, the tale, the references, and claims that stand in the prose."""
import itertools
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import nbformat
import pytest
from press.execute import missing_claims, prose_of

matplotlib.use("agg")
import matplotlib.pyplot as plt
from tinybook import COLORS, claim, measured, plot_style, say, tale
from tinybook.drawing import box, canvas, linked
from tinybook.style import METADATA

ROOT = Path(__file__).parents[1]
CITATION = re.compile(r"(?<![\w.])@([a-z]+\d{4}\w*)")


@pytest.mark.parametrize("text, value", [
    ("4,096 tokens", 4096), ("4096 tokens", 4096), ("four heads", 4), ("about 6.55 million", 6_549_999),
    ("13.1 MB", 13_115_904), ("16 KiB", 16_384), ("25%", 0.2512), ("-3.5 dB", -3.46), ("\u22122 degrees", -2),
    ("1e-4 relative", 1.4e-4), ("3.3 ms", 16 / 4800), ("0.5", 0.45), ("1.5 k", 1_549), ("8 billion parameters", 8.03e9),
    ("790 TFLOPs", 7.904e14), (".5 s", 0.5),
])
def test_claim_accepts_what_rounds_to_the_printed_number(text, value):
    claim(text, value)


@pytest.mark.parametrize("text, value", [
    ("4,096 tokens", 4097), ("4,096 tokens", 4096.6), ("about 6.55 million", 6_557_952), ("13.1 MB", 13.1),
    ("13.1 MB", 13_200_000), ("16 KiB", 15_000), ("25%", 25), ("25%", 0.256), ("four heads", 5), ("3.3 ms", 3.3),
    ("-3.5 dB", 3.5), ("nothing but 1.0", float("nan")), ("1.00", 1.006),
])
def test_claim_rejects_what_does_not(text, value):
    with pytest.raises(AssertionError):
        claim(text, value)


def test_claim_takes_a_tolerance_or_a_unit():
    claim("about 200 tokens", 213, rel=0.1)
    claim("13.1 MB", 13.1, scale=1)
    with pytest.raises(AssertionError):
        claim("about 200 tokens", 250, rel=0.1)
    with pytest.raises(AssertionError):
        claim("13.1 MB", 13_100_000, scale=1)


def test_failed_claim_shows_what_was_said_and_what_was_found():
    with pytest.raises(AssertionError, match=r"'4,096 tokens'.*4,096.*5,000"):
        claim("4,096 tokens", 5000)


def test_claim_without_a_number_is_an_error():
    with pytest.raises(ValueError, match="no number in 'many tokens'"):
        claim("many tokens", 7)


FIGURE = """
import sys, matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
from tinybook import plot_style
from tinybook.drawing import box, canvas, linked
from tinybook.style import METADATA
plot_style()
fig, ax = plt.subplots()
ax.plot([1, 3, 2], label="a"); ax.legend(); ax.set(xlabel="tokens", ylabel="ms")
ax.fill_between([0, 1], 1, 2, hatch="//")
fig.savefig(sys.stdout.buffer, format="svg", metadata=METADATA)
"""


def test_the_same_figure_is_the_same_svg_in_two_processes():
    command = [sys.executable, "-c", FIGURE]
    first, second = (subprocess.run(command, capture_output=True, check=True).stdout for _ in "12")
    assert first.startswith(b"<?xml") and first == second
    assert b"<dc:date>" not in first


def test_style_resets_what_an_earlier_figure_left_behind():
    plot_style()
    before = dict(matplotlib.rcParams)
    plt.rcParams["lines.linewidth"] = 99
    plot_style()
    assert dict(matplotlib.rcParams) == before


def test_figures_have_no_background_and_no_fonts_to_look_up():
    plot_style()
    fig, ax = plt.subplots()
    ax.set_title("text")
    out = io.StringIO()
    fig.savefig(out, format="svg", metadata=METADATA)
    plt.close(fig)
    assert "<text" not in out.getvalue() and "font-family" not in out.getvalue()
    assert not re.search(r"fill: ?#ffffff", out.getvalue())


def luminance(color):
    channels = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_ink_reads_in_a_bare_notebook_on_white_and_on_dark():
    assert contrast(COLORS["ink"], "#ffffff") > 4 and contrast(COLORS["ink"], "#14171c") > 4


# Words of drawings on the book's pages. No checker sees into pictures, so colours are computed: of each
# word, and of what is drawn below its first letter.

ENOUGH, LETTER = 4.5, 8  # the ratio; points
NUMBERS = r"-?\d+\.?\d*(?:e-?\d+)?"


def paper(theme):
    return re.search(r"--paper: light-dark\((#\w+), (#\w+)\)", (ROOT / "book/theme/book.css").read_text())[theme + 1]


def mixed(top, share, ground):
    """The colour that is seen where `top` covers this share of the ground."""
    pairs = zip(*([int(color[i:i + 2], 16) for i in (1, 3, 5)] for color in (top, ground)), strict=True)
    return "#" + "".join(f"{round(share * t + (1 - share) * g):02x}" for t, g in pairs)


def look_of(element):
    style = dict(part.split(":", 1) for part in element.get("style", "").split(";") if ":" in part)
    look = {**element.attrib, **{key.strip(): value.strip() for key, value in style.items()}}
    return look.get("fill", "#000000"), float(look.get("opacity", 1)) * float(look.get("fill-opacity", 1))


def box_of(path, dx=0.0, dy=0.0):
    numbers = [float(n) for n in re.findall(NUMBERS, path)]
    return min(numbers[::2]) + dx, min(numbers[1::2]) + dy, max(numbers[::2]) + dx, max(numbers[1::2]) + dy


def words_of(svg):
    """For each text of a matplotlib drawing: (its colour, [colours and shares below it, lowest first])."""
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE.*?>", "", svg, flags=re.S))
    named = {e.get("id"): e.get("d") for e in root.iter() if e.tag.endswith("}path") and e.get("id") and e.get("d")}
    painted, found = [], []

    def walk(element):
        tag = element.tag.split("}")[-1]
        if tag in ("defs", "clipPath", "metadata", "style"):
            return
        if re.match(r"text_\d+", element.get("id", "")):
            inner = next((g for g in element if "translate" in g.get("transform", "")), None)
            if inner is not None:
                x, y, *_ = (float(n) for n in re.findall(NUMBERS, inner.get("transform")))
                x, y = (x - 3, y - 3) if "rotate(-90" in inner.get("transform") else (x + 3, y - 3)
                below = [look for (x0, y0, x1, y1), look in painted if x0 <= x <= x1 and y0 <= y <= y1]
                found.append((look_of(inner)[0], below))
            return
        path, dx, dy = element.get("d"), 0.0, 0.0
        if tag == "use":
            path = named.get(element.get("{http://www.w3.org/1999/xlink}href", "")[1:])
            dx, dy = float(element.get("x", 0)), float(element.get("y", 0))
        fill, share = look_of(element)
        if tag in ("path", "use") and path and fill.startswith("#"):
            x0, y0, x1, y1 = box_of(path, dx, dy)
            if max(x1 - x0, y1 - y0) > LETTER:  # a mark of a point is no ground to stand on
                painted.append(((x0, y0, x1, y1), (fill, share)))
        for child in element:
            walk(child)

    walk(root)
    return found


def drawings():
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            for output in cell.get("outputs", []):
                if svg := output.get("data", {}).get("image/svg+xml"):
                    yield f"{path.name}, cell {number}", "".join(svg)


@pytest.fixture(scope="module")
def notebook_filter():
    return runpy.run_path(str(ROOT / "book/filters/notebook.py"))


def test_links_lie_over_the_boxes_of_a_drawing_and_its_picture_is_stored_once(notebook_filter, monkeypatch):
    monkeypatch.setenv("TINYBOOK_STORE", "1")
    plot_style()
    fig, ax = canvas(50)
    box(ax, 10, 30, 20, 10, "a box")
    data = linked(fig, [(10, 30, 20, 10, "a box", "a.html")], "One box.")._repr_mimebundle_()
    assert "left: 10%; top: 20%; width: 20%; height: 20%" in data["text/html"] and "<svg" not in data["text/html"]
    assert 'href="a.html" aria-label="a box"' in data["text/html"]
    shown = notebook_filter["filter_output"]({"output_type": "display_data", "metadata": {}, "data": data})
    page, paper = shown["data"]["text/markdown"].split("unless-format")
    assert page.count('<img class="tl-picture" src="data:image/svg+xml;base64,') == 1 and "<!--" not in page
    assert 'alt="One box."' in page and 'fig-alt="One box."' in paper and "href" not in paper


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_word_of_every_drawing_can_be_read(notebook_filter, theme):
    faint, seen = {}, 0
    shown = dict(notebook_filter["WORDS"].values()) if theme else {}
    for place, svg in drawings():
        for color, below in words_of(notebook_filter["themed"](svg)):
            ground = paper(theme)
            for fill, share in below:
                ground = mixed(shown.get(fill, fill), share, ground)
            ratio = contrast(shown.get(color, color), ground)
            seen += 1
            if ratio < ENOUGH:
                faint[place, color, ground] = round(ratio, 1)
    assert seen > 1_000 and not faint, faint


def test_words_are_inked_alike_wherever_a_colour_is_written(notebook_filter):
    words = notebook_filter["WORDS"]
    assert words.keys() == {color.lower() for name, color in COLORS.items() if name != "free"}
    for color, inks in words.items():
        for theme, ink in enumerate(inks):
            assert contrast(ink, paper(theme)) >= ENOUGH
            assert contrast(ink, mixed(color, 0.15, paper(theme))) >= ENOUGH, "on a pale box of its own colour"
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0" style="fill: #d55e00; stroke: #767d89"/>'
    svg += '<g id="text_1"><g style="fill: #d55e00"/></g><text fill="#0072B2">x</text></svg>'
    made = notebook_filter["themed"](svg)
    assert '<path d="M0 0" style="fill: #d55e00;' in made  # what is not a word keeps its colour
    assert f'<g style="fill: {words["#d55e00"][0]}"/>' in made and f'<text fill="{words["#0072b2"][0]}">' in made
    assert f"stroke:{words['#767d89'][1]}!important" in made
    assert ElementTree.fromstring(made).tag.endswith("svg")


@pytest.mark.parametrize("group", [
    ("query", "key", "value"), ("prefill", "decode"), ("hbm", "l2", "sram"), ("accepted", "rejected"),
])
def test_colours_of_a_group_stay_apart_in_grey_print(group):
    grey = sorted(luminance(COLORS[name]) for name in group)
    assert all((b + 0.05) / (a + 0.05) > 1.05 for a, b in itertools.pairwise(grey)), grey


def test_tale_is_plain_and_of_the_promised_size():
    text = tale()
    assert 28_000 <= len(text) <= 32_000
    assert text.isascii() and text.startswith("Once upon a time") and text.endswith(".\n")
    paragraphs = text.rstrip("\n").split("\n\n")
    assert len(paragraphs) > 50 and all(p and "\n" not in p and p == p.strip() for p in paragraphs)
    assert "\t" not in text and "  " not in text
    assert all(text[i - 1:i + 3] in (" -- ", " --\"") for i in (m.start() for m in re.finditer("--", text)))


def test_references_parse_and_keys_are_unique():
    pypandoc = pytest.importorskip("pypandoc")
    source = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,\s]+),", source, re.M)
    parsed = json.loads(pypandoc.convert_text(source, "csljson", "bibtex"))
    assert sorted(keys) == sorted(entry["id"] for entry in parsed) and len(keys) == len(set(keys))
    for entry in parsed:
        assert entry.get("title") and entry.get("issued") and entry.get("author"), entry["id"]
        first = entry["author"][0]  # a person, or a company
        name = first.get("family") or first["literal"]
        assert entry["id"].startswith(re.sub(r"\W", "", name).lower()[:4]), entry["id"]


NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_claims_stand_word_for_word_in_the_prose_of_their_chapter(path):
    assert missing_claims(path) == []


def test_a_claim_that_is_not_in_the_prose_is_found(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("It takes 12 steps."),
             nbformat.v4.new_code_cell('claim("12 steps", 12)\nclaim("13 steps", 13)')]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    assert missing_claims(tmp_path / "x.ipynb") == ["13 steps"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cited_works_have_an_entry(path):
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.M))
    prose = prose_of(path)
    assert set(CITATION.findall(prose)) <= keys


def test_a_measurement_is_found_by_its_name_and_a_missing_one_names_those_there_are(tmp_path):
    (tmp_path / "e_latency_h200.json").write_text('{"headline": 4.2}')
    (tmp_path / "hierarchy_cpu.json").write_text('{"device": "CPU"}')
    assert measured("latency_h200", tmp_path)["headline"] == 4.2
    assert measured("hierarchy_cpu", tmp_path)["device"] == "CPU"
    with pytest.raises(ValueError, match="hierarchy_cpu"):
        measured("latency_h100", tmp_path)


def test_said_prose_is_one_paragraph_of_markdown():
    assert say("""one
        line""")._repr_markdown_() == "one line"
