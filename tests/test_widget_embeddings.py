"""The map of chapter 3: `<tl-embeddings>` by mouse, keyboard and touch, against the model's own table."""
import json

import pytest

PAGE = "nbs/03_embeddings.html"


@pytest.fixture
def the_map(page_factory):
    def open_map(**how):
        page = page_factory(PAGE, **how)
        element = page.locator("tl-embeddings")
        element.scroll_into_view_if_needed()
        element.locator("svg").wait_for()
        return page, element

    return open_map


def word(element):
    return element.locator(".word").inner_text()


def spot(element, text):
    """Where the map shows a token, in pixels of the map."""
    return element.evaluate(
        """(e, text) => {
            const box = e.renderRoot.querySelector("svg").getBoundingClientRect();
            const [x, y] = e.points()[e.tokens.indexOf(text)];
            return {x: x * box.width / e.width, y: y * box.height / e.height};
        }""",
        text,
    )


def point(element, text):
    place = spot(element, text)
    return place["x"], place["y"]


def test_the_neighbours_and_cosines_are_those_of_fables_table(the_map):
    torch = pytest.importorskip("torch")
    from tinyllm.model.hf_tokenizer import load_tokenizer
    from tinyllm.model.config_reader import resolve
    from tinyllm.model.weights import load_model

    tokenizer, model = load_tokenizer(resolve("fable")), load_model("fable")
    unit = torch.nn.functional.normalize(model.embed_tokens.weight.detach().double(), dim=1)
    _, element = the_map()
    data = json.loads(element.locator('script[type="application/json"]').text_content())
    assert data["places"] == 1000 and len(set(data["ids"][:1000])) == 1000
    cosines, near = (unit[data["ids"][:1000]] @ unit.T).topk(9)
    assert [data["ids"][i] for i in data["near"]] == near[:, 1:].flatten().tolist()
    assert data["cosines"] == (100 * cosines[:, 1:]).round().int().flatten().tolist()
    assert data["tokens"] == [tokenizer.decode([i]) for i in data["ids"]]
    for row, name in zip(element.locator(".near li").all(), [" queen", " princess"], strict=False):
        assert name.strip() in row.inner_text()
        expected = float(unit[tokenizer.encode(" king")[0]] @ unit[tokenizer.encode(name)[0]])
        assert row.locator(".cosine").inner_text() == f"{expected:.2f}"


ALONE = """e => {
    const points = e.points(), gap = ([x, y], [a, b]) => Math.hypot(a - x, b - y);
    const far = (point, i) => Math.min(...points.map((other, j) => (j === i ? 1e9 : gap(point, other))));
    const inside = ([x]) => x > 0.1 * e.width && x < 0.9 * e.width;
    const distance = points.map((point, i) => (inside(point) ? far(point, i) : 0));
    return e.tokens[distance.indexOf(Math.max(...distance))];
}"""


def test_a_mouse_shows_the_word_under_it_and_a_click_chooses_it(the_map):
    page, element = the_map()
    assert word(element) == "·king"
    drawing, lonely = element.locator("svg"), element.evaluate(ALONE)  # no neighbour within a pixel
    seen = lonely.replace(" ", "·")
    drawing.hover(position=spot(element, lonely))
    assert element.locator(".under").count() == 1 and word(element) == seen != "·king"
    drawing.click(position=spot(element, lonely))
    page.mouse.move(0, 0)
    assert word(element) == seen
    friend = element.locator(".near button").first
    name = friend.inner_text()
    friend.click()
    assert word(element) == name


def test_a_word_is_found_by_typing_and_one_that_is_missing_is_said_to_be(the_map):
    _, element = the_map()
    field = element.get_by_label("Find a word")
    field.fill("Red")
    assert word(element) == "·red"
    assert "·white" in element.locator(".near").inner_text()
    field.fill("xylophone")
    assert "xylophone is not among the 1,000 words" in element.locator(".missing").inner_text()
    assert word(element) == "·red"


def test_arrow_keys_walk_over_the_map_and_do_not_turn_the_page(the_map):
    page, element = the_map()
    drawing, here = element.get_by_role("application"), point(element, " king")
    drawing.focus()
    drawing.press("ArrowLeft")
    assert word(element) != "·king" and page.url.endswith(PAGE)
    assert point(element, word(element).replace("·", " "))[0] < here[0]
    assert "is chosen" in drawing.get_attribute("aria-label")


def test_the_other_map_moves_the_points_and_keeps_the_neighbours(the_map):
    _, element = the_map()
    before, list_before = point(element, " queen"), element.locator(".near").inner_text()
    element.get_by_role("button", name="Shadow").click()
    assert element.get_by_role("button", name="Shadow").get_attribute("aria-pressed") == "true"
    assert point(element, " queen") != before and element.locator(".near").inner_text() == list_before
    assert "PCA" in element.locator(".missing").inner_text()


def test_zooming_in_puts_the_chosen_word_in_the_middle_and_its_neighbours_farther_away(the_map):
    _, element = the_map()
    apart = lambda: sum((a - b) ** 2 for a, b in zip(point(element, " king"), point(element, " palace"), strict=True))  # noqa: E731
    wide = apart()
    element.get_by_role("button", name="Zoom in").click()
    assert 14 < apart() / wide < 18
    box, (x, y) = element.locator("svg").bounding_box(), point(element, " king")
    assert abs(x - box["width"] / 2) < 2 and abs(y - box["height"] / 2) < 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_touch_works_nothing_sticks_out_and_axe_finds_nothing(the_map, axe, scheme, width):
    page, element = the_map(scheme=scheme, width=width, touch=width == 390, reduced_motion=True)
    drawing, where = element.locator("svg"), spot(element, " morning")
    drawing.tap(position=where) if width == 390 else drawing.click(position=where)
    assert word(element) != "·king"
    element.get_by_role("button", name="Show as a table").click()
    assert element.get_by_role("row").count() == 9
    assert axe(page, "tl-embeddings") == []
    wide, room = element.evaluate("e => [e.renderRoot.querySelector('section').scrollWidth, e.clientWidth]")
    assert wide <= room


def test_without_scripts_picture_words_and_table_are_there_and_the_page_is_light(page_factory, book_html):
    static = page_factory(PAGE, javascript=False).locator("tl-embeddings .tl-static")
    assert static.locator("img.tl-picture").is_visible() and "queen" in static.locator(".tl-description").inner_text()
    assert static.locator("table tr").count() == 9
    assert (book_html / PAGE).stat().st_size < 500_000


@pytest.mark.parametrize("width", [390, 1440])
def test_a_word_that_is_not_there_fits_however_long_it_is_and_turns_nothing_around(the_map, width):
    page, element = the_map(width=width)
    field, about = element.locator("#find"), element.locator("#missing")
    field.fill("W" * 3000)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    field.fill("\u202eabc")  # from here on right to left
    name, rest = about.locator("bdi").bounding_box(), about.bounding_box()
    assert "is not among" in about.inner_text() and abs(name["x"] - rest["x"]) < 2
