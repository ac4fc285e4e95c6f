"""What authors do all day: run, merge, export. Outputs stay where nothing changed, and every mishap has a name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from press import execute, merge, nb
from press.config import BookError

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
DRIVER = f"{sys.executable} -m press.merge %O %A %B %P"


def code(name, source, said="", *tags):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=said)] if said else []
    return nbformat.v4.new_code_cell(source, id=name, outputs=outputs, metadata={"tags": list(tags)} if tags else {})


def text(name, source):
    return nbformat.v4.new_markdown_cell(source, id=name)


def book(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def plain(notebook) -> dict:
    return json.loads(nbformat.writes(notebook))


def said(notebook) -> list:
    return ["".join(nb.joined(o.get("text", "")) for o in c.get("outputs", [])) for c in notebook["cells"]]


# ---- make run ----


def kept(stored, fresh, before):
    execute.keep_outputs(stored, fresh, before)
    return said(fresh)


def test_outputs_that_say_the_same_stay_and_times_only_change_with_the_code_above_them():
    stored = book(code("a", "1", "0.1000001"), code("b", "2", "12 ms", "timing"), code("c", "3", "a fox"),
                  code("d", "4", "5 ms", "timing"))  # fmt: skip

    def fresh(third="3", word="a fox"):
        return book(code("a", "1", "0.1000002"), code("b", "2", "13 ms", "timing"), code("c", third, word),
                    code("d", "4", "6 ms", "timing"))  # fmt: skip

    assert kept(stored, fresh(), list("1234")) == said(stored), "nothing differs but times"
    assert kept(stored, fresh(word="a wolf"), list("1234")) == ["0.1000001", "12 ms", "a wolf", "5 ms"]
    assert kept(stored, fresh("33"), list("1234")) == ["0.1000001", "12 ms", "a fox", "6 ms"], "measured after a change"
    assert kept(stored, fresh(), None) == ["0.1000001", "13 ms", "a fox", "6 ms"], "nothing is known of the code"


def svg(place, color="#000"):
    return f'<svg width="9" height="9"><path d="M {place} 1.5" fill="{color}"/></svg>'


@pytest.mark.parametrize("fresh, stays", [(svg(7.31), True), (svg(7.9), False), (svg(7.3, "#111"), False)])
def test_a_picture_stays_where_only_its_last_digits_differ(fresh, stays):
    def shown(data):
        output = nbformat.v4.new_output("display_data", data={"image/svg+xml": data})
        return book(nbformat.v4.new_code_cell("draw()", outputs=[output]))

    made = shown(fresh)
    execute.keep_outputs(shown(svg(7.3)), made, ["draw()"])
    assert (made.cells[0].outputs[0].data["image/svg+xml"] == svg(7.3)) is stays


def test_running_twice_changes_no_byte_and_a_claim_that_the_text_does_not_make_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(execute, "SEAL", tmp_path / "seals")
    source = "import time\ndef claim(text, value): pass\nclaim('7 hours', 7)\nprint(time.perf_counter())"
    path = tmp_path / "x.ipynb"
    nbformat.write(book(text("t", "It takes 6 hours."), code("a", source, "", "timing")), path)
    git(tmp_path, "init", "-q")
    commit(tmp_path, "start")
    results = []
    for options in ([], [], ["--fresh"]):
        assert execute.main([*options, str(path)]) == 1
        assert "x.ipynb: claim('7 hours')" in capsys.readouterr().err
        results.append(path.read_bytes())
    first, second, anyway = results
    assert second == first != anyway, "only the time differs; --fresh stores it anyway"


# ---- git merge ----


def git(folder, *words, fails=False):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "book"), "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert bool(done.returncode) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def commit(folder, message):
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", message)


@pytest.fixture
def both(tmp_path):
    """both(base, ours, theirs, fails): merges two branches with git and the driver; what it says, and the result."""

    def run(base, ours, theirs, fails=False):
        path = tmp_path / "x.ipynb"
        git(tmp_path, "init", "-q", "-b", "main")
        git(tmp_path, "config", "merge.notebook.driver", DRIVER)
        git(tmp_path, "config", "user.name", "A")
        git(tmp_path, "config", "user.email", "a@example.org")
        shutil.copy(ROOT / ".gitattributes", tmp_path)
        nbformat.write(base, path)
        commit(tmp_path, "base")
        git(tmp_path, "checkout", "-qb", "theirs")
        nbformat.write(theirs, path)
        commit(tmp_path, "theirs")
        git(tmp_path, "checkout", "-q", "main")
        nbformat.write(ours, path)
        commit(tmp_path, "ours")
        words = git(tmp_path, "merge", "theirs", "-m", "both", fails=fails)
        merged = nbformat.read(path, as_version=4)
        nbformat.validate(merged)
        return words, merged

    return run


def test_two_branches_that_ran_a_chapter_and_changed_other_lines_merge_without_a_word(both):
    base = book(code("a", "x = 1\n\n\ny = 2", "1 ms", "timing"), text("b", "One."), code("c", "z", "1 ms", "timing"))
    ours = book(code("a", "x = 3\n\n\ny = 2", "2 ms", "timing"), text("b", "One."), code("c", "z", "2 ms", "timing"),
                text("d", "Ours."))  # fmt: skip
    theirs = book(text("e", "Theirs."), code("a", "x = 1\n\n\ny = 4", "3 ms", "timing"), text("b", "Two."),
                  code("c", "z", "3 ms", "timing"))  # fmt: skip
    _, merged = both(base, ours, theirs)
    sources = [(cell.id, cell.source) for cell in merged.cells]
    assert sources == [("e", "Theirs."), ("a", "x = 3\n\n\ny = 4"), ("b", "Two."), ("c", "z"), ("d", "Ours.")]
    assert said(merged) == ["", "2 ms", "", "2 ms", ""]


def test_two_versions_of_a_line_stand_in_a_notebook_that_opens_and_that_no_tool_takes(both, tmp_path):
    base, ours, theirs = (book(text("a", "Start."), text("b", f"{word} wolf.")) for word in ("A", "One", "Two"))
    words, merged = both(base, ours, theirs, fails=True)
    assert "x.ipynb: 1 cells in two versions" in words
    assert [c.source for c in merged.cells] == [
        "Start.", "`<<<<<<< ours`", "One wolf.", "`=======`", "Two wolf.", "`>>>>>>> theirs`"]  # fmt: skip
    with pytest.raises(BookError, match=r"x\.ipynb, cells 1, 3, 5: a conflict: keep one version"):
        nb.load(tmp_path / "x.ipynb")


@pytest.mark.parametrize("base, ours, theirs, result", [
    ("ab", "a", "ab", "a"), ("ab", "ab", "b", "b"), ("a", "", "", ""), ("ab", "ba", "ab", "ba"),
    ("ab", "ab", "ba", "ba"), ("ab", "acb", "abd", "acbd")])  # fmt: skip
def test_cells_that_go_come_or_move_on_one_side_do_so(base, ours, theirs, result):
    sides = [plain(book(*(text(name, name) for name in names))) for names in (base, ours, theirs)]
    merged, conflicts = merge.merge(*sides)
    assert ("".join(cell["id"] for cell in merged["cells"]), conflicts) == (result, 0)


def test_a_cell_that_one_side_deleted_and_the_other_changed_waits_for_a_choice():
    base, ours, theirs = (plain(book(*cells)) for cells in ([text("a", "x")], [], [text("a", "y")]))
    merged, conflicts = merge.merge(base, ours, theirs)
    assert conflicts == 1
    assert [nb.joined(c["source"]) for c in merged["cells"]] == [
        "`<<<<<<< ours`", "`=======`", "y", "`>>>>>>> theirs`"]  # fmt: skip


def test_outputs_follow_the_code_that_one_side_changed():
    base, ours, theirs = (plain(book(code("a", source, printed))) for source, printed in ("11", "12", "23"))
    for pair, expected in (((ours, theirs), "3"), ((theirs, ours), "3")):
        merged, conflicts = merge.merge(base, *pair)
        assert (said(merged), conflicts) == ([expected], 0)


def test_make_sets_the_driver_that_the_attributes_name():
    assert "merge=notebook" in (ROOT / ".gitattributes").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert "merge.notebook.driver" in makefile and "press.merge %O %A %B %P" in makefile


# ---- what cannot be read ----

BROKEN = {
    "cut off": ('{"cells": [', "not a notebook: Expecting value: line 1"),
    "no cells": ('{"a": 1}', "not a notebook: it has no list of cells"),
    "merged by git alone": ('{"cells": [\n<<<<<<< HEAD\n=======\n>>>>>>> x\n]}', "line 2 is git's mark of a conflict"),
    "not text": (b"\xff\xfe", "byte 0 is not UTF-8"),
    "undecided": ('{"cells": [{"source": ["`<<<<<<< ours`"]}]}', "cells 0: a conflict: keep one version"),
}


@pytest.mark.parametrize("content, words", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("tool", ["run", "tidy", "export", "press"])
def test_every_tool_names_the_file_that_it_cannot_read(tmp_path, capsys, tool, content, words):
    from press import export
    from press.__main__ import main as render

    (tmp_path / "nbs").mkdir()
    path = tmp_path / "nbs" / "02_tokens.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "index.qmd").write_text("# Hello\n")
    chapters = {"chapters": ["index.qmd", "nbs/02_tokens.ipynb"], "title": "x"}
    (tmp_path / "_quarto.yml").write_text(json.dumps({"project": {}, "book": chapters}))
    command = {"run": lambda: execute.main(["--stale", str(path)]), "tidy": lambda: execute.main(["--tidy", str(path)]),
               "export": lambda: export.main(["--root", str(tmp_path)]),
               "press": lambda: render(["html", "--root", str(tmp_path)])}[tool]  # fmt: skip
    assert command() == 1
    told = capsys.readouterr().err
    assert "nbs/02_tokens.ipynb" in told and words in told and "Traceback" not in told


def test_a_book_is_made_in_any_locale(tmp_path):
    """Where files are ASCII by default: the press reads and writes UTF-8, as `make` asks of every other program."""
    (tmp_path / "nbs").mkdir()
    front = nbformat.v4.new_raw_cell("---\ntitle: Ağaç\nsubtitle: É → ß\n---")
    nbformat.write(book(front, text("a", "Çiğ, naïve, 日本."), code("b", "1", "ı")), tmp_path / "nbs" / "one.ipynb")
    (tmp_path / "index.qmd").write_text("# Hello\n")
    chapters = {"chapters": ["index.qmd", "nbs/one.ipynb"], "title": "x"}
    settings = {"project": {}, "book": chapters, "ipynb-filters": [str(ROOT / "book" / "filters" / "notebook.py")]}
    (tmp_path / "_quarto.yml").write_text(json.dumps(settings))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT / "book")}
    command = [sys.executable, "-m", "press", "html", "--root", str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, **ascii_only}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "_book" / "nbs" / "one.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("Ağaç", "É → ß", "Çiğ, naïve, 日本.", "ı"))
    assert "export PYTHONUTF8 = 1" in (ROOT / "Makefile").read_text()


# ---- make export ----

LISTED = """
[DEFAULT]
repo = r
lib_name = small
lib_path = tinyllm
nbs_path = nbs
doc_path = _docs
version = 0.0.1
"""


@pytest.fixture
def small(tmp_path):
    """small(*names): a project of these notebooks, each with a module of its name, and the exit code of the export."""
    from press import export

    (tmp_path / "settings.ini").write_text(LISTED + "".join(f"{key} = x\n" for key in (
        "title", "description", "author", "author_email", "copyright", "keywords", "user", "branch", "language",
        "license", "min_python", "status")) + "put_version_in_init = False\nblack_formatting = False\n")  # fmt: skip
    (tmp_path / "tinyllm").mkdir()
    (tmp_path / "tinyllm" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    (tmp_path / "nbs").mkdir()
    (tmp_path / ".text").mkdir()

    def run(*names, listed=None):
        for name in names:
            cells = [code("a", f"#| default_exp room.{name}"), code("b", f"#| export\n{name} = 1")]
            nbformat.write(book(*cells), tmp_path / "nbs" / f"{name}.ipynb")
        chapters = [f"nbs/{name}.ipynb" for name in listed or names]
        (tmp_path / "_quarto.yml").write_text(json.dumps({"project": {}, "book": {"title": "x", "chapters": chapters}}))
        return export.main(["--root", str(tmp_path)])

    run.folder = tmp_path
    return run


def modules(folder):
    return sorted(path.stem for path in (folder / "tinyllm" / "room").glob("*.py") if path.stem != "__init__")


def test_export_repairs_what_was_edited_by_hand_and_otherwise_does_nothing(small, capsys):
    assert small("one", "two") == 0 and modules(small.folder) == ["one", "two"]
    module = small.folder / "tinyllm" / "room" / "one.py"
    whole, capsys_out = module.read_text(), capsys.readouterr()
    assert "[export]" in capsys_out.out
    assert small("one", "two") == 0 and capsys.readouterr().out == "", "nothing changed: nothing to do"
    for harm in (lambda: module.write_text(whole + "x = 2\n"), module.unlink):
        harm()
        assert small("one", "two") == 0 and module.read_text() == whole


def test_a_notebook_that_the_book_does_not_list_is_an_error(small, capsys):
    assert small("one", "two", listed=["one"]) == 1
    assert "nbs/two.ipynb is in no chapter list: add it to _quarto.yml" in capsys.readouterr().err


def test_a_deleted_chapter_takes_its_module_and_its_text_with_it(small, capsys):
    assert small("one", "two") == 0
    (small.folder / ".text" / "two.py").write_text("# %%\n")
    (small.folder / ".text" / "one.py").write_text("# %%\n")
    (small.folder / "nbs" / "two.ipynb").unlink()
    assert small("one") == 0
    assert modules(small.folder) == ["one"] and [p.stem for p in (small.folder / ".text").glob("*.py")] == ["one"]
    assert "tinyllm/room/two.py" in capsys.readouterr().out
    assert "two" not in (small.folder / "tinyllm" / "_modidx.py").read_text()
