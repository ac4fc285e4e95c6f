"""Every chapter runs top to bottom and prints what the book shows: doc test and freshness check in one pass."""
import re
import warnings
from pathlib import Path

import nbformat
import pytest
from press.execute import differences, execute, has_code, notebooks, same_text, tidy, same_widget

CEILING = 60.0  # seconds a chapter may take on two cores before we say so; reported, not asserted
SPINE_LIMIT, ALL_SPINES_LIMIT = 900, 20_000
CHAPTERS = [p for p in notebooks() if p.stem[0].isdigit()]


@pytest.mark.apart
@pytest.mark.parametrize("path", [p for p in notebooks() if has_code(p)], ids=lambda p: p.stem)
def test_notebook_runs_and_its_outputs_are_fresh(path):
    outcome = execute(path)
    assert not outcome.error, outcome.error
    found = differences(nbformat.read(path, as_version=4), outcome.notebook)
    assert not found, "\n".join(found) + "\nThe stored outputs are old: make run"
    if outcome.seconds > CEILING:
        warnings.warn(f"{path.stem} took {outcome.seconds:.0f} s, aim at {CEILING:.0f} or less", stacklevel=1)


def test_comparison_sees_a_changed_number_and_forgives_rounding():
    assert same_text("loss 2.3456 after 1,000 steps", "loss 2.3457  after 1,000 steps")
    assert not same_text("loss 2.3456", "loss 2.4456")
    assert not same_text("token 17", "token 18")
    assert not same_text("a wolf", "a fox")
    assert not same_text("[1, 2]", "[1, 2, 3]")


def test_comparison_forgives_the_last_digit_of_a_widgets_numbers_and_its_id():
    made = '<tl-x id="tl-x-{}"><script>{{"ids":[3,4],"scores":[{},12.5],"text":"was {} read"}}</script></tl-x>'.format
    assert same_widget(made("0a1b2c3d", "-0.01", "2.5"), made("99999999", "0.0", "2.5"))
    assert not same_widget(made("0a1b2c3d", "0.01", "2.5"), made("0a1b2c3d", "0.13", "2.5"))
    assert not same_widget(made("0a1b2c3d", "0.01", "2.5"), made("0a1b2c3d", "0.01", "25"))
    assert not same_widget(made("0a1b2c3d", "0.01", "2.5"), made("0a1b2c3d", "0.01", "2.5").replace("[3,4]", "[3,5]"))


def spine_words(path: Path) -> int:
    """Words of the short path: everything before the first section, The idea, and the Summary; code not counted."""
    words, inside = 0, True
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "markdown":
            continue
        for line in re.sub(r"```.*?```", "", cell.source, flags=re.S).splitlines():
            if line.startswith("## "):
                inside = line.startswith(("## The idea", "## Summary"))
            elif inside:
                words += len(re.findall(r"\w+", line))
    return words


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_the_short_path_stays_short(path):
    assert spine_words(path) <= SPINE_LIMIT


RHYTHM = ["The idea", "Build it", "Measure it", "Break it", "In vLLM", "Summary", "Exercises"]


@pytest.mark.parametrize("path", [p for p in CHAPTERS if p.stem < "11"], ids=lambda p: p.stem)
def test_a_chapter_keeps_the_rhythm_and_ends_with_exercises(path):
    cells = nbformat.read(path, as_version=4).cells
    text = re.sub(r":::.*?\n:::", "", "\n".join(c.source for c in cells if c.cell_type == "markdown"), flags=re.S)
    assert [h for h in re.findall(r"^## ([^{\n]+?) *(?:\{.*)?$", text, re.M)] == RHYTHM
    whole = "\n".join(c.source for c in cells if c.cell_type == "markdown").partition("## Exercises")[2]
    assert len(re.findall(r"^## Solution$", whole, re.M)) >= 3, "three exercises, each with a folded solution"
    assert re.search(r"check|test", whole) and re.search(r"fail|notice", whole), "one in which a check is seen failing"


def test_the_whole_book_reads_in_ninety_minutes():
    assert sum(map(spine_words, CHAPTERS)) < ALL_SPINES_LIMIT


def test_tidy_drops_what_editors_leave_and_keeps_outputs(tmp_path):
    cell = nbformat.v4.new_code_cell("1 + 1", outputs=[nbformat.v4.new_output("stream", name="stdout", text="2")])
    cell.metadata.update(tags=["timing"], lines_to_next_cell=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"toc": {}}), tmp_path / "x.ipynb")
    assert tidy([tmp_path / "x.ipynb"]) == 0
    after = nbformat.read(tmp_path / "x.ipynb", as_version=4)
    assert set(after.metadata) == {"kernelspec", "language_info"}
    assert after.cells[0].metadata == {"tags": ["timing"]} and after.cells[0].outputs[0].text == "2"
