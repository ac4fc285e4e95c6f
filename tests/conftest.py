import json
import os
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
if BESIDE_OTHERS:  # threads that wait for a core would stand in line
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(ROOT / "book"))  # the press

# What takes longest, first: so that no process is left with it at the end, while the others have nothing to do.
FIRST = ("test_the_whole_book_is_made", "test_notebook_runs", "test_wheel")


# Two tiers: `make test` runs what is not marked `rest`, `make test-rest` what is. No test is in both, or in neither.
TIERS = tomllib.loads((ROOT / "tests" / "tiers.toml").read_text(encoding="utf-8"))
NOTEBOOK = "tests/test_notebooks.py::test_notebook_runs_and_its_outputs_are_fresh[{}]".format
REST = {*TIERS["tests"], *map(NOTEBOOK, TIERS["notebooks"])}


def is_rest(name: str) -> bool:
    """Whether a test is left to the second tier: it, its file, or all its cases are named in tiers.toml."""
    return not REST.isdisjoint((name, name.partition("[")[0], name.partition("::")[0]))


COLLECTED = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(config, items):
    """Marks the second tier. Tests of one file stay in one process beside others, unless they are marked `apart`."""
    config.stash[COLLECTED] = {item.nodeid for item in items}  # before -m and -k choose among them
    for item in items:
        if is_rest(item.nodeid):
            item.add_marker("rest")
    if BESIDE_OTHERS:
        for item in items:
            if not item.get_closest_marker("apart"):
                item.add_marker(pytest.mark.xdist_group(item.path.name))
        places = {item: [name in item.nodeid for name in FIRST] for item in items}
        items.sort(key=lambda item: places[item].index(True) if any(places[item]) else len(FIRST))


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever a page asks for, nothing is answered
)
PATIENCE = 300_000  # ms until an event that a quiet machine sees in a second is given up: others need the cores too
INSIDE = ("file:", "data:", "blob:", "about:")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


# Browser tests. Pages are opened as a reader opens them: from the file system.


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """made_once("name", make): the folder `name` of this run; the first process to need it calls `make(folder)`."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    base = base.parent if BESIDE_OTHERS else base

    def made(name: str, make) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # half of it, where `make` failed before
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


def core_seconds() -> float:
    """What this process and those it waited for have computed so far: no neighbour changes it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def yardstick() -> float:
    """Core seconds of a fixed piece of work, here and now: what other work costs is told in these. Part of it is
    pandoc's, whose threads spend more on the same text while others need the cores."""
    from press import pandoc

    part = "## Heading {0} {{#h{0}}}\n\nSome *words*, `code`, [link](#h{0}).\n\n| a | b |\n|---|---|\n| {0} | two |\n\n"
    text = "".join(map(part.format, range(2000)))
    before = core_seconds()
    sum(i * i for i in range(20_000_000))
    pandoc.run(["-f", pandoc.MARKDOWN, "-t", "json"], text)
    return core_seconds() - before


@pytest.fixture(scope="session")
def whole_book(made_once) -> Path:
    """A copy of the book's sources, pages and PDF made from nothing but `make widgets`; `spent.json` says how fast."""
    from press.__main__ import main

    def make(folder):
        leave = shutil.ignore_patterns("node_modules", ".ipynb_checkpoints")
        scripts = [name for name in (".make/widgets", ".make/widgets.js", ".make/finder.js") if (ROOT / name).exists()]
        for name in ("_quarto.yml", "index.qmd", "nbs", "book", "tinyllm/models", *scripts):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target, ignore=leave) if source.is_dir() else shutil.copy(source, target)
        yard = yardstick()
        start, spent = time.perf_counter(), core_seconds()
        assert main(["all", "--root", str(folder)]) == 0
        spent = {"seconds": time.perf_counter() - start, "core": core_seconds() - spent}
        spent["yard"] = (yard + yardstick()) / 2
        (folder / "spent.json").write_text(json.dumps(spent))

    return made_once("whole_book", make)


@pytest.fixture(scope="session")
def book_html(request, made_once) -> Path:
    """The folder of the real book's pages, rendered once for all processes, with everything they load."""
    from press.__main__ import main

    if the_whole_book_is_made(request):
        return request.getfixturevalue("whole_book") / "_book"

    def make(folder):
        start = time.perf_counter()
        assert main(["html", "--root", str(ROOT), "--out", str(folder)]) == 0
        print(f"[pages] the book's pages, rendered in {time.perf_counter() - start:.1f} s")

    return made_once("book_html", make)


def the_whole_book_is_made(request) -> bool:
    """Whether a test that this run selected needs it: a few tests of pages alone do not wait for the PDF."""
    return any("whole_book" in getattr(item, "fixturenames", ()) for item in request.session.items)


@pytest.fixture(scope="module")
def browser():
    """Chromium; one for each file of tests, since asyncio cannot be used while Playwright runs."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not executable:
        what = f"no browser on the PATH ({', '.join(BROWSERS)}): pages are not tested"
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page_factory(browser, book_html):
    """page_factory("nbs/04_attention.html") opens a page of the book, or a file, as this reader sees it.

    Any error in the console, and any request that leaves the page, fails the test at its end.
    Each call is a fresh reader, who remembers nothing; `page.goto` goes on as the same one.
    """
    contexts, problems = [], []

    def watch(page):
        page.on("console", lambda m: m.type == "error" and problems.append(f"{page.url}: console: {m.text}"))
        page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
        page.on(
            "request",
            lambda r: r.url.startswith(INSIDE) or problems.append(f"{page.url}: asks for {r.url}"),
        )

    def open_page(
        path, scheme="light", width=1440, reduced_motion=False, touch=False, javascript=True, height=900
    ):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce" if reduced_motion else "no-preference",
            has_touch=touch,
            is_mobile=touch,
            java_script_enabled=javascript,
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        file, _, anchor = str(path).partition("#")
        page.goto((book_html / file).as_uri() + (f"#{anchor}" if anchor else ""))
        return page

    yield open_page
    for context in contexts:
        context.close()
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def axe():
    """axe(page) -> what is wrong for readers with assistive technology: "rule: help: element", sorted."""
    from axe_playwright_python.sync_playwright import Axe

    def run(page, within=None) -> list[str]:
        options = {"resultTypes": ["violations"], "preload": False}  # a preload asks for the style sheets again
        found = Axe().run(page, within, options).response["violations"]
        return sorted(
            f"{v['id']}: {v['help']}: {' '.join(map(str, n['target']))}" for v in found for n in v["nodes"]
        )

    return run


@pytest.fixture(scope="session")
def in_node():
    """in_node("blocks.js", script, request): what the script prints, given a widget's module and the request."""
    from press.bundle import WIDGETS, node_and_npm

    def run(module: str, script: str, request: dict) -> dict:
        node, _ = node_and_npm()
        command = [*node, "--input-type=module", "-e", script, (WIDGETS / module).as_uri()]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def open_widget(page_factory):
    """open_widget("tl-neurons", page, ...): the page, and the widget in it with its list of words."""

    def opened(name: str, page: str, **options):
        page = page_factory(page, **options)
        element = page.locator(name)
        element.scroll_into_view_if_needed()
        element.get_by_role("listbox").wait_for()
        return page, element

    return opened


STICKS_OUT = """([name, but]) => {
    const host = document.querySelector(name), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(but) && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


def sticks_out(page, name: str, but: str = "") -> list[str]:
    """What reaches beyond the right edge of a widget; left out is what nobody sees, and `but`."""
    return page.evaluate(STICKS_OUT, [name, ", ".join(filter(None, (".for-ears, .as-table", but)))])
