"""<tl-life>: the recorded life is the engine's, every stage leads to a chapter, and it can be walked through."""

import json

import pytest

torch = pytest.importorskip("torch")
from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

PAGE = "nbs/21_recap.html"
OUTSIDE = """() => {
    const host = document.querySelector("tl-life"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table, .scroll")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.fixture
def life(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-life")
        element.scroll_into_view_if_needed()
        element.locator(".stages").wait_for()
        return page, element

    return opened


@pytest.fixture
def frames(life):
    _, element = life()
    return json.loads(element.locator("script").text_content())


def of(data, stage):
    return [frame for frame in data["frames"] if frame["stage"] == stage]


def test_the_recorded_answer_is_that_of_the_naive_loop(frames):
    tokenizer, model = load_tokenizer(resolve("fable")), load_model("fable")
    pieces = of(frames, "text")[0]["pieces"]
    prompt = [i for _, i in pieces]
    assert prompt == tokenizer.encode("".join(text for text, _ in pieces))
    answer = of(frames, "out")[-1]["ids"]
    wish = SamplingParams(temperature=of(frames, "sample")[0]["temperature"], seed=3, max_tokens=len(answer))
    assert answer == list(generate(model, prompt, wish))
    last = of(frames, "out")[-1]
    assert last["before"] + last["piece"] == tokenizer.decode(prompt + answer)
    assert [f["chosen"] for f in of(frames, "sample")] == [tokenizer.decode([i]) for i in answer]


def test_what_the_stages_of_a_step_tell_fits_together(frames):
    computed, size = 0, of(frames, "blocks")[0]["size"]
    for plan, blocks, batch in zip(of(frames, "plan"), of(frames, "blocks"), of(frames, "batch"), strict=True):
        assert plan["step"] == blocks["step"] == batch["step"]
        mine = next(row for row in plan["rows"] if row[0] == frames["name"])
        _, start, count, total, samples = mine
        assert sum(row[2] for row in plan["rows"]) == len(batch["flat"]) <= plan["budget"]
        assert start >= computed and samples == (start + count == total)
        computed = start + count
        assert sum(len(texts) for _, texts, _ in blocks["table"]) == computed
        for name, text, position, slot in batch["flat"]:
            if name == frames["name"]:
                block, texts, _ = blocks["table"][position // size]
                assert slot == block * size + position % size and texts[position % size] == text
    answer = of(frames, "out")[-1]["ids"]
    assert computed == len(of(frames, "text")[0]["pieces"]) + len(answer) - 1  # the last token is never computed
    assert any(how == "found" for _, _, how in of(frames, "blocks")[0]["table"])


def test_the_mouse_steps_and_every_stage_leads_to_chapters_that_exist(life, book_html):
    page, element = life()
    where = page.url.rsplit("/", 1)[0]
    targets, seen = set(), set()
    while True:
        seen.add(element.locator(".stages button[aria-pressed=true]").inner_text())
        targets |= set(element.locator(".links a, .flow a").evaluate_all("all => all.map((a) => a.href)"))
        following = element.get_by_role("button", name="Next", exact=True)
        if following.is_disabled():
            break
        following.click()
    assert len(seen) == 9 and len(targets) >= 14
    for target in targets:
        assert target.startswith(where) and (book_html / "nbs" / target.rsplit("/", 1)[1]).exists()
    element.get_by_role("button", name="Queue").click()
    assert "waits" in element.locator(".says").inner_text() and element.locator(".people .mine").count() == 1
    element.get_by_role("button", name="Next step").click()
    element.get_by_role("button", name="Back", exact=True).click()
    assert "Step 1 " in element.locator(".where").inner_text()


def test_the_keyboard_walks_and_does_not_turn_the_page(life):
    page, element = life()
    url = page.url
    element.get_by_role("button", name="Next", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert element.locator(".where span").inner_text().startswith("3 of")
    page.keyboard.press("ArrowLeft")
    slider = element.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext").startswith("2 of") and page.url == url
    slider.focus()
    page.keyboard.press("End")
    assert "keep their hashes" in element.locator(".says").inner_text()
    page.wait_for_function("document.querySelector('tl-life').shadowRoot.querySelector('[role=status]').textContent")


def test_a_finger_taps_stages_and_targets_are_large_enough(life):
    _, element = life(width=390, touch=True, height=844)
    element.get_by_role("button", name="Sampler").tap()
    bars = element.locator(".likely li")
    assert bars.count() == 5 and element.locator(".likely .mine").count() == 1
    element.get_by_role("button", name="Text", exact=True).tap()
    assert element.locator(".story b").inner_text()
    for target in element.locator("button, input").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_at_any_stage_and_nothing_sticks_out(life, axe, width, scheme):
    page, element = life(width=width, scheme=scheme, reduced_motion=True)
    for stage in ("Queue", "Plan", "Blocks", "Batch", "Model", "Sampler", "Text", "Leaving"):
        element.get_by_role("button", name=stage, exact=True).click()
        assert page.evaluate(OUTSIDE) == []
        if stage in ("Blocks", "Sampler"):
            assert axe(page, "tl-life") == []
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-life") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_table_and_picture_for_those_who_cannot_see_it_or_have_no_scripts(life, page_factory, book_html):
    _, element = life()
    assert element.locator(".question").inner_text().endswith("?")
    element.get_by_role("button", name="Show as a table").click()
    events = int(element.locator(".where span").inner_text().split(" of ")[1])
    assert element.locator(".as-table tbody tr").count() == events
    static = page_factory(PAGE, javascript=False).locator("tl-life .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert (book_html / PAGE).stat().st_size < 500_000
