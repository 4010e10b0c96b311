"""BentoML around the model, with its adaptive batching: `bentoml serve bench.peers.bentoml_service:Census`.

Source: https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html
"""

# ruff: noqa: I002  # BentoML reads the types of an API from live annotations

from typing import Any

import bentoml

from bench.peers import answers


@bentoml.service(workers=1)
class Census:
    """Rows in, answers out; BentoML gathers the rows of several requests into one call."""

    def __init__(self) -> None:
        self.answers = answers.load()

    @bentoml.api(  # type: ignore[untyped-decorator]
        batchable=True, batch_dim=0, max_batch_size=answers.MOST_ROWS, max_latency_ms=1000
    )
    def predict(self, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer a row."""
        return self.answers.rows(instances)
