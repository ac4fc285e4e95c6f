"""<tl-heads>: the gallery of all heads, by mouse, keyboard and finger, on the example and on the reader's text."""
import pytest
import torch
from tinyllm.model.batch_inputs import AttentionInputs, RaggedAttention
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

PAGE = "nbs/05_multi_head_attention.html"
TEXT = "Once upon a time there was a king who had a daughter"
OUTSIDE = """() => {
    const host = document.querySelector("tl-heads"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table, .matrix")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.fixture
def heads(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-heads")
        element.scroll_into_view_if_needed()
        element.locator(".head").first.wait_for()
        return page, element

    return opened


def weights_of(text) -> torch.Tensor:
    """Attention weights of all heads, [L, H, T, T], from Python's Fable."""

    found = []

    class Recorder(RaggedAttention):
        def attend(self, q, k, v, cache, inputs, scale):
            scores = torch.einsum("ihd,jhd->hij", q, k.repeat_interleave(2, dim=1)) * scale
            found.append(scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -1e9).softmax(-1))
            return super().attend(q, k, v, cache, inputs, scale)

    ids = torch.tensor(load_tokenizer(resolve("fable")).encode(text))
    with torch.no_grad():
        load_model("fable", backend=Recorder())(ids, AttentionInputs.from_lengths([len(ids)]))
    return torch.stack(found)


def shares(weights) -> list[float]:
    """Mean weight one back, on the first token, on itself."""
    rows = range(2, len(weights))
    return [sum(pick(i) for i in rows).item() / len(rows)
            for pick in (lambda i: weights[i, i - 1], lambda i: weights[i, 0], lambda i: weights[i, i])]


def table(element) -> list[list[str]]:
    return [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]


def chosen(element) -> str:
    return element.locator(".head[aria-checked=true]").get_attribute("aria-label")


def test_all_heads_are_shown_with_the_habits_that_the_chapter_found(heads):
    page, element = heads()
    assert element.locator(".head").count() == 32 and element.locator(".together").count() == 16
    assert chosen(element) == "Layer 5, head 4" and "king 68%" in element.locator(".read").inner_text()
    static = page.evaluate("""() => [...document.querySelectorAll("tl-heads .tl-static tbody tr")].map(
        (row) => [...row.cells].map((cell) => cell.textContent))""")
    element.get_by_role("button", name="Show as a table").click()
    live, weights = table(element), weights_of(TEXT)
    assert [row[:4] for row in live] == [row[:4] for row in static] and len(live) == 32
    for row in live:
        expected = shares(weights[int(row[0]) - 1, int(row[1]) - 1])
        assert [float(cell) for cell in row[4:]] == pytest.approx(expected, abs=0.0051), row[:2]


def test_a_click_enlarges_a_head_and_tells_its_habit(heads):
    _, element = heads()
    before = element.locator(".matrix .cells").inner_html()
    element.get_by_role("radio", name="Layer 6, head 1").click()
    story = element.locator(".story").inner_text()
    assert "looks one token back" in story and "with head 2" in story
    assert chosen(element) == "Layer 6, head 1" and element.locator(".matrix .cells").inner_html() != before
    element.get_by_role("radio", name="Layer 8, head 4").click()
    assert "rests on the first token" in element.locator(".story").inner_text()
    assert "with head 3" in element.locator(".story").inner_text()


def test_arrows_walk_through_the_gallery_and_are_spoken(heads):
    page, element = heads()
    url = page.url
    element.locator(".head[aria-checked=true]").focus()
    page.keyboard.press("ArrowDown")
    assert chosen(element) == "Layer 6, head 4"
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert chosen(element) == "Layer 6, head 1" and page.url == url
    page.wait_for_function("document.querySelector('tl-heads').shadowRoot.querySelector('[role=status]').textContent")
    assert "head 1 looks one token back" in element.locator("[role=status]").inner_text()
    element.locator(".word[aria-selected=true]").focus()
    page.keyboard.press("Home")
    assert element.locator(".read").inner_text().startswith("Once looks at Once")


def test_the_readers_own_text_gets_its_own_habits(heads):
    page, element = heads()
    element.get_by_role("button", name="Load Fable").click()
    field = element.locator("textarea")
    field.wait_for()
    text = "The old woman had three sons, and the youngest was called Jack."
    field.fill(text)
    element.get_by_role("option", name="Jack").wait_for()
    element.get_by_role("button", name="Show as a table").click()
    weights = weights_of(text)
    for row in table(element):
        expected = shares(weights[int(row[0]) - 1, int(row[1]) - 1])
        assert [float(cell) for cell in row[4:]] == pytest.approx(expected, abs=0.03), row[:2]  # weights of 8 bits
    field.fill("Hm")
    page.wait_for_function("document.querySelector('tl-heads').tokens.length < 3")
    assert "Three tokens are needed" in element.locator(".story").inner_text()


def test_a_finger_chooses_a_head(heads):
    _, element = heads(width=390, touch=True, height=844)
    element.get_by_role("radio", name="Layer 4, head 1").tap()
    assert chosen(element) == "Layer 4, head 1" and "one token back" in element.locator(".story").inner_text()
    for target in element.locator(".head").all():
        assert target.bounding_box()["height"] >= 24


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(heads, axe, width, scheme):
    page, element = heads(width=width, scheme=scheme, reduced_motion=True)
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-heads") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width and page.evaluate(OUTSIDE) == []


def test_without_scripts_there_are_a_picture_words_and_a_table(page_factory, book_html):
    static = page_factory(PAGE, javascript=False).locator("tl-heads .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert static.locator("tbody tr").count() == 32 and (book_html / PAGE).stat().st_size < 500_000
