"""`python -P -m serving.drift --home FOLDER --releases FOLDER`: watch inference events for drift."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys

from kanary.errors import KanaryError, MissingExtra
from serving.drift.service import folder_is_free, run
from serving.drift.settings import settings

CANNOT_RUN = 78  # tells a supervisor that starting again will not help


def main() -> int:
    """Run the service; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    given = settings(sys.argv[1:])
    try:
        if importlib.util.find_spec("alibi_detect") is None:
            raise MissingExtra(
                "drift detection needs alibi-detect, which is not installed: pip install 'kanary[drift]'"
            )
        lock = folder_is_free(given)  # held until the process ends
        asyncio.run(run(given))
        del lock
    except MissingExtra as error:
        print(error, file=sys.stderr, flush=True)
        return CANNOT_RUN
    except KanaryError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
