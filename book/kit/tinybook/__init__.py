"""What the chapters need beside the engine: one look for figures, checked numbers, a text to read.

    from tinybook import COLORS, claim, plot_style, tale

The kit is not part of the engine: exported code never imports it.
"""
from .claims import claim
from .style import COLORS, plot_style
from .text import tale

__all__ = ["COLORS", "claim", "plot_style", "tale"]
