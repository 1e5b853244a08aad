"""HTML. Every function escapes its arguments, except those of type `Html`."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import NewType

Html = NewType("Html", str)

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #626a73;
  --line: #e2e5e9; --card: #f5f6f8; --accent: #1f6feb; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1216; --ink: #e4e8ed; --faint: #98a2ad;
  --line: #2a3038; --card: #181c22; --accent: #6ea8fe; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 72rem; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.25rem; margin: 3rem 0 .7rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, figcaption { max-width: 46rem; }
p.faint, figcaption, .chief dt, .chief dd + dd { color: var(--faint); font-size: .875rem; }
p.faint { margin: .3rem 0; }
.chief { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .8rem;
  margin: .8rem 0 0; }
.chief div { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; }
.chief dd { margin: 0; }
.chief dd:first-of-type { font-size: 1.8rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.frame { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }
thead th { color: var(--faint); font-weight: 500; white-space: nowrap; }
th.number, td.number { text-align: right; padding-left: .9rem; padding-right: 0;
  white-space: nowrap; }
tr.strong td { font-weight: 650; }
table.config td { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .8rem; }
figure { margin: 1rem 0 1.6rem; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .4rem; }
figure.paper img { background: #fff; padding: .3rem; }
figcaption { margin-top: .5rem; }
summary { cursor: pointer; color: var(--accent); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin-right: .35em; }
@media (max-width: 40rem) { figure.wide img { max-width: none; width: 46rem; } }
""".strip()

# The page loads nothing: everything is inline.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def text(value: object) -> Html:
    """A value as escaped text."""
    return Html(html.escape(str(value)))


def join(parts: Iterable[Html]) -> Html:
    """Pieces joined by newlines."""
    return Html("\n".join(parts))


def element(name: str, content: object, kind: str = "") -> Html:
    """An element: content that is a plain string must be `Html` already, or come through `text`."""
    attribute = f' class="{html.escape(kind)}"' if kind else ""
    return Html(f"<{name}{attribute}>{content}</{name}>")


def section(title: str, *content: Html) -> Html:
    """A section with a heading."""
    return Html(f"<section>\n{element('h2', text(title))}\n{join(content)}\n</section>")


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numeric_from: int | None = None,
    strong: Iterable[int] = (),
    kind: str = "",
) -> Html:
    """A table; a wide one scrolls sideways.

    Args:
      headings: of the columns.
      rows: their cells.
      numeric_from: first column of numbers, which are aligned right.
      strong: indices of rows in bold.
      kind: its CSS class.
    """
    numeric = len(headings) if numeric_from is None else numeric_from

    def line(cells: Sequence[object], tag: str) -> str:
        return "".join(
            element(tag, text(cell), "number" if i >= numeric else "")
            for i, cell in enumerate(cells)
        )

    stressed = set(strong)
    head = element("thead", element("tr", line(headings, "th")))
    body = [
        element("tr", line(row, "td"), "strong" if i in stressed else "")
        for i, row in enumerate(rows)
    ]
    inner = element("table", f"{head}\n{element('tbody', join(body))}", kind)
    return element("div", inner, "frame")


def picture(png: bytes, alt: str, caption: Html, kind: str = "") -> Html:
    """A PNG, inlined, above its caption."""
    data = base64.b64encode(png).decode()
    image = Html(f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">')
    framed = element("div", image, "frame")
    return element("figure", f"{framed}\n{element('figcaption', caption)}", kind)


def page(title: str, body: Html) -> str:
    """A complete document that loads nothing."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{text(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
{body}
</body>
</html>
"""
