"""<tl-paged>: its allocator against the engine's on random operations; poked by mouse, keyboard and finger."""
import random

import numpy as np
import pytest
from conftest import sticks_out

from tinyllm.engine.blocks import BlockPool, BlockTables

PAGE = "nbs/15_paged_attention.html"
NODE = """
import { readFileSync } from "node:fs";
const { BlockPool, Tenants, survey } = await import(process.argv[1]);
const { pools, tenants } = JSON.parse(readFileSync(0, "utf8"));
const look = ({ refCounts: counts, freeBlockQueue: idle, fenced, blockHashes: names }, taken) =>
  ({ counts, idle, fenced, names: [...names], taken });
const copy = (value) => JSON.parse(JSON.stringify(value));
const answers = { pools: [], tenants: [] };
for (const { num_blocks, operations } of pools) {
  const states = [], reused = [], pool = new BlockPool(num_blocks, (block, hash) => reused.push([block, hash]));
  for (const [kind, ...args] of operations) {
    const taken = kind === "name" ? (pool.blockHashes.set(args[0], args[1]), null) : pool[kind](...args) ?? null;
    states.push(copy(look(pool, taken)));
  }
  answers.pools.push({ states, reused });
}
for (const { num_blocks, size, operations } of tenants) {
  const room = new Tenants(num_blocks, size);
  answers.tenants.push(operations.map(([kind, ...args]) => {
    const said = room[kind](...args) ?? null, { handedOut, stored } = survey(room.state);
    return copy({ said, state: room.state, waste: handedOut - stored });
  }));
}
console.log(JSON.stringify(answers));
"""


# ---- The allocator in the page is the engine's ----


def play_pool(rng: random.Random, steps: int):
    """Random operations that a caller may do, and how the engine's pool stands after each."""
    num_blocks = rng.choice([1, 2, 5, 12])
    held, step, reused = [], 0, []
    pool = BlockPool(num_blocks, lambda block, block_hash: reused.append([block, block_hash]))
    operations, states = [], []
    for number in range(steps):
        kinds = ["getNewBlocks", "getNewBlocks", "touch", "freeBlocks", "freeBlocks", "finishStep", "name"]
        kind, taken = rng.choice(kinds), None
        if kind == "getNewBlocks":
            args = [rng.randint(0, pool.num_free_blocks)]
            taken = pool.get_new_blocks(*args)
            held += taken
        elif kind == "touch":
            args = [rng.sample(range(1, num_blocks + 1), rng.randint(0, num_blocks))]
            args[0] = [b for b in args[0] if pool.ref_counts[b] or b in pool.block_hashes]
            pool.touch(*args)
            held += args[0]
        elif kind == "freeBlocks":
            some = rng.sample(sorted(set(held)), rng.randint(0, len(set(held))))
            step = max(step, pool.steps_done) + rng.randint(0, 1)
            args = [some, rng.choice([-1, pool.steps_done, step])]
            pool.free_blocks(*args)
            for block in some:
                held.remove(block)
        elif kind == "finishStep":
            args = [rng.randint(0, step + 1)]
            pool.finish_step(*args)
        else:
            block = rng.choice(held or [1])
            if block in pool.block_hashes or not pool.ref_counts[block]:
                continue
            args = [block, f"name {number}"]
            pool.block_hashes[block] = args[1]
        operations.append([kind, *args])
        states.append({"counts": list(pool.ref_counts), "idle": list(pool.free_block_queue), "taken": taken,
                       "fenced": [[fence, blocks] for fence, blocks in pool.fenced],
                       "names": {str(b): n for b, n in pool.block_hashes.items()}})  # fmt: skip
    return {"num_blocks": num_blocks, "operations": operations}, {"states": states, "reused": reused}


class Reference:
    """Requests over the engine's pool and tables."""

    def __init__(self, num_blocks, size):
        self.pool, self.tables = BlockPool(num_blocks), BlockTables(40, 60, size)
        self.size, self.step, self.rows, self.tokens = size, 0, {}, {}
        self.unused = list(range(40))

    def table(self, name):
        return self.tables.table[self.rows[name], : self.tables.length[self.rows[name]]].tolist()

    def enter(self, name, tokens, shared):
        if -(-tokens // self.size) - len(shared) > self.pool.num_free_blocks:
            return False
        row = np.array([self.unused.pop()])
        self.pool.touch(shared)
        self.tables.append(row, np.array([len(shared)]), shared)
        need = self.tables.missing(row, np.array([tokens]))
        self.tables.append(row, need, self.pool.get_new_blocks(int(need[0])))
        self.rows[name], self.tokens[name] = int(row[0]), tokens
        return True

    def add(self, name, tokens):
        return self.enter(name, tokens, [])

    def fork(self, name, copy):
        return self.enter(copy, self.tokens[name], self.table(name)[: (self.tokens[name] - 1) // self.size])

    def grow(self, name, more):
        row = np.array([self.rows[name]])
        need = self.tables.missing(row, np.array([self.tokens[name] + more]))
        if need[0] > self.pool.num_free_blocks:
            return False
        self.tables.append(row, need, self.pool.get_new_blocks(int(need[0])))
        self.tokens[name] += more
        return True

    def leave(self, name, fence):
        row = self.rows.pop(name)
        self.pool.free_blocks(self.tables.take(row), fence)
        self.unused.append(row)
        del self.tokens[name]

    def finish(self, name):
        self.leave(name, -1)

    def abort(self, name):
        self.leave(name, self.step)

    def advance(self):
        self.pool.finish_step(self.step)
        self.step += 1
        return [name for name in list(self.tokens) if not self.grow(name, 1)]

    def state(self):
        return {"block_size": self.size, "num_blocks": self.pool.num_blocks, "step": self.step,
                "counts": list(self.pool.ref_counts), "idle": list(self.pool.free_block_queue),
                "fenced": [[step, blocks] for step, blocks in self.pool.fenced],
                "requests": [{"name": n, "tokens": t, "blocks": self.table(n)}
                             for n, t in self.tokens.items()]}  # fmt: skip


def play_tenants(rng: random.Random, steps: int):
    num_blocks, size = rng.choice([(1, 4), (8, 1), (12, 3), (24, 4), (6, 16)])
    room, operations, states, born = Reference(num_blocks, size), [], [], 0
    for _ in range(steps):
        kind = rng.choice(["add", "grow", "fork", "finish", "abort", "advance"])
        names = list(room.tokens)
        if kind in ("add", "fork") and (len(names) > 30 or (kind == "fork" and not names)):
            continue
        if kind in ("grow", "finish", "abort") and not names:
            continue
        name = rng.choice(names) if names else None
        args = {"add": [f"r{born}", rng.randint(1, 3 * size)], "grow": [name, rng.randint(1, size + 1)],
                "fork": [name, f"r{born}"], "advance": []}.get(kind, [name])  # fmt: skip
        born += 1
        said = getattr(room, kind)(*args)
        filled = {}
        for n, tokens in room.tokens.items():
            for i, block in enumerate(room.table(n)):
                filled[block] = max(filled.get(block, 0), min(size, tokens - i * size))
        operations.append([kind, *args])
        states.append({"said": said, "state": room.state(), "waste": len(filled) * size - sum(filled.values())})
    return {"num_blocks": num_blocks, "size": size, "operations": operations}, states


def test_after_any_operations_blocks_lie_where_the_engine_puts_them(in_node):
    rng = random.Random(15)
    pools = [play_pool(rng, 60) for _ in range(80)]
    tenants = [play_tenants(rng, 60) for _ in range(80)]
    asked = {"pools": [asked for asked, _ in pools], "tenants": [asked for asked, _ in tenants]}
    page = in_node("blocks.js", NODE, asked)
    for (asked, expected), found in zip(pools, page["pools"], strict=True):
        for state in found["states"]:
            state["names"] = {str(block): name for block, name in state["names"]}
        for operation, ours, theirs in zip(asked["operations"], expected["states"], found["states"], strict=True):
            assert theirs == ours, operation
        assert found["reused"] == expected["reused"]
    for (asked, expected), found in zip(tenants, page["tenants"], strict=True):
        for operation, ours, theirs in zip(asked["operations"], expected, found, strict=True):
            assert theirs == ours, operation
    fences = sum(bool(state["fenced"]) for _, e in pools for state in e["states"])
    shared = sum(max(state["state"]["counts"]) > 1 for _, e in tenants for state in e)
    full = sum(state["said"] is False for _, e in tenants for state in e)
    assert min(fences, shared, full, sum(len(e["reused"]) for _, e in pools)) > 100  # nothing of interest is rare


# ---- In the browser ----


@pytest.fixture
def paged(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-paged")
        element.scroll_into_view_if_needed()
        element.locator(".block").first.wait_for()
        return page, element

    return opened


def state(element) -> dict:
    return element.evaluate("e => e.state")


def table(element, name) -> list[int]:
    return next(r["blocks"] for r in state(element)["requests"] if r["name"] == name)


def press(element, name):
    element.get_by_role("button", name=name, exact=True).click()


def test_the_first_state_is_the_one_that_python_wrote_down(paged):
    _, element = paged()
    static = [row.split("\t") for row in element.locator(".tl-static tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent).join('\\t'))")]  # fmt: skip
    press(element, "Show as a table")
    shown = [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]
    assert len(shown) == 24 and [row[:4] for row in shown] == [row[:4] for row in static]
    assert [row[4].partition(",")[0] for row in shown] == [row[4] for row in static]
    assert element.locator(".block.fence").count() == 0 and element.locator(".block.next").count() == 1


def test_a_fork_shares_full_blocks_which_stay_when_the_first_owner_leaves(paged):
    _, element = paged()
    before = table(element, "A")
    press(element, "Fork A")
    copy = state(element)["requests"][-1]
    assert copy["blocks"][:3] == before[:3] and copy["blocks"][3] != before[3]
    assert "no token is copied" in element.locator(".happened").inner_text()
    press(element, "Finish A")
    now = state(element)
    assert [now["counts"][b] for b in before[:3]] == [2, 2, 2] and now["counts"][before[3]] == 0
    press(element, "Free all")
    assert len(state(element)["idle"]) == 24 and element.locator(".request").count() == 0


def test_aborted_blocks_come_back_when_the_step_is_over_and_finished_ones_at_once(paged):
    _, element = paged()
    press(element, "Abort C")
    assert element.locator(".block.fence").count() == 5
    assert "wait for the end" in element.locator(".happened").inner_text()
    press(element, "Show as a table")
    assert element.locator(".as-table td", has_text="fenced by step 7").count() == 5
    press(element, "Step: one token each")
    assert element.locator(".block.fence").count() == 0
    mine = table(element, "E")
    press(element, "Abort E")
    assert [state(element)["counts"][b] for b in mine] == [1] * len(mine)
    assert element.locator(".block.fence").count() == len(mine)
    press(element, "Step: one token each")
    assert not set(mine) & {b for request in state(element)["requests"] for b in request["blocks"][:-1]}
    mine = table(element, "D")
    press(element, "Finish D")
    assert mine[-1] in state(element)["idle"]


def test_a_request_without_room_waits_and_says_so(paged):
    _, element = paged()
    press(element, "blocks of 16")
    assert len(state(element)["counts"]) == 7
    said = ""
    for _ in range(4):
        press(element, "New request")
        said += element.locator(".happened").inner_text()
    assert "No room" in said
    press(element, "blocks of 1")
    assert element.locator(".figures .main dd").inner_text() == "0%"


def test_as_many_requests_as_fit_have_colours_of_their_own_and_one_more_is_told_why_not(paged):
    _, element = paged()
    press(element, "Free all")
    for _ in range(7):
        press(element, "New request")
    assert "finish one first" in element.locator(".happened").inner_text() and len(state(element)["requests"]) == 6
    for _ in range(5):  # the letters go on, G has another colour than B to F
        element.locator(".request").first.get_by_role("button", name="Finish").click()
        press(element, "New request")
        hue = "rows => rows.map((row) => row.style.getPropertyValue('--hue'))"
        hues = element.locator(".request").evaluate_all(hue)
        assert len(set(hues)) == len(hues) == 6


def test_pointing_at_a_request_outlines_its_blocks_and_at_a_block_its_entries(paged):
    _, element = paged()
    element.locator(".request").first.hover()
    outlined = element.locator(".block.pointed .number").all_inner_texts()
    assert sorted(map(int, outlined)) == sorted(table(element, "A"))
    shared = table(element, "A")[0]
    element.locator(".block").nth(shared - 1).hover()
    assert element.locator(".request .table .pointed").all_inner_texts() == [str(shared)] * 2  # A's and D's
    assert element.locator(".block").nth(shared - 1).locator("i").all_inner_texts() == ["0", "1", "2", "3"]


def test_everything_works_by_keyboard_and_does_not_turn_the_page(paged):
    page, element = paged()
    url, step = page.url, state(element)["step"]
    element.get_by_role("button", name="Step: one token each").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert state(element)["step"] == step + 1 and page.url == url
    element.get_by_role("button", name="Abort E").focus()
    page.keyboard.press("Space")
    assert "E" not in {request["name"] for request in state(element)["requests"]}
    assert element.evaluate("e => e.shadowRoot.activeElement?.tagName") == "BUTTON"  # the focus is not lost
    page.wait_for_function("document.querySelector('tl-paged').shadowRoot.querySelector('[role=status]').textContent")
    assert "E is aborted" in element.locator("[role=status]").inner_text()


def test_a_finger_can_do_it_all(paged):
    _, element = paged(width=390, touch=True, height=844)
    before = len(state(element)["requests"])
    element.get_by_role("button", name="Fork D").tap()
    element.get_by_role("button", name="One token more for D").tap()
    assert len(state(element)["requests"]) == before + 1
    for target in element.locator("button").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


LIVE = """(large) => {
  const element = document.createElement("tl-paged");
  element.id = "live";
  const num_blocks = large ? 500 : 8, counts = new Array(num_blocks + 1).fill(0);
  const blocks = large ? [...Array(300).keys()].map((i) => i + 1) : [2, 5];
  const requests = [{ name: "cmpl-1", tokens: large ? 4790 : 20, blocks }];
  for (const block of blocks) counts[block] = 1;
  if (large) document.querySelector("tl-paged").after(element);
  element.state = { block_size: 16, num_blocks, counts, requests };
  if (!large) document.querySelector("tl-paged").after(element);
  return element.updateComplete;
}"""


@pytest.mark.parametrize("large", [False, True])
def test_somebody_elses_pool_is_drawn_without_buttons_and_follows_its_state(paged, axe, large):
    page, _ = paged()
    page.evaluate(LIVE, large)
    live = page.locator("#live")
    live.locator(".request").wait_for()
    assert live.locator(".request button, .buttons").count() == 0
    assert live.locator(".square.held" if large else ".block.held").count() == (300 if large else 2)
    assert "cmpl-1" in live.locator(".requests").inner_text()
    page.evaluate("document.querySelector('#live').state = {...document.querySelector('#live').state, requests: []}")
    page.wait_for_function("!document.querySelector('#live').shadowRoot.querySelector('.request')")
    assert axe(page, "#live") == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(paged, axe, width, scheme):
    page, element = paged(width=width, scheme=scheme, reduced_motion=True)
    assert axe(page, "tl-paged") == []
    for size in (1, 16):
        press(element, f"blocks of {size}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    press(element, "Show as a table")
    assert axe(page, "tl-paged") == []
    assert sticks_out(page, "tl-paged") == []


def test_words_table_and_picture_for_those_who_have_no_scripts(paged, page_factory, book_html):
    _, element = paged()
    assert element.locator(".question").inner_text().endswith("?")
    static = page_factory(PAGE, javascript=False).locator("tl-paged .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
    assert (book_html / PAGE).stat().st_size < 500_000
