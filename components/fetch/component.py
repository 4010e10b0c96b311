"""The KFP interface of fetch."""

from kfp import dsl
from kfp.dsl import Model, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def fetch(release: Output[Model], release_uri: str, digest: str = "") -> None:
    """Fetch a published release, so that it can be deployed again without training it. Do not cache it.

    Args:
        release_uri: Where it lies: releases_uri/name/version of package, a path or a URL fsspec reads.
        digest: sha256 digest that its model must have; empty: whatever it has.
    """
    from pathlib import Path

    from components.fetch.fetching import fetch
    from components.step import reporting

    with reporting():
        spec = fetch(release_uri, Path(release.path), digest)
        release.framework = "pytorch"
        release.metadata.update(
            name=spec.name, version=spec.version, digest=spec.digest(), released_uri=release_uri.rstrip("/")
        )
        print(f"fetched {spec.name} {spec.version} ({spec.digest()}) from {release_uri}")
