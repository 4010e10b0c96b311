"""Numbers of the command line, as argparse wants them: ValueError where they are none that will do."""

from __future__ import annotations

import math


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = from_zero(text)
    if not value:
        raise ValueError
    return value


def from_zero(text: str) -> float:
    """A finite number of at least 0."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError
    return value
