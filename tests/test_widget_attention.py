"""The attention heatmap: Python's weights under every hand, what mask and scale are for, and the reader's own words."""
import json
import re

import nbformat
import pytest
import torch
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.rope import apply_rotary
from tinyllm.model.weights import load_model

PAGE = "nbs/04_attention.html"
TEXT = "Once upon a time there was a king who had a daughter, and he loved her more than the sun itself"
LAYER, HEAD = 4, 3
NAMES = ("who", "had", "itself")


def scores_of(text: str) -> tuple[list[str], torch.Tensor]:
    """Tokens, and [L, H, T, T] queries times keys, from the real weights."""
    tokenizer, fable = load_tokenizer(resolve("fable")), load_model("fable")
    ids = torch.tensor(tokenizer.encode(text))
    inputs = AttentionInputs.from_lengths([len(ids)])
    found = []
    with torch.no_grad():
        x, rotary = fable.embed_tokens(ids), fable.rotary(inputs.positions)
        for block in fable.layers:
            q, k, _ = block.self_attn.split(block.self_attn.qkv_proj(block.input_layernorm(x)))
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
            found.append(torch.einsum("qnh,knh->nqk", q, k.repeat_interleave(2, 1)))
            x = sum(block(x, None, inputs, fable.backend, rotary))
    return [tokenizer.decode([i]).strip() for i in ids.tolist()], torch.stack(found)


def shares(scores: torch.Tensor, mask=True, scaled=True) -> torch.Tensor:
    scores = scores / 8 if scaled else scores
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(later, float("-inf")) if mask else scores).softmax(-1)


@pytest.fixture(scope="module")
def python():
    return scores_of(TEXT)


@pytest.fixture
def widget(page_factory):
    def opened(**how):
        page = page_factory(PAGE, **how)
        element = page.locator("tl-attention")
        element.scroll_into_view_if_needed()
        element.get_by_role("listbox").wait_for()
        return page, element

    return opened


def word(element, text):
    return element.get_by_role("option", name=re.compile(f"^{re.escape(text)},")).first


def shown(element) -> list[str]:
    return element.get_by_role("option").locator(".share").all_inner_texts()


def drawn(element) -> torch.Tensor:
    """The grid as it is drawn: the weight behind every square's opacity, [T, T]."""
    squares = element.locator(".cells").evaluate("""(cells) => {
        const frame = cells.parentNode.querySelector(".frame"), at = (n, key) => Number(n.getAttribute(key));
        const rows = cells.getRootNode().host.tokens.length, size = at(frame, "width") / rows;
        const place = (n, key) => Math.round((at(n, key) - at(frame, key) - 0.5) / size);
        const found = (n) => [place(n, "y"), place(n, "x"), at(n, "opacity") ** (1 / 0.7)];
        return {rows, squares: Array.from(cells.children, found)};
    }""")
    grid = torch.zeros(squares["rows"], squares["rows"])
    for i, j, weight in squares["squares"]:
        grid[i, j] = weight
    return grid


def test_stored_scores_are_those_of_the_model(root, python):
    names, scores = python
    cells = nbformat.read(root / "nbs/04_attention.ipynb", as_version=4).cells
    html = next(o.data["text/html"] for c in cells for o in c.get("outputs", [])
                if "<tl-attention" in o.get("data", {}).get("text/html", ""))
    data = json.loads(re.search(r"<script[^>]*>(.*?)</script>", html, re.S)[1])
    assert [t.strip() for t in data["tokens"]] == names and (data["layer"], data["head"]) == (LAYER, HEAD)
    stored = torch.tensor(data["scores"])
    assert stored.shape == scores.shape and (stored - scores).abs().max() < 0.006
    assert (shares(stored) - shares(scores)).abs().max() < 2e-3
    assert len(html) < 200_000


def test_first_state_shows_what_the_text_tells(widget, python):
    names, scores = python
    _, element = widget()
    weights = shares(scores)[LAYER, HEAD]
    assert torch.allclose(drawn(element), weights, atol=6e-3)
    row = weights[names.index("itself")]
    assert shown(element) == [f"{100 * w:.0f}%" if w >= 0.005 else "·" for w in row.tolist()]
    assert "itself looks at sun 79%" in " ".join(element.locator(".read").inner_text().split())


def test_mouse_points_at_words_and_squares(widget, python):
    names, scores = python
    page, element = widget()
    for name in NAMES:
        word(element, name).hover()
        seen = "sun" if name == "itself" else "king"
        assert element.locator(".read").inner_text().startswith(f"{name} looks at {seen}")
    page.mouse.move(0, 0)
    assert element.locator(".read").inner_text().startswith("itself")  # what was chosen comes back
    picture = element.locator("svg")
    box, frame = picture.bounding_box(), element.locator(".frame").bounding_box()
    size, row, column = frame["width"] / len(names), names.index("had"), names.index("king")
    page.mouse.move(frame["x"] + (column + 0.5) * size, frame["y"] + (row + 0.5) * size)
    weight = shares(scores)[LAYER, HEAD, row, column].item()
    assert " ".join(element.locator(".read").inner_text().split()) == f"had looks at king: {weight:.3f}"
    page.mouse.click(box["x"] + 5, frame["y"] + (row + 0.5) * size)
    assert word(element, "had").get_attribute("aria-selected") == "true"


def test_every_head_is_one_click_away(widget, python):
    _, scores = python
    _, element = widget()
    for layer, head in ((0, 0), (7, 3), (3, 1)):
        element.get_by_role("radio", name=f"Layer {layer + 1}, head {head + 1}").click()
        assert torch.allclose(drawn(element), shares(scores)[layer, head], atol=6e-3), (layer, head)
    assert element.get_by_role("radio").count() == 32 and element.get_by_role("radio", checked=True).count() == 1


def test_keyboard_reaches_words_heads_and_switches(widget):
    page, element = widget()
    word(element, "itself").focus()
    for key, name in (("Home", "Once"), ("ArrowRight", "upon"), ("End", "itself"), ("ArrowLeft", "sun")):
        page.keyboard.press(key)
        chosen = element.get_by_role("option", selected=True)
        assert chosen.locator(".text").inner_text() == name
        assert chosen.evaluate("(node) => node.getRootNode().activeElement === node")
    page.keyboard.press("Tab")
    for key, name in (
        ("ArrowDown", "Layer 6, head 4"), ("ArrowRight", "Layer 6, head 1"), ("ArrowUp", "Layer 5, head 1"),
    ):
        page.keyboard.press(key)
        chosen = element.get_by_role("radio", checked=True)
        assert chosen.get_attribute("aria-label") == name
        assert chosen.evaluate("(node) => node.getRootNode().activeElement === node")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert element.get_by_role("button", name="Mask later words").get_attribute("aria-pressed") == "false"
    page.keyboard.press("ArrowRight")  # turns the book's page elsewhere, not in here
    assert page.url.split("#")[0].endswith(PAGE)


def test_what_was_chosen_is_said(widget):
    _, element = widget()
    word(element, "had").click()
    said = element.get_by_role("status")
    said.filter(has_text="had looks at king 68%").wait_for(state="attached")


def test_without_the_mask_weight_falls_on_later_words(widget, python):
    _, scores = python
    _, element = widget()
    assert drawn(element).triu(1).sum() == 0
    element.get_by_role("button", name="Mask later words").click()
    open_weights = shares(scores, mask=False)[LAYER, HEAD]
    assert torch.allclose(drawn(element), open_weights, atol=6e-3)
    ahead = open_weights.triu(1)[:-1].sum(-1).mean().item()
    assert f"Without the mask, {ahead:.0%} of the weight" in element.locator(".lesson").inner_text()
    element.get_by_role("button", name="Mask later words").click()
    assert drawn(element).triu(1).sum() == 0 and not element.locator(".lesson").is_visible()


def test_without_the_scale_one_word_takes_all(widget, python):
    _, scores = python
    _, element = widget()
    element.get_by_role("button", name="Scale by 1/8").click()
    sharp, mild = (shares(scores, scaled=s)[LAYER, HEAD] for s in (False, True))
    assert torch.allclose(drawn(element), sharp, atol=2e-2)
    told = f"{sharp.amax(-1).mean():.0%} on average, not {mild.amax(-1).mean():.0%}"
    assert told in element.locator(".lesson").inner_text()


def test_the_table_has_every_word(widget, python):
    names, _ = python
    _, element = widget()
    element.get_by_role("button", name="Show as a table").click()
    rows = element.locator(".as-table tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == names
    assert rows[names.index("itself")].split("\t")[1].startswith("sun 0.79, itself 0.07")


def test_own_words_once_fable_is_loaded(widget):
    page, element = widget()
    page.evaluate("""() => {
        window.seen = [];
        const inside = document.querySelector("tl-attention").shadowRoot;
        const look = () => { const bar = inside.querySelector("progress"); if (bar) seen.push(bar.value); };
        new MutationObserver(look).observe(inside, {subtree: true, childList: true, characterData: true});
    }""")
    element.get_by_role("button", name="Load Fable (8.9 MB)").click()
    box = element.get_by_role("textbox")
    box.wait_for()
    seen = page.evaluate("seen")
    assert seen == sorted(seen) and len(set(seen)) >= 5, "the progress bar moves"
    assert box.input_value() == TEXT
    text = "The wolf saw a girl who wore a red hood"
    names, scores = scores_of(text)
    box.fill(text)
    element.get_by_role("option").nth(len(names) - 1).filter(has_text=names[-1]).wait_for()
    assert element.get_by_role("option").locator(".text").all_inner_texts() == names
    assert torch.allclose(drawn(element), shares(scores)[LAYER, HEAD], atol=0.05)  # int8 weights
    box.press("Enter")
    assert box.input_value() == text  # a line's end is no word
    box.fill("")
    element.get_by_text("Type a word.").wait_for()
    box.fill("an \N{FOX FACE}, " + "very " * 50)
    element.get_by_role("option").nth(39).wait_for()
    assert element.get_by_role("option").count() == 40 and element.get_by_text("The first 40 of").is_visible()
    assert element.get_by_role("option").locator(".text").all_inner_texts()[2:4] == ["F0", "9F"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_phones_and_themes(widget, axe, scheme, width):
    page, element = widget(scheme=scheme, width=width, touch=width == 390)
    if width == 390:
        word(element, "had").tap()
        assert element.locator(".read").inner_text().startswith("had looks at king")
        element.get_by_role("radio", name="Layer 2, head 3").tap()
        element.get_by_role("button", name="Mask later words").tap()
        page.keyboard.press("Tab")
    element.get_by_role("button", name="Show as a table").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert element.locator(".matrix").evaluate("(node) => node.scrollWidth <= node.clientWidth + 1")
    assert axe(page, "tl-attention") == []


def test_nothing_moves_for_those_who_asked(widget):
    _, element = widget(reduced_motion=True)
    moves = word(element, "sun").locator(".text").evaluate("(node) => getComputedStyle(node).transitionDuration")
    assert moves == "0s"


def test_hovering_answers_within_a_tenth_of_a_second(widget):
    _, element = widget()
    times = element.evaluate("""async (host) => {
        const times = [], words = host.shadowRoot.querySelectorAll(".word");
        const acts = [() => words[3].click(), () => host.choose(0, 0), () => host.toggle("mask"), () => host.pin(9)];
        for (const act of acts) {
            const start = performance.now();
            act();
            await host.updateComplete;
            times.push(performance.now() - start);
        }
        return times; }""")
    assert sorted(times)[1] < 100, times


def test_without_scripts_there_is_a_picture_and_a_table(page_factory, python):
    page = page_factory(PAGE, javascript=False)
    element = page.locator("tl-attention")
    assert element.locator("img.tl-picture").is_visible()
    words, weights = python[0], shares(python[1])[LAYER, HEAD]
    looked_at = [words[int(weights[words.index(name)].argmax())] for name in NAMES]
    description = element.locator(".tl-description").inner_text()
    assert looked_at == ["king", "king", "sun"]
    assert "who and had look more at king than at any other, and itself at sun" in description
    assert element.locator("table tbody tr").count() == len(python[0])
