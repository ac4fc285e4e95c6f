"""The kit: claims that can fail, one style, the tale, the references, and claims that stand in the prose."""
import ast
import itertools
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt
from tinybook import COLORS, claim, measured, plot_style, say, tale
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


def test_ink_reads_on_a_white_page_and_on_a_dark_one():
    assert contrast(COLORS["ink"], "#ffffff") > 4 and contrast(COLORS["ink"], "#14171c") > 4


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


def prose_and_code(path):
    cells = nbformat.read(path, as_version=4).cells
    texts = {kind: [c.source for c in cells if c.cell_type == kind] for kind in ("markdown", "code")}
    captions = re.findall(r"^#\| *(?:fig-cap|tbl-cap): *(.*)$", "\n".join(texts["code"]), re.M)
    return " ".join("\n".join(texts["markdown"] + captions).split()), texts["code"]


def claims_of(source):
    """The texts that a cell claims, where they are written out."""
    source = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    for node in ast.walk(ast.parse(source)):
        called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim"
        if called and isinstance(node.args[0], ast.Constant):
            yield node.args[0].value


def missing_claims(path):
    prose, code = prose_and_code(path)
    return [text for cell in code for text in claims_of(cell) if " ".join(text.split()) not in prose]


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
    prose, _ = prose_and_code(path)
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
