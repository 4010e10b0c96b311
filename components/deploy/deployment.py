"""Deploying one release: start the canary at 0 %, wait for its revision, smoke-test it, give it its share.

Traffic is moved by kanary.kserve alone; what goes wrong before the share leaves stable with everything it had.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from components.deploy.smoke import smoke_test
from kanary import config, kubernetes, manifests, modelspec
from kanary.errors import InputError, KanaryError
from kanary.kserve import deploy as rollout
from kanary.kserve import rollback, steer

# KServe's storage initializer; KFP's own default root, minio://, is not among them.
_SCHEMES = ("s3", "gs", "http", "https", "git", "pvc", "hf", "oci", "file", "hdfs", "webhdfs", "model-registry")


@dataclass(frozen=True)
class Target:
    """Where a release goes, and what share it gets (percent, 0 to 99). `ready_timeout_s` is in seconds.

    `mode` is KServe's, Knative or Standard; empty: the service's own, and Knative where there is none yet.
    """

    service: str
    namespace: str = ""
    percent: int = 10
    ready_timeout_s: float = 600.0
    run_id: str = ""
    mode: str = ""


@dataclass(frozen=True)
class Deployed:
    """A revision that serves the release, its effective share in percent, and the URL of that revision alone."""

    revision: str
    percent: int
    url: str


def check_percent(percent: int) -> None:
    """Raises InputError unless it is a share that a canary may start with."""
    if not 0 <= percent <= 99:
        raise InputError(f"canary_percent is {percent}", "give 0 to 99; `kanary promote` gives all traffic")


def deploy(release: Path, uri: str, digest: str | None, target: Target) -> Deployed:
    """Deploy the release in the folder `release`, which KServe will fetch from `uri`.

    Raises ModelError for an altered release, InputError for a denied digest or a URI that KServe cannot fetch,
    KanaryError with the model server's last words where its revision never gets ready or fails its smoke test.
    """
    check_percent(target.percent)
    spec = modelspec.verify(release, digest)
    settings = config.load({"namespace": target.namespace} if target.namespace else {})
    with kubernetes.connect(settings) as api:
        namespace = settings.namespace or api.access.namespace or "default"
        mode = api.call(rollout.mode_for(target.service, namespace, target.mode))
        manifest = manifests.inference_service(
            target.service, namespace, servable(uri), spec.version, spec.digest(), min_replicas=1, mode=mode
        )
        why = f"deployed by run {target.run_id}" if target.run_id else "deployed"
        started = api.call(rollout.start_canary(manifest, run_id=target.run_id, why=why))
        kind = "first release" if started.first else "canary at 0 %"
        print(f"{namespace}/{target.service}: {spec.version} ({started.digest}) is deployed as {kind}", flush=True)
        try:
            deadline = target.ready_timeout_s
            ready = api.call(
                rollout.wait_ready(started, deadline=deadline, on_progress=lambda text: print(text, flush=True))
            )
            url = ready.url or (ready.status.url if started.first else "")
            smoke_test(url, release, spec, target.service)
            percent = 100 if started.first else 0
            if not started.first and target.percent:
                moved = api.call(steer.set_traffic(target.service, namespace, target.percent, why, token=started.token))
                percent = moved.after.effective
                if not moved.in_force:
                    print(f"{target.percent} % is not in force: {moved.why}", flush=True)
        except KanaryError:
            _take_back(api, started)
            raise
        finally:
            api.call(rollout.finish(started))
    print(f"{ready.revision} gets {percent} % of the traffic", flush=True)
    return Deployed(ready.revision, percent, ready.url)


def _take_back(api: kubernetes.Kubernetes, started: rollout.Started) -> None:
    """Put the stable content back into the spec, so that the next apply does not promote what has just failed.

    The digest is not denied: the cluster may be at fault. A first release has nothing to go back to, and stays.
    """
    if started.first:
        return
    why = f"{started.version} failed before it got any traffic"
    try:
        api.call(rollback.rollback(started.name, started.namespace, why, token=started.token, deny=False))
    except KanaryError as error:
        print(f"the stable content is not back in the spec: {error}\n  `kanary rollback {started.name}`", flush=True)


def servable(uri: str) -> str:
    """`uri` as KServe's storage initializer reads it: minio:// is S3's protocol, an absolute path a file:// URL.

    Raises InputError for anything that it does not read.
    """
    if uri.startswith("minio://"):
        return "s3://" + uri.removeprefix("minio://")
    if uri.startswith("/"):
        return f"file://{uri}"
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", uri)
    if scheme is None or scheme.group(1) not in _SCHEMES:
        raise InputError(
            f"KServe cannot fetch a model from {uri!r}",
            "give the package step a releases_uri such as s3://bucket/releases",
        )
    return uri
