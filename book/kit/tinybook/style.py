"""One look for every figure: the same colour for the same thing, on white, dark and grey paper."""
from pathlib import Path

STYLE_FILE = Path(__file__).with_name("tinybook.mplstyle")

# Okabe and Ito's palette, which survives colour blindness. Within each group the colours also
# differ in lightness, so that they stay apart in grey print. Ink is a middle grey: it reads in a
# notebook on white and on dark, and figures have no background of their own. On the book's pages
# book/filters/notebook.py gives words darker inks, and lighter ones where the page is dark.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#9AA1AD"

COLORS = {
    # what a head works with
    "query": BLUE, "key": ORANGE, "value": GREEN,
    # the two kinds of work in inference
    "prefill": SKY, "decode": VERMILLION,
    # memories, from far and large to near and small
    "hbm": "#8C4A72", "l2": PURPLE, "sram": ORANGE,
    # drafts that were kept, drafts that were thrown away
    "accepted": GREEN, "rejected": VERMILLION,
    # parts of a model
    "embedding": PURPLE, "attention": BLUE, "mlp": GREEN, "norm": GREY, "head": ORANGE,
    # a token that is looked at, and the others
    "token": BLUE, "chosen": VERMILLION, "other": GREY,
    # a limit that arithmetic sets, and what was measured
    "limit": GREY, "measured": BLUE,
    # text and axes, lighter lines, blocks of memory that hold nothing
    "ink": "#767d89", "muted": GREY, "free": "#C9CDD4",
    # plain names, for what has no meaning of its own
    "blue": BLUE, "orange": ORANGE, "green": GREEN, "vermillion": VERMILLION,
    "sky": SKY, "purple": PURPLE, "grey": GREY,
}

METADATA = {"Date": None, "Creator": None}  # nothing in a figure that changes from day to day


def plot_style():
    """Set the book's style for all figures that follow; in a notebook, show them as SVG."""
    import matplotlib as mpl

    mpl.rcdefaults()
    if "inline" in mpl.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata=METADATA)
    mpl.style.use(STYLE_FILE)
