"""<tl-prefix>: names and cache in the page against the engine's; prompts typed, chosen, sent and forgotten."""
import hashlib
import random

import numpy as np
import pytest
from conftest import sticks_out
from tinyllm.engine.core import Request, ModelRunnerOutput
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.prefix import hash_block_tokens, root_hash
from tinyllm.engine.scheduler import Scheduler
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer

PAGE = "nbs/16_prefix_caching.html"
NODE = """
import { readFileSync } from "node:fs";
const { Server, chain, firstLink, hexOf, sha256 } = await import(process.argv[1]);
const { messages, salts, chains, histories } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify({
  digests: messages.map((bytes) => hexOf(sha256(Uint8Array.from(bytes)))),
  links: salts.map((salt) => hexOf(firstLink(salt))),
  chains: chains.map(([ids, count, size, salt]) => chain(ids, count, size, salt)),
  histories: histories.map(({ num_blocks, size, prompts }) => {
    const server = new Server(num_blocks, size), { pool, cache } = server;
    return prompts.map(([ids, salt]) => {
      const would = server.look(ids, salt).found.length, answer = server.serve(ids, salt);
      return JSON.parse(JSON.stringify({
        would, found: answer.found * size, computed: answer.computed, forgotten: answer.forgotten.length,
        idle: pool.freeBlockQueue, blocks: [...cache.blocks], known: server.contents.size,
        stats: [cache.queries, cache.hits, cache.evictions],
      }));
    });
  }),
}));
"""


def names(ids, count, size, salt):
    found = []
    hash_block_tokens(found, np.array(ids, np.int32), count, size, salt)
    return [name.hex() for name in found]


def history(rng: random.Random) -> tuple[dict, list]:
    """Prompts that share beginnings, and how the engine's own scheduler stands after each of them."""
    num_blocks, size = rng.choice([(4, 1), (6, 4), (12, 4), (9, 16)])
    stems = [[rng.randrange(4096) for _ in range(rng.randint(1, 2 * size))] for _ in range(3)]
    prompts = []
    for _ in range(40):
        ids = [t for _ in range(rng.randint(1, 3)) for t in rng.choice(stems)]
        ids += [rng.randrange(4096) for _ in range(rng.randint(0, size))]
        prompts.append((ids[: num_blocks * size], rng.choice([None, None, "alice", "bob"])))
    scheduler = Scheduler(num_blocks, size, max_num_seqs=1, max_num_batched_tokens=4096, max_model_len=4096)
    pool, cache, states = scheduler.kv_cache_manager.block_pool, scheduler.kv_cache_manager.prefix_cache, []
    for ids, salt in prompts:
        request, forgotten = Request("r", ids, SamplingParams(max_tokens=1), salt=salt), cache.evictions
        scheduler.add(request)
        plan = scheduler.schedule()
        scheduler.update(plan, ModelRunnerOutput(np.array([[1]])))
        assert request.finish_reason == "length"
        found = request.num_cached_tokens
        states.append({"would": found // size, "found": found, "computed": len(ids) - found,
                       "forgotten": cache.evictions - forgotten, "idle": list(pool.free_block_queue),
                       "blocks": [[name.hex(), block] for name, block in cache.blocks.items()],
                       "stats": [cache.queries, cache.hits, cache.evictions], "known": len(cache.blocks)})  # fmt: skip
    return {"num_blocks": num_blocks, "size": size, "prompts": prompts}, states


def test_digests_names_and_whole_histories_are_those_of_the_engine(in_node):
    rng = random.Random(16)
    messages = [bytes(rng.randrange(256) for _ in range(n)) for n in (*range(130), 1000)]
    salts = [None, "", "alice", "salt", "Zoë 🦊"]
    chains = [([rng.randrange(2**31) for _ in range(n)], n // size, size, rng.choice(salts))
              for n in range(0, 70, 7) for size in (1, 4, 16)]  # fmt: skip
    histories = [history(rng) for _ in range(40)]
    page = in_node("prefixes.js", NODE, {"messages": [list(m) for m in messages], "salts": salts, "chains": chains,
                    "histories": [asked for asked, _ in histories]})  # fmt: skip
    assert page["digests"] == [hashlib.sha256(m).hexdigest() for m in messages]
    assert page["links"] == [root_hash(salt).hex() for salt in salts] and len(set(page["links"])) == len(salts)
    assert page["chains"] == [names(*asked) for asked in chains]
    for (asked, ours), theirs in zip(histories, page["histories"], strict=True):
        for prompt, a, b in zip(asked["prompts"], ours, theirs, strict=True):
            assert b == a, prompt
    hits = sum(state["found"] > 0 for _, states in histories for state in states)
    evictions = sum(state["forgotten"] > 0 for _, states in histories for state in states)
    assert hits > 100 and evictions > 100  # nothing of interest is rare


# ---- In the browser ----


@pytest.fixture
def prefix(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-prefix")
        element.scroll_into_view_if_needed()
        element.locator(".card").first.wait_for()
        return page, element

    return opened


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("fable"))


def press(element, name):
    element.get_by_role("button", name=name, exact=True).click()


def fates(element) -> list[str]:
    return element.locator("button.card").evaluate_all("all => all.map((e) => e.classList[1])")


def test_the_first_state_is_the_one_that_python_wrote_down(prefix):
    _, element = prefix()
    static = [row.split("\t") for row in element.locator(".tl-static tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent).join('\\t'))")]  # fmt: skip
    press(element, "Show as a table")
    shown = element.locator(".as-table tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))")  # fmt: skip
    assert shown == static and len(shown) == 5
    assert fates(element) == ["found", "found", "new"]


def test_names_of_a_typed_prompt_are_those_of_the_engine(prefix, tokenizer):
    _, element = prefix()
    text = "Zoë saw a 🦊 in the garden, and then another."
    element.locator("textarea").fill(text)
    press(element, "salt “alice”")
    ids = tokenizer.encode(text)
    expected = names(ids, len(ids) // 4, 4, "alice")
    assert element.locator("button.card code").all_inner_texts() == [name[:8] for name in expected]
    for i in (0, len(expected) - 1):
        element.locator("button.card").nth(i).click()
        assert element.locator(".digest").inner_text() == expected[i]
    assert element.locator(".card.link code").inner_text() == root_hash("alice").hex()[:8]


def test_a_prompt_sent_twice_is_found_but_for_its_last_block_and_never_under_another_salt(prefix):
    _, element = prefix()
    press(element, "Send it")
    assert "8 tokens found, 4 computed" in element.locator(".happened").inner_text()
    assert fates(element) == ["found", "found", "again"]  # its last token has to be computed
    press(element, "Send it")
    assert "8 tokens found, 4 computed" in element.locator(".happened").inner_text()
    press(element, "salt “bob”")
    assert fates(element) == ["new"] * 3
    press(element, "Send it")
    assert "0 tokens found, 12 computed" in element.locator(".happened").inner_text()
    press(element, "no salt")
    assert fates(element) == ["found", "found", "again"]


def test_another_first_word_leaves_nothing_to_find(prefix):
    _, element = prefix()
    text = element.locator("textarea").input_value()
    element.locator("textarea").fill(text.replace("Once", "Twice"))
    assert set(fates(element)) == {"new"}
    element.locator("textarea").fill("")
    assert element.get_by_role("button", name="Send it").is_disabled()


def test_what_is_forgotten_first_is_the_end_of_what_has_gone_unused_for_longest(prefix):
    _, element = prefix()
    for salt in ("salt “alice”", "salt “bob”", "no salt"):
        press(element, salt)
        press(element, "Send it")
    assert element.locator(".node.gone").count() == 0  # the last idle block without a name is taken
    element.locator(".examples button").last.click()
    press(element, "Send it")
    gone = element.locator(".node.gone .words").evaluate_all("all => all.map((e) => e.textContent)")
    assert gone[:3] == ["·who·had·three·daughters", "·girl·who·lived·in", "·there·was·a·little"]  # not its beginning
    assert "·there·was·a·king" in element.locator(".tree").evaluate("e => e.textContent")
    press(element, "Empty the cache")
    assert element.locator(".node").count() == 0
    element.locator("textarea").fill("?! " * 50)
    press(element, "Send it")
    assert "more than the 12 blocks" in element.locator(".happened").inner_text()


def test_everything_works_by_keyboard_and_does_not_turn_the_page(prefix):
    page, element = prefix()
    url = page.url
    element.locator("textarea").focus()
    page.keyboard.press("End")
    page.keyboard.type("/ and")
    page.keyboard.press("ArrowLeft")
    assert page.url == url and element.locator("textarea").input_value().endswith("/ and")
    element.get_by_role("button", name="Send it").focus()
    page.keyboard.press("Enter")
    element.locator("button.card").nth(2).focus()
    page.keyboard.press("Space")
    assert element.locator("button.card").nth(2).get_attribute("aria-pressed") == "true"
    page.wait_for_function("document.querySelector('tl-prefix').shadowRoot.querySelector('[role=status]').textContent")
    assert "computed" in element.locator("[role=status]").inner_text()


def test_a_finger_can_do_it_all(prefix):
    _, element = prefix(width=390, touch=True, height=844)
    element.locator(".examples button").last.tap()
    element.get_by_role("button", name="Send it").tap()
    assert "0 tokens found" in element.locator(".happened").inner_text()
    for target in element.locator("button, textarea").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(prefix, axe, width, scheme):
    page, element = prefix(width=width, scheme=scheme, reduced_motion=True)
    assert axe(page, "tl-prefix") == []
    for salt in ("salt “alice”", "salt “bob”", "no salt"):
        press(element, salt)
        press(element, "Send it")
    press(element, "Show as a table")
    assert axe(page, "tl-prefix") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert sticks_out(page, "tl-prefix") == []


def test_words_table_and_picture_for_those_who_have_no_scripts(prefix, page_factory, book_html):
    _, element = prefix()
    assert element.locator(".question").inner_text().endswith("?")
    static = page_factory(PAGE, javascript=False).locator("tl-prefix .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert (book_html / PAGE).stat().st_size < 500_000
