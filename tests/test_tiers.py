"""Two tiers, and every test in exactly one of them: the newcomer's command, and what it leaves out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COLLECTED, NOTEBOOK, REST, TIERS, is_rest
from press.execute import has_code, notebooks

ROOT = Path(__file__).resolve().parents[1]


def recipe(name: str) -> list[str]:
    """The arguments that `make NAME` gives to pytest."""
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "ARGS", "JOBS")}
    said = subprocess.run(["make", "-n", name], cwd=ROOT, capture_output=True, text=True, env=alone).stdout
    line = next(line for line in said.splitlines() if "-m pytest" in line)
    return re.findall(r'"[^"]*"|\S+', line.partition("-m pytest ")[2])


@pytest.fixture(scope="module")
def all_tests(request) -> set[str]:
    """The names of all tests: this run has them, unless it was asked for a part."""
    if request.config.args == ["tests"]:
        return request.config.stash[COLLECTED]
    command = [sys.executable, "-m", "pytest", "tests", "--ignore=tests/gpu", "--collect-only", "-q", "-p",
               "no:cacheprovider"]  # fmt: skip
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    return {line for line in said.splitlines() if "::" in line}


def test_every_name_in_the_table_is_that_of_a_test(all_tests):
    known = {part for name in all_tests for part in (name, name.partition("[")[0], name.partition("::")[0])}
    assert len(all_tests) > 1000 and not REST - known, f"tests/tiers.toml names no test: {sorted(REST - known)}"


def test_both_tiers_have_tests_of_their_own_and_the_table_fits_its_time(all_tests):
    second = {name for name in all_tests if is_rest(name)}
    assert 0 < len(second) < len(all_tests)
    assert sum(TIERS["tests"].values()) + sum(TIERS["notebooks"].values()) < 2 * 25 * 60  # seconds of two cores
    assert {NOTEBOOK(path.stem) for path in notebooks() if has_code(path)} - second, "some notebooks run for everybody"


def test_the_two_commands_divide_the_tests_and_the_third_runs_all():
    first, second, both = map(recipe, ("test", "test-rest", "test-all"))
    assert first[-2:] == ["-m", '"not rest"'] and second[-2:] == ["-m", "rest"]
    assert first[:-2] == second[:-2] == both and "-m" not in both, "no other option may leave a test out"
    assert [word for word in both if "ignore" in word] == ["--ignore=tests/gpu"]


def test_the_fresh_clone_is_proved_by_the_command_of_the_readme_and_then_by_the_rest():
    script = (ROOT / ".ci" / "run").read_text()
    commands = re.findall(r"^(?:time )?make (\S+)", script, re.M)
    assert commands[-2:] == ["test", "test-rest"] and "make test " in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name, rest", [
    ("tests/test_pdf.py::test_x", True), ("tests/test_pdf.py::test_x[1]", True),
    (NOTEBOOK("20_throughput_vs_latency"), True), (NOTEBOOK("02_tokens"), False),
    ("tests/test_pdf_more.py::test_x", False)])  # fmt: skip
def test_a_file_a_test_or_one_case_can_be_left_to_the_rest(name, rest):
    assert is_rest(name) is rest
