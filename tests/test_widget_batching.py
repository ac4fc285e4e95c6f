"""<tl-batching>: two schedulers side by side; the page's decisions against those of the chapter's own classes."""
import json
import random
from functools import cache
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "nbs/14_continuous_batching.ipynb"
PAGE = "nbs/14_continuous_batching.html"
SIMULATE = "(w, cases) => cases.map((case_) => w.simulate(...case_))"
OUTSIDE = """() => {
    const host = document.querySelector("tl-batching"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@cache
def chapter() -> dict:
    """The schedulers as the chapter defines them: its cells with these names, run alone."""
    names, space = ("class RowScheduler", "class SimulatedExecutor"), {}
    cells = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    for name in names:
        exec(next(source for source in cells if name in source), space)
    return space


def expected(requests, rows, together):
    space = chapter()
    trace = [(arrival, 4, tokens) for arrival, tokens in requests]
    core = space["EngineCore"](space["RowScheduler"](rows, together=together), space["SimulatedExecutor"]())
    found = space["serve"](core, trace, space["stand_in"](trace))
    return [{"row": r["row"], "start": r["first"] - 1, "end": r["last"]} for r in found]


@pytest.fixture
def batching(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-batching")
        element.scroll_into_view_if_needed()
        element.locator(".field").first.wait_for()
        return page, element

    return opened


def counts(element, way) -> list[str]:
    return element.locator(f".{way} dd").all_inner_texts()


def step(element) -> int:
    return int(element.get_by_role("slider").input_value())


def test_the_page_decides_as_the_chapters_scheduler_does_on_any_trace(batching):
    _, element = batching()
    dice = random.Random(12)
    cases = []
    for _ in range(60):
        arrivals = sorted(dice.randint(0, dice.choice((0, 5, 60))) for _ in range(dice.randint(1, 24)))
        requests, rows = [[arrival, dice.randint(1, 30)] for arrival in arrivals], dice.randint(1, 6)
        cases += [[requests, rows, together] for together in (True, False)]
    for case, got in zip(cases, element.evaluate(SIMULATE, cases), strict=True):
        assert got == expected(*case), case


def test_the_stored_traces_end_as_the_chapter_says(batching):
    _, element = batching()
    data = json.loads(element.locator("script").text_content())
    for trace in data["traces"]:
        ends = [max(r["end"] for r in expected(trace["requests"], data["rows"], way)) for way in (True, False)]
        element.get_by_role("button", name=trace["name"]).click()
        element.get_by_role("slider").fill("999")
        for way, end in zip(("static", "continuous"), ends, strict=True):
            assert counts(element, way)[0] == f"16 of 16 after step {end}"
        assert step(element) == max(ends)
    work = sum(tokens for _, tokens in data["traces"][-1]["requests"])
    assert counts(element, "static")[1] == f"{work / data['rows'] / ends[0]:.0%}"


def test_playing_moves_both_until_the_reader_stops_it(batching):
    page, element = batching()
    before, done = step(element), counts(element, "continuous")
    element.get_by_role("button", name="Play").click()
    page.wait_for_function("n => document.querySelector('tl-batching').now > n + 5", arg=before)
    element.get_by_role("button", name="Stop").click()
    at = step(element)
    assert at > before and counts(element, "continuous") != done
    page.wait_for_timeout(400)
    assert step(element) == at


def test_who_waits_is_shown_by_name_and_bars_grow_up_to_the_step(batching):
    _, element = batching()
    element.get_by_role("slider").fill("20")
    data = json.loads(element.locator("script").text_content())
    requests = data["traces"][0]["requests"]
    for way in ("static", "continuous"):
        runs = expected(requests, data["rows"], way == "static")
        late = ["ABCDEFGHIJKLMNOP"[i] for i, r in enumerate(runs) if requests[i][0] < 20 <= r["start"]]
        assert element.locator(f".{way} .one").all_inner_texts() == late
        assert element.locator(f".{way} .bar").count() == sum(r["start"] < 20 for r in runs)
        assert counts(element, way)[0] == f"{sum(r['end'] <= 20 for r in runs)} of 16"


def test_everything_works_by_keyboard_and_does_not_turn_the_page(batching):
    page, element = batching()
    url, before = page.url, step(element)
    element.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert step(element) == before + 1
    page.keyboard.press("End")
    assert counts(element, "static")[0].startswith("16 of 16")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert element.get_by_role("button", name="All alike").get_attribute("aria-pressed") == "true" and page.url == url
    page.wait_for_function("document.querySelector('tl-batching').shadowRoot.querySelector('[role=status]').textContent")
    assert "continuous: 16 of 16 done" in element.locator("[role=status]").inner_text()


def test_a_finger_plays_and_who_wants_no_motion_gets_the_end_at_once(batching):
    page, element = batching(width=390, touch=True, height=844, reduced_motion=True)
    element.get_by_role("button", name="One very long").tap()
    element.get_by_role("button", name="To the end").tap()
    assert counts(element, "continuous")[0].startswith("16 of 16")
    for target in element.locator("button, input[type=range]").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(batching, axe, width, scheme):
    page, element = batching(width=width, scheme=scheme, reduced_motion=True)
    assert axe(page, "tl-batching") == []
    element.get_by_role("slider").fill("999")
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-batching") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []


def test_words_table_and_picture_for_those_who_cannot_see_it_or_have_no_scripts(batching, page_factory, book_html):
    _, element = batching()
    assert element.locator(".question").inner_text().endswith("?")
    element.get_by_role("button", name="Show as a table").click()
    live = [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]
    static = page_factory(PAGE, javascript=False).locator("tl-batching .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    stored = [row.locator("td").all_text_contents() for row in static.locator("tbody tr").all()]
    order = [0, 1, 2, 3, 5, 4, 6]  # the page's table has waits and ends by turns
    assert live == [[row[i] for i in order] for row in stored] and len(live) == 16
    assert (book_html / PAGE).stat().st_size < 500_000
