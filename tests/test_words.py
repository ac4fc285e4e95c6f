"""The book's words: spelt as the dictionary or the project's own list has them; links that can be links."""

import functools
import json
import os
import re
import urllib.parse
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORDS = ROOT / "book/words.txt"
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "index.qmd")]
GLOSSARY, REFERENCES = ROOT / "book/glossary.yml", ROOT / "book/references.bib"
TEXTS = [*NOTEBOOKS, *PAGES, GLOSSARY]

# What is no prose, in the order in which it is taken away.
CODE = [
    r"```.*?```", r"~~~.*?~~~", r"``.*?``", r"`[^`\n]*`",
    r"(?s)<script.*?</script>", r"<[^>\n]+>", r"(?s)\$\$.*?\$\$", r"\$[^$\n]+\$",
    r"\{[#.=][^}]*\}", r"\]\([^)]*\)", r"https?://\S+", r"\[?-?@[\w:.-]+[^\]\n]*\]|@[\w-]+",
    r"^:::.*$", r"^#\| .*$", r"\b[\w-]+\.(?:md|py|ipynb|js|toml|yml|json)\b",
]
# Prose inside cells of code: captions of figures, and the words of a widget.
SAID = re.compile(r'^#\| (?:fig-cap|fig-alt|tbl-cap): *(.*)$|\b(?:caption|description)=((?:\s*f?"[^"\n]*")+)', re.M)
WORD = re.compile(r"(?<![0-9])[A-Za-zÀ-ÖØ-öø-ÿ]+(?:'[A-Za-zÀ-ÖØ-öø-ÿ]+)*")


@functools.cache
def own_words() -> set[str]:
    return {line for line in WORDS.read_text(encoding="utf-8").split("\n") if line and not line.startswith("#")}


@functools.cache
def dictionary():
    try:
        import hunspell
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("chunspell is not installed: words are not checked")
    return hunspell.Hunspell("en_US")


def prose(path: Path) -> str:
    """What a reader reads of a file, without its code."""
    if path == GLOSSARY:
        text = "\n".join(entry["definition"] for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["terms"])
    elif path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
        said = {"code": lambda t: "\n".join(map(" ".join, SAID.findall(t))), "markdown": str, "raw": lambda t: ""}
        text = "\n".join(said[kind](t) for t, kind in texts)
    else:
        text = re.sub(r"(?s)^---.*?\n---\n", "", path.read_text(encoding="utf-8"))
    text = re.sub(r"\{[a-z_]+\(?[^}]*\}", " ", text) if path.suffix == ".ipynb" else text  # of an f-string
    for pattern in CODE:
        text = re.sub(pattern, " ", text, flags=re.M | (re.S if pattern.startswith(("```", "~~~")) else 0))
    return text


def unknown(text: str) -> list[str]:
    """Words that neither the dictionary nor the project's list has, in order, each once."""
    found = {}
    for word in WORD.findall(text.replace("’", "'")):
        plain = re.sub(r"'s?$", "", word)
        same = {plain, plain.lower(), plain.removesuffix("s"), plain.lower().removesuffix("s")}  # plurals too
        if len(plain) > 1 and not same & own_words() and not plain.isupper():
            found.setdefault(plain, dictionary().spell(plain))
    return [word for word, right in found.items() if not right]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_every_word_is_in_a_dictionary(path):
    odd = unknown(prose(path))
    assert not odd, f"{path.name}: {', '.join(odd)}: mend them, or add them to book/words.txt if they are right"


def test_the_spell_check_reads_prose_and_leaves_code_out():
    text = "The `qkv_prjo` of [@vaswani2017] reads teh $xq$ tokens (see @fig-thign)."
    for pattern in CODE:
        text = re.sub(pattern, " ", text, flags=re.M)
    assert unknown(text) == ["teh"]
    assert "colour" in own_words() and unknown("Its colour's grey.") == []


def test_the_list_of_words_is_sorted_and_has_no_word_that_the_dictionary_knows():
    lines = [line for line in WORDS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines), key=lambda word: (word.lower(), word))
    assert [word for word in lines if dictionary().spell(word)] == []


# Links. Those inside the book are checked by the press when it renders; what lies outside is not asked for,
# since no test may need the network, but each address must be one.

LINK = re.compile(r"\]\((<?[^)\s]+>?)(?: \"[^\"]*\")?\)|(?<![(\w\"'])(https?://[^\s)>\"'`]+)")


def addresses(path: Path) -> list[str]:
    if path == REFERENCES:
        return re.findall(r"^\s*url\s*=\s*\{([^}]*)\}", path.read_text(encoding="utf-8"), re.M)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", " ", text)
    found = [a or b for a, b in LINK.findall(text)]
    return [address.strip("<>").rstrip(".,;:") for address in found]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES, REFERENCES], ids=lambda path: path.stem)
def test_every_address_is_one(path):
    for address in addresses(path):
        parts = urllib.parse.urlsplit(address)
        if parts.scheme in ("http", "https"):
            assert parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1"), f"{path.name}: {address}"
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", parts.hostname or ""), f"{path.name}: {address}"
            assert "." in parts.hostname or parts.hostname == "localhost", f"{path.name}: {address}"
            assert not re.search(r"[\s<>{}\\^|]", address) and "//" not in parts.path, f"{path.name}: {address}"
        elif not parts.scheme and path in PAGES:
            target = address.partition("#")[0]
            rendered = target.endswith(".html") or target.startswith("_book")
            assert not target or rendered or (path.parent / target).exists(), f"{path.name}: {address} leads nowhere"
        else:
            assert parts.scheme in ("", "mailto"), f"{path.name}: {address}"


def test_references_have_one_entry_for_a_key_and_every_brace_is_closed():
    text = REFERENCES.read_text(encoding="utf-8")
    entries = re.split(r"^(?=@)", text, flags=re.M)[1:]
    keys = [entry[: entry.index(",")] for entry in entries]
    assert [key for key in keys if keys.count(key) > 1] == []
    assert [key for key, entry in zip(keys, entries, strict=True) if entry.count("{") != entry.count("}")] == []
