"""Numbers as characters: bars of shares, sparklines, and charts of two courses. Pure: gives text and styles' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Spans = tuple[tuple[str, str], ...]
_EIGHTHS = "▁▂▃▄▅▆▇█"
# Braille: the bit of a dot by its row (from the top) and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def share_bar(shares: Sequence[tuple[int, str]], width: int) -> Spans:
    """A bar of `width` characters: (percent, style) from left to right. Whoever has a share has a character.

    Each part has a pattern of its own, so that it can be told apart without colours.
    """
    present = [(percent, style) for percent, style in shares if percent > 0]
    total = max(100, sum(percent for percent, _ in present))
    lengths = [max(1, round(width * percent / total)) for percent, _ in present]
    while sum(lengths) > width and max(lengths) > 1:
        lengths[lengths.index(max(lengths))] -= 1
    patterns = {"canary": "▒", "stable": "█"}
    parts = [
        (patterns.get(style.split()[-1] if style else "", "▓") * length, style)
        for length, (_, style) in zip(lengths, present, strict=True)
    ]
    rest = width - sum(lengths)
    return (*parts, ("·" * rest, "dim")) if rest > 0 else tuple(parts)


def sparkline(values: Sequence[float | None], width: int, top: float | None = None) -> str:
    """The newest `width` values as bars from 0 to the largest (or `top`); a blank where there is none."""
    recent = list(values[-width:])
    highest = max((value for value in recent if value is not None), default=0.0)
    highest = max(highest, top or 0.0)
    drawn = "".join(
        " " if value is None else _EIGHTHS[min(7, int(value / highest * 7.999))] if highest > 0 else _EIGHTHS[0]
        for value in recent
    )
    return drawn.rjust(width)


def interval_bar(low: float, middle: float, high: float, margin: float | None, width: int, style: str) -> Spans:
    """An interval around zero, which stands in the middle of the bar: `├──●──┤`, zero as `│`, the margin as `┊`."""
    reach = 1.05 * max(abs(low), abs(high), abs(margin or 0.0), 1e-9)

    def place(value: float) -> int:
        return min(width - 1, max(0, round((value + reach) / (2 * reach) * (width - 1))))

    cells = [("·", "dim")] * width
    for at in range(place(low), place(high) + 1):
        cells[at] = ("─", style)
    cells[place(low)], cells[place(high)] = ("├", style), ("┤", style)
    cells[width // 2] = ("┼" if place(low) < width // 2 < place(high) else "│", "")
    if margin is not None:
        cells[place(margin)] = ("┊", "bold warn")
    cells[place(middle)] = ("●", style)
    return _merged(cells)


def chart(
    courses: Mapping[str, Sequence[float | None]], width: int, height: int, points: int, top: float | None = None
) -> list[Spans]:
    """Lines of a chart of several courses in braille dots, by style; later ones are drawn over earlier ones.

    All courses end at the right edge; `points` of them fill the width.
    """
    columns = width * 2
    courses = {style: _stretched(values, columns / points) for style, values in courses.items()}
    highest = max((v for values in courses.values() for v in values if v is not None), default=0.0)
    highest = max(highest, top or 0.0) or 1.0
    cells: list[list[tuple[int, str]]] = [[(0, "") for _ in range(width)] for _ in range(height)]
    for style, values in courses.items():
        recent = list(values[-columns:])
        before: int | None = None
        for offset, value in enumerate(recent):
            x = columns - len(recent) + offset
            if value is None:
                before = None
                continue
            level = round(min(1.0, value / highest) * (height * 4 - 1))
            low, high = (level, level) if before is None else (min(before, level), max(before, level))
            for dot in range(low, high + 1):
                y = height * 4 - 1 - dot
                bits, _ = cells[y // 4][x // 2]
                cells[y // 4][x // 2] = (bits | _DOTS[y % 4][x % 2], style)
            before = level
    return [_merged((chr(0x2800 + bits) if bits else " ", style) for bits, style in row) for row in cells]


def _stretched(values: Sequence[float | None], factor: float) -> list[float | None]:
    """The values, each as often as fills its part of the width; those in between on a straight line."""
    count = round(len(values) * factor)
    if count <= 1 or len(values) <= 1:
        return list(values[-max(count, 1) :])
    found: list[float | None] = []
    for index in range(count):
        place = index * (len(values) - 1) / (count - 1)
        low = int(place)
        before, after = values[low], values[min(low + 1, len(values) - 1)]
        part = place - low
        whole = before is not None and after is not None
        found.append(before * (1 - part) + after * part if whole else before if part < 0.5 else after)  # type: ignore[operator]
    return found


def _merged(cells: Iterable[tuple[str, str]]) -> Spans:
    """Neighbours of one style as one span."""
    spans: list[tuple[str, str]] = []
    for text, style in cells:
        if spans and spans[-1][1] == style:
            spans[-1] = (spans[-1][0] + text, style)
        else:
            spans.append((text, style))
    return tuple(spans)
