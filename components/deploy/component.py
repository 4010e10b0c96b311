"""The KFP interface of deploy."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Input, Model

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def deploy(
    release: Input[Model],
    service: str,
    namespace: str = "",
    canary_percent: int = 10,
    ready_timeout_s: int = 600,
    run_id: str = "",
    mode: str = "",
) -> NamedTuple("Outputs", [("revision", str), ("percent", int), ("url", str)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Deploy a release to KServe: a canary at 0 %, ready, smoke-tested by its own URL, and only then its share.

    The first release of a service takes all traffic. It has side effects: do not cache it.

    Args:
        release: The release, from package; refused if it was altered since, or if its digest is denied.
        service: The InferenceService; created if there is none.
        namespace: Its namespace; empty: the one this step runs in.
        canary_percent: The share of the traffic that the canary gets in the end, 0 to 99.
        ready_timeout_s: How long its revision may take to become ready.
        run_id: Id of the run, for the release history.
        mode: KServe's mode, Knative or Standard; empty: the service's own, Knative for a new one.

    Returns:
        revision: The revision that serves the release.
        percent: Its share of the traffic.
        url: Where that revision answers whatever its share; empty where KServe gives no such URL.
    """
    from pathlib import Path

    from components.deploy.deployment import Target, deploy
    from components.step import reporting

    with reporting():
        uri = release.metadata.get("released_uri") or release.uri
        target = Target(service, namespace, canary_percent, float(ready_timeout_s), run_id, mode)
        deployed = deploy(Path(release.path), uri, release.metadata.get("digest") or None, target)
        return (deployed.revision, deployed.percent, deployed.url)
