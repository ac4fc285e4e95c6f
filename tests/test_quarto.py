"""Real Quarto and the press make the same book: headings, numbers, what references lead to."""

import html
import re
import shutil
import subprocess

import pytest
from press.__main__ import main
from press.which_quarto import MINIMUM, quarto_version


pytestmark = pytest.mark.skipif(
    (quarto_version() or (0,)) < MINIMUM, reason="needs Quarto 1.9 or newer on the PATH"
)

MAIN = re.compile(r"<main.*?</main>", re.S)
PARTS = ("_quarto.yml", "index.qmd", "nbs", "book", "tinyllm")


def plain(fragment):
    text = html.unescape(re.sub(r"<[^>]+>", "", fragment)).replace("\xa0", " ")
    return re.sub(r"\s+", " ", text).strip(" #")


def facts(page):
    """What must be the same, whoever rendered the page."""
    body = MAIN.search(page)[0]
    headings = [plain(h) for h in re.findall(r"<h[234][^>]*>(.*?)</h[234]>", body, re.S)]
    captions = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>|<caption[^>]*>(.*?)</caption>", body, re.S)
    references = re.findall(r'<a href="([^"]*)"[^>]*class="quarto-xref"[^>]*>(.*?)</a>', body, re.S)
    return {
        "headings": [h for h in headings if h not in ("References", "Footnotes")],
        "numbers": sorted(
            n[0] for c in captions if (n := re.match(r"(Figure|Table) [\d.]+", plain("".join(c))))
        ),
        "references": [(url.split("/")[-1], plain(text)) for url, text in references],
        "widgets": re.findall(r'<(tl-[\w-]+)[^>]*\bid="([^"]+)"', body),
    }


@pytest.fixture(scope="module")
def books(tmp_path_factory, root):
    """The same sources rendered by both: (Quarto's folder, the press's folder)."""
    work = tmp_path_factory.mktemp("quarto")
    for name in PARTS:
        source = root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, work / name)
    subprocess.run(["quarto", "render", "--to", "html"], cwd=work, check=True, timeout=900)
    assert main(["html", "--root", str(root), "--out", str(work / "press")]) == 0
    return work / "_book", work / "press"


def test_both_render_the_same_pages(books):
    quarto, press = ({p.relative_to(folder) for p in folder.rglob("*.html")} for folder in books)
    assert press <= quarto


def test_both_give_the_same_headings_numbers_and_references(books):
    quarto, press = books
    different = {}
    for page in sorted(press.rglob("*.html")):
        name = page.relative_to(press)
        if name.name == "index.html":
            continue
        ours, theirs = facts(page.read_text()), facts((quarto / name).read_text())
        different |= {
            f"{name} {what}": (ours[what], theirs[what]) for what in ours if ours[what] != theirs[what]
        }
    assert not different
