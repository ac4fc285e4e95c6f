"""<tl-speculate>: the recording is the engine's, its judgements follow the rule, and it can be walked through."""

import json

import pytest

torch = pytest.importorskip("torch")
from tinyllm.engine.core import Request
from tinyllm.engine.params import SamplingParams
from tinyllm.llm import LLM

PAGE = "nbs/18_speculative_decoding.html"
OUTSIDE = """() => {
    const host = document.querySelector("tl-speculate"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.fixture
def speculate(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-speculate")
        element.scroll_into_view_if_needed()
        element.locator(".guesses").wait_for()
        return page, element

    return opened


@pytest.fixture
def steps(speculate):
    _, element = speculate()
    return json.loads(element.locator("script").text_content())["steps"]


def press(element, name):
    element.get_by_role("button", name=name, exact=True).click()


def verdicts(element):
    return element.locator(".verdict").all_inner_texts()


def to_the_end_of_the_step(element):
    while not element.locator(".story b").count():
        press(element, "Next")


def test_the_recording_is_what_the_engine_does_without_a_seed(steps):
    config = {"model": "fable-draft", "num_speculative_tokens": 4, "adaptive": False}
    llm = LLM("fable", speculative_config=config, max_num_seqs=2, max_model_len=64)
    prompt, first = llm.tokenizer.encode("Once upon a time"), llm.tokenizer.encode(steps[0]["text"])
    count = sum(step["stood"] + 1 for step in steps) + len(first) - len(prompt)
    request = Request("story", prompt, SamplingParams(temperature=0.8, max_tokens=count), 8)
    llm.core.add(request)
    made = []
    while request.finish_reason is None:
        before = len(request.output_token_ids)
        llm.core.step()
        made.append(len(request.output_token_ids) - before)
    assert made[1:] == [step["stood"] + 1 for step in steps]
    text = llm.tokenizer.decode(prompt + request.output_token_ids)
    last = steps[-1]
    assert text == last["text"] + "".join(g["text"] for g in last["guesses"][: last["stood"]]) + last["then"]


def test_what_is_recorded_follows_the_rule(steps):
    assert {step["stood"] for step in steps} >= {1, 4}
    for step in steps:
        for i, guess in enumerate(step["guesses"]):
            if i > step["stood"]:
                assert guess["coin"] is None
            else:
                assert (guess["coin"] < guess["p"] / guess["q"]) == (i < step["stood"])
        refused = step["stood"] < len(step["guesses"])
        lefts = [max(x["p"] - (x["q"] if refused else 0), 0) / x["left"] for x in step["likely"]]
        assert max(lefts) == pytest.approx(min(lefts), rel=1e-3)  # scaled by one number
        assert step["then"] in [x["text"] for x in step["likely"]]


def test_the_mouse_steps_from_guess_to_guess_and_back(speculate, steps):
    _, element = speculate()
    assert verdicts(element) == ["stands", "", "", ""]  # something has happened already
    press(element, "Back")
    press(element, "Back")
    assert element.locator(".guesses .p .bar").count() == 0 and "guessed" in element.locator(".says").inner_text()
    to_the_end_of_the_step(element)
    assert verdicts(element) == ["stands"] * 3 + ["refused"]
    story = steps[0]["text"] + "".join(g["text"] for g in steps[0]["guesses"][:3]) + steps[0]["then"]
    assert element.locator(".story").text_content() == story
    assert element.locator(".rest .chosen bdi").text_content().replace("␣", " ") == steps[0]["then"]
    assert "4 tokens in 1 step" in element.locator(".where").inner_text()
    press(element, "Next")
    to_the_end_of_the_step(element)
    assert verdicts(element) == ["stands", "refused", "not looked at", "not looked at"]
    ratio, dot = (element.locator(f".guesses li:nth-child(2) .ratio {e}").bounding_box() for e in (".bar", ".dot"))
    assert dot["x"] + dot["width"] / 2 > ratio["x"] + ratio["width"]


def test_the_keyboard_walks_and_does_not_turn_the_page(speculate):
    page, element = speculate()
    url = page.url
    element.get_by_role("button", name="Next", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert verdicts(element) == ["stands"] * 3 + [""]
    page.keyboard.press("ArrowLeft")
    assert verdicts(element) == ["stands"] * 2 + ["", ""] and page.url == url
    element.get_by_role("slider").focus()
    page.keyboard.press("End")
    assert element.get_by_role("button", name="Next", exact=True).is_disabled()
    assert element.get_by_role("slider").get_attribute("aria-valuetext").startswith("Step 6")
    page.wait_for_function("document.querySelector('tl-speculate').shadowRoot.querySelector('[role=status]').textContent")


def test_it_plays_by_itself_until_somebody_takes_over(speculate):
    page, element = speculate()
    press(element, "Play")
    page.wait_for_function("document.querySelector('tl-speculate').at > 2")
    press(element, "Back")
    assert element.get_by_role("button", name="Play", exact=True).get_attribute("aria-pressed") == "false"


def test_without_motion_play_goes_to_the_end_of_the_step_at_once(speculate):
    _, element = speculate(reduced_motion=True)
    press(element, "Play")
    assert element.locator(".story b").count() == 1 and "Step 1" in element.locator(".where").inner_text()
    press(element, "Play")
    assert element.locator(".story b").count() == 1 and "Step 2" in element.locator(".where").inner_text()


def test_a_finger_taps_and_targets_are_large_enough(speculate):
    _, element = speculate(width=390, touch=True, height=844)
    element.get_by_role("button", name="Next", exact=True).tap()
    assert verdicts(element)[:2] == ["stands", "stands"]
    for target in element.locator("button, input").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(speculate, axe, width, scheme):
    page, element = speculate(width=width, scheme=scheme, reduced_motion=True)
    assert axe(page, "tl-speculate") == [] and page.evaluate(OUTSIDE) == []
    for _ in range(2):
        press(element, "Play")
        assert axe(page, "tl-speculate") == [] and page.evaluate(OUTSIDE) == []
    press(element, "Show as a table")
    assert axe(page, "tl-speculate") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_table_and_picture_for_those_who_cannot_see_it_or_have_no_scripts(speculate, steps, page_factory):
    _, element = speculate()
    assert element.locator(".question").inner_text().endswith("?")
    press(element, "Show as a table")
    assert element.locator(".as-table tbody tr").count() == sum(len(step["guesses"]) for step in steps)
    static = page_factory(PAGE, javascript=False).locator("tl-speculate .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
