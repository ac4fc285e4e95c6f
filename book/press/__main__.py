"""Render the book: `python -m press [html|pdf|all] [--only CHAPTER]`, from the book's root."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from . import html, names, pandoc, refs, source
from .config import Book, BookError, Chapter, read_config


def say(step: str, what: str, start: float) -> None:
    print(f"[{step}] {what} ({time.perf_counter() - start:.1f} s)", flush=True)


def read(book: Book, problems: list[str]) -> list[Chapter]:
    """All chapters, numbered, with every reference resolved."""
    start = time.perf_counter()
    words = names.write(book.root)

    def one(chapter):
        found: list[str] = []
        return source.read(chapter, book, found, words.get(chapter.source, {})), found

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one, book.chapters))
    for _, found in results:
        problems += found
    say("read", f"{len(results)} files", start)
    start = time.perf_counter()
    chapters = refs.resolve([chapter for chapter, _ in results], book, problems)
    say("references", "numbers, links and citations", start)
    return chapters


def choose(chapters: list[Chapter], only: str | None) -> list[Chapter]:
    if not only:
        return chapters
    chosen = [c for c in chapters if c.name.startswith(Path(only).stem)]
    if not chosen:
        raise BookError(
            [f"--only {only}: no chapter's name begins so; there are {', '.join(c.name for c in chapters)}"]
        )
    return chosen


def build(root: Path, what: str, only: str | None = None, out: Path | None = None) -> None:
    """Read everything, write what was asked for. Raises `BookError` with all problems found."""
    begin = time.perf_counter()
    book, problems = read_config(root), []
    if out:
        book = replace(book, out=out.resolve())
    chapters = read(book, problems)
    chosen = choose(chapters, only)
    if only:
        problems = [p for p in problems if any(p.startswith(c.source) for c in chosen)]
    if problems:
        raise BookError(problems)
    if what in ("html", "all"):
        start = time.perf_counter()
        changed = html.build(book, chapters, chosen, problems, with_pdf=what == "all" and not only)
        say("html", f"{len(chosen)} pages, {changed} files changed", start)
        print(f"[html] {(book.out / chosen[0].page)}")
    if problems:
        raise BookError(problems)
    if what in ("pdf", "all") and not only:
        print_book(book, chapters)
    say("book", "done", begin)


def print_book(book: Book, chapters: list[Chapter]) -> None:
    """The PDF, unless it was made from exactly this."""
    from . import pdf

    start, out = time.perf_counter(), book.pdf
    if not out.exists():
        (book.cache / "pdf.json").unlink(missing_ok=True)
    templates = [pandoc.file_hash(f) for f in sorted(html.THEME.glob("*.typ"))]
    pictures = [p.name for p in sorted((book.cache / "pictures").glob("*"))]
    inputs = [
        repr(book),
        [vars(c) | {"path": ""} for c in chapters],
        templates,
        pictures,
        pandoc.own_code("pdf.py", "refs.py"),
    ]
    pandoc.remembered(book.cache, "pdf", inputs, lambda: pdf.build(book, chapters, out))
    say("pdf", str(out), start)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="press", description="Render the book into _book/.")
    parser.add_argument("what", nargs="?", default="all", choices=["html", "pdf", "all"])
    parser.add_argument(
        "--only", metavar="CHAPTER", help="one chapter's page, by the beginning of its name: 02"
    )
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the folder that holds _quarto.yml")
    parser.add_argument("--out", type=Path, help="write here, not where _quarto.yml says")
    args = parser.parse_args(argv)
    try:
        build(args.root, args.what, args.only, args.out)
    except BookError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        print(
            f"[book] stopped: {len(error.problems)} problem{'s' * (len(error.problems) > 1)}", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
