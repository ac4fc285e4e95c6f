"""The press: the book from the same sources as Quarto, with pandoc and typst alone.

    config.py   what `_quarto.yml` says: parts, chapters, filters, bibliography
    source.py   a notebook or .qmd file -> one pandoc tree
    refs.py     numbers and cross-references over the whole book, citations
    html.py     trees -> pages
    pdf.py      trees -> Typst -> PDF
    prepare.py  before Quarto: the widgets' bundle and Fable's weights for its pages
    pandoc.py   running pandoc, walking its trees, remembering what was made

What is wrong in the sources is collected as sentences "file, place: what", so that one run shows
all of it; any of them stops the build.
"""
