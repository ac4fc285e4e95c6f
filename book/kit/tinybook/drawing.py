"""Boxes, arrows and small vectors for the drawings that explain an idea.

A drawing is 100 units wide and 4.8 inches, so that its words can still be read on a phone; y grows upwards.
"""
from .style import COLORS
from .widgets import as_svg, is_live

UNIT = 4.8 / 100  # inches


def canvas(height: float, width: float = 100):
    """A figure of `width` by `height` units without axes. Returns figure and axes."""
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(width * UNIT, height * UNIT), layout="none")
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return fig, ax


def box(ax, x, y, width, height, text="", color=COLORS["ink"], fill=0.1, size=9, **style):
    """Draw a rounded box whose lower left corner is (x, y), with a text in its middle."""
    from matplotlib.patches import FancyBboxPatch

    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.9",
                                facecolor=(color, fill), edgecolor=color, linewidth=1.2, clip_on=False))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=size, **style)


def arrow(ax, start, end, color=COLORS["ink"], bend=0.0, width=1.2, **style):
    """Draw an arrow from `start` to `end`; `bend` makes it an arc."""
    from matplotlib.patches import FancyArrowPatch

    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=color, linewidth=width,
                                 connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0, **style))


def label(ax, x, y, text, size=9, **style):
    """Write a text whose middle is (x, y)."""
    ax.text(x, y, text, **{"ha": "center", "va": "center", "size": size} | style)


def vector(ax, x, y, numbers, color, cell=9.0, height=5.5, form="{:g}", size=8.5, fill=0.12):
    """Draw numbers as a row of cells whose lower left corner is (x, y)."""
    for i, number in enumerate(numbers):
        box(ax, x + i * cell, y, cell, height, form.format(number).replace("-", "−"), color, fill, size)


class Linked:
    """A drawing of which boxes lead somewhere: on a page, links lie over the picture; in print it is the picture."""

    def __init__(self, figure, links, description: str):
        width, height = figure.axes[0].get_xlim()[1], figure.axes[0].get_ylim()[1]
        self.ratio, self.description = f"{width:g} / {height:g}", description
        self.size = f"{figure.get_figwidth():g}in"
        self.links = "".join(
            f'<a href="{page}" aria-label="{words}" style="left: {100 * x / width:.4g}%; '
            f"top: {100 * (1 - (y + high) / height):.4g}%; width: {100 * wide / width:.4g}%; "
            f'height: {100 * high / height:.4g}%"></a>'
            for x, y, wide, high, words, page in links)
        self.svg = as_svg(figure)

    def _repr_mimebundle_(self, include=None, exclude=None):
        drawn = self.svg[self.svg.index("<svg"):].replace("<svg", f'<svg role="img" aria-label="{self.description}"', 1)
        picture = drawn if is_live() else "<!-- picture -->"
        style = f"position: relative; max-width: {self.size}; aspect-ratio: {self.ratio}"
        page = f'<div class="linked" style="{style}">{picture}{self.links}</div>'
        return {"text/plain": self.description, "text/html": page, "image/svg+xml": self.svg}


def linked(fig, links, description: str) -> Linked:
    """The drawing with links over it; the last line of its cell.

    links: (x, y, width, height, words, page) each, the box's place in the drawing's units and where it leads.
    description: what there is to see, for those who cannot.
    """
    return Linked(fig, links, description)
