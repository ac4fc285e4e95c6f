"""Notebook filter of the book: a notebook as JSON on standard input, one on standard output.

Quarto calls it (`ipynb-filters` in `_quarto.yml`), and so does the press. It
- drops nbdev's directive lines, which Quarto would read as broken cell options; a cell that held
  nothing else becomes empty and disappears. What they say is kept: an exported cell gets the class
  `exported`, and the front matter gets `module`, the file that the notebook exports;
- gives folded code a summary: the names that it defines;
- turns an output that is both HTML and SVG (a widget) into Markdown that holds the HTML for web
  pages and the picture for print. Fences have six colons, since outputs stand in shorter ones.
"""

import ast
import base64
import json
import re
import sys

DIRECTIVE = re.compile(r"#\s*\|\s*(?P<name>[A-Za-z_]+)(?P<rest>\s[^:]*)?$")
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


def filter_output(output: dict) -> dict:
    data = output.get("data", {})
    if not ("text/html" in data and "image/svg+xml" in data):
        return output
    html, svg = joined(data["text/html"]).strip(), joined(data["image/svg+xml"])
    if html.startswith("<tl-"):
        html = with_picture(html, svg)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", html)), default=0))
    alt = joined(data.get("text/plain", "")).replace('"', "'").replace("\n", " ").strip()
    picture = f'![](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}){{fig-alt="{alt}"}}'
    text = ONLY % ("when", f"{ticks}{{=html}}\n{html}\n{ticks}") + ONLY % ("unless", picture)
    return {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": text}}


def with_picture(html: str, svg: str) -> str:
    """A widget that shows its picture where no script runs. It is stored once, beside the HTML."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return html.replace("<!-- picture -->", f'<img class="tl-picture" src="{source}" alt="">', 1)


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
    return notebook


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    json.dump(filter_notebook(json.load(sys.stdin)), sys.stdout, ensure_ascii=False, indent=1)
