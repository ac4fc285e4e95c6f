"""What the chapters need beside the engine: one look for figures, checked numbers, a text to read, widgets.

    from tinybook import COLORS, claim, plot_style, tale, widget

The kit is not part of the engine: exported code never imports it.
"""
from .claims import claim
from .style import COLORS, plot_style
from .text import tale
from .widgets import pack_merges, widget

__all__ = ["COLORS", "claim", "pack_merges", "plot_style", "tale", "widget"]
