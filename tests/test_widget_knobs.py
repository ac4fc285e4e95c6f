"""<tl-knobs>: its figures are the data's, and its advice is what a search through all settings finds."""

import json
import re
from itertools import product

import pytest

PAGE = "nbs/20_throughput_vs_latency.html"
OUTSIDE = """() => {
    const host = document.querySelector("tl-knobs"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""
EVERY = """async (element, places) => {
    const found = [];
    for (const [rate, seat, budget] of places) {
        Object.assign(element, { rate, seat, budget });
        await element.updateComplete;
        const texts = (what) => [...element.shadowRoot.querySelectorAll(what)].map((e) => e.textContent.trim());
        const [facts, [little], [read]] = [texts(".facts dd:not(.note)"), texts(".little"), texts(".read")];
        found.push({ facts, little, read });
    }
    return found;
}"""
UNIT = {"s": 1, "ms": 0.001}


@pytest.fixture
def knobs(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-knobs")
        element.scroll_into_view_if_needed()
        element.locator("svg.next").wait_for()
        return page, element, json.loads(element.locator("script").text_content())

    return opened


def amounts(text):
    """The numbers of a text; times in seconds."""
    found = re.findall(r"(\d[\d,]*(?:\.\d+)?)(?:\s(ms|s)\b)?", text)
    return [float(n.replace(",", "")) * UNIT.get(unit, 1) for n, unit in found]


def kept(data, place):
    rate, seat, budget = place
    point = data["surface"][rate][seat][budget]
    return all(point[what][1] <= data["promise"][what] for what in ("first", "next"))


def everywhere(data):
    return list(product(*(range(len(data[what])) for what in ("rates", "seats", "budgets"))))


def state(element):
    return element.evaluate("e => [e.rate, e.seat, e.budget]")


def test_every_figure_is_the_datas_under_every_load_and_setting(knobs):
    _, element, data = knobs()
    assert state(element) == [data["rate"], data["seat"], data["budget"]]
    places = everywhere(data)
    for place, shown in zip(places, element.evaluate(EVERY, places), strict=True):
        point, rate = data["surface"][place[0]][place[1]][place[2]], data["rates"][place[0]]
        near = {"rel": 0.006, "abs": 0.051}
        first, following, tokens, good = map(amounts, shown["facts"])
        assert first == pytest.approx(point["first"], rel=0.006, abs=0.0006), place
        assert following == pytest.approx(point["next"], rel=0.006, abs=0.0006), place
        assert tokens == pytest.approx([point["tokens"]], abs=0.51), place
        assert good == pytest.approx([rate * point["good"]], **near), place
        law = [point["arrived"], point["stay"], point["arrived"] * point["stay"], point["inside"]]
        assert amounts(shown["little"]) == pytest.approx(law, **near), place


def test_the_sentence_says_what_breaks_and_what_would_keep_the_promise(knobs):
    _, element, data = knobs()
    rates, places = data["rates"], everywhere(data)
    good = [place for place in places if kept(data, place)]
    for place, shown in zip(places, element.evaluate(EVERY, places), strict=True):
        (rate, seat, budget), said = place, shown["read"]
        point = data["surface"][rate][seat][budget]
        late = [what for what in ("first", "next") if point[what][1] > data["promise"][what]]
        assert said.startswith(f"At {rates[rate]:,} a second")
        assert ("promise is kept" in said) == (place in good) == (not late), said
        assert ("both halves" in said) == (len(late) == 2), said
        assert [w for w in ("first", "next") if f"the {w} word breaks" in said] == (late if len(late) == 1 else [])
        if not late:
            broken = [r for r in range(rate + 1, len(rates)) if (r, seat, budget) not in good]
            assert amounts(said.rpartition("it breaks at")[2])[:1] == [rates[r] for r in broken[:1]] or not broken
            continue
        more = re.findall(r"(more|fewer) (requests at once|tokens a step) \(([\d,]+)\)", said, re.IGNORECASE)
        for way, knob, value in more:
            which = "seats" if knob.startswith("requests") else "budgets"
            new = data[which].index(int(value.replace(",", "")))
            assert way.lower() == ("more" if new > (seat if which == "seats" else budget) else "fewer")
            assert (rate, new, budget) in good if which == "seats" else (rate, seat, new) in good
        here = [p for p in good if p[0] == rate]
        assert any("requests" in knob for _, knob, _ in more) == any(p[2] == budget for p in here), said
        assert any("tokens" in knob for _, knob, _ in more) == any(p[1] == seat for p in here), said
        setting = re.search(r"([\d,]+) at once and ([\d,]+) tokens a step", said)
        if setting:
            chosen = [int(n.replace(",", "")) for n in setting.groups()]
            under = max(p[0] for p in good) if "No setting here" in said else rate
            assert ("No setting here" in said) == (not here)
            assert (under, data["seats"].index(chosen[0]), data["budgets"].index(chosen[1])) in good
            assert "No setting" not in said or f"is {rates[under]:,} a second" in said
        else:
            assert more or ("under any load" in said and not good), said


def test_the_keyboard_turns_all_three_knobs_and_not_the_page(knobs):
    page, element, data = knobs()
    url = page.url
    element.locator("#load").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert element.locator(".label b").inner_text() == f"{data['rates'][1]:,} a second"
    for _ in data["seats"]:
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for _ in data["budgets"]:
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert state(element) == [1, len(data["seats"]) - 1, len(data["budgets"]) - 1] and page.url == url
    pressed = element.locator("button[aria-pressed=true]").all_inner_texts()
    assert pressed == [f"{data['seats'][-1]:,}", f"{data['budgets'][-1]:,}"]
    page.wait_for_function("document.querySelector('tl-knobs').shadowRoot.querySelector('[role=status]').textContent")
    assert element.locator("[role=status]").inner_text() == element.locator(".read").inner_text()


def test_a_finger_on_a_chart_chooses_the_load_and_targets_are_large_enough(knobs):
    page, element, data = knobs(width=390, touch=True, height=844)
    chart = element.locator("svg.first")
    size = chart.bounding_box()
    for x, place in ((size["width"] - 14, len(data["rates"]) - 1), (54, 0)):
        chart.tap(position={"x": x, "y": 60})
        assert state(element)[0] == place
    element.get_by_role("group", name="At once").get_by_role("button").last.tap()
    assert state(element)[1] == len(data["seats"]) - 1
    for target in element.locator("button, #load").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light"), (1440, "dark")])
def test_axe_finds_nothing_and_nothing_sticks_out(knobs, axe, width, scheme):
    page, element, _ = knobs(width=width, scheme=scheme, reduced_motion=True)
    element.locator("#load").focus()
    page.keyboard.press("End")
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-knobs") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []


def test_table_of_the_setting_and_words_and_picture_where_no_script_runs(knobs, page_factory):
    _, element, data = knobs()
    assert element.locator(".question").inner_text().endswith("?")
    element.get_by_role("button", name="Show as a table").click()
    rows = [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]
    seat, budget = data["seat"], data["budget"]
    assert [row[0] for row in rows] == [f"{rate:,}" for rate in data["rates"]]
    assert [row[-1] for row in rows] == [
        "kept" if kept(data, (r, seat, budget)) else "broken" for r in range(len(rows))
    ]
    for row, under in zip(rows, data["surface"], strict=True):
        wanted = under[seat][budget]["first"] + under[seat][budget]["next"]
        assert amounts(" ".join(row[1:5])) == pytest.approx(wanted, rel=0.006, abs=0.0006)
    static = page_factory(PAGE, javascript=False).locator("tl-knobs .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
