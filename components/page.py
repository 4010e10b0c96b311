"""Self-contained HTML for the Kubeflow UI: a page, tables, line charts as inline SVG. Escapes whatever it is given.

No script, no link, no font: the UI shows artifacts in a sandboxed frame, often without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1c2733; background: #fff; margin: 1.5rem; max-width: 60rem }
h1 { font-size: 1.3rem; margin: 0 0 .5rem } h2 { font-size: 1.05rem; margin: 1.5rem 0 .4rem }
table { border-collapse: collapse } th, td { padding: .25rem .8rem; border-bottom: 1px solid #d7dee6; text-align: left }
td { font-variant-numeric: tabular-nums } .good { color: #11663b } .bad { color: #a4161a; font-weight: 600 }
svg text { font: 12px system-ui, sans-serif; fill: #1c2733 }
"""
# Told apart by dashes as well as by colour.
_STROKES = [("#1f5fa8", ""), ("#b3541e", "6 3"), ("#3b7d3b", "2 3"), ("#7a3b91", "8 3 2 3"), ("#5c6670", "1 2")]

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 560, 320, 70, 16, 176, 44
_NAME_LENGTH = 20


@dataclass(frozen=True)
class Line:
    """A named line of a chart: (x, y) points, all finite, in drawing order."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Cell:
    """A table cell with a tone: `good` or `bad`."""

    text: str
    tone: str


def page(title: str, *parts: str) -> str:
    """A whole HTML document with `title` as its heading; `parts` are HTML already."""
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return f"{head}\n<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"


def heading(text: str) -> str:
    """A section heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> str:
    """A table; every row has as many cells as `head`."""
    headings = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{headings}</tr></thead>\n<tbody>{lines}</tbody></table>"


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """An SVG chart with a legend. Axes span the points; `diagonal` draws the line of pure chance of a ROC curve."""
    points = [point for line in lines for point in line.points] or [(0.0, 0.0)]
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points] + [0.0])

    def place(x: float, y: float) -> str:
        across = _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        down = _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f},{down:.1f}"

    drawn = [_axes(x_low, x_high, y_low, y_high, x_label, y_label)]
    if diagonal:
        drawn.append(f'<polyline points="{place(x_low, y_low)} {place(x_high, y_high)}" fill="none" stroke="#b9c2cc"/>')
    for index, line in enumerate(lines):
        colour, dash = _STROKES[index % len(_STROKES)]
        stroke = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        left, height = _WIDTH - _RIGHT + 12, _TOP + 12 + 20 * index
        drawn.append(f'<polyline points="{" ".join(place(x, y) for x, y in line.points)}" {stroke}/>')
        drawn.append(f'<path d="M{left},{height - 4} h24" {stroke}/>')
        drawn.append(f'<text x="{left + 30}" y="{height}">{escape(_shortened(line.name))}</text>')
    label = escape(f"{y_label} by {x_label}")
    body = "\n".join(drawn)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{label}">\n{body}\n</svg>'


def number(value: float) -> str:
    """A number for people: four significant digits, integers whole."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    return f'<td class="{escape(cell.tone)}">{escape(cell.text)}</td>'


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def _axes(x_low: float, x_high: float, y_low: float, y_high: float, x_label: str, y_label: str) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    middle = (_TOP + bottom) / 2
    texts = [
        (_LEFT, bottom + 16, "middle", number(x_low)),
        (right, bottom + 16, "middle", number(x_high)),
        ((_LEFT + right) / 2, bottom + 34, "middle", x_label),
        (_LEFT - 6, bottom, "end", number(y_low)),
        (_LEFT - 6, _TOP + 8, "end", number(y_high)),
    ]
    frame = f'<path d="M{_LEFT},{_TOP} V{bottom} H{right}" fill="none" stroke="#5c6670"/>'
    written = [f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>' for x, y, anchor, text in texts]
    turned = f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    return "\n".join([frame, *written, turned])
