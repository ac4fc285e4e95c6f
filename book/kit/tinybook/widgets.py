"""A widget in a cell: live on a page and in Jupyter, a picture in print, words for a screen reader."""
import base64
import hashlib
import html
import io
import json
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from .style import METADATA

BUNDLE = Path(__file__).resolve().parents[3] / ".make" / "widgets.js"
DIGITS = 6  # significant digits of a float, so that the same state is the same text on every machine
NAME = re.compile(r"tl(-[a-z0-9]+)+")

_emitted = False  # whether this kernel's page has the script


def rounded(value):
    """`value` as JSON can hold it, floats to six significant digits."""
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if hasattr(value, "tolist"):  # an array or a tensor, or one number of it
        return rounded(value.tolist())
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def as_json(data) -> str:
    """One line, the same for the same data, safe inside <script>."""
    text = json.dumps(rounded(data), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def as_table(rows: Iterable) -> str:
    """HTML of a list of dicts (their keys are the columns), or of rows whose first is the head."""
    rows = list(rows)
    if rows and isinstance(rows[0], dict):
        rows = [list(rows[0]), *(list(row.values()) for row in rows)]

    def line(row, start, end):
        return "<tr>" + "".join(start + html.escape(str(cell)) + end for cell in row) + "</tr>"

    head = line(rows[0], '<th scope="col">', "</th>")
    body = "".join(line(row, "<td>", "</td>") for row in rows[1:])
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def as_svg(figure) -> str:
    """A matplotlib figure as SVG, and the figure closed, so that Jupyter does not show it again."""
    import matplotlib.pyplot as plt

    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=METADATA)
    plt.close(figure)
    return out.getvalue()


def pack_merges(pairs: Iterable[tuple[int, int]]) -> str:
    """Pairs of ids for `bpe.js`: base64 of 16 bits an id, the low byte first."""
    return base64.b64encode(b"".join(struct.pack("<HH", *pair) for pair in pairs)).decode()


def is_live() -> bool:
    """Whether a reader sits at this kernel, so that a widget must bring its script along."""
    if os.environ.get("TINYBOOK_STORE"):
        return False
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


def script() -> str:
    """What the first widget of a live kernel carries: the bundle, or how to make it."""
    global _emitted
    if _emitted or not is_live():
        return ""
    if not BUNDLE.exists():
        return "<p><em>To make this live, run <code>make widgets</code>, then this cell again.</em></p>"
    _emitted = True
    code = BUNDLE.read_text(encoding="utf-8").replace("</script", "<\\/script").replace("<!--", "\\x3c!--")
    return f"<script>{code}</script>"


class Widget:
    """What `widget` returns; a notebook shows it in every form that it has."""

    def __init__(self, name: str, data, caption: str, description: str, table=None, figure=None):
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a widget: tl- and small letters, such as tl-tokenizer")
        if not caption.strip() or not description.strip():
            raise ValueError(f"{name} needs a caption (its question) and a description for those who cannot see it")
        self.name, self.caption, self.description = name, caption, description
        self.json = as_json(data)
        self.id = f"{name}-{hashlib.sha256((name + self.json).encode()).hexdigest()[:8]}"
        self.table = as_table(table) if table else ""
        self.svg = as_svg(figure) if figure is not None else None

    @property
    def html(self) -> str:
        """The element, with its data, and what is seen where no script runs."""
        escape = html.escape
        table = f"<details><summary>As a table</summary>{self.table}</details>" if self.table else ""
        return (
            f'<{self.name} id="{self.id}" class="tl-widget"><script type="application/json">{self.json}</script>'
            f'<div class="tl-static"><p class="tl-question">{escape(self.caption)}</p><!-- picture -->'
            f'<p class="tl-description">{escape(self.description)}</p>{table}</div></{self.name}>'
        )

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/plain": f"{self.caption} {self.description}", "text/html": self.html + script()}
        return bundle | ({"image/svg+xml": self.svg} if self.svg else {})


def widget(name: str, data, *, caption: str, description: str, table=None, figure=None) -> Widget:
    """An element of book/widgets, at work on `data`; the last line of its cell.

    name: of the element, such as "tl-tokenizer".
    data: what its first state is made from: dicts, lists, text, numbers, arrays.
    caption: the question that it answers, printed above it.
    description: what there is to see, for those who cannot.
    table: the same as a table, where it is one: dicts, or rows of which the first is the head.
    figure: a matplotlib figure of the first state, for print and for pages without scripts.
    """
    return Widget(name, data, caption, description, table, figure)
