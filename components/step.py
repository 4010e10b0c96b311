"""How a step fails: an expected failure becomes its message and a non-zero exit, never a traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kanary.errors import KanaryError


@contextmanager
def reporting() -> Iterator[None]:
    """Print a KanaryError raised inside (what, where, what to do) to stderr and exit; anything else passes through."""
    # kfp's executor logs at INFO; a line for every request would bury what the step says itself.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        yield
    except KanaryError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from error
