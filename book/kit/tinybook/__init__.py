"""What the chapters need beside the engine: one look for figures, checked numbers, a text to read, widgets.

    from tinybook import COLORS, claim, measured, plot_style, say, tale, widget

The kit is not part of the engine: exported code never imports it.
"""
from .claims import claim
from .measured import measured, say
from .style import COLORS, plot_style
from .text import tale
from .widgets import pack_merges, widget

__all__ = ["COLORS", "claim", "measured", "pack_merges", "plot_style", "say", "tale", "widget"]
