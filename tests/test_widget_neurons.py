"""<tl-neurons>: the neuron browser, on the piece of the tale and on the reader's own text."""
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import sticks_out
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

PAGE = "nbs/07_mlp_block.html"


@pytest.fixture
def neurons(open_widget):
    return partial(open_widget, "tl-neurons", PAGE)


@pytest.fixture(scope="module")
def python():
    """(text -> tokens, [L, T, 640] valve and up), from the real weights."""
    tokenizer, fable = load_tokenizer(resolve("fable")), load_model("fable")

    @torch.no_grad()
    def look_inside(text):
        ids = torch.tensor(tokenizer.encode(text))
        inputs, x, found = AttentionInputs.from_lengths([len(ids)]), fable.embed_tokens(ids), []
        for layer in fable.layers:
            x = x + layer.self_attn(layer.input_layernorm(x), inputs, fable.backend, fable.rotary(inputs.positions))
            gate, up = layer.mlp.gate_up_proj(layer.post_attention_layernorm(x)).chunk(2, dim=-1)
            found.append((F.silu(gate), up))
            x = x + layer.mlp.down_proj(F.silu(gate) * up)
        valve, up = (torch.stack(part) for part in zip(*found, strict=True))
        return [tokenizer.decode([i]) for i in ids.tolist()], valve, up

    return look_inside


def table(element) -> list[list[str]]:
    rows = element.locator(".as-table tbody tr").all_inner_texts()
    return [row.replace("\N{MINUS SIGN}", "-").split("\t") for row in rows]


def read(element) -> str:
    return " ".join(element.locator(".read").inner_text().split())


def choose(element, name):
    element.get_by_role("group", name="Neurons of the shortlist").get_by_role("button", name=name).click()


def test_stored_numbers_are_those_of_the_model(neurons, python):
    page, element = neurons()
    element.get_by_role("button", name="Show as a table").click()
    tokens, valve, up = python(page.evaluate("document.querySelector('tl-neurons').tokens.join('')"))
    for name, layer, neuron in (("speech has ended", 4, 280), ("a colour", 2, 332), ("who acts", 3, 575)):
        choose(element, name)
        assert f"Layer {layer + 1}, neuron {neuron + 1}" in element.locator(".which").inner_text()
        rows = table(element)
        assert len(rows) == len(tokens)
        found = torch.tensor([[float(cell) for cell in row[1:]] for row in rows])
        expected = torch.stack((valve[layer, :, neuron], up[layer, :, neuron]), 1)
        assert (found[:, :2] - expected).abs().max() < 0.011, name
        assert (found[:, 2] - expected.prod(1)).abs().max() < 0.05, name


def test_pointing_tells_both_factors_and_where_the_neuron_pushes(neurons):
    page, element = neurons()
    assert "Pushes towards said, cried, asked" in read(element)
    element.get_by_role("option", name="third").hover()
    assert read(element).startswith("third: valve") and read(element).endswith("Hardly anything.")
    page.mouse.move(0, 0)
    assert read(element).startswith(',":')
    choose(element, "a colour")
    assert read(element).startswith("red: valve")  # on a new neuron, the token on which it fires most
    element.get_by_role("option", name="grey").click()
    assert read(element).startswith("grey: valve")


def test_keyboard_reaches_neurons_and_tokens_and_what_is_chosen_is_said(neurons):
    page, element = neurons()
    url = page.url
    button = element.get_by_role("button", name="denial")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    element.get_by_role("option", selected=True).focus()
    page.keyboard.press("Home")
    assert read(element).startswith("On: valve")
    page.keyboard.press("ArrowRight")
    chosen = element.get_by_role("option", selected=True)
    assert chosen.inner_text().strip() == "the" and page.url == url
    assert chosen.evaluate("(node) => node.getRootNode().activeElement === node")
    element.get_by_role("status").filter(has_text="the: valve").wait_for(state="attached")


def test_the_readers_own_words_and_any_neuron_once_fable_is_loaded(neurons, python):
    page, element = neurons()
    element.get_by_role("button", name="Load Fable (8.9 MB)").click()
    field = element.get_by_role("textbox", name="Your own words")
    field.wait_for()
    text = 'The king wore a white coat. "Who are you?" asked the wolf.'
    field.fill(text)
    element.get_by_role("option", name="wolf").wait_for()
    element.get_by_role("button", name="Show as a table").click()
    tokens, valve, up = python(text)
    for layer, neuron in ((4, 280), (2, 332), (6, 17)):
        element.get_by_role("spinbutton", name="Layer").fill(str(layer + 1))
        element.get_by_role("spinbutton", name="Neuron").fill(str(neuron + 1))
        page.keyboard.press("Enter")
        rows = table(element)
        assert [row[0] for row in rows] == [token.strip() for token in tokens]
        found = torch.tensor([[float(cell) for cell in row[1:3]] for row in rows])
        expected = torch.stack((valve[layer, :, neuron], up[layer, :, neuron]), 1)
        assert (found - expected).abs().max() < 0.15, (layer, neuron)  # weights of 8 bits
    choose(element, "speech has ended")
    assert read(element).startswith('?":') and "said" in read(element)
    element.get_by_role("option", name="white").click()
    loud = element.locator(".others button")
    assert loud.count() == 4 and "Firing most on white" in element.locator(".others").inner_text()
    loud.first.click()
    assert read(element).startswith("white: valve")
    element.get_by_role("button", name="Draw one by lot").click()
    field.fill("")
    element.get_by_text("Type a word.").wait_for()
    field.fill("very " * 300)
    element.get_by_text("The first 200 of").wait_for()


def test_a_finger_chooses_a_neuron_and_a_token(neurons):
    _, element = neurons(width=390, touch=True, height=844)
    element.get_by_role("button", name="the body").tap()
    assert read(element).startswith("arms: valve")
    element.get_by_role("option", name="hands").tap()
    assert read(element).startswith("hands: valve")
    for target in element.locator(".short button").all():
        assert target.bounding_box()["height"] >= 38


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(neurons, axe, width, scheme):
    page, element = neurons(width=width, scheme=scheme, reduced_motion=True)
    element.get_by_role("button", name="Show as a table").click()
    for name in ("speech has ended", "inside speech"):
        choose(element, name)
        assert axe(page, "tl-neurons") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width and sticks_out(page, "tl-neurons") == []
    word = element.get_by_role("option", selected=True)
    assert word.evaluate("(node) => getComputedStyle(node).transitionDuration") == "0s"


def test_without_scripts_there_are_a_picture_words_and_a_table(page_factory):
    static = page_factory(PAGE, javascript=False).locator("tl-neurons .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert static.locator("tbody tr").count() == 10
