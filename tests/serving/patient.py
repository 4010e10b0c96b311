"""The predictor, which takes more than a moment without a question for the end: a busy machine holds its clients up."""

from __future__ import annotations

from serving.predictor import drain, server


def main() -> int:
    drain.QUIET_S = 5.0
    return server.main()
