"""The live page at `/` of a real server, in Chromium: with its script, without it, and with API keys."""

import contextlib
import json
import os
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")

from conftest import BROWSERS, FLAGS, PATIENCE
from press import bundle
from server_process import Server

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ["--max-num-seqs", "4", "--max-model-len", "512", "--num-gpu-blocks-override", "96"]
KEY, SECRET = "open-sesame", "Rumpelstiltskin"


def package(folder: Path, script: bool) -> Path:
    """A copy of the package, with the script of the live page or without."""
    rest = shutil.ignore_patterns("static", "models", "__pycache__")
    shutil.copytree(ROOT / "tinyllm", folder / "tinyllm", ignore=rest)
    (folder / "tinyllm" / "models").symlink_to(ROOT / "tinyllm" / "models")
    if script:
        bundle.install(folder / "tinyllm")
    return folder


@contextlib.contextmanager
def serving(folder: Path, keys=()):
    server = Server(*OPTIONS, keys=keys, env={"PYTHONPATH": str(folder)})  # the package that lies there
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(package(tmp_path_factory.mktemp("whole"), script=True), [KEY]) as server:
        yield server


@pytest.fixture(scope="module")
def chromium():
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not executable:
        pytest.fail("no browser") if os.environ.get("CI") else pytest.skip("no browser on the PATH")
    from playwright.sync_api import sync_playwright

    flags = [flag + " , EXCLUDE 127.0.0.1" if "host-resolver" in flag else flag for flag in FLAGS]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """visit(url) opens a page; whatever it asks for elsewhere and whatever its policy forbids fails the test."""
    contexts, problems = [], []

    def visit(url, scheme="light", width=1440, height=1000, key=KEY, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: m.type == "error" and "status of 40" not in m.text and problems.append(m.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: r.url.startswith((url.rsplit("/", 1)[0], "data:")) or problems.append(r.url))
        page.goto(url)
        if key:
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Use it").press("Enter")
            page.locator("tl-paged .request, tl-paged .label").first.wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not problems, "\n".join(problems)


@contextlib.contextmanager
def asking(server, **wishes):
    """A client that streams one answer after the other in a thread, until the block is left."""
    body = {"model": "fable", "prompt": f"{SECRET} said", "max_tokens": 480, "ignore_eos": True, "stream": True}
    body |= wishes
    begun, stop = threading.Event(), threading.Event()

    def read():
        url, headers = server.url + "/v1/completions", server.http.headers
        while not stop.is_set():  # a page that looks every two seconds must find somebody
            with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
                for _ in answer.iter_lines():
                    begun.set()
                    if stop.is_set():
                        break

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(20)
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def frozen(server):
    """The engine stands still, so that two looks see the same."""
    pid = server.engine_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def stand_still(route):
    """The page as it comes, but that it asks for itself again: axe needs longer than that where cores are few."""
    answer = route.fetch()
    again = re.compile(r'<meta http-equiv="?refresh"?[^>]*>')
    assert len(again.findall(answer.text())) == 1
    route.fulfill(response=answer, body=again.sub("", answer.text()))


def figures(page) -> dict:
    return dict(page.locator(".figures.card > div").evaluate_all(
        "all => all.map(e => [e.querySelector('dt').textContent, e.querySelector('dd').innerText])"))  # fmt: skip


def test_the_page_is_live_while_a_request_streams_and_its_figures_are_those_of_metrics(server, visit):
    page = visit(server.url + "/")
    with asking(server, n=2):
        row = page.locator("tbody tr", has_text="decode").first
        row.wait_for()
        first = row.locator(".of").inner_text()
        moved = "was => document.querySelector('tl-live').shadowRoot.querySelector('.of')?.innerText !== was"
        page.wait_for_function(moved, arg=first)
        with frozen(server):
            page.get_by_text("The engine is busy").wait_for()  # it shows what came last, and says how old that is
            metric, shown = server.metric, figures(page)
            used, blocks = round(metric("kv_cache_usage_perc") * 96), 96
            assert used > 0 and shown["blocks in use"].split()[:3] == [str(used), "of", f"{blocks},"]
            assert shown["running"] == "2" == str(round(metric("num_requests_running"))) and shown["waiting"] == "0"
            drawn = page.locator("tl-paged .square.held").count()
            held = {b for r in server.http.get("/live").json()["requests"] for b in r["blocks"]}
            assert drawn == len(held) > 1 and page.locator("tl-paged .square").count() == blocks
        assert SECRET not in page.content() + page.locator("tl-live").inner_text()
        assert SECRET not in server.http.get("/live").text
    page.get_by_text("No request is running. Continue").wait_for()
    hits, queries = metric("prefix_cache_hits_total"), metric("prefix_cache_queries_total")
    assert figures(page)["prefix hits"].endswith(f"of {queries:,.0f} prompt tokens") and hits >= 0
    assert page.locator("tr", has_text="Each further token").locator("td").first.inner_text().endswith("ms")
    assert sum(server.http.get("/live").json()["tokens_per_second"]) > 0


def test_a_prompt_is_answered_by_keyboard_and_can_be_stopped(server, visit):
    page = visit(server.url + "/")
    box = page.get_by_label("Continue a text")
    box.fill("The old king")
    page.get_by_label("At most").fill("12")
    page.get_by_label("At most").press("Enter")
    page.get_by_text("the first after").wait_for()
    assert len(page.locator(".answer").inner_text()) > len("The old king")
    before = page.locator(".answer").inner_text()
    page.get_by_label("At most").fill("450")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped").wait_for()
    assert server.idle() and page.locator(".answer").inner_text() != before
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused.", exact=True).wait_for()
    asked = []
    page.on("request", lambda r: asked.append(r.url))
    page.wait_for_timeout(700)
    assert not asked
    page.get_by_label("At most").fill("2000")
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("Refused: ").wait_for()  # a refusal is shown in the server's words


def test_no_data_without_a_key_which_is_kept_in_the_tab_only(server, visit):
    for path in ("/live", "/tables", "/metrics"):
        got = httpx.get(server.url + path)
        assert got.status_code == 401 and "error" in got.json(), path
    assert httpx.get(server.url + "/tables", auth=("anybody", KEY)).status_code == 200
    assert httpx.get(server.url + "/live", auth=("anybody", KEY)).status_code == 401  # a password is no key elsewhere
    shell = httpx.get(server.url + "/")
    assert shell.status_code == 200 and "blocks" not in shell.text
    page = visit(server.url + "/", key=None)
    page.get_by_label("API key").fill("wrong")
    page.get_by_label("API key").press("Enter")
    page.get_by_text("does not know this key").wait_for()
    assert page.locator(".figures.card").count() == 0
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    page.locator(".figures.card").wait_for()
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    page.reload()
    page.locator(".figures.card").wait_for()
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_label("API key").wait_for()
    assert page.locator(".figures.card").count() == 0 and page.evaluate("sessionStorage.length") == 0


def test_the_pages_policy_allows_nothing_from_elsewhere(server, visit):
    page = httpx.get(server.url + "/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy) and policy["frame-ancestors"] == "'none'"
    assert "<style" not in page.text and "onclick" not in page.text
    assert "http" not in page.text.replace("http-equiv", "")
    assert httpx.get(server.url + "/live.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("scheme, width", [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)])
def test_axe_finds_nothing_and_nothing_sticks_out(server, visit, axe, scheme, width):
    page = visit(server.url + "/", scheme, width, reduced_motion="reduce")
    with asking(server):
        page.locator("tbody tr", has_text="decode").first.wait_for()
        if folder := os.environ.get("TINYLLM_SHOTS"):
            page.wait_for_timeout(1000)
            page.screenshot(path=f"{folder}/live-{scheme}-{width}.png", full_page=True)
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_the_script_there_are_tables_that_say_how_to_get_the_page(tmp_path, visit, axe):
    with serving(package(tmp_path, script=False)) as server:
        page = visit(server.url + "/", key=None)
        with asking(server, max_tokens=300):
            page.locator("td", has_text="decode").wait_for()  # it comes by itself
            if folder := os.environ.get("TINYLLM_SHOTS"):
                page.screenshot(path=f"{folder}/tables.png", full_page=True)
        assert "make widgets" in page.locator("main").inner_text() and page.url.endswith("/tables")
        page.route("**/tables", stand_still)
        page.reload()
        assert page.locator("main").count() == 1 and axe(page) == []
        assert httpx.get(server.url + "/live.js").status_code == 404
        state = server.http.get("/live").json()
        assert state["pool"]["num_blocks"] == 96 and json.dumps(state).count(SECRET) == 0
        page.close()  # it would ask again when the server has gone
