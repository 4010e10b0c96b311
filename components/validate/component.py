"""The KFP interface of validate."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def validate(
    dataset: Input[Dataset],
    schema_uri: str,
    validated: Output[Dataset],
    report: Output[HTML],
    schema: Output[Artifact],
    max_violations_shown: int = 20,
) -> NamedTuple("Outputs", [("rows", int), ("checks", int)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Judge a dataset against its table schema; a violation fails the step and names column, rows and expectation.

    Args:
        dataset: What ingest wrote.
        schema_uri: Path or URL of a Frictionless Table Schema in JSON.
        max_violations_shown: Violations named in the error, and rows named for each in the report.

    Returns:
        rows: Number of rows.
        checks: Number of checks passed.
    """
    from pathlib import Path

    from components.source import read_text
    from components.step import reporting
    from components.validate.dataset import validate_dataset
    from kanary.dataschema import load

    with reporting():
        table_schema = load(read_text(schema_uri))
        Path(schema.path).write_text(table_schema.to_json(), encoding="utf-8")
        schema.metadata.update(name=table_schema.name, sha256=table_schema.digest())
        found = validate_dataset(
            Path(dataset.path), table_schema, Path(validated.path), Path(report.path), max_violations_shown
        )
        validated.metadata.update(
            rows=found.rows,
            sha256=found.sha256,
            parent_sha256=dataset.metadata.get("sha256", ""),
            schema_sha256=table_schema.digest(),
        )
        print(f"{found.rows} rows are valid: {found.checks} checks passed")
        return (found.rows, found.checks)
