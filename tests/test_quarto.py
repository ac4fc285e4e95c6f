"""Real Quarto and the press make the same book: headings, numbers, what references lead to.

The first half needs no Quarto: a guard against each thing that broke its render once, unseen.
"""

import html
import json
import re
import shutil
import subprocess
import sys

import pypandoc
import pypdf
import pytest
import typst
import yaml
from press import gallery, prepare
from press.__main__ import main
from press.config import read_config
from press.which_quarto import MINIMUM, quarto_version

needs_quarto = pytest.mark.skipif((quarto_version() or (0,)) < MINIMUM, reason="needs Quarto 1.9 or newer on the PATH")


def pandoc(arguments, text, cwd):
    command = [pypandoc.get_pandoc_path(), *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


# --- Without Quarto: print. What Quarto hands to Typst, in its order and its forms ---

PARTIALS = ("numbering", "definitions", "typst-template", "page", "typst-show")
TEMPLATE = "\n\n".join(f"${name}.typ()$" for name in PARTIALS) + "\n\n$body$\n"
DEFINITIONS = """
#let callout(body: [], title: "Callout", background_color: white, icon: none, icon_color: black,
  body_background_color: white) = block(fill: background_color)[#icon #title #body]
#let fa-lightbulb() = text("\\u{f0eb}")
"""
FIGURE = """
#figure([A picture], caption: figure.caption(position: bottom, [What it shows? It shows a line.]),
  kind: "quarto-float-fig", supplement: "Figure") <fig-%s>
"""
BODY = """
# Welcome {.unnumbered}

Hello.

## Before {.unnumbered}

```{=typst}
#part[Foundations]
```

# Tokens {#sec-tokens}

From text to numbers

```{=typst}
#linebreak()
```

A word and code, `a_b`.

## The idea {#sec-idea}

### Deeper {#sec-deep}

```{=typst}
#callout(body: [The answer.], title: [Solution], background_color: rgb("#ccf1e3"),
  icon_color: rgb("#00A047"), icon: fa-lightbulb(), body_background_color: white)
FIGURE-one
```

# Attention

## Also

```{=typst}
FIGURE-two
FIGURE-three
Refs: #ref(<sec-tokens>, supplement: [Chapter]), #ref(<sec-idea>, supplement: [Section]),
#ref(<sec-deep>, supplement: [Section]), #ref(<sec-glossary>, supplement: [Chapter]),
#ref(<fig-one>, supplement: [Figure]), #ref(<fig-three>, supplement: [Figure]). Done.

#show: appendices.with("Appendices", hide-parent: true)
```

```{=typst}
#heading(level: 1, numbering: none)[Appendices]
```

# Glossary {#sec-glossary .unnumbered}

::: {.glossary-entries}

## A {.unnumbered .unlisted}

attention
:   A look back.

:::
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory, root):
    """A small book through pandoc's template engine with the book's own partials, as Quarto does it: (.typ, PDF)."""
    folder = tmp_path_factory.mktemp("print")
    listed = yaml.safe_load((root / "_quarto.yml").read_text())["format"]["typst"]["template-partials"]
    for partial in listed:
        shutil.copy(root / partial, folder)
    (folder / "definitions.typ").write_text(DEFINITIONS)
    (folder / "template.typ").write_text(TEMPLATE)
    (folder / "print.lua").write_text(f'quarto = {{}}\nreturn dofile("{root}/book/filters/print.lua")')
    body = re.sub(r"FIGURE-(\w+)", lambda m: FIGURE % m[1], BODY)
    arguments = ["-f", "markdown", "-t", "typst", "--template=template.typ", "--syntax-highlighting=idiomatic"]
    arguments += ["--lua-filter=print.lua", "-M", "title=A book", "-M", "subtitle=Of tests", "-V", "lang=en"]
    (folder / "book.typ").write_text(pandoc(arguments, body, folder).stdout)
    (folder / "book.pdf").write_bytes(typst.compile(folder / "book.typ", ignore_system_fonts=True))
    return folder / "book.typ", pypdf.PdfReader(folder / "book.pdf")


def headings_of(source):
    found = json.loads(typst.query(str(source), "heading", ignore_system_fonts=True))
    return [
        (h["level"], h["body"].get("text") or "".join(p.get("text", " ") for p in h["body"]["children"])) for h in found
    ]


def test_parts_are_above_chapters_and_chapters_above_sections_numbered_or_not(printed):
    levels = headings_of(printed[0])
    assert levels[levels.index((2, "Welcome")) :] == [
        (2, "Welcome"),
        (3, "Before"),
        (1, "Foundations"),
        (2, "Tokens"),
        (3, "The idea"),
        (4, "Deeper"),
        (2, "Attention"),
        (3, "Also"),
        (1, "Appendices"),
        (2, "Glossary"),
        (3, "A"),
    ]


def test_references_name_the_chapter_of_their_target_at_every_level(printed):
    text = " ".join(" ".join(page.extract_text() for page in printed[1].pages).replace("\xa0", " ").split())
    said = re.search(r"Refs: (.*?)\. Done", text)[1]
    assert said == "Chapter 1, Section 1.1, Deeper, Glossary, Figure 1.1, Figure 2.2"


def test_the_printed_page_has_what_the_press_prints(printed):
    pages = [page.extract_text() for page in printed[1].pages]
    assert "PART I\nFoundations" in pages  # alone on its page
    assert any(page.startswith("1\nTokens\nFrom text to numbers\n") for page in pages)
    text = "\n".join(pages)
    assert "Solution\nThe answer." in text
    assert "F0EB" not in text and "\uf0eb" not in text  # icons of a font that the book does not carry
    assert "Figure 2.2: What it shows? It shows a line." in text
    assert "1.1.1" not in text  # as `number-depth` says
    figures = next(page for page in pages if "\nFigures\n" in page)
    assert "2.2 What it shows? 7" in figures  # the first sentence of its caption, and its page


# --- Without Quarto: pages ---

STUB = """
local found = {}
local function is_format(name) return name == "html" end
local function add(dependency) table.insert(found, dependency) end
quarto = {
  doc = { is_format = is_format, add_html_dependency = add, input_file = "%(root)s/nbs/04_attention.ipynb" },
  project = { directory = "%(root)s" },
}
PANDOC_SCRIPT_FILE = "%(script)s"
dofile(PANDOC_SCRIPT_FILE)
local inner = Pandoc
local function custom(div) -- as Quarto keeps a figure or a table with its caption
  if not div.classes:includes("float") then return nil end
  div.attributes.__quarto_custom_type = "FloatRefTarget"
  return div
end
function Pandoc(doc)
  doc.blocks = doc.blocks:walk({ Div = custom })
  local made = inner(doc)
  io.stderr:write(pandoc.json.encode(found))
  return made
end
"""


@pytest.fixture
def under_quarto(tmp_path, root):
    """under_quarto("widgets.lua", text): (HTML, dependencies) as this filter makes them for Quarto's pages."""

    def run(name, text):
        script = root / "book" / "filters" / name
        (tmp_path / name).write_text(STUB % {"root": root, "script": script})
        done = pandoc(["-f", "markdown", "-t", "html", f"--lua-filter={tmp_path / name}"], text, root)
        return done.stdout, json.loads(done.stderr or "[]") or []

    return run


def test_words_in_hidden_blocks_are_not_marked(under_quarto):
    # Quarto keeps the titles of its sidebar in such a block: marked, they run together
    text = "::: {.hidden}\nThe KV cache and a token.\n:::\n\n::: {.other}\nThe KV cache and a token.\n:::\n"
    text = '::: {.float}\nA caption on the KV cache.\n:::\n\n' + text
    page, _ = under_quarto("glossary.lua", text)
    hidden, shown = page.split('<div class="other">')
    assert "tl-term" not in hidden and "<span" not in hidden
    assert shown.count("tl-term") == 2


def test_the_drawing_of_the_model_is_plain_html_on_quartos_pages(under_quarto):
    page, _ = under_quarto("model.lua", "---\npart-of-model: MLP\n---\n\nText.\n")
    assert page.startswith('<nav class="model-map"') and page.count("aria-current") == 1
    assert 'aria-current="true">MLP</a>' in page and "content-visible" not in page and "#model-map" not in page
    assert under_quarto("model.lua", "Text.\n")[0] == "<p>Text.</p>\n"


def test_the_drawing_of_the_model_is_printed_by_the_template_that_both_use(root, tmp_path):
    filter_ = f"--lua-filter={root}/book/filters/model.lua"
    text = "---\npart-of-model: block\n---\n\nText.\n"
    source = pandoc(["-f", "markdown", "-t", "typst", filter_], text, root).stdout
    assert re.findall(r'"([^"]+)", lit: true', source) == ["8 blocks"] and "nav" not in source
    shutil.copy(root / "book" / "theme" / "typst-template.typ", tmp_path)
    (tmp_path / "page.typ").write_text('#import "typst-template.typ": *\n' + source)
    (tmp_path / "page.pdf").write_bytes(typst.compile(tmp_path / "page.typ", ignore_system_fonts=True))
    printed = pypdf.PdfReader(tmp_path / "page.pdf").pages[0].extract_text()
    assert all(part in printed for part in ("loop", "embedding", "8 blocks", "sampling"))


def test_a_part_that_the_model_does_not_have_is_named(root):
    command = [pypandoc.get_pandoc_path(), f"--lua-filter={root}/book/filters/model.lua"]
    text = "---\npart-of-model: wheel\n---\n\nText.\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=root)
    assert done.returncode and "the model has no part called wheel" in done.stderr


CHECK = """
**Quick check 1.** Which *one*?

- **A.** This.
- **B.** That.

::: {.callout-tip collapse="true"}
## Answer

**B.** So it is. **A** forgets `x`.
:::

The text goes on.
"""


def test_quick_checks_keep_their_answers_for_the_end_in_print_and_fold_them_on_a_page(under_quarto, tmp_path, root):
    page, _ = under_quarto("checks.lua", CHECK)
    assert re.findall(r'class="(right|wrong)"', page) == ["wrong", "right"] and "Answers to" not in page
    assert "callout" not in page and "<ul>" not in page
    arguments = ["-f", "markdown", "-t", "typst", f"--lua-filter={tmp_path / 'checks.lua'}"]
    text = " ".join(pandoc(arguments, CHECK, root).stdout.split())
    assert "details" not in text
    asked, answer = text.split("The text goes on.")
    assert "This." in asked and "forgets" not in asked
    assert "Answers to the quick checks" in answer and "#strong[B.] So it is." in answer


MODULE = """---
module: tinyllm/model/attention.py
---

Call `causal_attention`, as vLLM does.

Call `causal_attention` or `other`.

::: {.cell .exported}
``` {.python .cell-code}
def causal_attention():
    pass
```
:::

## In vLLM

Call `causal_attention`.
"""


def test_names_of_code_lead_to_their_cells_and_the_page_to_its_files(under_quarto, root, tmp_path):
    prepare.main()
    page, _ = under_quarto("module.lua", MODULE)
    assert re.findall(r'href="((?!#cb)[^"]*)"', page) == [
        "#def-causal_attention", "../source/nbs/04_attention.ipynb", "../source/tinyllm/model/attention.py",
        "#def-causal_attention",
    ]  # fmt: skip
    assert page.count('id="def-causal_attention"') == 1
    command = [sys.executable, str(root / "book/press/sources.py")]
    subprocess.run(command, check=True, env={"QUARTO_PROJECT_OUTPUT_DIR": str(tmp_path / "out")})
    for name in ("nbs/04_attention.ipynb", "tinyllm/model/attention.py"):
        assert (tmp_path / "out/source" / name).read_bytes() == (root / name).read_bytes()


def test_scripts_stand_after_the_body_and_exist(under_quarto, root):
    widget = '```{=html}\n<tl-attention id="a"><script>{"needs":["fable"]}</script></tl-attention>\n```\n'
    prepare.main()
    names, weights = [], []
    for filter_name in ("glossary.lua", "widgets.lua"):
        for dependency in under_quarto(filter_name, widget)[1]:
            names.append(dependency["name"])
            for script in dependency["scripts"]:
                assert script["afterBody"] is True, f"{script['path']} would run before there is a page"
                assert (root / "book" / "filters" / script["path"]).resolve().is_file()
            weights += dependency.get("resources") or []
    assert names == ["glossary", "tinyllm-widgets"]
    assert [w["name"] for w in weights][:2] == ["fable/000.js", "fable/001.js"]  # beside the script, where it looks
    assert all((root / "book" / "filters" / w["path"]).resolve().is_file() for w in weights)


def test_a_render_of_what_no_make_has_prepared_says_in_one_sentence_what_to_run(tmp_path, root):
    copy = tmp_path / "book" / "press"
    shutil.copytree(root / "book" / "press", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "book" / "widgets").mkdir()
    (tmp_path / "book" / "widgets" / "a.js").write_text("")
    done = subprocess.run([sys.executable, str(copy / "prepare.py")], capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("run `make widgets` first" in line for line in lines)
    assert "pictures in place of widgets, because there is no Node on the PATH" in lines[0]


def test_nothing_comes_from_another_machine_and_nothing_is_left_in_the_tree(root):
    ignored = (root / ".gitignore").read_text().splitlines()
    assert {"/.quarto/", "**/*.quarto_ipynb"} <= set(ignored)  # else Quarto appends them at each render
    for name in ("light.scss", "dark.scss"):
        text = (root / "book" / "theme" / name).read_text()
        defaults = text.split("scss:rules")[0]
        assert re.search(r"^\$web-font-path: false;", defaults, re.M), f"{name}: Cosmo fetches a font"
    for path in (root / "book" / "theme").glob("*.*css"):
        assert not re.search(r"@import|url\(['\"]?(?!data:)", path.read_text()), path.name


def test_every_file_of_the_theme_is_used_by_whom_it_is_for(root):
    settings = (root / "_quarto.yml").read_text() + (root / "book/filters/glossary.lua").read_text()
    own = "".join(p.read_text() for p in (root / "book" / "press").glob("*.py"))
    both, press = (
        {"book.css", "glossary.css", "glossary.js", "typst-template.typ"},
        {"page.html", "press.css", "book.js"},
    )
    quarto = {"light.scss", "dark.scss", "typst-show.typ", "page.typ", "numbering.typ"}
    files = {p.name for p in (root / "book" / "theme").iterdir()} - {"readme.png"}
    assert files == both | press | quarto
    assert all(name in settings for name in both | quarto)
    shared = {p.name for p in read_config(root).css}
    assert all(name in own or name in shared for name in both | press)


def test_every_filter_exists_and_those_with_a_place_are_quartos_alone(root):
    listed = yaml.safe_load((root / "_quarto.yml").read_text())["filters"]
    paths = [f if isinstance(f, str) else f["path"] for f in listed]
    assert all((root / path).is_file() for path in paths)
    used = {p.name for p in read_config(root).lua_filters}
    assert used == {path.split("/")[-1] for path in listed if isinstance(path, str)}
    assert {"print.lua"} == {p.split("/")[-1] for p in paths} - used


# --- With Quarto ---


LOADED = re.compile(r"""(?:<(?:script|img|iframe|link)[^>]*(?:src|href)="|@import *"|url\(["']?)(https?:[^"')]*)""")
MAIN = re.compile(r"<main.*?</main>", re.S)
PARTS = ("_quarto.yml", ".gitignore", "index.qmd", "nbs", "book", "tinyllm")


def plain(fragment):
    text = html.unescape(re.sub(r"<[^>]+>", "", fragment)).replace("\xa0", " ")
    return re.sub(r"\s+", " ", text).strip(" #")


def facts(page):
    """What must be the same, whoever rendered the page."""
    body = MAIN.search(page)[0]
    headings = [plain(h) for h in re.findall(r"<h[234][^>]*>(.*?)</h[234]>", body, re.S)]
    captions = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>|<caption[^>]*>(.*?)</caption>", body, re.S)
    references = re.findall(r'<a href="([^"]*)"[^>]*class="quarto-xref"[^>]*>(.*?)</a>', body, re.S)
    code = re.findall(r"<pre[^>]*><code[^>]*>(.*?)</code></pre>", body, re.S)
    return {
        "headings": [h for h in headings if h not in ("References", "Footnotes")],
        "numbers": sorted(n[0] for c in captions if (n := re.match(r"(Figure|Table) [\d.]+", plain("".join(c))))),
        "references": [(url.split("/")[-1], plain(text)) for url, text in references],
        "widgets": re.findall(r'<(tl-[\w-]+)[^>]*\bid="([^"]+)"', body),
        "code": [html.unescape(re.sub(r"<[^>]+>", "", c)).strip() for c in code],
        "terms": re.findall(r'data-term="([^"]*)"', body),
    }


@pytest.fixture(scope="module")
def books(tmp_path_factory, root):
    """The same sources rendered by both: (Quarto's folder, the press's folder, what Quarto left in the tree)."""
    work = tmp_path_factory.mktemp("quarto")
    for name in PARTS:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, work / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            shutil.copy2(source, work / name)
    prepare.main()
    for made in ("widgets.js", "finder.js"):
        (work / ".make").mkdir(exist_ok=True)
        shutil.copy2(root / ".make" / made, work / ".make" / made)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], cwd=work, check=True)
    subprocess.run(["quarto", "render"], cwd=work, check=True, timeout=7200)
    left = subprocess.run(["git", "status", "--porcelain"], cwd=work, capture_output=True, text=True).stdout
    assert main(["all", "--root", str(root), "--out", str(work / "press")]) == 0
    return work / "_book", work / "press", left


@needs_quarto
def test_both_render_the_same_pages_and_leave_nothing_in_the_tree(books):
    quarto, press = ({p.relative_to(folder) for p in folder.rglob("*.html")} for folder in books[:2])
    assert {str(p) for p in press - quarto} <= {gallery.PAGE}
    assert books[2] == ""


@needs_quarto
def test_both_give_the_same_headings_numbers_and_references(books):
    quarto, press, _ = books
    different = {}
    for page in sorted(press.rglob("*.html")):
        name = page.relative_to(press)
        if name.name in ("index.html", gallery.PAGE):
            continue
        ours, theirs = facts(page.read_text()), facts((quarto / name).read_text())
        different |= {f"{name} {what}": (ours[what], theirs[what]) for what in ours if ours[what] != theirs[what]}
    assert not different


@needs_quarto
def test_pages_of_both_load_nothing_from_another_machine(books):
    for folder in books[:2]:
        for file in (*folder.rglob("*.html"), *folder.rglob("*.css")):
            assert not LOADED.findall(file.read_text()), file


def bookmarks(items, level=1):
    for item in items:
        yield from bookmarks(item, level + 1) if isinstance(item, list) else [(level, item.title)]


def printed_facts(folder):
    reader = pypdf.PdfReader(folder / "tinyllm.pdf")
    text = "\n".join(page.extract_text() for page in reader.pages).replace("\xa0", " ")
    figures = set(re.findall(r"^((?:Figure|Table) \d+\.\d+): ", text, re.M))
    return {"headings": list(bookmarks(reader.outline)), "figures": sorted(figures)}


@needs_quarto
def test_both_print_the_same_headings_and_figures(books):
    assert printed_facts(books[0]) == printed_facts(books[1])
