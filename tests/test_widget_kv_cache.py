"""<tl-kv-cache>: stepped and weighed by mouse, keyboard and finger; its numbers against the engine's."""
import json

import pytest

torch = pytest.importorskip("torch")
from tinyllm import LLM, SamplingParams
from tinyllm.engine.kv_cache import bytes_per_token
from tinyllm.model.config_reader import read_config, resolve

PAGE = "nbs/12_kv_cache.html"
FOLDERS = {"Fable": "fable", "Qwen3 0.6B": "Qwen3-0.6B", "Llama 2 7B": "Llama-2-7b",
           "Mistral 7B v0.3": "Mistral-7B-v0.3", "Llama 3.1 8B": "Llama-3.1-8B", "Llama 3.1 70B": "Llama-3.1-70B"}
CARDS = {"RTX 4090": 24, "L4": 24, "A10": 24, "H100": 80, "H200": 141}  # GB on the label

ALL = """w => w.given.models.flatMap((_, model) => w.given.cards.flatMap((_, card) =>
  w.given.lengths.map((_, length) => {
    Object.assign(w, { model, card, length });
    const c = w.chosen;
    return [c.model.name, c.card.name, c.length, c.left, c.tokens, c.conversations];
})))"""
OUTSIDE = """() => {
    const host = document.querySelector("tl-kv-cache"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.fixture
def cache(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-kv-cache")
        element.scroll_into_view_if_needed()
        element.locator(".grid").wait_for()
        return page, element

    return opened


def sums(element) -> list[int]:
    return [int(text.replace(",", "")) for text in element.locator(".sums b").all_text_contents()]


def filled(element) -> int:
    """Columns of the grid that hold something."""
    return element.locator(".cell:has(i)").count() // 8


def test_what_fits_is_what_the_engines_arithmetic_says(cache, root):
    _, element = cache()
    rows = element.evaluate(ALL)
    assert {row[0] for row in rows} == set(FOLDERS) and {row[1] for row in rows} == set(CARDS) and len(rows) == 270
    configs = {}
    for name, folder in FOLDERS.items():
        configs[name] = read_config(resolve(folder if name == "Fable" else root / "book/measurements/configs" / folder))
    for name, card, length, left, tokens, conversations in rows:
        room = max(0, CARDS[card] * 10**9 * 9 // 10 - 2 * configs[name].num_parameters())
        fit = room // bytes_per_token(configs[name])
        assert (left, tokens, conversations) == (pytest.approx(room, abs=1), fit, fit // length), (name, card, length)


def test_the_lengths_it_shows_are_those_of_the_keys_and_values_in_the_engines_own_cache(cache):
    _, element = cache()
    data = json.loads(element.locator("script").text_content())
    llm = LLM("fable", block_size=16)
    wishes = SamplingParams(temperature=0, max_tokens=13, ignore_eos=True)
    answer = llm.generate("Once upon a time", wishes, use_tqdm=False)[0]
    assert "".join(data["tokens"]) == "Once upon a time" + answer.outputs[0].text and data["prompt"] == 4
    for layer, kept in enumerate(llm.core.executor.caches):
        for name, part in zip(("keys", "values"), kept, strict=True):  # block 1 is the first that is given out
            lengths = part[1, :16].norm(dim=-1).mean(1)
            torch.testing.assert_close(torch.tensor(data[name][layer]), lengths, atol=0.06, rtol=0)


def test_a_step_adds_one_column_and_without_the_cache_computes_all_of_them(cache):
    _, element = cache()
    assert filled(element) == 8 and sums(element) == [8, 30] and element.locator(".cell.new").count() == 8
    element.get_by_role("button", name="Next token").click()
    assert filled(element) == 9 and sums(element) == [9, 39] and element.locator(".cell.new").count() == 8
    assert "those of all 9" in element.locator(".read").inner_text()
    assert "73.7 kB" in element.locator(".stock").inner_text()
    element.locator(".keep").click()
    assert element.locator(".cell.new").count() == 72
    assert "8 tokens are computed once more" in element.locator(".read").inner_text()
    assert "nothing" in element.locator(".stock").inner_text()
    for _ in range(5):
        element.get_by_role("button", name="Back").click()
    assert filled(element) == 4 and sums(element) == [4, 4] and element.get_by_role("button", name="Back").is_disabled()
    for _ in range(12):
        element.get_by_role("button", name="Next token").click()
    assert filled(element) == 16 and sums(element) == [16, 130]
    assert element.get_by_role("button", name="Next token").is_disabled()


def test_a_finger_weighs_a_model_that_fits_one_that_does_not_and_a_text_that_is_too_long(cache):
    _, element = cache(width=390, touch=True, height=844)
    element.get_by_role("button", name="Weigh a real one").tap()
    verdict, slider = element.locator(".verdict"), element.get_by_role("slider")
    assert "104 conversations of 4,096 tokens" in verdict.inner_text()
    assert element.locator(".memory i").count() == 0
    slider.fill("6")
    assert "13 conversations of 32,768 tokens" in verdict.inner_text() and element.locator(".memory i").count() == 13
    element.get_by_label("Model").select_option("Llama 3.1 70B")
    assert "do not fit on one H100: it takes 2" in verdict.inner_text()
    assert element.locator(".weights.over").count() == 1
    element.get_by_label("Model").select_option("Fable")
    assert "reads at most 2,048 tokens" in verdict.inner_text()
    element.get_by_label("Model").select_option("Llama 3.1 8B")
    element.get_by_label("GPU").select_option("L4, 24 GB")
    slider.fill("8")
    assert "Not one conversation of 131,072 tokens fits" in verdict.inner_text()
    parts = element.locator(".memory > span").evaluate_all("all => all.map((e) => e.getBoundingClientRect().width)")
    assert sum(parts) == pytest.approx(element.locator(".memory").bounding_box()["width"] - 2, abs=1)
    for target in element.locator("button, select, input[type=range], .keep").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


def test_everything_works_by_keyboard_and_does_not_turn_the_page(cache):
    page, element = cache()
    url = page.url
    element.get_by_role("button", name="Next token").focus()
    page.keyboard.press("Enter")
    assert filled(element) == 9
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert element.locator(".cell.new").count() == 72
    element.get_by_role("button", name="Weigh a real one").focus()
    page.keyboard.press("Enter")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")  # from an H100 to an H200
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert "103 conversations of 8,192 tokens fit" in element.locator(".verdict").inner_text() and page.url == url
    page.wait_for_function("document.querySelector('tl-kv-cache').shadowRoot.querySelector('[role=status]').textContent")
    assert "103 conversations" in element.locator("[role=status]").inner_text()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(cache, axe, width, scheme):
    page, element = cache(width=width, scheme=scheme, reduced_motion=True)
    for view in ("Fill a cache", "Weigh a real one"):
        element.get_by_role("button", name=view).click()
        assert axe(page, "tl-kv-cache") == []
        assert page.evaluate(OUTSIDE) == []
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-kv-cache") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_table_and_picture_for_those_who_cannot_see_it_or_have_no_scripts(cache, page_factory, book_html):
    _, element = cache()
    assert element.locator(".question").inner_text().endswith("?")
    element.get_by_role("button", name="Show as a table").click()
    rows = [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]
    assert rows[4][:4] == ["5", "8", "30", "8"] and len(rows) == 13
    static = page_factory(PAGE, javascript=False).locator("tl-kv-cache .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert "426,784" in static.locator("table").text_content()
    assert (book_html / PAGE).stat().st_size < 500_000
