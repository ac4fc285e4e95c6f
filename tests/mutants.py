"""Break one line at a time and see the test fail that guards it: `make mutants`, or `make mutants QUICK=1`.

`mutants.toml` lists the breaks. Each is made in a copy of the package and the tests, never in the tree
itself; the copy comes first on the path, so that an editable install cannot hide it. Before anything is
broken, the named tests must pass there. Exit code 1: a test that should have failed did not.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "mutants.toml"
LIMIT = 300  # seconds; a mutant that runs for ever is noticed too


@dataclass(frozen=True)
class Mutant:
    """One line, what stands there instead, and the test that must fail then."""

    breaks: str  # what goes wrong, in words
    invariant: int  # of section 4 of the design
    file: str
    line: str  # a statement's first line or lines, however they are wrapped; once in the file, or after `within`
    become: str
    test: str
    within: str = ""  # the line that it follows, such as "def abort"
    quick: bool = False

    def pattern(self) -> str:
        """The line as a regular expression to which a break between two words or signs makes no difference."""
        *words, last = re.findall(r"\w+|[^\w\s]|\s+", self.line)
        broken = r"(?:\n[ \t]*(?=\S))?"
        return "".join(r"\s+" if word.isspace() else re.escape(word) + broken for word in words) + re.escape(last)

    def apply(self, text: str) -> str:
        """The file's text with the line broken. ValueError when the line is not there, or not alone."""
        start = 0
        if self.within:
            if not (head := re.search(rf"^\s*{re.escape(self.within)}\b", text, re.M)):
                raise ValueError(f"{self.file} has no line that begins with {self.within!r}")
            start = head.start()
        places = list(re.finditer(rf"^([ \t]*){self.pattern()}$", text[start:], re.M))
        if not places or (len(places) > 1 and not self.within):
            raise ValueError(f"{self.file} has {len(places)} lines {self.line!r}: the mutant needs one")
        place = places[0]
        new = "\n".join(place[1] + line for line in self.become.splitlines())
        broken = text[: start + place.start()] + new + text[start + place.end() :]
        compile(broken, self.file, "exec")
        return broken


def read(path: Path = LIST) -> list[Mutant]:
    """All mutants of a list."""
    return [Mutant(**entry) for entry in tomllib.loads(path.read_text())["mutant"]]


def copy_tree(to: Path) -> Path:
    """What the tests need, with the weights as links."""
    for name in ("tinyllm", "tests"):
        skip = shutil.ignore_patterns("__pycache__", "models")
        shutil.copytree(ROOT / name, to / name, ignore=skip)
    (to / "tinyllm" / "models").symlink_to(ROOT / "tinyllm" / "models")
    (to / "book").symlink_to(ROOT / "book")
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def environment(tree: Path) -> dict[str, str]:
    """The copy first on the path, no byte code left behind, and hypothesis content with any failure."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
            "TINYLLM_EXAMPLES": os.environ.get("TINYLLM_EXAMPLES", "400"), "TINYLLM_SHRINK": "0"}  # fmt: skip


def run_tests(tree: Path, tests: list[str]) -> tuple[int, str]:
    """pytest's exit code in the copy (1: a test has failed) and its output; -1 when it did not end."""
    where = "import tinyllm, sys; sys.exit(not tinyllm.__file__.startswith(sys.argv[1]))"
    env = environment(tree)
    if subprocess.run([sys.executable, "-c", where, str(tree)], cwd=tree, env=env).returncode:
        raise RuntimeError("the tests would import another tinyllm than the broken one")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--durations=0", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout + done.stderr


def verdict(mutant: Mutant, tree: Path) -> tuple[bool, str, float]:
    """Whether the test noticed, how, and after how many seconds. The copy is as before afterwards."""
    path, start = tree / mutant.file, time.perf_counter()
    whole = path.read_text()
    path.write_text(mutant.apply(whole))
    try:
        code, output = run_tests(tree, [mutant.test])
    finally:
        path.write_text(whole)
    said = {0: "SURVIVED: the test passes", 1: "caught", -1: "caught: runs for ever"}
    how = said.get(code, f"NO VERDICT: pytest ended with {code}\n{output[-1500:]}")
    return code in (1, -1), how, time.perf_counter() - start


def main(argv=None) -> int:
    """Try the mutants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only those marked quick")
    parser.add_argument("--only", default="", metavar="WORDS", help="only those whose description has these words")
    parser.add_argument("--list", type=Path, default=LIST, metavar="FILE", help="another list (default: mutants.toml)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), metavar="N")
    args = parser.parse_args(argv)
    mutants = [m for m in read(args.list) if args.only in m.breaks and (m.quick or not args.quick)]
    with tempfile.TemporaryDirectory() as folder:
        trees = SimpleQueue()
        for i in range(args.jobs):
            trees.put(copy_tree(Path(folder).resolve() / f"tree{i}"))

        def attempt(mutant):
            tree = trees.get()
            try:
                caught, how, seconds = verdict(mutant, tree)
            finally:
                trees.put(tree)
            print(f"  {seconds:5.1f} s  {mutant.breaks}: {how}", flush=True)
            return caught

        tree = trees.get()
        code, output = run_tests(tree, sorted({m.test for m in mutants}))
        trees.put(tree)
        if code:
            print(f"the tests do not even pass with nothing broken:\n{output[-3000:]}")
            return 1
        print(f"{len(mutants)} mutants; with nothing broken the tests pass", flush=True)
        with ThreadPoolExecutor(args.jobs) as pool:
            caught = list(pool.map(attempt, mutants))
    print(table(mutants, caught))
    return 0 if all(caught) else 1


def table(mutants: list[Mutant], caught: list[bool]) -> str:
    """What was tried, by invariant."""
    lines = ["", "invariant  caught  of", *(
        f"{n:9d}  {sum(c for m, c in zip(mutants, caught, strict=True) if m.invariant == n):6d}"
        f"  {sum(m.invariant == n for m in mutants):2d}"
        for n in sorted({m.invariant for m in mutants}))]  # fmt: skip
    lines += [f"not caught: {m.file}: {m.line}  ({m.test})"
              for m, c in zip(mutants, caught, strict=True) if not c]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
