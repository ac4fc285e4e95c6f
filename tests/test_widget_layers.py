"""<tl-layers>: one token on its way through the layers, on the example and on the reader's own text."""
import re
from functools import partial

import pytest
import torch
from conftest import sticks_out
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

PAGE = "nbs/08_transformer_block.html"
TEXT = "Once upon a time there was a king who had a daughter, and he"


@pytest.fixture
def layers(open_widget):
    return partial(open_widget, "tl-layers", PAGE)


@pytest.fixture(scope="module")
def python():
    """(text, token, layer left out) -> rows as the widget's table has them: guess, chance, three sizes."""
    tokenizer, fable = load_tokenizer(resolve("fable")), load_model("fable")

    def size(x):
        return x.square().mean().sqrt().item()

    @torch.no_grad()
    def climb(text, index, out=None):
        ids = torch.tensor(tokenizer.encode(text))
        inputs, x, rows, wrote = AttentionInputs.from_lengths([len(ids)]), fable.embed_tokens(ids), [], (None, None)
        for height in range(9):
            chance, best = fable.logits(fable.norm(x[index])).softmax(-1).max(-1)
            rows.append((tokenizer.decode([best.item()]).strip(), chance.item(), *wrote, size(x[index])))
            if height == 8:
                return rows
            layer, before = fable.layers[height], x
            if height != out:
                x = x + layer.self_attn(layer.input_layernorm(x), inputs, fable.backend, fable.rotary(inputs.positions))
            middle = x
            if height != out:
                x = x + layer.mlp(layer.post_attention_layernorm(x))
            wrote = size((middle - before)[index]), size((x - middle)[index])

    return climb


def rows_of(element) -> list[tuple]:
    found = []
    for row in element.locator(".as-table tbody tr").all_inner_texts():
        _, guesses, attention, mlp, stream = row.split("\t")
        guess, chance = re.match(r"(.+?) (\d+)%", guesses).groups()
        found.append((guess, int(chance) / 100, *(float(v) if v else None for v in (attention, mlp)), float(stream)))
    return found


def agree(found, expected, sizes, chances) -> bool:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine[0] == theirs[0] or abs(mine[1] - theirs[1]) < chances, (mine, theirs)
        assert mine[1] == pytest.approx(theirs[1], abs=chances), (mine, theirs)
        for a, b in zip(mine[2:], theirs[2:], strict=True):
            assert a == b or a == pytest.approx(b, abs=sizes), (mine, theirs)
    return True


def said(element) -> str:
    return " ".join(element.locator(".read").inner_text().split())


def skip(element, layer):
    return element.get_by_role("button", name=f"Leave out layer {layer}")


def test_first_state_shows_what_the_chapter_tells(layers, python):
    _, element = layers()
    assert said(element) == "After “a” Fable expects “time”, 76%. That is its first choice from layer 7 on."
    assert element.locator(".rung .guess.came").all_inner_texts() == ["time 36%", "time 76%"]
    element.get_by_role("button", name="Show as a table").click()
    assert agree(rows_of(element), python(TEXT, 2), 0.0051, 0.0056)
    bars = element.locator(".rung .bar.mlp").evaluate_all("(bars) => bars.map((bar) => parseFloat(bar.style.width))")
    assert len(bars) == 8 and max(bars) == bars[7] == 100


def test_a_layer_that_is_skipped_is_left_out_of_the_model(layers, python):
    _, element = layers()
    element.get_by_role("button", name="Show as a table").click()
    for layer in (1, 3, 5):
        skip(element, layer).click()
        assert agree(rows_of(element), python(TEXT, 2, layer - 1), 0.0051, 0.0056)
        assert f"Without layer {layer} it expects" in said(element)
        assert element.locator(".rung.gone").count() == 1
    assert rows_of(element)[5][2:4] == (0, 0)
    skip(element, 5).click()
    assert element.locator(".rung.gone").count() == 0 and "from layer 7 on" in said(element)


def test_a_click_and_the_arrows_choose_a_token_and_it_is_said(layers, python):
    page, element = layers()
    url = page.url
    element.get_by_role("option", name="daughter").click()
    assert said(element).startswith("After “daughter” Fable expects")
    element.get_by_role("option", selected=True).focus()
    page.keyboard.press("End")
    assert said(element).startswith("After “he” Fable expects “was”, 31%")
    page.keyboard.press("ArrowLeft")
    chosen = element.get_by_role("option", selected=True)
    assert chosen.inner_text() == "and" and chosen.evaluate("(node) => node.getRootNode().activeElement === node")
    skip(element, 2).focus()
    page.keyboard.press("Space")
    element.get_by_role("status").filter(has_text="Without layer 2").wait_for(state="attached")
    assert page.url == url


def test_the_readers_own_words_once_fable_is_loaded(layers, python):
    page, element = layers()
    skip(element, 3).click()
    element.get_by_role("button", name="Load Fable (8.9 MB)").click()
    field = element.get_by_role("textbox", name="Your own words")
    field.wait_for()
    assert said(element).endswith("Without layer 3 it expects “time”, 97%.")
    text = "The wolf ate the old"
    field.fill(text)
    page.wait_for_function("document.querySelector('tl-layers').tokens.length === 5")
    element.get_by_role("button", name="Show as a table").click()
    assert agree(rows_of(element), python(text, 4, 2), 0.03, 0.06)  # weights of 8 bits
    skip(element, 3).click()
    assert agree(rows_of(element), python(text, 4), 0.03, 0.06)
    skip(element, 8).click()
    element.get_by_text("Without layer 8").wait_for()
    assert agree(rows_of(element), python(text, 4, 7), 0.03, 0.06)
    field.fill("")
    element.get_by_text("Type a word.").wait_for()
    field.fill("very " * 80)
    element.get_by_text("The first 60 of").wait_for()
    assert element.get_by_role("option").count() == 60


def test_a_finger_chooses_a_token_and_skips_a_layer(layers):
    _, element = layers(width=390, touch=True, height=844)
    element.get_by_role("option", name="king").tap()
    assert said(element).startswith("After “king” Fable expects")
    skip(element, 1).tap()
    assert "Without layer 1" in said(element)
    for target in element.locator(".rung button").all():
        assert target.bounding_box()["height"] >= 34


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(layers, axe, width, scheme):
    page, element = layers(width=width, scheme=scheme, reduced_motion=True)
    element.get_by_role("button", name="Show as a table").click()
    skip(element, 4).click()
    assert axe(page, "tl-layers") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert sticks_out(page, "tl-layers", ".guesses") == []
    bar = element.locator(".bar").first
    assert bar.evaluate("(node) => getComputedStyle(node).transitionDuration") == "0s"


def test_without_scripts_there_are_a_picture_words_and_a_table(page_factory):
    static = page_factory(PAGE, javascript=False).locator("tl-layers .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert static.locator("tbody tr").count() == 9
