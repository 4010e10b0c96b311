"""A comparison as a page for the Kubeflow UI: the verdict, the columns ranked, their distributions side by side."""

from __future__ import annotations

from html import escape

import numpy as np

from components.drift.comparison import Compared, Comparison
from components.drift.tables import Pair
from components.page import Cell, heading, number, page, paragraph, table
from serving.drift.table import Floats

_DRAWN = 20
_BINS = 20
_WIDTH, _HEIGHT, _GAP, _FOOT = 260, 110, 24, 34
_COLOURS = ("#1f5fa8", "#b3541e")
_TESTS = {"ks": "Kolmogorov-Smirnov", "chi2": "chi-squared", "mmd": "MMD", "lsdd": "LSDD", "classifier": "classifier"}
_CORRECTIONS = {
    "bonferroni": "Bonferroni: the level divided by the number of columns",
    "fdr": "Benjamini-Hochberg: the share of false ones among those found is at most the level",
}


def report_page(title: str, pair: Pair, comparison: Comparison) -> str:
    """A self-contained HTML page."""
    drifting = len(comparison.names)
    told = f"{drifting} of {len(comparison.columns)} columns drift" if drifting else "no column drifts"
    verdict = Cell(told, "bad" if drifting else "good")
    facts: list[tuple[str | Cell, str]] = [
        (verdict, ""),
        ("rows", f"{len(pair.reference):,} in the reference, {len(pair.current):,} now"),
        ("level", number(comparison.p_value)),
        ("correction", _CORRECTIONS[comparison.correction]),
        ("threshold after it", number(comparison.threshold)),
    ]
    if comparison.together is not None:
        facts.append(("all columns together", _together(comparison)))
    drawn = comparison.columns[:_DRAWN]
    return page(
        title,
        table(("verdict", ""), facts),
        heading("Columns, the surest first"),
        table(
            ("column", "test", "distance", "p-value", "verdict", "missing before", "missing now"),
            [_row(one) for one in comparison.columns],
        ),
        heading("Distributions"),
        paragraph("Left the reference, right the current data; the same bins and the same scale, shares of the rows."),
        *(_drawing(one, pair) for one in drawn),
        *([paragraph(f"The first {_DRAWN} of {len(comparison.columns)}.")] if len(comparison.columns) > _DRAWN else ()),
        *([heading("Not compared"), table(("column", "why"), pair.left_out)] if pair.left_out else ()),
    )


def _together(comparison: Comparison) -> str:
    score = comparison.together
    assert score is not None
    says = "drift" if comparison.drifts_together else "no drift"
    p_value = "-" if score.p_value is None else number(score.p_value)
    return f"{says} ({_TESTS[score.test]}, distance {number(score.distance)}, p-value {p_value})"


def _row(one: Compared) -> list[str | Cell]:
    p_value = "-" if one.score.p_value is None else number(one.score.p_value)
    verdict = Cell("drifts", "bad") if one.drifts else Cell("does not", "good")
    missing = [number(count) for count in one.feature.missing]
    return [one.feature.name, _TESTS[one.score.test], number(one.score.distance), p_value, verdict, *missing]


def _drawing(one: Compared, pair: Pair) -> str:
    """Two histograms as one SVG."""
    at = [feature.name for feature in pair.features].index(one.feature.name)
    left, right = pair.reference.values[:, at], pair.current.values[:, at]
    if one.feature.categories:
        names = ("(missing)", *one.feature.categories)
        shares = [np.bincount(side.astype(np.int64), minlength=len(names)) / len(side) for side in (left, right)]
        feet = [f"{names[int(np.argmax(share))]} is commonest" for share in shares]
    else:
        low, high = np.quantile(np.concatenate([left, right]), [0.005, 0.995])
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        clipped = [np.clip(side, edges[0], edges[-1]) for side in (left, right)]
        shares = [np.histogram(side, edges)[0] / len(side) for side in clipped]
        feet = [f"mean {number(float(side.mean()))}, std {number(float(side.std()))}" for side in (left, right)]
    most = max(float(share.max()) for share in shares) or 1.0
    drawn = [_bars(share, most, side, feet[side]) for side, share in enumerate(shares)]
    width, height = 2 * _WIDTH + _GAP, _HEIGHT + _FOOT
    label = escape(f"{one.feature.name}: before and now")
    name = f"<h3>{escape(one.feature.name)}</h3>"
    body = "\n".join(drawn)
    return f'{name}<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">\n{body}\n</svg>'


def _bars(shares: Floats, most: float, side: int, foot: str) -> str:
    offset, width = side * (_WIDTH + _GAP), _WIDTH / len(shares)
    drawn = [
        f'<rect x="{offset + at * width:.1f}" y="{_HEIGHT - share / most * (_HEIGHT - 4):.1f}" '
        f'width="{max(0.5, width - 1):.1f}" height="{share / most * (_HEIGHT - 4):.1f}" fill="{_COLOURS[side]}"/>'
        for at, share in enumerate(shares.tolist())
    ]
    axis = f'<path d="M{offset},{_HEIGHT} h{_WIDTH}" fill="none" stroke="#5c6670"/>'
    words = f'<text x="{offset}" y="{_HEIGHT + 18}">{escape(("before: ", "now: ")[side] + foot)}</text>'
    return "\n".join([*drawn, axis, words])
