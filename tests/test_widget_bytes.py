"""<tl-bytes>: moved by mouse, keyboard and finger, and its arithmetic against that of roofline.py."""
import itertools

import pytest

pytest.importorskip("torch")
from tinyllm.measure import roofline
from tinyllm.measure.ceilings import hardware
from tinyllm.model.transformer import ModelConfig

PAGE = "nbs/13_gpu_memory_hierarchy.html"
LLAMA = ModelConfig(128256, 4096, 14336, 32, 32, 8, 128, 131072)
H100 = hardware("H100")
NAMES = {"decode": "Decode step", "prefill": "Prefill", "attention": "Attention", "product": "One matrix product"}
FLOWS = """(e, cases) => cases.map(([operation, batch, context]) => {
    const { work, spent, levels } = e.flow(e.parts(operation, batch, context));
    return { work, spent, times: levels.map(({ time }) => time) };
})"""
OUTSIDE = """() => {
    const host = document.querySelector("tl-bytes"), { right } = host.getBoundingClientRect();
    const sticksOut = (e) => e.checkVisibility() && !e.closest(".for-ears, .as-table")
        && e.getBoundingClientRect().right > right + 1;
    return [...host.shadowRoot.querySelectorAll("section *")].filter(sticksOut).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.fixture
def flow(page_factory):
    def opened(**options):
        page = page_factory(PAGE, **options)
        element = page.locator("tl-bytes")
        element.scroll_into_view_if_needed()
        element.locator(".levels").wait_for()
        return page, element

    return opened


def parts(operation, batch, context):
    if operation == "decode":
        return roofline.decode_work(LLAMA, batch, context)
    if operation == "prefill":
        return roofline.prefill_work(LLAMA, batch)
    if operation == "attention":
        return {"attention": roofline.attention(1, context, 32, 8, 128, activations=False) * batch}
    return {"product": roofline.matmul(batch, LLAMA.hidden_size, 2 * LLAMA.intermediate_size)}


def test_bytes_operations_and_times_are_those_of_the_engine(flow):
    _, element = flow()
    cases = list(itertools.product(NAMES, (1, 2, 8, 64, 128, 256, 512), (32, 1024, 131072)))
    for case, found in zip(cases, element.evaluate(FLOWS, cases), strict=True):
        expected = parts(*case)
        work = roofline.total(expected)
        for name in ("flops", "read", "written", "l2", "shared"):
            assert found["work"][name] == getattr(work, name), (case, name)
        assert found["spent"] == pytest.approx(roofline.seconds(expected, H100), rel=1e-6)
        times = [work.bytes / H100.bandwidth, work.l2 / H100.l2_bandwidth,
                 work.shared / H100.shared_bandwidth, work.flops / H100.rate()]
        assert found["times"] == pytest.approx(times, rel=1e-5)


def shown(element):
    return element.locator(".amount").all_inner_texts()


def test_more_requests_share_the_weights_and_bring_their_own_cache(flow):
    _, element = flow()
    assert shown(element)[0] == "15.1 GB" and "memory-bound" in element.locator(".read").inner_text()
    slider = element.get_by_role("slider", name="Requests at once")
    slider.focus()
    slider.press("End")
    text = element.locator(".split").inner_text()
    assert "weights 15.0 GB" in text and "KV cache 68.7 GB: more than one H100 holds" in text
    verdict = element.locator(".read").inner_text()
    assert "memory-bound" in verdict and "28.3 ms, its parts one after the other" in verdict  # not HBM's 25.0 alone
    context = element.get_by_role("slider", name="Tokens in each text")
    context.focus()
    context.press("Home")
    assert "compute-bound" in element.locator(".read").inner_text()
    assert element.locator(".level.cores.slowest").count() == 1
    assert "holds" not in element.locator(".split").inner_text()


def test_attention_does_the_same_operations_a_byte_whatever_the_number_of_requests(flow):
    _, element = flow()
    element.get_by_role("button", name="Attention").click()
    element.get_by_role("button", name="Show as a table").click()
    rows = [row.split("\t") for row in element.locator(".as-table tbody tr").all_inner_texts()]
    assert {row[5] for row in rows} == {"4.0"} and {row[7] for row in rows} == {"memory"} and len(rows) == 10


def test_a_prompt_crosses_the_ridge_between_256_and_512_tokens(flow):
    _, element = flow()
    element.get_by_role("button", name="Prefill").click()
    assert element.get_by_role("slider").count() == 1 and "compute-bound" in element.locator(".read").inner_text()
    slider = element.get_by_role("slider", name="Tokens of the prompt")
    slider.focus()
    for _ in range(2):
        slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "512" and "compute-bound" in element.locator(".read").inner_text()
    slider.press("ArrowLeft")
    assert "memory-bound" in element.locator(".read").inner_text()


def test_keys_reach_everything_are_spoken_and_do_not_turn_the_page(flow):
    page, element = flow()
    url = page.url
    element.get_by_role("button", name="Decode step").focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert element.get_by_role("button", name="One matrix product").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.url == url and shown(element)[3] == "470 MFLOP"
    page.wait_for_function("document.querySelector('tl-bytes').shadowRoot.querySelector('[role=status]').textContent")
    assert "2 rows" in element.locator("[role=status]").inner_text()


def test_a_click_on_the_slider_moves_the_dot_up_the_roof(flow):
    page, element = flow()
    before = [float(element.locator(".here").get_attribute(name)) for name in ("cx", "cy")]
    box = element.get_by_role("slider", name="Requests at once").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2)
    after = [float(element.locator(".here").get_attribute(name)) for name in ("cx", "cy")]
    assert after[0] > before[0] + 20 and after[1] < before[1] - 20


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_touch_works_nothing_sticks_out_and_axe_finds_nothing(flow, axe, scheme, width):
    page, element = flow(scheme=scheme, width=width, touch=width == 390, reduced_motion=True)
    assert element.locator(".moving").count() == 0
    for name in NAMES.values():
        button = element.get_by_role("button", name=name)
        button.tap() if width == 390 else button.click()
        assert button.get_attribute("aria-pressed") == "true" and page.evaluate(OUTSIDE) == []
        assert button.bounding_box()["height"] >= 24
    element.get_by_role("button", name="Show as a table").click()
    assert axe(page, "tl-bytes") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_bytes_flow_for_who_likes_motion_and_faster_at_the_slowest_border(flow):
    _, element = flow()
    pace = element.locator(".moving").evaluate_all(
        "all => all.map((e) => parseFloat(getComputedStyle(e).animationDuration))")
    assert len(pace) == 3 and pace[0] < pace[1] < pace[2]


def test_without_scripts_picture_words_and_table_are_there_and_the_page_is_light(page_factory, book_html):
    static = page_factory(PAGE, javascript=False).locator("tl-bytes .tl-static")
    assert static.locator("img.tl-picture").is_visible() and "15.1 GB" in static.locator(".tl-description").inner_text()
    assert static.locator("table tr").count() == 11
    assert (book_html / PAGE).stat().st_size < 500_000
