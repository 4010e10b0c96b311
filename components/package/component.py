"""The KFP interface of package."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Input, Metrics, Model, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def package(
    model: Input[Model],
    metrics: Input[Metrics],
    release: Output[Model],
    verdicts: list,  # type: ignore[type-arg]  # kfp knows the bare type only
    releases_uri: str = "",
    run_name: str = "",
    run_id: str = "",
    data_sha256: str = "",
) -> NamedTuple("Outputs", [("version", str), ("digest", str), ("uri", str)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Turn a model that passed its gates into a release, and publish it. It has side effects: do not cache it.

    Args:
        model: The model directory, from train; refused if it was altered since.
        metrics: What evaluate measured.
        verdicts: What evaluate's gates said; refused unless all passed.
        releases_uri: Where releases are kept: an absolute path or a URL fsspec writes to; empty: in the run only.
        run_name: Name of the run, for release.json.
        run_id: Id of the run, for release.json.
        data_sha256: Content hash of the raw data, from ingest, for release.json.

    Returns:
        version: The model's version.
        digest: sha256 digest of the model.
        uri: Where the release lies: under releases_uri, or the artifact itself.
    """
    from pathlib import Path

    from components.package.release import Origin, publish, write_release
    from components.step import reporting

    with reporting():
        origin = Origin(run_name=run_name, run_id=run_id, data_sha256=data_sha256)
        expected = model.metadata.get("digest") or None
        spec = write_release(Path(model.path), Path(release.path), metrics.metadata, verdicts, origin, expected)
        uri = publish(Path(release.path), releases_uri) if releases_uri else release.uri
        release.framework = "pytorch"
        release.metadata.update(name=spec.name, version=spec.version, digest=spec.digest(), released_uri=uri)
        print(f"released {spec.name} {spec.version} ({spec.digest()}) at {uri}")
        return (spec.version, spec.digest(), uri)
