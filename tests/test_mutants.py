"""Every invariant has a line that keeps it and a test that misses it; a few are broken here for real."""

import subprocess
import sys
from pathlib import Path

import mutants
import pytest

ROOT = Path(__file__).resolve().parents[1]
ALL = mutants.read()


@pytest.mark.parametrize("mutant", ALL, ids=lambda m: m.breaks)
def test_the_line_is_there(mutant):
    text = (ROOT / mutant.file).read_text()
    assert mutant.file.startswith("tinyllm/") and mutant.apply(text) != text


def test_pytest_finds_every_test_that_guards_a_line():
    """By its whole name: a test, one case of a test, or a class."""
    files = sorted({mutant.test.split("::")[0] for mutant in ALL})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    names = {*found, *(name.partition("[")[0] for name in found), *(name.rpartition("::")[0] for name in found)}
    missing = sorted({mutant.test for mutant in ALL} - names)
    assert not missing, f"pytest finds no {', no '.join(missing)}: name the test that must fail"


def test_every_invariant_has_mutants_and_no_two_are_the_same():
    assert {mutant.invariant for mutant in ALL} == set(range(1, 8))
    assert len({(m.file, m.within, m.line, m.become) for m in ALL}) == len(ALL)
    assert len({m.breaks for m in ALL}) == len(ALL) and 2 <= sum(m.quick for m in ALL) <= 4


def test_a_line_that_is_gone_or_stands_twice_is_no_mutant():
    mutant = mutants.Mutant("x", 1, "file.py", "a = 1", "a = 2", "t")
    assert mutant.apply("if x:\n    a = 1\n") == "if x:\n    a = 2\n"
    for text in ("b = 1\n", "a = 1\na = 1\n"):
        with pytest.raises(ValueError, match=r"file\.py has \d lines 'a = 1'"):
            mutant.apply(text)
    second = mutants.Mutant("x", 1, "file.py", "a = 1", "a = 2", "t", within="def g")
    assert second.apply("def f():\n  a = 1\ndef g():\n  a = 1\n").endswith("  a = 1\ndef g():\n  a = 2\n")


def test_broken_lines_are_caught_and_a_harmless_change_is_reported(tmp_path, capsys, monkeypatch):
    """Two of the list for real, in the copy, and one that no test can see."""
    monkeypatch.setenv("TINYLLM_EXAMPLES", "30")
    caught = [m for m in ALL if m.quick][:2]
    harmless = mutants.Mutant("nothing at all", 1, caught[0].file, caught[0].line, caught[0].line + "  # as before",
                              "tests/test_engine_scheduler.py::test_other_salts_never_share")  # fmt: skip
    entries = []
    for mutant in (*caught, harmless):
        fields = {"breaks": mutant.breaks, "file": mutant.file, "line": mutant.line, "become": mutant.become,
                  "test": mutant.test, "within": mutant.within}  # fmt: skip
        lines = [f"{key} = {value!r}" for key, value in fields.items()]
        entries.append("\n".join(["[[mutant]]", f"invariant = {mutant.invariant}", *lines]))
    (tmp_path / "list.toml").write_text("\n".join(entries))
    before = (ROOT / caught[0].file).read_text()
    assert mutants.main(["--list", str(tmp_path / "list.toml")]) == 1
    said = capsys.readouterr().out
    assert "with nothing broken the tests pass" in said and "nothing at all: SURVIVED" in said
    assert all(f"{mutant.breaks}: caught" in said for mutant in caught)
    assert said.count("not caught:") == 1 and (ROOT / caught[0].file).read_text() == before
