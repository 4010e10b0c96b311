"""The smoke test: a few rows that the model knows, sent to one revision by its own URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from kanary import modelspec
from kanary.errors import KanaryError
from kanary.modelspec import ModelSpec
from kanary.traffic import address

ROWS = 8
_TIMEOUT_S = 30.0


def smoke_test(url: str, release: Path, spec: ModelSpec, model: str) -> None:
    """Predict `ROWS` rows of the model's reference at `url`; KanaryError unless each gets a class that the model has.

    An empty `url` means that KServe gives this revision no address of its own: that is printed, and nothing is sent.
    """
    if not url:
        print("no smoke test: the service has no tag routing, so the revision has no URL of its own", flush=True)
        return
    rows = reference_rows(release, spec)
    where, headers = address(url.rstrip("/"))
    try:
        answer = httpx.post(
            f"{where}/v1/models/{model}:predict",
            json={"instances": rows},
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        predictions = answer.json().get("predictions", []) if answer.status_code == 200 else []
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        raise KanaryError(f"the smoke test of {url} failed: {error}", _HINT) from error
    labels = [prediction.get("label") for prediction in predictions if isinstance(prediction, dict)]
    if len(labels) != len(rows) or not set(labels) <= set(spec.classes):
        raise KanaryError(f"the smoke test of {url} failed: {answer.status_code} {answer.text[:500]}", _HINT)
    version = answer.headers.get("kanary-model-version", spec.version)
    if version != spec.version:
        raise KanaryError(f"the smoke test of {url} reached version {version}, not {spec.version}", _HINT)
    print(f"smoke test: {len(rows)} rows predicted by {spec.version} at {url}", flush=True)


_HINT = "the canary stays at 0 %; stable has all the traffic"


def reference_rows(release: Path, spec: ModelSpec) -> list[dict[str, Any]]:
    """Some complete rows of the model's reference, feature to value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [feature.name for feature in spec.features]
    table = pq.read_table(pa.BufferReader(modelspec.read_file(release, spec, "reference.parquet")), columns=names)
    rows: list[dict[str, Any]] = table.to_pylist()
    return [row for row in rows if None not in row.values()][:ROWS]
