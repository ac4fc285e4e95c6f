"""<tl-shard>: bytes against what ranks count, the timeline against a simulation; mouse, keyboard and finger."""
import json
import subprocess
from itertools import product

import pytest
from press.bundle import WIDGETS, node_and_npm

torch = pytest.importorskip("torch")

from tinyllm.measure.scaling import run_ranks
from tinyllm.parallel.tensor import rank_slice

PAGE = "nbs/19_scaling_out.html"
NODE = """
import { readFileSync } from "node:fs";
const { work, timeline } = await import(process.argv[1]);
const { shapes, lines } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify({
  shapes: shapes.map(([shape, how, n]) => Array.from({ length: n }, (_, rank) => work(shape, how, rank, n))),
  lines: lines.map(([stages, micro, slots]) => timeline(stages, micro, slots)),
}));
"""
OUTSIDE = """() => {
    const host = document.querySelector("tl-shard"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


def counted(shape: dict, how: str, group):
    """One rank's product with real tensors of ones, and what its group has counted."""
    T, d, f, dtype = shape["tokens"], shape["inner"], shape["outer"], torch.bfloat16
    mine = rank_slice(d if how == "rows" else f, group.rank, group.size)
    part, x = mine.stop - mine.start, torch.ones(T, d, dtype=dtype)
    weights = [torch.ones(part, f, dtype=dtype) if how == "rows" else torch.ones(d, part, dtype=dtype)]
    y = x[:, mine] @ weights[0] if how == "rows" else x @ weights[0]
    if how == "both":
        weights.append(torch.ones(part, d, dtype=dtype))
        y = y @ weights[1]
    group.all_gather(y) if how == "columns" else group.all_reduce(y)
    held = sum(w.numel() for w in weights)
    bytes_ = group.traffic.bytes
    return {"start": mine.start, "end": mine.stop, "held": held, "products": T * held, "sent": bytes_}


def simulated(stages: int, micro: int, slots: int) -> list:
    """Slot by slot: the first stage takes up whoever has waited longest; tokens come back from the last."""
    waiting, at = [(m, 0) for m in range(micro)], [None] * stages
    seen = [[] for _ in range(stages)]
    for _ in range(slots):
        done = at[-1]
        if done:
            waiting.append((done[0], done[1] + 1))
        at = [waiting.pop(0) if waiting else None, *at[:-1]]
        for stage in range(stages):
            seen[stage].append(list(at[stage]) if at[stage] else None)
    return seen


def test_bytes_are_those_that_the_ranks_count_and_the_timeline_that_of_a_simulation():
    shapes = [({"tokens": T, "inner": d, "outer": f, "width": 2}, how, n)
              for T, d, f in ((4, 12, 24), (1, 24, 12), (7, 36, 48))
              for how, n in product(("columns", "rows", "both"), (1, 2, 3, 4))]  # fmt: skip
    lines = [(stages, micro, 23) for stages in range(1, 5) for micro in range(1, 7)]
    node, _ = node_and_npm()
    command = [*node, "--input-type=module", "-e", NODE, (WIDGETS / "shards.js").as_uri()]
    asked = json.dumps({"shapes": shapes, "lines": lines})
    done = subprocess.run(command, input=asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    for (shape, how, n), theirs in zip(shapes, page["shapes"], strict=True):
        ours = run_ranks(n, lambda group, shape=shape, how=how: counted(shape, how, group))
        assert theirs == ours, (shape, how, n)
    for line, theirs in zip(lines, page["lines"], strict=True):
        assert theirs == simulated(*line), line


# ---- In the browser ----


@pytest.fixture
def shard(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-shard")
        element.scroll_into_view_if_needed()
        element.locator(".card").first.wait_for()
        return page, element

    return opened


def press(element, name):
    element.get_by_role("button", name=name, exact=True).click()


def sent(element) -> list[str]:
    return element.locator(".sent").all_inner_texts()


def test_the_first_state_is_the_one_that_python_counted(shard):
    _, element = shard()
    cells = "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    static = element.locator(".tl-static tbody tr").evaluate_all(cells)
    press(element, "Show as a table")
    assert element.locator(".as-table tbody tr").evaluate_all(cells) == static
    assert sent(element) == ["96 bytes"] * 2


def test_rows_cost_twice_the_bytes_of_columns_and_a_pair_no_more_than_half_of_that(shard):
    _, element = shard()
    press(element, "by rows")
    assert sent(element) == ["192 bytes"] * 2 and "all-reduce" in element.locator(".sentence").inner_text()
    press(element, "columns, then rows")
    assert sent(element) == ["96 bytes"] * 2 and "Nothing is said between" in element.locator(".sentence").inner_text()
    press(element, "4")
    assert sent(element) == ["144 bytes"] * 4
    stripes = element.locator(".sum").evaluate_all("all => all.map((e) => e.getAttribute('fill'))")
    assert stripes == [f"url(#stripes{rank})" for rank in range(4)]  # each in its own rank's colour
    press(element, "1")
    assert sent(element) == ["0 bytes"]


def test_a_pipeline_is_busy_once_there_are_as_many_micro_batches_as_stages(shard):
    _, element = shard()
    press(element, "the layers")
    assert "busy 50%" in element.locator(".sentence").inner_text()
    idle = element.locator(".idle").count()
    element.get_by_role("group", name="Micro-batches").get_by_role("button", name="4").click()
    assert "busy 100%" in element.locator(".sentence").inner_text()
    assert element.locator(".idle").count() == 0 + 1 + 2 + 3 < idle  # only until the first has come through
    element.get_by_role("group", name="Micro-batches").get_by_role("button", name="6").click()
    assert "every 6 slots" in element.locator(".sentence").inner_text()


def test_everything_works_by_keyboard_and_is_said_aloud(shard):
    page, element = shard()
    url = page.url
    element.get_by_role("button", name="by rows", exact=True).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert page.url == url and sent(element) == ["192 bytes"] * 2
    page.wait_for_function("document.querySelector('tl-shard').shadowRoot.querySelector('[role=status]').textContent")
    assert "192 bytes" in element.locator("[role=status]").inner_text()
    element.get_by_role("button", name="the layers", exact=True).focus()
    page.keyboard.press("Space")
    assert element.locator(".chart").is_visible()


def test_a_finger_can_do_it_all(shard):
    _, element = shard(width=390, touch=True, height=844)
    element.get_by_role("button", name="3", exact=True).tap()
    assert element.locator(".card").count() == 3
    element.get_by_role("button", name="the layers", exact=True).tap()
    element.get_by_role("group", name="Stages").get_by_role("button", name="2").tap()
    assert "busy 100%" in element.locator(".sentence").inner_text()
    for target in element.locator("button").all():
        size = target.bounding_box()
        assert min(size["width"], size["height"]) >= 24


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(shard, axe, width, scheme):
    page, element = shard(width=width, scheme=scheme, reduced_motion=True)
    for button in ("4", "columns, then rows", "the layers", "Show as a table"):
        press(element, button)
        assert page.evaluate(OUTSIDE) == []
    assert axe(page, "tl-shard") == []
    press(element, "a matrix")
    assert axe(page, "tl-shard") == [] and page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_table_and_picture_for_those_who_have_no_scripts(shard, page_factory):
    _, element = shard()
    assert element.locator(".question").inner_text().endswith("?")
    static = page_factory(PAGE, javascript=False).locator("tl-shard .tl-static")
    assert static.locator("img.tl-picture").is_visible() and static.locator(".tl-description").is_visible()
