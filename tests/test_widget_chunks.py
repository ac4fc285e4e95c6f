"""<tl-chunks>: its scheduler against the engine's, and worked by mouse, keyboard and finger."""

import json
import random

import numpy as np
import pytest

from tinyllm.engine.core import Request, ModelRunnerOutput
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.scheduler import Scheduler

PAGE = "nbs/17_chunked_prefill.html"
OUTSIDE = """() => {
    const host = document.querySelector("tl-chunks"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.fixture
def chunks(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-chunks")
        element.scroll_into_view_if_needed()
        element.locator(".time").wait_for()
        return page, element

    return opened


def some_token(tokens):
    """A made-up model, the same as in scheduler.js."""
    return (3 * sum(tokens) + len(tokens)) % 23


def engine_steps(options, requests):
    """What the engine's scheduler plans, one step of the clock each, in the widget's words."""
    scheduler = Scheduler(
        options["numBlocks"], options["blockSize"], max_num_seqs=options["maxNumSeqs"],
        max_num_batched_tokens=options["budget"], max_model_len=64, policy=options["policy"],
        enable_prefix_caching=options["prefixCaching"], enable_chunked_prefill=options["chunked"],
    )  # fmt: skip
    coming, clock, steps, idle_rounds = sorted(requests, key=lambda r: r["at"]), 0, [], 0
    while coming or scheduler.queue.running or scheduler.queue.peek_request():
        while coming and coming[0]["at"] <= clock:
            r = coming.pop(0)
            wish = SamplingParams(max_tokens=r["maxTokens"])
            scheduler.add(Request(r["name"], r["prompt"], wish, priority=r["priority"]))
        before = {r.request_id: r.num_preemptions for r in scheduler.queue.running}
        plan = scheduler.schedule()
        if plan is None:
            idle_rounds += 1
            assert idle_rounds < 3
            clock = coming[0]["at"] if coming and not scheduler.queue.peek_request() else clock
            continue
        idle_rounds = 0
        by_row = scheduler.batch.requests
        parts = [
            [by_row[row].request_id, start, count, bool(samples)]
            for row, start, count, samples in zip(
                plan.rows.tolist(), plan.starts.tolist(), plan.counts.tolist(), plan.samples.tolist(), strict=True
            )
        ]
        waiting = [r.request_id for r in sorted((e[-1] for e in scheduler.queue.waiting), key=scheduler.queue.key)]
        gone = {r for r in before if r in waiting}
        steps.append([clock, parts, sorted(gone), waiting, scheduler.kv_cache_manager.block_pool.num_free_blocks])
        answers = [by_row[row] for row, samples in zip(plan.rows, plan.samples, strict=True) if samples]
        tokens = [some_token(r.prompt_token_ids + r.output_token_ids) for r in answers]
        scheduler.update(plan, ModelRunnerOutput(np.array(tokens, int)[:, None]))
        clock += 1
    return steps


def page_steps(found):
    return [
        [
            step["from"],
            [[p["name"], p["start"], p["count"], p["samples"]] for p in step["parts"]],
            sorted(step["preempted"]),
            step["waiting"],
            step["idle"],
        ]
        for step in found
    ]


def random_case(seed):
    rng = random.Random(seed)
    size, rows, chunked = rng.choice([1, 2, 4, 16]), rng.randint(1, 6), rng.random() < 0.8
    blocks = rng.randint(2, 40)
    options = {
        "numBlocks": blocks, "blockSize": size, "maxNumSeqs": rows, "policy": rng.choice(["fcfs", "priority"]),
        "budget": rows + rng.randint(0, 24) if chunked else 64, "prefixCaching": rng.random() < 0.7,
        "chunked": chunked,
    }  # fmt: skip
    requests = []
    for i in range(rng.randint(1, 12)):
        length, wanted = rng.randint(1, 40), rng.randint(1, 20)
        if length + wanted - 1 > min(blocks * size, 63):
            continue
        kind = rng.randint(0, 2)  # three families of prompts that begin alike
        requests.append({
            "name": str(i), "prompt": [1 + (7 * kind * (j > 5) + j) % 22 for j in range(length)],
            "maxTokens": wanted, "priority": rng.randint(0, 2), "at": rng.randint(0, 12),
        })  # fmt: skip
    return options, requests


def test_the_pages_scheduler_plans_what_the_engines_plans(chunks):
    _, element = chunks()
    cases = [random_case(seed) for seed in range(200)]
    found = element.evaluate("(e, cases) => cases.map(([options, requests]) => e.simulate(options, requests))", cases)
    preempted = shared = 0
    for (options, requests), steps in zip(cases, found, strict=True):
        wanted = engine_steps(options, requests)
        assert page_steps(steps) == wanted, (options, requests)
        preempted += sum(len(step[2]) for step in wanted)
        shared += sum(p["found"] > 0 for step in steps for p in step["parts"])
    assert preempted > 30 and shared > 30  # the hard parts were met


def test_a_request_that_can_never_fit_is_refused_by_the_page_too(chunks):
    _, element = chunks()
    options = {"numBlocks": 2, "blockSize": 4, "maxNumSeqs": 1, "budget": 8}
    refuse = """(e, [options, request]) => {
        try { e.simulate(options, [request]); return ""; } catch (error) { return error.message; }
    }"""
    request = {"name": "r", "prompt": [1] * 5, "maxTokens": 5, "at": 0}
    assert "never fit" in element.evaluate(refuse, [options, request])
    assert element.evaluate(refuse, [options, {**request, "maxTokens": 4}]) == ""


def shown(element):
    return [float(text.split()[0]) for text in element.locator(".counts dd").all_inner_texts()]


def slide(element, place):
    element.locator("#budget").evaluate(
        "(e, place) => { e.value = place; e.dispatchEvent(new Event('input', { bubbles: true })); }", str(place)
    )


def test_a_smaller_budget_shortens_the_chats_wait_and_the_figures_are_those_of_the_table(chunks):
    _, element = chunks()
    data = json.loads(element.locator("script").text_content())
    rows = "e => [...e.querySelectorAll('.tl-static tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    static = element.evaluate(rows)
    waits = []
    for place, row in enumerate(static):
        slide(element, place)
        first, wait, _ = shown(element)
        assert f"{data['budgets'][place]:,}" == row[0]
        assert first == pytest.approx(float(row[1]), abs=0.51) and wait == pytest.approx(float(row[2]), abs=0.51)
        waits.append(wait)
    assert waits == sorted(waits) and waits[-1] > 10 * waits[0]


def test_the_mouse_points_at_steps_and_chooses_what_happens(chunks):
    page, element = chunks()
    slide(element, 6)
    before = element.locator(".read").inner_text()
    assert "report, tokens" in before
    box = element.locator(".time").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
    assert element.locator(".read").inner_text() != before
    element.get_by_role("button", name="Its beginning is known").click()
    assert "1,600 found" in element.locator(".read").inner_text() and element.locator("rect.fnd").count() == 1
    element.get_by_role("button", name="Memory runs out").click()
    slide(element, 13)
    assert element.locator("text.gone").count() >= 1
    assert element.get_by_role("button", pressed=True).inner_text() == "Memory runs out"


def test_the_keyboard_moves_the_budget_and_walks_through_the_steps(chunks):
    page, element = chunks()
    url = page.url
    element.locator("#budget").focus()
    before = shown(element)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert element.locator(".label b").inner_text() == "1,024" and shown(element)[1] < before[1]
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    time = element.locator(".time")
    assert time.get_attribute("aria-valuenow") == "1" and "Step 1," in element.locator(".read").inner_text()
    page.keyboard.press("ArrowRight")
    assert time.get_attribute("aria-valuenow") == "2" and page.url == url
    page.keyboard.press("End")
    assert time.get_attribute("aria-valuenow") == time.get_attribute("aria-valuemax")
    page.wait_for_function("document.querySelector('tl-chunks').shadowRoot.querySelector('[role=status]').textContent")


def test_a_finger_taps_a_step_and_targets_are_large_enough(chunks):
    _, element = chunks(width=390, touch=True, height=844)
    element.get_by_role("button", name="Memory runs out").tap()
    time = element.locator(".time")
    before = element.locator(".read").inner_text()
    time.scroll_into_view_if_needed()
    time.tap(position={"x": 120, "y": 20})
    assert element.locator(".read").inner_text() != before
    for target in element.locator("button, #budget, .time").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(chunks, axe, width, scheme):
    page, element = chunks(width=width, scheme=scheme, reduced_motion=True)
    for name in ("Memory runs out", "Its beginning is known"):
        element.get_by_role("button", name=name).click()
        assert axe(page, "tl-chunks") == []
        assert page.evaluate(OUTSIDE) == []
    slide(element, 0)
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-chunks") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []


def test_words_table_and_picture_for_those_who_cannot_see_it_or_have_no_scripts(chunks, page_factory, book_html):
    _, element = chunks()
    assert element.locator(".question").inner_text().endswith("?")
    element.get_by_role("button", name="Show as a table").click()
    rows = [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]
    assert max(int(row[2].replace(",", "")) for row in rows) == 2008 and "report 2,000" in {row[4] for row in rows}
    static = page_factory(PAGE, javascript=False).locator("tl-chunks .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert (book_html / PAGE).stat().st_size < 500_000
