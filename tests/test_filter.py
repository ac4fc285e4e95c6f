"""The notebook filter that Quarto and the press share: JSON in, JSON out."""

import base64
import json
import re
import subprocess
import sys

import pytest


@pytest.fixture
def as_given(root):
    """as_given(cell, …): the cells just as the filter writes them."""

    def run(*cells):
        notebook = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        command = [sys.executable, str(root / "book/filters/notebook.py")]
        done = subprocess.run(command, input=json.dumps(notebook), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["cells"]

    return run


def whole(value):
    """Lists of lines as texts, at any depth."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return "".join(value) if all(isinstance(item, str) for item in value) and value else list(map(whole, value))
    return value


@pytest.fixture
def filtered(as_given):
    """filtered(cell, …): the same cells with each text in one piece."""
    return lambda *cells: [{**whole(cell), "source": "".join(cell["source"])} for cell in as_given(*cells)]


def code(source, outputs=()):
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": None,
        "source": source,
        "outputs": list(outputs),
    }


@pytest.mark.parametrize(
    "directive",
    ["#| export", "#|export", "# | export", "#| exports", "#| eval_me now", "#| default_exp model.x"],
)
def test_directives_are_dropped_and_options_are_kept(filtered, directive):
    (cell,) = filtered(code(f"{directive}\nx = 1  #| not one"))
    lines = cell["source"].split("\n")
    assert directive not in lines and lines[-1] == "x = 1  #| not one"
    assert all(re.match(r"#\| [\w-]+: ", line) for line in lines[:-1])


def test_options_alone_are_left_as_they_are(filtered):
    source = '#| label: fig-a\n#| fig-cap: "A: b"\nplot()'
    assert filtered(code(source))[0]["source"] == source


def test_a_cell_of_directives_alone_becomes_empty(filtered):
    assert filtered(code("#| default_exp model.tokenizer"))[0]["source"].strip() == ""


def test_an_exported_cell_is_marked(filtered):
    assert "#| classes: exported" in filtered(code("#| export\nx = 1"))[0]["source"].split("\n")
    assert "exported" not in filtered(code("x = 1"))[0]["source"]


def test_folded_code_says_what_it_defines(filtered):
    assert '#| code-summary: "class A, def f"' in filtered(code("class A: pass\ndef f(): pass"))[0]["source"]
    assert '#| code-summary: "check"' in filtered(code("assert 1 == 1"))[0]["source"]
    assert "code-summary" not in filtered(code("%matplotlib inline"))[0]["source"]


def test_the_front_matter_names_the_module(filtered):
    raw = {"cell_type": "raw", "metadata": {}, "source": ["---\n", "title: T\n", "---"]}
    assert (
        "module: tinyllm/model/tokenizer.py\n---"
        in filtered(raw, code("#| default_exp model.tokenizer"))[0]["source"]
    )


def widget_output(html):
    return {
        "output_type": "execute_result",
        "execution_count": 1,
        "metadata": {},
        "data": {"text/html": html, "image/svg+xml": ["<svg>", "</svg>"], "text/plain": 'a "plot"'},
    }


def test_html_with_a_picture_becomes_markdown_for_both(filtered):
    (output,) = filtered(code("w()", [widget_output(["<tl-a>", "```</tl-a>"])]))[0]["outputs"]
    assert list(output["data"]) == ["text/markdown"]
    markdown = output["data"]["text/markdown"]
    page, paper = markdown.split("unless-format")
    assert (
        "````{=html}\n<tl-a>```</tl-a>\n````" in page
        and ':::::: {.content-visible when-format="html"}' in page
    )
    assert base64.b64decode(re.search(r"base64,([^)]+)\)", paper)[1]) == b"<svg></svg>"
    assert "fig-alt=\"a 'plot'\"" in paper


def test_other_outputs_pass_untouched(filtered):
    outputs = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"image/svg+xml": "<svg/>", "text/plain": "x"},
        },
        {"output_type": "stream", "name": "stdout", "text": "hé"},
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<table></table>"}},
    ]
    assert filtered(code("x", outputs))[0]["outputs"] == outputs


def test_the_filter_needs_only_the_standard_library(root):
    program = """import sys, runpy
runpy.run_path(sys.argv[1])
print([m for m in ('nbformat', 'yaml', 'torch') if m in sys.modules])"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(root / "book/filters/notebook.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_every_text_is_a_list_of_lines_with_their_ends(as_given):
    # of one string real Quarto drops the line ends: front matter, headings and code fall apart
    odd = "a\nb\u2028c\x0cd\r\n\n  e\n"
    outputs = [{"output_type": "stream", "name": "stdout", "text": odd}, widget_output("<tl-a>\n</tl-a>")]
    raw = {"cell_type": "raw", "metadata": {}, "source": "---\ntitle: T\n---"}
    markdown = {"cell_type": "markdown", "metadata": {}, "source": odd}
    cells = as_given(raw, markdown, code("#| default_exp a.b"), code(f"#| export\n{odd}", outputs), code(""))
    texts = [cell["source"] for cell in cells]
    texts += [
        text
        for output in cells[3]["outputs"]
        for text in ([output["text"]] if "text" in output else output["data"].values())
    ]
    for lines in texts:
        assert isinstance(lines, list), lines
        assert all(line.endswith("\n") for line in lines[:-1])
        assert all("\n" not in line[:-1] and line for line in lines)
    assert "".join(cells[1]["source"]) == odd and "".join(cells[3]["outputs"][0]["text"]) == odd
    assert cells[0]["source"] == ["---\n", "title: T\n", "module: tinyllm/a/b.py\n", "---"]
