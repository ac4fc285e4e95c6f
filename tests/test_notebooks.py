"""Every chapter runs top to bottom and prints what the book shows: doc test and freshness check in one pass."""
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import DeadKernelError
from press import warm
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


SURROUNDINGS = """import os, signal, sys
ours = [name for name in sys.modules if name.split(".")[0] in ("tinyllm", "tinybook", "press", "triton", "secret")]
here = {name: value for name, value in os.environ.items() if not name.startswith(("JPY_", "PYTEST_"))}
print(sorted(globals()), ours, here, sys.path, sys.flags, sys.executable, sys.argv[0], os.getcwd(), __name__, hash("a"))
print(sys.modules["__main__"].__dict__ is globals(), os.getpgrp() == os.getpid())
print(*map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)))"""
LEAVES = """import os, sys
sys.modules["secret"], os.environ["LEFT"], left = sys, "1", 1"""
DRAWS = "import random, numpy\nprint(random.random(), numpy.random.random())"


def said(path, *cells):
    """What these cells print, in a kernel of their own."""
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    outcome = execute(path)
    assert not outcome.error, outcome.error
    return ["".join(output.text for output in cell.outputs) for cell in outcome.notebook.cells]


forked = pytest.mark.skipif(not warm.is_possible(), reason="kernels are forked on Linux")


@forked
def test_a_forked_kernel_has_what_a_started_one_has_and_nothing_of_the_one_before(tmp_path, monkeypatch):
    said(tmp_path / "a.ipynb", LEAVES)
    first, second = (said(tmp_path / "a.ipynb", SURROUNDINGS, DRAWS) for _ in "12")
    assert first[0] == second[0]
    assert not set(first[1].split()) & set(second[1].split()), "unseeded, each kernel draws its own numbers"
    monkeypatch.setattr(warm, "is_possible", lambda: False)
    assert said(tmp_path / "a.ipynb", SURROUNDINGS)[0] == first[0]


@forked
def test_kernels_start_cold_where_an_import_starts_a_thread(tmp_path, monkeypatch):
    module = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (tmp_path / "sitecustomize.py").write_text(module)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        patch.setattr(warm, "nursery", warm.cache(warm.nursery.__wrapped__))
        assert warm.manager() is not warm.WarmKernels
        assert said(tmp_path / "a.ipynb", "print(1)") == ["1\n"]


@forked
def test_a_kernel_that_dies_is_noticed_and_the_next_one_runs(tmp_path):
    with pytest.raises(DeadKernelError):
        said(tmp_path / "a.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert said(tmp_path / "a.ipynb", "print(1)") == ["1\n"]


PROGRAM = """
import sys, threading, time
from pathlib import Path
from press import warm
from press.execute import execute
threading.Thread(target=execute, args=[Path(sys.argv[1])], daemon=True).start()
while not (said := Path(sys.argv[1]).with_name("pid")).exists() or not said.read_text():
    time.sleep(0.05)
print(said.read_text(), warm.nursery().process.pid, flush=True)
time.sleep(600)
"""


@forked
def test_kernels_end_with_the_process_that_asked_for_them(tmp_path, root):
    cell = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    command, env = [sys.executable, "-c", PROGRAM, tmp_path / "a.ipynb"], {"PYTHONPATH": str(root / "book")}
    with (tempfile.TemporaryDirectory() as left,  # a short name, for sockets
          subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                           env={**os.environ, **env, "TMPDIR": left}) as asking):  # fmt: skip
        pids = list(map(int, asking.stdout.readline().split()))
        assert len(pids) == 2 and all(map(is_running, pids))
        asking.kill()
    end = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_keeps_the_rhythm_and_ends_with_exercises(path):
    cells = nbformat.read(path, as_version=4).cells
    text = re.sub(r":::.*?\n:::", "", "\n".join(c.source for c in cells if c.cell_type == "markdown"), flags=re.S)
    assert [h for h in re.findall(r"^## ([^{\n]+?) *(?:\{.*)?$", text, re.M)] == RHYTHM
    whole = "\n".join(c.source for c in cells if c.cell_type == "markdown").partition("## Exercises")[2]
    assert len(re.findall(r"^## Solution$", whole, re.M)) >= 3, "three exercises, each with a folded solution"
    assert re.search(r"check|test", whole) and re.search(r"fail|notice", whole), "one in which a check is seen failing"


WIDTH = 88  # columns of code that a page shows without scrolling sideways, and a printed page without a break


@pytest.mark.parametrize("path", [p for p in notebooks() if has_code(p)], ids=lambda p: p.stem)
def test_code_that_a_reader_sees_fits_the_page(path):
    wide = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or re.search(r"^#\| *(include|echo): *false", cell.source, re.M):
            continue
        lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
        wide += [line for line in lines if len(line) > WIDTH]
    assert not wide, f"{len(wide)} lines are longer than {WIDTH} columns, such as {max(wide, key=len)!r}: wrap them"


DRAWN = re.compile(r"torch\.(?:rand|randn|randint|randperm|bernoulli|multinomial|normal)\((?!.*generator=)"
                   r"|\bnp\.random\.(?!default_rng|Generator|SeedSequence|seed)\w+\(|\brandom\.(?:random|choice|shuffle)\("
                   r"|default_rng\(\)")  # fmt: skip
SEEDED = re.compile(r"manual_seed\(|random\.seed\(")


def unseeded(cells) -> list[str]:
    """Lines that draw at random before any seed is set; functions of the package are told their seeds."""
    found = []
    for cell in cells:
        if cell.cell_type != "code" or cell.source.startswith("#| export"):
            continue
        for line in re.sub(r"\([^()]*\n[^()]*\)", lambda m: m[0].replace("\n", " "), cell.source).splitlines():
            if SEEDED.search(line):
                return found
            found += [line.strip()] if DRAWN.search(line) else []
    return found


@pytest.mark.parametrize("path", [p for p in notebooks() if has_code(p)], ids=lambda p: p.stem)
def test_whatever_is_drawn_at_random_has_a_seed(path):
    lines = unseeded(nbformat.read(path, as_version=4).cells)
    assert not lines, f"drawn before torch.manual_seed, so not the same twice: {lines}"


@pytest.mark.parametrize("source, found", [
    ("x = torch.randn(3)", 1), ("torch.manual_seed(0)\nx = torch.randn(3)", 0), ("x = torch.randn(3, generator=g)", 0),
    ("dice = np.random.default_rng()", 1), ("dice = np.random.default_rng(4)", 0), ("np.random.rand(3)", 1)])
def test_a_draw_without_a_seed_is_seen(source, found):
    assert len(unseeded([nbformat.v4.new_code_cell(source)])) == found


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
