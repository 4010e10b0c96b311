# ruff: noqa: B006 -- kfp wants defaults it can write down
"""The KFP interface of payloads."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def payloads(
    uri: str,
    dataset: Output[Dataset],
    service: str = "",
    namespace: str = "",
    columns: list = [],  # type: ignore[type-arg]  # kfp knows the bare type only
) -> NamedTuple("Outputs", [("rows", int), ("refused", int)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Read what a service was asked from its logged requests, for drift to compare. Do not cache it: logs grow.

    Args:
        uri: A file, or a folder with all that is below it: a path, or a URL that fsspec opens. JSON or a JSON object a
            line, each one a request, a CloudEvent, or what KServe's agent stores (`logger.storage`, format json).
        service: The InferenceService whose events are read; empty: any.
        namespace: Its namespace; empty: any.
        columns: The columns of requests that are lists without names, in their order.

    Returns:
        rows: Number of rows.
        refused: Requests that could not be read.
    """
    from pathlib import Path

    from components.payloads.log import read_log
    from components.step import reporting

    with reporting():
        found = read_log(uri, Path(dataset.path), service, namespace, columns)
        dataset.metadata.update(found.metadata())
        print(f"{found.rows} rows of {found.requests} requests; {found.refused} could not be read {found.why}")
        return (found.rows, found.refused)
