"""<tl-loop>: the loop of chapter 1, stepped by hand, from stored states and with the model in the page."""

import pytest

torch = pytest.importorskip("torch")
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

PAGE, PROMPT = "nbs/01_what_is_an_llm.html", "Once upon a time"
STATE = """w => ({ids: w.ids, picked: w.picked, choices: w.choices.map(c => [c.id, c.share]),
                  live: Boolean(w.logits)})"""


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("fable"))


@pytest.fixture(scope="module")
def likeliest():
    model = load_model("fable")

    @torch.inference_mode()
    def best(ids, count=5):
        hidden = model(torch.tensor(ids), AttentionInputs.from_lengths([len(ids)]))
        top = model.logits(hidden[-1:])[0].softmax(-1).topk(count)
        return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))

    return best


@pytest.fixture
def open_widget(page_factory):
    def open_it(**how):
        page = page_factory(PAGE, **how)
        widget = page.locator("tl-loop")
        widget.scroll_into_view_if_needed()
        widget.get_by_role("button", name="Roll the dice").wait_for()
        return page, widget

    return open_it


def agree(state, likeliest):
    """The stored states are the model's, in order."""
    wanted = likeliest(state["ids"])
    assert [i for i, _ in state["choices"]] == [i for i, _ in wanted]
    for (_, shown), (_, share) in zip(state["choices"], wanted, strict=True):
        assert shown == pytest.approx(share, abs=1e-4)


def agree_live(page, widget, likeliest, length):
    """The page's own model has int8 weights: near ties may change places."""
    page.wait_for_function(
        "n => { const w = document.querySelector('tl-loop'); return w.logits && !w.busy && w.ids.length === n; }",
        arg=length,
    )
    state = widget.evaluate(STATE)
    wanted = dict(likeliest(state["ids"], count=30))
    assert state["live"] and len(state["choices"]) == 5
    assert state["choices"][0][0] == next(iter(wanted))
    for token, share in state["choices"]:
        assert share == pytest.approx(wanted[token], abs=0.03)


def test_mouse_picks_and_every_stored_state_is_the_models(open_widget, likeliest, tokenizer):
    _, widget = open_widget()
    agree(widget.evaluate(STATE), likeliest)
    tint = widget.locator(".gap").evaluate("gap => getComputedStyle(gap).backgroundColor")
    assert tint != "rgba(0, 0, 0, 0)"  # a colour that is put into a style keeps the space behind it
    for place in (1, 4, 0, 2):
        widget.locator("button.choice").nth(place).click()
        agree(widget.evaluate(STATE), likeliest)
    state = widget.evaluate(STATE)
    assert state["ids"][:4] == tokenizer.encode(PROMPT) and len(state["picked"]) == 4
    assert widget.locator(".text").inner_text().startswith(tokenizer.decode(state["ids"]))
    widget.get_by_role("button", name="Step back").click()
    assert widget.evaluate(STATE)["picked"] == state["picked"][:3]
    widget.get_by_role("button", name="Take the likeliest").click()
    assert widget.evaluate(STATE)["picked"][3] == likeliest(state["ids"][:7])[0][0]
    widget.get_by_role("button", name="Start again").click()
    assert widget.evaluate(STATE)["picked"] == []


def test_keyboard_alone_walks_to_the_end_of_the_stored_states(open_widget, likeliest):
    page, widget = open_widget()
    widget.get_by_role("button", name="Take the likeliest").focus()
    for _ in range(5):
        page.keyboard.press("Enter")
        page.wait_for_timeout(50)
    state = widget.evaluate(STATE)
    ids = state["ids"][:4]
    for _ in range(5):
        ids = [*ids, likeliest(ids)[0][0]]
    assert state["ids"] == ids and state["choices"] == []
    focused = widget.evaluate("w => w.renderRoot.activeElement.textContent")
    assert "Load Fable" in focused  # nothing is lost when the buttons have nothing more to do


def test_touch_rolls_dice_that_differ_from_one_start_to_the_next(open_widget):
    page, widget = open_widget(width=390, touch=True, reduced_motion=True)
    stories = set()
    for _ in range(4):
        for _ in range(4):
            widget.get_by_role("button", name="Roll the dice").tap()
        stories.add(tuple(widget.evaluate(STATE)["picked"]))
        widget.get_by_role("button", name="Start again").tap()
    assert len(stories) > 1 and all(len(story) == 4 for story in stories)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme, width", [("light", 390), ("dark", 1440)])
def test_axe_finds_nothing(open_widget, axe, scheme, width):
    page, widget = open_widget(scheme=scheme, width=width)
    widget.get_by_role("button", name="Roll the dice").click()
    widget.get_by_role("button", name="Show as a table").click()
    assert widget.locator(".as-table tbody tr").count() == 5
    assert axe(page, "tl-loop") == []


def test_fable_goes_on_from_where_the_reader_is_and_takes_another_prompt(open_widget, likeliest, tokenizer):
    page, widget = open_widget()
    for _ in range(5):
        widget.get_by_role("button", name="Take the likeliest").click()
    widget.get_by_role("button", name="Load Fable").click()
    field = widget.get_by_label("type your own")
    field.wait_for()
    agree_live(page, widget, likeliest, 9)
    widget.get_by_role("button", name="Take the likeliest").click()
    agree_live(page, widget, likeliest, 10)
    widget.get_by_role("button", name="Roll the dice").click()
    agree_live(page, widget, likeliest, 11)
    widget.get_by_role("button", name="Step back").click()
    agree_live(page, widget, likeliest, 10)
    ids = tokenizer.encode("The king had three")
    field.fill("The king had three")
    agree_live(page, widget, likeliest, len(ids))
    assert widget.evaluate(STATE)["ids"] == ids


# On the front page it writes by itself.

WRITTEN = "w => [w.picked, w.sentence, w.writing, w.history.map(({among}) => among.map(c => [c.id, c.share]))]"


@pytest.fixture
def front(page_factory):
    def open_it(**how):
        page = page_factory("index.html", **how)
        widget = page.locator("tl-loop")
        widget.locator("button.write").wait_for()
        return page, widget

    return open_it


def test_the_front_page_plays_what_the_model_wrote_with_its_probabilities(front, likeliest, tokenizer):
    _, widget = front(reduced_motion=True)
    picked, sentence, writing, among = widget.evaluate(WRITTEN)
    assert picked == sentence and not writing, "all of it, and at rest"
    ids = tokenizer.encode(PROMPT)
    for token, shown in zip(picked, among, strict=True):
        agree({"ids": ids, "choices": shown[:5]}, likeliest)
        share = dict(map(tuple, shown))[token]
        assert share == pytest.approx(dict(likeliest(ids, count=4096))[token], abs=1e-4)
        ids = [*ids, token]
    assert widget.locator(".text").inner_text() == tokenizer.decode(ids)
    assert widget.locator(".chosen .token").inner_text().replace("·", " ") == tokenizer.decode(picked[-1:])


def test_the_front_page_writes_until_it_is_told_to_pause_and_goes_on_by_keyboard(front):
    page, widget = front()
    page.wait_for_function("document.querySelector('tl-loop').picked.length > 1")
    widget.get_by_role("button", name="Pause").press("Enter")
    picked = widget.evaluate(WRITTEN)[0]
    page.wait_for_timeout(1500)
    assert widget.evaluate(WRITTEN)[0] == picked
    page.keyboard.press("Enter")
    page.wait_for_function("n => document.querySelector('tl-loop').picked.length > n", arg=len(picked))


def test_one_click_loads_the_model_and_it_writes_another_sentence(front, tokenizer):
    page, widget = front()
    widget.get_by_role("button", name="Load Fable").click()
    element = "document.querySelector('tl-loop')"
    page.wait_for_function(f"{element}.logits && {element}.picked.length > 3")
    widget.get_by_role("button", name="Pause").click()
    picked, sentence, *_ = widget.evaluate(WRITTEN)
    assert picked[:4] != sentence[:4]
    field = widget.get_by_label("type your own")
    field.fill("The king had three")
    ids = tokenizer.encode("The king had three")
    page.wait_for_function(f"n => !{element}.busy && {element}.ids.length === n", arg=len(ids))
    field.press("Enter")
    page.wait_for_function("document.querySelector('tl-loop').picked.length > 1")
    assert widget.evaluate("(w, n) => w.ids.slice(0, n)", len(ids)) == ids


def test_page_stays_light(book_html):
    assert (book_html / PAGE).stat().st_size < 500_000
