"""The tokenizer in the page: the same ids as chapter 2's, for any text; and a widget for every hand and eye."""
import json
import random
import subprocess
import unicodedata
from importlib.resources import files
from pathlib import Path

import pytest
from press.bundle import WIDGETS, node_and_npm
from tinybook import pack_merges, tale
from tinyllm.model.tokenizer import BPE, EOS_TEXT, PATTERN
from tinyllm.model.tokenizer_files import load_bpe
from tinyllm.model.tokenizer_training import train_bpe

PAGE = "nbs/02_tokens.html"
SEED, COUNT = 2026, 10_000

NODE = """
import { readFileSync } from "node:fs";
const { BPE } = await import(process.argv[1]);
const { tokenizer, texts, streams } = JSON.parse(readFileSync(0, "utf8"));
const bpe = new BPE(tokenizer);
console.log(JSON.stringify({
  ids: texts.map((text) => bpe.encode(text)),
  plain: texts.map((text) => bpe.encode(text, false)),
  pieces: texts.map((text) => bpe.pieces(text).map((piece) => piece.text)),
  decoded: texts.map((text) => bpe.decode(bpe.encode(text))),
  streams: streams.map((ids) => bpe.decode(ids)),
  size: bpe.vocabSize,
}));
"""


def data_of(bpe: BPE) -> dict:
    pairs = [(bpe.vocab[a], bpe.vocab[b]) for a, b in bpe.merges]
    return {"merges": pack_merges(pairs), "special_tokens": list(bpe.special_tokens), "pattern": PATTERN}


def in_node(bpe: BPE, texts: list[str], streams=()) -> dict:
    node, _ = node_and_npm()
    request = json.dumps({"tokenizer": data_of(bpe), "texts": texts, "streams": list(streams)})
    command = [*node, "--input-type=module", "-e", NODE, (WIDGETS / "bpe.js").as_uri()]
    done = subprocess.run(command, input=request, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def any_character(rng: random.Random) -> str:
    while 0xD800 <= (code := rng.randrange(0x110000)) < 0xE000:
        pass
    return chr(code)


MARKS = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) in ("Mn", "Me", "Mc")]
HOSTILE = [
    "\r\n", "\r", "\n", "\t", "\v", "\f", "\0", "\x1c", "\x7f", "\x80", "\x85", "\xa0", "\u1680", "\u2028", "\u2029",
    "\u200b", "\u200d", "\u202e", "\u3000", "\ufeff", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ud7ff", "\ue000",
    "\N{KELVIN SIGN}", "\N{LATIN SMALL LETTER LONG S}", "\u0131", "'s", "'LL", "\u2019s", "\N{DRAGON}", "\u2603\ufe0f",
    "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}", "1234567", "\u0661\u0662", "$^.*[]", "\\",
]
SPECIAL = [EOS_TEXT, EOS_TEXT[:-1], EOS_TEXT[1:], "<|", "|>", EOS_TEXT * 2]


def random_text(rng: random.Random, words: list[str]) -> str:
    kinds = [
        lambda: any_character(rng),
        lambda: chr(rng.randrange(128)),
        lambda: chr(rng.randrange(0x20)),
        lambda: chr(rng.randrange(0x80, 0x800)),
        lambda: rng.choice(MARKS),
        lambda: rng.choice(HOSTILE),
        lambda: rng.choice(SPECIAL),
        lambda: rng.choice([" ", "  ", "\n", " \n ", "\t "]),
        lambda: rng.choice(words),
        lambda: " " + rng.choice(words),
        lambda: str(rng.randrange(10**9)),
        lambda: chr(rng.randrange(0x1F300, 0x1FB00)),
    ]
    chosen = rng.sample(kinds, rng.randint(1, len(kinds)))  # some texts of one kind, some of all
    length = rng.choice([0, 1, 2, 3, 5, 8, 13, 21, 34])
    return "".join(rng.choice(chosen)() for _ in range(length))


@pytest.fixture(scope="module")
def fable() -> BPE:
    return load_bpe(files("tinyllm") / "models" / "fable")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(SEED)
    return [random_text(rng, tale().split()) for _ in range(COUNT)]


def first_difference(texts, ours, theirs):
    return next(((t, a, b) for t, a, b in zip(texts, ours, theirs, strict=True) if a != b), None)


def test_ten_thousand_texts_of_any_unicode_get_the_ids_of_the_python_tokenizer(fable, texts):
    assert len(texts) == COUNT and any("\r\n" in t for t in texts) and any(EOS_TEXT in t for t in texts)
    rng = random.Random(SEED + 1)
    streams = [[rng.randrange(fable.vocab_size) for _ in range(rng.randrange(9))] for _ in range(COUNT)]
    page = in_node(fable, texts, streams)
    assert page["size"] == fable.vocab_size
    assert first_difference(texts, [fable.encode(t) for t in texts], page["ids"]) is None
    assert first_difference(texts, [fable.encode(t, allow_special=False) for t in texts], page["plain"]) is None
    assert first_difference(texts, texts, page["decoded"]) is None
    assert first_difference(texts, texts, list(map("".join, page["pieces"]))) is None
    assert first_difference(streams, list(map(fable.decode, streams)), page["streams"]) is None


def test_other_vocabularies_and_special_tokens_agree_too(texts):
    special = ["<s>", "<s>!", "(.*)", "[a-z]+|$", EOS_TEXT, "\N{DRAGON}"]  # one begins another, some are patterns
    bpe = train_bpe(tale(), 700, special)
    rng = random.Random(SEED + 2)
    mixed = [t[: len(t) // 2] + rng.choice(special) + t[len(t) // 2 :] for t in texts[:2000]]
    assert first_difference(mixed, [bpe.encode(t) for t in mixed], in_node(bpe, mixed)["ids"]) is None


def test_long_words_take_no_longer_than_a_keystroke_may(fable):
    long = ["once" * 250, "\u9f99" * 1000, " " * 1000]
    assert in_node(fable, long)["ids"] == [fable.encode(t) for t in long]


# In the browser


@pytest.fixture
def tokenizer_page(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-tokenizer")
        element.scroll_into_view_if_needed()
        element.locator("[role=option]").first.wait_for()
        return page, element

    return opened


def ids(element):
    return [int(t) for t in element.locator("[role=option] .id").all_text_contents()]


def test_first_state_shows_the_prompt_with_its_ids_and_how_a_word_was_merged(tokenizer_page, fable):
    _, element = tokenizer_page()
    assert element.locator("textarea").input_value() == "Once upon a time"
    assert ids(element) == fable.encode("Once upon a time")
    assert element.locator("[role=option] .text").all_text_contents() == ["Once", "·upon", "·a", "·time"]
    assert element.locator(".counts dd").all_text_contents() == ["16", "16", "4", "4.00"]
    assert element.locator(".rung").count() == 5 and "Step 4 of 4" in element.locator(".happened").inner_text()
    assert element.locator(".question").inner_text().endswith("?")
    assert element.locator("textarea, .examples, .steps").count() == 3  # the controls


TYPED = ["The dragon's 12345 \N{DRAGON}s", "e\u0301\u0301 \u200d\u202eabc\r\n\tq", "<|endoftext|>Once", "\u9f99" * 3]


def test_typing_shows_the_tokens_of_what_was_typed_and_the_word_at_the_caret(tokenizer_page, fable):
    page, element = tokenizer_page()
    element.locator("textarea").fill("")
    assert element.locator("[role=option]").count() == 0
    for text in TYPED:
        element.locator("textarea").fill(text)
        assert ids(element) == fable.encode(element.locator("textarea").input_value()), text
    element.locator("textarea").fill("a dragon")
    element.locator("textarea").press("Home")
    assert element.locator("[aria-selected=true]").get_attribute("aria-label").startswith("a, id")
    element.locator("textarea").press("End")
    assert element.locator("[aria-selected=true]").get_attribute("aria-label").startswith("space dragon, id")
    page.wait_for_timeout(1000)  # it speaks when nothing has changed for a moment
    assert element.locator("[role=status]").text_content() == "2 tokens, 8 bytes"


def test_a_text_that_is_too_long_for_the_field_is_not_cut_in_silence(tokenizer_page):
    _, element = tokenizer_page()
    assert element.locator(".full").count() == 0
    field = element.locator("textarea")
    field.evaluate("f => { f.value = 'a'.repeat(1000); f.dispatchEvent(new Event('input', {bubbles: true})); }")
    assert "first 1,000 characters" in element.locator(".full").text_content()


def test_the_token_that_is_typed_stays_in_sight_in_a_long_list(tokenizer_page):
    _, element = tokenizer_page(width=390)
    element.locator("textarea").fill("W" * 300)
    seen = """list => {
        const r = list.getBoundingClientRect(), t = list.querySelector("[aria-selected=true]").getBoundingClientRect();
        return [t.top >= r.top, t.bottom <= r.bottom + 1];
    }"""
    assert element.locator(".tokens").evaluate(seen) == [True, True]
    element.locator("textarea").press("Home")
    assert element.locator(".tokens").evaluate(seen) == [True, True]


def test_the_mouse_shows_a_token_and_a_click_keeps_it(tokenizer_page, fable):
    _, element = tokenizer_page()
    options, about = element.locator("[role=option]"), element.locator(".about")
    options.nth(3).hover()
    assert "token 540" in about.inner_text() and "20 74 69 6D 65" in about.inner_text()
    element.locator(".question").hover()
    assert "token 540" not in about.inner_text()
    options.nth(0).click()
    element.locator(".question").hover()
    assert "token 3085" in about.inner_text() and "Once" in about.inner_text()
    rank = 3085 - 257 + 1
    assert f"merge {rank:,} of {len(fable.merges):,}" in about.inner_text()


def test_examples_are_one_click_away_and_spell_out_what_is_not_a_character(tokenizer_page, fable):
    _, element = tokenizer_page()
    buttons = element.locator(".examples button")
    assert buttons.count() == 8
    for i in range(8):
        buttons.nth(i).click()
        text = element.locator("textarea").input_value()
        assert buttons.nth(i).get_attribute("aria-pressed") == "true"
        assert ids(element) == fable.encode(text)
    assert element.locator(".hex").count() > 8 and "\N{DRAGON}" in element.locator(".whole").all_text_contents()
    element.get_by_role("option", name="byte 9F").first.click()
    assert "only a part of" in element.locator(".about").inner_text()


def test_merges_go_back_and_on_step_by_step(tokenizer_page):
    _, element = tokenizer_page()
    slider, happened = element.get_by_role("slider"), element.locator(".happened")
    back, on = (element.get_by_role("button", name=f"One merge {way}") for way in ("back", "on"))
    assert on.is_disabled()
    back.click()
    assert slider.input_value() == "3" and "Step 3 of 4" in happened.inner_text()
    slider.press("Home")
    assert happened.inner_text() == "·upon begins as 5 bytes." and back.is_disabled()
    assert element.locator(".rung:visible").count() == 1
    slider.press("ArrowRight")
    assert "o + n" in happened.inner_text() and slider.get_attribute("aria-valuetext") == happened.inner_text()
    assert element.locator(".rung:visible").count() == 2 and element.locator(".now .made").inner_text() == "on"


def test_everything_is_reached_by_keyboard_and_arrows_do_not_turn_the_page(tokenizer_page):
    page, element = tokenizer_page()
    url = page.url
    element.locator("textarea").focus()
    seen = []
    for _ in range(16):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("""() => { const e = document.activeElement.shadowRoot?.activeElement;
            return e && (e.getAttribute("role") || e.type) }"""))
    assert {"button", "option", "range"} <= set(seen) and seen.count("option") == 1
    element.locator("[role=option][tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "token 259" in element.locator(".about").inner_text()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # there is none
    assert "token 540" in element.locator(".about").inner_text()
    assert page.url == url


def test_a_finger_chooses_a_token_and_steps_through_its_merges(tokenizer_page):
    _, element = tokenizer_page(width=390, touch=True, height=844)
    element.locator("[role=option]").nth(3).tap()
    assert "token 540" in element.locator(".about").inner_text()
    element.get_by_role("button", name="One merge back").tap()
    assert "Step 3 of 4" in element.locator(".happened").inner_text()
    element.get_by_role("button", name="emoji").tap()
    assert element.locator(".whole").count() > 1
    for button in element.locator("button:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 24, button.inner_text()


STICKS_OUT = """host => {
    const right = host.getBoundingClientRect().right + 1;
    const seen = (e) => e.checkVisibility() && !e.closest(".for-ears") && !e.parentElement.closest(".as-table");
    const out = (e) => seen(e) && e.getBoundingClientRect().right > right;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(out).map((e) => e.className || e.localName);
}"""


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(tokenizer_page, axe, width, scheme):
    page, element = tokenizer_page(width=width, scheme=scheme)
    element.get_by_role("button", name="emoji", exact=True).click()
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-tokenizer") == []
    for text in ["once" * 100 + " " + "\u9f99" * 100, "n:\n" + " " * 80 + "return", "W" * 19 + " " + "\N{DRAGON}" * 60]:
        element.locator("textarea").fill(text)
        assert element.evaluate(STICKS_OUT) == []


def test_the_colours_follow_the_page_between_light_and_dark(tokenizer_page):
    page, element = tokenizer_page(scheme="light")
    ground = lambda: element.locator("section").evaluate("e => getComputedStyle(e).backgroundColor")  # noqa: E731
    assert ground() == "rgb(255, 255, 255)"
    page.locator("#theme").click()
    assert ground() == "rgb(27, 31, 38)"


def test_nothing_moves_for_readers_who_asked_for_stillness(tokenizer_page):
    for still in (False, True):
        _, element = tokenizer_page(reduced_motion=still)
        element.get_by_role("button", name="One merge back").click()
        name = element.locator(".now").evaluate("e => getComputedStyle(e).animationName")
        assert (name == "none") is still


def test_the_same_as_a_table_and_in_words(tokenizer_page):
    _, element = tokenizer_page()
    button = element.get_by_role("button", name="Show as a table")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    rows = element.get_by_role("row").all()
    assert len(rows) == 5 and "\xb7time" in rows[4].inner_text() and "20 74 69 6D 65" in rows[4].inner_text()
    assert "into 4 tokens" in element.locator("#description").text_content()


def test_without_scripts_the_picture_the_words_and_the_table_are_there(page_factory):
    page = page_factory(PAGE, javascript=False)
    static = page.locator("tl-tokenizer .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert static.locator("img.tl-picture").evaluate("e => e.naturalWidth") > 300
    assert static.locator("table tr").count() == 5


STOPWATCH = """field => field.addEventListener("input", () => {
    const start = performance.now();
    requestAnimationFrame(() => setTimeout(() => { field.took = performance.now() - start; }));
}, { capture: true, once: true })"""


def test_the_page_stays_light_and_the_first_keystroke_is_measured(tokenizer_page, book_html: Path):
    size = (book_html / PAGE).stat().st_size
    bundle = (book_html / "assets" / "widgets" / "tl-tokenizer.js").stat().st_size  # what this page loads
    page, element = tokenizer_page()
    element.locator("textarea").evaluate(STOPWATCH)
    element.locator("textarea").press_sequentially("!")
    page.wait_for_timeout(200)
    took = element.locator("textarea").evaluate("field => field.took")
    print(f"\n[tokenizer] page {size / 1e3:.0f} KB, bundle {bundle / 1e3:.1f} KB, keystroke to paint {took:.0f} ms")
    assert size < 500_000 and bundle < 160_000
