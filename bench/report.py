"""What every benchmark prints: a table for people, and one JSON object as its last line. Measures nothing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kanary.text import table


def show(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table with a title."""
    print(f"\n{title}\n\n{table(tuple(headers), [tuple(row) for row in rows])}", flush=True)


def verdict(name: str, figures: Mapping[str, Any], ratio: float | None, goal: str, ok: bool) -> int:
    """Print the last line; give the exit code. `ratio`: the peer's figure divided by ours, None without a peer."""
    rounded = None if ratio is None else round(ratio, 2)
    print(json.dumps({"name": name, "figures": figures, "ratio": rounded, "goal": goal, "ok": ok}), flush=True)
    return 0 if ok else 1


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, maximum and number of some figures."""
    return {"median": round(statistics.median(values), 2), "max": round(max(values), 2), "runs": len(values)}
