"""The notebook filter that Quarto and the press share: JSON in, JSON out."""

import base64
import json
import re
import subprocess
import sys

import pytest


@pytest.fixture
def filtered(root):
    def run(*cells):
        notebook = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        command = [sys.executable, str(root / "book/filters/notebook.py")]
        done = subprocess.run(command, input=json.dumps(notebook), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["cells"]

    return run


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
