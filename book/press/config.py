"""What `_quarto.yml` says about the book, and nothing that it does not say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml


class BookError(Exception):
    """Everything found wrong with the sources, one sentence each."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Chapter:
    """One file of the book. `source.read` fills what stands in the file, `refs.resolve` the number."""

    path: Path  # the file
    source: str  # the same, relative to the book's root: nbs/02_tokens.ipynb
    part: str | None  # title of the part it belongs to; None before the first part
    number: str = ""  # "2"; empty for pages that are not counted
    title: str = ""
    subtitle: str = ""
    module: str = ""  # file that the chapter exports, tinyllm/model/tokenizer.py
    blocks: list = field(default_factory=list, repr=False)  # pandoc's tree
    references: list = field(default_factory=list, repr=False)  # list of the works it cites, as blocks

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def page(self) -> str:
        """Its page, relative to the output folder."""
        return str(Path(self.source).with_suffix(".html").as_posix())


@dataclass(frozen=True)
class Book:
    """The settings of the whole book. Paths are absolute."""

    root: Path
    out: Path
    file_name: str  # of the PDF, without its suffix
    title: str
    subtitle: str
    author: str
    description: str
    lang: str
    chapters: tuple[Chapter, ...]
    notebook_filters: tuple[Path, ...]
    lua_filters: tuple[Path, ...]
    bibliography: tuple[Path, ...]
    css: tuple[Path, ...]
    number_depth: int
    code_fold: bool

    @property
    def pdf(self) -> Path:
        return self.out / f"{self.file_name}.pdf"

    @property
    def cache(self) -> Path:
        return self.root / ".make" / "press"


def listed(value) -> list:
    """YAML lets one thing stand for a list of one."""
    return [] if value is None else value if isinstance(value, list) else [value]


def shared_filters(settings: dict) -> list[str]:
    """The Lua filters that the press runs too; those with a place (`at`) work on Quarto's own tree."""
    return [f for f in listed(settings.get("filters")) if isinstance(f, str) and f.endswith(".lua")]


def read_config(root: Path) -> Book:
    """Read `_quarto.yml`; a file that it names and that is missing is a problem."""
    root = root.resolve()
    settings = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))
    book, html = settings["book"], (settings.get("format") or {}).get("html") or {}
    problems: list[str] = []

    def files(*values) -> tuple[Path, ...]:
        paths = [root / v for value in values for v in listed(value)]
        problems.extend(
            f"_quarto.yml: {p.relative_to(root)} is listed but does not exist"
            for p in paths
            if not p.is_file()
        )
        return tuple(paths)

    chapters = []
    for entry in listed(book["chapters"]) + (
        [{"part": "Appendices", "chapters": book["appendices"]}] if book.get("appendices") else []
    ):
        part = entry.get("part") if isinstance(entry, dict) else None
        for source in entry["chapters"] if part else [entry]:
            chapters.append(Chapter(path=root / source, source=source, part=part))
    files([c.source for c in chapters])
    seen: dict[str, str] = {}
    for chapter in chapters:
        if chapter.name in seen:
            problems.append(
                f"_quarto.yml: {chapter.source} and {seen[chapter.name]} would make the same name"
            )
        seen[chapter.name] = chapter.source
    result = Book(
        root=root,
        out=root / settings["project"].get("output-dir", "_book"),
        file_name=book.get("output-file", book["title"]),
        title=book["title"],
        subtitle=book.get("subtitle", ""),
        author=", ".join(str(a) for a in listed(book.get("author"))),
        description=book.get("description", ""),
        lang=settings.get("lang", "en"),
        chapters=tuple(chapters),
        notebook_filters=files(settings.get("ipynb-filters")),
        lua_filters=files(shared_filters(settings)),
        bibliography=files(settings.get("bibliography")),
        css=files(html.get("css"), settings.get("css")),
        number_depth=settings.get("number-depth", 6),
        code_fold=bool(html.get("code-fold", False)),
    )
    if problems:
        raise BookError(problems)
    return result
