"""Notebook filter of the book: a notebook as JSON on standard input, one on standard output.

Quarto calls it (`ipynb-filters` in `_quarto.yml`), and so does the press. It
- drops nbdev's directive lines, which Quarto would read as broken cell options; a cell that held
  nothing else becomes empty and disappears. What they say is kept: an exported cell gets the class
  `exported`, and the front matter gets `module`, the file that the notebook exports;
- gives folded code a summary: the names that it defines;
- turns an output that is both HTML and SVG (a widget) into Markdown that holds the HTML for web
  pages and the picture for print. Fences have six colons, since outputs stand in shorter ones;
- gives the words of a drawing an ink that can be read, another one on dark pages;
- gives every text as a list of lines with their ends: of one string Quarto drops the line ends.
"""

import ast
import base64
import json
import re
import sys

DIRECTIVE = re.compile(r"#\s*\|\s*(?P<name>[A-Za-z_]+)(?P<rest>\s[^:]*)?$")
# Colours of tinybook's drawings -> what their words are set in on light and on dark paper: each at
# least 4.5:1 on the page, and on a pale box of its own colour. The ink is that of lines, too.
INK = "#767d89"
WORDS = {
    INK: ("#4b525e", "#b6bcc8"),
    "#9aa1ad": ("#545b67", "#aeb4c0"),  # grey
    "#0072b2": ("#0a517c", "#7fc3f3"),  # blue
    "#56b4e9": ("#0b527d", "#7ec2f2"),  # sky
    "#e69f00": ("#7a4f00", "#f0b94a"),  # orange
    "#009e73": ("#00614a", "#62d1a8"),  # green
    "#d55e00": ("#8f3d00", "#f3aa6b"),  # vermillion
    "#cc79a7": ("#833a69", "#e2a5cb"),  # purple
    "#8c4a72": ("#82396a", "#e3a6cc"),  # deep purple
}
WORD = re.compile(r'<g id="text_\d+">.*?</g>|<text\b[^>]*>', re.S)
ONLY = '\n:::::: {.content-visible %s-format="html"}\n\n%s\n\n::::::\n'


def joined(source) -> str:
    return source if isinstance(source, str) else "".join(source)


def split_directives(source: str) -> tuple[dict, str]:
    """nbdev's directives as {name: argument}, and the source without their lines."""
    found, kept = {}, []
    for line in source.split("\n"):
        if match := DIRECTIVE.match(line):
            found[match["name"]] = (match["rest"] or "").strip()
        else:
            kept.append(line)
    return found, "\n".join(kept).strip("\n") if found else source


def summary(code: str) -> str:
    """What a cell defines, in words for its folded state."""
    try:
        nodes = ast.parse(code).body
    except SyntaxError:
        return ""
    definitions = {ast.ClassDef: "class", ast.FunctionDef: "def", ast.AsyncFunctionDef: "def"}
    if any(isinstance(n, ast.Assert) for n in nodes) and not any(type(n) in definitions for n in nodes):
        return "check"
    names = [f"{definitions[type(n)]} {n.name}" for n in nodes if type(n) in definitions]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def filter_code(cell: dict, default_module: list[str]) -> None:
    directives, source = split_directives(joined(cell["source"]))
    if "default_exp" in directives:
        default_module.append(directives["default_exp"])
    options = []
    if source.strip():
        if directives.keys() & {"export", "exports", "exporti"}:
            options.append("#| classes: exported")
        if "code-summary" not in source and (text := summary(source)):
            options.append(f'#| code-summary: "{text}"')
    if directives.keys() & {"hide"}:
        options.append("#| include: false")
    cell["source"] = "\n".join([*options, source])
    cell["outputs"] = [filter_output(output) for output in cell.get("outputs", [])]


def themed(svg: str) -> str:
    """A drawing whose words can be read: the colours of light paper, and a rule for dark pages.

    A picture follows the `color-scheme` of the page that shows it. Print ignores the rule.
    """
    words = lambda m: re.sub(r"#[0-9a-fA-F]{6}\b", lambda c: WORDS.get(c[0].lower(), (c[0],))[0], m[0])  # noqa: E731
    svg = re.sub(INK, WORDS[INK][0], WORD.sub(words, svg))
    rules = [
        f'[style*="{kind}: {light}"],[{kind}="{light}"]{{{kind}:{dark}!important}}'
        for light, dark in WORDS.values()
        for kind in ("fill", "stroke")
        if light in svg
    ]
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda m: m[0] + style, svg, count=1) if rules else svg


def filter_output(output: dict) -> dict:
    data = output.get("data", {})
    if "image/svg+xml" in data:
        data = {**data, "image/svg+xml": themed(joined(data["image/svg+xml"]))}
        output = {**output, "data": data}
    if not ("text/html" in data and "image/svg+xml" in data):
        return output
    html, svg = joined(data["text/html"]).strip(), joined(data["image/svg+xml"])
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", html)), default=0))
    alt = joined(data.get("text/plain", "")).replace('"', "'").replace("\n", " ").strip()
    html = with_picture(html, svg, alt if html.startswith('<div class="linked"') else "")
    picture = f'![](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}){{fig-alt="{alt}"}}'
    text = ONLY % ("when", f"{ticks}{{=html}}\n{html}\n{ticks}") + ONLY % ("unless", picture)
    return {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": text}}


def with_picture(html: str, svg: str, alt: str) -> str:
    """The picture where the HTML wants it: a widget without scripts (which says beside it what it shows), or a drawing
    with links, whose `alt` says it. Stored once, beside."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return html.replace("<!-- picture -->", f'<img class="tl-picture" src="{source}" alt="{alt}">', 1)


def add_to_front_matter(notebook: dict, line: str) -> None:
    for cell in notebook["cells"]:
        source = joined(cell["source"]).strip()
        if cell["cell_type"] == "raw" and source.startswith("---") and source.endswith("---"):
            cell["source"] = source[:-3] + line + "\n---"
            return


def filter_notebook(notebook: dict) -> dict:
    modules: list[str] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            filter_code(cell, modules)
    if modules:
        add_to_front_matter(notebook, f"module: tinyllm/{modules[0].replace('.', '/')}.py")
    for cell in notebook["cells"]:
        cell["source"] = lines(cell["source"])
        for output in cell.get("outputs", []):
            in_lines(output, "text")
            for kind in output.get("data", {}):
                if kind != "application/json" and not kind.endswith("+json"):
                    in_lines(output["data"], kind)
    return notebook


def lines(text) -> list[str]:
    """As nbformat stores text: its lines, each with its end."""
    return re.findall(r"[^\n]*\n|[^\n]+", joined(text))


def in_lines(holder: dict, key: str) -> None:
    if isinstance(holder.get(key), (str, list)):
        holder[key] = lines(holder[key])


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    json.dump(filter_notebook(json.load(sys.stdin)), sys.stdout, ensure_ascii=False, indent=1)
