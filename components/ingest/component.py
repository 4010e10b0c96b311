"""The KFP interface of ingest."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Dataset, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def ingest(
    uri: str,
    dataset: Output[Dataset],
    profile: Output[HTML],
    format: str = "",
) -> NamedTuple("Outputs", [("rows", int), ("sha256", str)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Read a table from a path or URL into a Parquet dataset, with its content hash and column profile.

    Args:
        uri: A path, or a URL that fsspec opens (https://, s3://, gs://): CSV, gzipped CSV or Parquet.
        format: csv or parquet; empty: by the name, else by the content.

    Returns:
        rows: Number of rows.
        sha256: Hash of the content, the same for CSV and gzipped CSV.
    """
    from pathlib import Path

    from components.files import write_text
    from components.ingest.table import ingest_table, profile_page
    from components.step import reporting

    with reporting():
        ingested = ingest_table(uri, Path(dataset.path), format)
        write_text(Path(profile.path), profile_page(ingested))
        dataset.metadata.update(ingested.metadata())
        print(f"ingested {ingested.rows} rows, {len(ingested.columns)} columns, sha256 {ingested.sha256}")
        return (ingested.rows, ingested.sha256)
