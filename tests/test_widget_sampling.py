"""<tl-sampling>: real distributions, reshaped and drawn from in the page as the engine does it."""

import pytest

torch = pytest.importorskip("torch")
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.sampling import SamplingInputs, filter_logits, sample
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

PAGE, STORY = "nbs/10_sampling.html", "Once upon a time there was a"
STATE = """w => ({left: w.left, bits: w.bits, drawn: Array.from(w.drawn), shares: Array.from(w.shares),
                  text: w.text, seed: w.seed, own: Array.from(w.own)})"""


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("fable"))


@pytest.fixture(scope="module")
def logits_after(tokenizer):
    model = load_model("fable")

    @torch.inference_mode()
    def logits(text):
        ids = torch.tensor(tokenizer.encode(text))
        return model.logits(model(ids, AttentionInputs.from_lengths([len(ids)]))[-1:])

    return logits


@pytest.fixture
def open_widget(page_factory):
    def open_it(**how):
        page = page_factory(PAGE, **how)
        widget = page.locator("tl-sampling")
        widget.scroll_into_view_if_needed()
        widget.get_by_role("button", name="Draw 100").wait_for()
        return page, widget

    return open_it


def draws(logits, seed, count, **wishes):
    params = [SamplingParams(**wishes)] * count
    inputs = SamplingInputs.from_params(params, [seed] * count, range(count), logits.shape[1])
    return sample(logits.expand(count, -1), inputs).tolist()


def shares(logits, **wishes):
    inputs = SamplingInputs.from_params([SamplingParams(**wishes)], [0], [0], logits.shape[1])
    return filter_logits(logits, inputs).softmax(-1)[0]


def test_page_and_engine_draw_the_same_tokens_from_the_same_seed(open_widget):
    page, _ = open_widget()
    logits = torch.randn(1, 4096, generator=torch.Generator().manual_seed(5)) * 3
    names = {"temperature": "temperature", "top_k": "topK", "top_p": "topP", "min_p": "minP"}
    for seed, wishes in (
        (2**33 + 7, {}),
        (-1, {"temperature": 0.5}),
        (2, {"temperature": 1.7, "top_p": 0.8}),
        (3, {"top_k": 7}),
        (4, {"temperature": 0.6, "min_p": 0.1, "top_p": 0.9}),
        (5, {"temperature": 0.0}),
    ):
        drawn = page.evaluate(
            """([logits, wishes, seed]) => Array.from({length: 30}, (_, i) =>
                 tinyllm.sample(Float32Array.from(logits), {...wishes, seed, outputIndex: i}))""",
            [logits[0].tolist(), {names[k]: v for k, v in wishes.items()}, seed],
        )
        assert drawn == draws(logits, seed, 30, **wishes), wishes


def test_first_state_is_the_models_own_distribution_and_the_engines_draws(open_widget, logits_after, tokenizer):
    _, widget = open_widget()
    state, logits = widget.evaluate(STATE), logits_after(STORY)
    assert state["text"] == STORY and state["left"] == 4096
    assert torch.allclose(torch.tensor(state["own"]), logits.softmax(-1)[0], atol=1e-5)
    assert state["drawn"] == draws(logits, state["seed"], 100)
    best = tokenizer.decode([int(logits.argmax())]).replace(" ", "·")
    assert widget.locator(".token").first.inner_text() == best
    heads = widget.locator(".head").inner_text().split("\n")
    assert len({head.strip() for head in heads}) == len(heads)  # no name stands for two things


def test_mouse_reshapes_and_the_numbers_are_the_engines(open_widget, logits_after):
    _, widget = open_widget()
    widget.get_by_role("button", name="top-p", exact=True).click()
    widget.get_by_role("button", name="Once upon a\u2009…", exact=True).click()
    state = widget.evaluate(STATE)
    assert state["left"] == 1 and state["bits"] == 0 and len(set(state["drawn"])) == 1
    widget.get_by_role("button", name=STORY).click()
    for button, wishes in (("top-p", {"top_p": 0.5}), ("top-k", {"top_k": 10}), ("min-p", {"min_p": 0.2})):
        widget.get_by_role("button", name=button, exact=True).click()
        state, wanted = widget.evaluate(STATE), shares(logits_after(STORY), **wishes)
        assert state["left"] == int((wanted > 0).sum())
        assert torch.allclose(torch.tensor(state["shares"]), wanted, atol=1e-4)
        entropy = -(wanted * wanted.clamp_min(1e-30).log2()).sum()
        assert state["bits"] == pytest.approx(float(entropy), abs=1e-3)
        assert state["drawn"] == draws(logits_after(STORY), state["seed"], 100, **wishes)
        assert all(wanted[i] > 0 for i in state["drawn"])


def test_keyboard_alone_turns_to_greedy_and_draws(open_widget, logits_after):
    page, widget = open_widget()
    slider = widget.get_by_label("Temperature")
    slider.focus()
    page.keyboard.press("Home")
    best = int(logits_after(STORY).argmax())
    state = widget.evaluate(STATE)
    assert state["left"] == 1 and set(state["drawn"]) == {best}
    page.keyboard.press("End")  # and to 2
    assert widget.evaluate(STATE)["bits"] > 10
    draw = widget.get_by_role("button", name="Draw one")
    draw.focus()
    page.keyboard.press("Enter")
    state = widget.evaluate(STATE)
    assert state["drawn"] == draws(logits_after(STORY), state["seed"], 101, temperature=2.0)


def test_touch_draws_with_new_noise_on_a_phone(open_widget, logits_after):
    page, widget = open_widget(width=390, touch=True, reduced_motion=True)
    widget.get_by_role("button", name="New noise").tap()
    assert widget.evaluate(STATE)["drawn"] == []
    widget.get_by_role("button", name="Draw 100").tap()
    state = widget.evaluate(STATE)
    assert state["drawn"] == draws(logits_after(STORY), state["seed"], 100)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert widget.evaluate("w => w.renderRoot.querySelector('section').scrollWidth <= w.clientWidth")
    moved = widget.locator(".now").first.evaluate("e => getComputedStyle(e).transitionDuration")
    assert moved == "0s"


@pytest.mark.parametrize("scheme, width", [("light", 390), ("dark", 1440)])
def test_axe_finds_nothing(open_widget, axe, scheme, width):
    page, widget = open_widget(scheme=scheme, width=width)
    widget.get_by_role("button", name="top-k", exact=True).click()
    widget.get_by_role("button", name="Show as a table").click()
    assert widget.locator(".as-table tbody tr").count() == 13
    assert axe(page, "tl-sampling") == []


def test_own_text_with_fable_in_the_page(open_widget, logits_after):
    page, widget = open_widget()
    widget.get_by_role("button", name="Load Fable").click()
    field = widget.get_by_label("type your own")
    field.wait_for()
    text = "The wolf opened the door and"
    field.fill(text)
    wanted = logits_after(text).softmax(-1)[0]
    page.wait_for_function("id => document.querySelector('tl-sampling').ranked[0] === id", arg=int(wanted.argmax()))
    assert torch.allclose(torch.tensor(widget.evaluate(STATE)["own"]), wanted, atol=0.03)  # int8 in the page
    field.fill("")  # no text yet: what a text begins with
    page.wait_for_function(
        "id => document.querySelector('tl-sampling').ranked[0] === id",
        arg=int(logits_after("<|endoftext|>").argmax()),
    )


def test_page_stays_light(book_html):
    assert (book_html / PAGE).stat().st_size < 500_000
