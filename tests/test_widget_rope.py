"""<tl-rope>: moved by mouse, keyboard and finger, and its numbers against those of apply_rotary."""
import json
from itertools import pairwise

import pytest
import torch
from tinyllm.model.rope import Rotary, apply_rotary

PAGE = "nbs/06_positional_encoding.html"
HANDLES = {"query": "Position of the query", "key": "Position of the key"}

PUT = """([query, key, pair]) => {
    const element = document.querySelector("tl-rope");
    Object.assign(element, { reach: 8192, place: { query, key }, pair });
    return element.updateComplete;
}"""
OUTSIDE = """() => {
    const host = document.querySelector("tl-rope"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.fixture
def rope(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-rope")
        element.scroll_into_view_if_needed()
        element.locator(".pair").first.wait_for()
        return page, element

    return opened


def place(element) -> tuple[int, int]:
    key = int(element.get_by_role("slider", name=HANDLES["key"]).get_attribute("aria-valuenow"))
    return int(element.get_by_role("slider", name=HANDLES["query"]).get_attribute("aria-valuenow")), key


def shown(element) -> list[float]:
    return [float(text.replace("−", "-")) for text in element.locator(".counts dd").all_text_contents()]


def pull(page, handle, dx):
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx / 2, y)
    page.mouse.move(x + dx, y)
    page.mouse.up()


def test_dot_products_are_those_of_the_engine_at_any_positions(rope):
    page, element = rope()
    data = json.loads(element.locator("script").text_content())
    query, key = (torch.tensor(data[name]).T.reshape(1, 1, 64) for name in ("query", "key"))
    rotary = Rotary(64)
    torch.testing.assert_close(torch.tensor(data["speeds"]), rotary.inv_freq, rtol=1e-5, atol=0)
    for at_query, at_key, pair in [(7, 6, 0), (63, 0, 3), (2000, 1, 23), (8191, 17, 31), (8000, 7990, 5)]:
        page.evaluate(PUT, [at_query, at_key, pair])
        turned = [apply_rotary(x, *rotary(torch.tensor([at]))) for x, at in ((query, at_query), (key, at_key))]
        parts = (turned[0] * turned[1]).reshape(2, 32).sum(0)
        expected = [parts[pair].item(), parts.sum().item()]
        assert shown(element) == pytest.approx(expected, abs=0.05), (at_query, at_key, pair)


def test_moving_both_keeps_every_dot_product_and_moving_one_does_not(rope):
    page, element = rope()
    query, key = place(element)
    before, arrows = shown(element), element.locator(".dial").inner_html()
    pull(page, element.locator(".handle.both"), 200)
    moved = place(element)
    assert moved[0] > query and moved[0] - moved[1] == query - key
    assert shown(element) == before and element.locator(".dial").inner_html() != arrows
    pull(page, element.locator(".handle.query"), 60)
    assert place(element)[0] > moved[0] and place(element)[1] == moved[1] and shown(element) != before


def test_a_query_never_stands_before_its_key_nor_anything_outside_the_line(rope):
    page, element = rope()
    pull(page, element.locator(".handle.query"), -900)
    assert len(set(place(element))) == 1
    pull(page, element.locator(".handle.query"), 3000)
    assert place(element)[0] == 63
    pull(page, element.locator(".handle.key"), 3000)
    assert place(element) == (63, 63)
    element.locator(".handle.both").press("End")
    assert place(element) == (63, 63)
    element.locator(".handle.both").press("Home")
    assert place(element) == (0, 0)


def test_everything_works_by_keyboard_and_does_not_turn_the_page(rope):
    page, element = rope()
    url, (query, key), before = page.url, place(element), shown(element)
    element.locator(".handle.query").focus()
    page.keyboard.press("ArrowRight")
    assert place(element) == (query + 1, key) and shown(element) != before
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")  # to both
    page.keyboard.press("PageUp")
    assert place(element) == (query + 4, key + 4) and shown(element) == before
    page.keyboard.press("Tab")  # to the key
    page.keyboard.press("ArrowLeft")
    assert place(element) == (query + 4, key + 3)
    page.keyboard.press("Tab")  # to the pairs
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    chosen = element.get_by_role("radio", checked=True)
    assert chosen.count() == 1 and chosen.get_attribute("aria-label").startswith("Pair 31")
    assert "Pair 31" in element.locator(".read").inner_text() and page.url == url
    page.wait_for_function("document.querySelector('tl-rope').shadowRoot.querySelector('[role=status]').textContent")
    assert "Dot product of pair 31" in element.locator("[role=status]").inner_text()


def test_past_the_trained_length_slow_hands_leave_their_arc_and_fast_ones_do_not(rope):
    _, element = rope()
    assert element.locator(".beyond").count() == 0 and element.locator(".unseen").count() == 0
    element.get_by_role("button", name="8,192 tokens").click()
    query, key = place(element)
    assert query - key > 2048 and element.locator(".unseen").count() == 1
    assert "shows nothing new" in element.locator(".beyond").inner_text()
    new = element.locator(".hand").evaluate_all("all => all.map((e) => e.classList.contains('new'))")
    rounds = 2047 * Rotary(64).inv_freq / (2 * torch.pi)
    assert new == (rounds < 1).tolist() and 0 < sum(new) < 32
    element.locator(".pair").nth(31).click()
    assert "left the arc" in element.locator(".beyond").inner_text()
    element.get_by_role("button", name="64 tokens").click()
    assert place(element) == (7, 6) and element.locator(".beyond").count() == 0


def test_the_axis_has_round_numbers_zero_among_them(rope):
    _, element = rope()
    for reach in ("64 tokens", "8,192 tokens"):
        element.get_by_role("button", name=reach).click()
        ticks = [float(text.replace("−", "-")) for text in element.locator(".curve .tick").all_text_contents()]
        steps = {round(b - a, 3) for a, b in pairwise(ticks)}
        assert 0 in ticks and 3 <= len(ticks) <= 6 and len(steps) == 1
        assert steps.pop() in {1, 2, 2.5, 5, 10, 20, 25, 50, 100}
    assert "dot product" in element.locator(".curve text").all_text_contents()


def test_a_finger_chooses_a_pair_and_drags(rope):
    page, element = rope(width=390, touch=True, height=844)
    element.locator(".pair").nth(23).tap()
    assert "Pair 24" in element.locator(".read").inner_text()
    before = place(element)
    handle = element.locator(".handle.both")
    handle.evaluate("e => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
    client, box = page.context.new_cdp_session(page), handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, dx in (("touchStart", 0), ("touchMove", 40), ("touchMove", 80), ("touchEnd", None)):
        points = [] if dx is None else [{"x": x + dx, "y": y}]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    after = place(element)
    assert after[0] > before[0] + 5 and after[0] - after[1] == before[0] - before[1]
    for target in element.locator("[role=slider], [role=radio], button").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(rope, axe, width, scheme):
    page, element = rope(width=width, scheme=scheme, reduced_motion=True)
    assert axe(page, "tl-rope") == []
    element.get_by_role("button", name="8,192 tokens").click()
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-rope") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []


def test_words_table_and_picture_for_those_who_cannot_see_it_or_have_no_scripts(rope, page_factory, book_html):
    _, element = rope()
    assert element.locator(".question").inner_text().endswith("?")
    element.get_by_role("button", name="Show as a table").click()
    rows = [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]
    assert rows[0][2] == rows[1][2] == rows[2][2] == "1" and rows[0][3:] == rows[1][3:] == rows[2][3:] != rows[3][3:]
    static = page_factory(PAGE, javascript=False).locator("tl-rope .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert (book_html / PAGE).stat().st_size < 500_000


def test_the_line_ends_where_its_reach_ends_whoever_asks_for_the_same_again(rope):
    _, element = rope()
    element.get_by_role("button", name="64 tokens").click()
    for name in ("Position of the query", "Position of the key"):
        element.get_by_role("slider", name=name).press("End")
    element.get_by_role("button", name="64 tokens").click()
    assert element.evaluate("e => e.place.key < e.place.query && e.place.query < e.reach")
