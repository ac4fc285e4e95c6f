"""The tale that the chapters read: real prose, small enough to carry along."""
from importlib.resources import files


def tale() -> str:
    """The whole tale, about 30 KB of plain ASCII: one paragraph a line, blank lines between."""
    return files(__package__).joinpath("tale.txt").read_text(encoding="utf-8")
