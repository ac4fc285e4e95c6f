"""The parts of a model in chapter 9: `<tl-shapes>` by mouse, keyboard and touch, against the engine's own sums."""
import json
import re

import pytest

PAGE = "nbs/09_full_model.html"
NAMES = ["Fable", "Qwen3 0.6B", "Llama 3.1 8B", "Llama 3.1 70B"]


@pytest.fixture
def the_parts(page_factory):
    def open_parts(**how):
        page = page_factory(PAGE, **how)
        element = page.locator("tl-shapes")
        element.scroll_into_view_if_needed()
        element.get_by_role("listbox").wait_for()
        return page, element

    return open_parts


def chosen(element):
    return element.locator(".title").inner_text()


def totals(element):
    return element.evaluate("e => [e.total('params'), e.total('flops')]")


def test_totals_are_the_engines_for_every_model_and_context(the_parts):
    pytest.importorskip("torch")
    from tinyllm.model.transformer import ModelConfig, flops_per_token

    configs = [
        ModelConfig(4096, 256, 640, 8, 4, 2, 64, 2048, tie_word_embeddings=True),
        ModelConfig(151936, 1024, 3072, 28, 16, 8, 128, 40960, tie_word_embeddings=True, qk_norm=True),
        ModelConfig(128256, 4096, 14336, 32, 32, 8, 128, 131072),
        ModelConfig(128256, 8192, 28672, 80, 64, 8, 128, 131072),
    ]
    _, element = the_parts()
    slider = element.get_by_role("slider")
    for name, config in zip(NAMES, configs, strict=True):
        element.get_by_role("button", name=name, exact=True).click()
        for power in (0, 11, 17):
            slider.evaluate("(s, v) => { s.value = v; s.dispatchEvent(new Event('input')); }", str(power))
            context = min(2**power, config.max_position_embeddings)
            assert f"{context:,}" in element.locator(".context label").inner_text()
            assert totals(element) == [config.num_parameters(), flops_per_token(config, context)]


def test_shapes_are_those_of_the_models_own_parameters(the_parts):
    pytest.importorskip("torch")
    from tinyllm.model.weights import load_model

    shapes = {name: list(p.shape) for name, p in load_model("fable").named_parameters()}
    _, element = the_parts()
    data = json.loads(element.locator('script[type="application/json"]').text_content())
    for part in data["models"][0]["parts"]:
        for name, shape in part["weights"]:
            key = "embed_tokens.weight" if name == "lm_head.weight" else name
            assert shape in [s for n, s in shapes.items() if n.endswith(key)]


def test_a_click_on_a_part_shows_its_shape_and_price(the_parts):
    _, element = the_parts()
    assert chosen(element) == "gate and up"
    element.get_by_role("option", name=re.compile("^queries, keys, values")).click()
    text = element.locator(".details").inner_text()
    assert chosen(element) == "queries, keys, values" and "512 × 256" in text and "1,048,576 (131,072 a layer)" in text
    head = element.get_by_role("option", name=re.compile("^output head"))
    assert head.locator(".share").inner_text() == "embedding’s"  # not 0%, which looks like a mistake
    head.click()
    text = element.locator(".details").inner_text()
    assert "4,096 × 256" in text and "the embedding’s own" in text and "2,097,152 a token" in text


def test_another_model_keeps_the_part_and_changes_the_numbers(the_parts):
    _, element = the_parts()
    element.get_by_role("button", name="Llama 3.1 70B").click()
    assert chosen(element) == "gate and up" and "57,344 × 8,192" in element.locator(".details").inner_text()
    assert "141 GB" in element.locator(".totals").inner_text() and "80 times" in element.locator(".layer").inner_text()
    assert element.get_by_role("option").count() == 12
    element.get_by_role("button", name="Qwen3 0.6B").click()
    assert element.get_by_role("option").count() == 13 and chosen(element) == "gate and up"


def test_only_attention_grows_with_the_tokens_that_are_looked_at(the_parts):
    _, element = the_parts()
    element.get_by_role("button", name="Operations").click()
    prices = lambda: element.evaluate("e => Object.fromEntries(e.now.parts.map((p) => [p.name, e.flops(p)]))")  # noqa: E731
    before = prices()
    slider = element.get_by_role("slider")
    slider.focus()
    slider.press("End")
    after = prices()
    assert [name for name in before if before[name] != after[name]] == ["attention"]
    assert after["attention"] == before["attention"] * 2048 // 64


def test_arrow_keys_walk_through_the_parts_and_do_not_turn_the_page(the_parts):
    page, element = the_parts()
    element.locator('[role="option"][tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    assert chosen(element) == "SwiGLU"
    page.keyboard.press("Home")
    assert chosen(element) == "embedding"
    page.keyboard.press("ArrowLeft")
    assert chosen(element) == "embedding" and page.url.endswith(PAGE)
    page.keyboard.press("End")
    assert chosen(element) == "output head"
    assert element.evaluate("e => e.renderRoot.activeElement.getAttribute('aria-selected')") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_touch_works_nothing_sticks_out_and_axe_finds_nothing(the_parts, axe, scheme, width):
    page, element = the_parts(scheme=scheme, width=width, touch=width == 390, reduced_motion=True)
    part = element.get_by_role("option", name=re.compile("^down"))
    part.tap() if width == 390 else part.click()
    assert chosen(element) == "down"
    assert element.locator(".bar").first.evaluate("b => getComputedStyle(b).transitionDuration") in ("0s", "")
    element.get_by_role("button", name="Show as a table").click()
    assert element.get_by_role("row").count() == 13
    assert axe(page, "tl-shapes") == []
    wide, room = element.evaluate("e => [e.renderRoot.querySelector('section').scrollWidth, e.clientWidth]")
    assert wide <= room


def test_without_scripts_picture_words_and_table_are_there_and_the_page_is_light(page_factory, book_html):
    static = page_factory(PAGE, javascript=False).locator("tl-shapes .tl-static")
    assert static.locator("img.tl-picture").is_visible() and "Fable" in static.locator(".tl-description").inner_text()
    assert static.locator("table tr").count() == 13
    assert (book_html / PAGE).stat().st_size < 500_000
