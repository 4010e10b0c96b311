"""What people already use, against the sandbox: kubectl and KServe's own client, with the kubeconfig that it writes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kanary import manifests
from tests.rollout.conftest import Deploy, Models
from tests.rollout.rig import NAMESPACE, Model, Sandbox, Service
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox
Kubectl = Callable[..., str]


def environment(sandbox: Sandbox, cache: Path) -> dict[str, str]:
    return {**os.environ, "KUBECONFIG": str(sandbox.kubeconfig), "KUBECACHEDIR": str(cache)}


@pytest.fixture
def kubectl(live: Sandbox, tmp_path: Path) -> Kubectl:
    """Runs `kubectl ARGUMENTS`, which must end well; gives what it prints."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on PATH")

    def run(arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["kubectl", *shlex.split(arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment(live, tmp_path),
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    return run


def manifest(name: str, model: Model, percent: int | None = None) -> str:
    document = manifests.inference_service(name, NAMESPACE, model.uri, model.version, model.digest, percent)
    return json.dumps(document)


def test_kubectl_deploys_watches_and_moves_a_canary(
    empty: Service, kubectl: Kubectl, models: Models, tmp_path: Path
) -> None:
    name = empty.name
    assert "created" in kubectl("apply -f -", manifest(name, models.v1))
    kubectl(f"wait --for=condition=Ready isvc/{name} --timeout=120s")
    first = empty.status().stable
    with (tmp_path / "watch").open("w") as lines:
        watch = subprocess.Popen(
            ["kubectl", "get", "isvc", name, "-w"], stdout=lines, env=environment(empty.sandbox, tmp_path)
        )

    def watched() -> list[list[str]]:
        return [line.split() for line in (tmp_path / "watch").read_text(encoding="utf-8").splitlines()]

    try:
        wait_for(lambda: len(watched()) > 1, "the watch shows the first release")
        assert "configured" in kubectl("apply -f -", manifest(name, models.v2, 10))
        wait_for(lambda: empty.status().effective == 10, "the canary has its share")
        patched = kubectl(
            f"""patch isvc {name} --type merge -p '{{"spec":{{"predictor":{{"canaryTrafficPercent":40}}}}}}'"""
        )
        assert "patched" in patched
        wait_for(lambda: empty.status().effective == 40, "the patch is in force")

        # NAME URL READY PREV LATEST PREVROLLEDOUTREVISION LATESTREADYREVISION AGE
        wait_for(lambda: any(line[2:5] == ["True", "60", "40"] for line in watched()), "the watch shows 60 and 40")
        assert any(line[2:5] == ["True", "90", "10"] for line in watched())
    finally:
        watch.terminate()
        watch.wait(20)
    canary = empty.status().canary
    assert canary not in ("", first)
    printed = yaml.safe_load(kubectl(f"get isvc {name} -o yaml"))
    shares = {
        entry["revisionName"]: entry["percent"] for entry in printed["status"]["components"]["predictor"]["traffic"]
    }
    assert shares == {first: 60, canary: 40}
    described = kubectl(f"describe isvc {name}")
    for told in (f"Name:         {name}", "Canary Traffic Percent:  40", canary, models.v2.uri):
        assert told in described
    with empty.traffic(rate=200, seconds=1) as traffic:
        summary = traffic.wait()
    assert (summary.failed, set(summary.by_revision)) == (0, {first, canary})
    assert "deleted" in kubectl(f"delete isvc {name}")
    wait_for(lambda: not empty.exists(), "the service is gone")


def test_a_rollback_of_what_kubectl_deployed_takes_the_traffic_and_says_what_is_left_to_do(
    empty: Service, kubectl: Kubectl, models: Models
) -> None:
    kubectl("apply -f -", manifest(empty.name, models.v1))
    kubectl(f"wait --for=condition=Ready isvc/{empty.name} --timeout=120s")
    stable = empty.status().stable
    kubectl("apply -f -", manifest(empty.name, models.v2, 30))
    wait_for(lambda: empty.status().effective == 30, "the canary has its share")
    done = empty.sandbox.run("rollback", empty.name)
    assert done.returncode == 1
    assert "apply its manifest to finish" in done.stdout
    assert empty.status().split == {stable: 100}
    kubectl("apply -f -", manifest(empty.name, models.v1))
    wait_for(lambda: empty.status().created not in ("", stable) and not empty.status().canary, "v1 is put back")
    status = empty.status()
    assert status.split == {status.created: 100}
    assert status.requested is None
    assert empty.predict().headers["kanary-model-version"] == "v1"


def test_a_denied_model_that_kubectl_applies_again_is_told(
    service: Service, deployed: Deploy, kubectl: Kubectl, models: Models
) -> None:
    deployed(models.v2, 10)
    service.sandbox.answer("rollback", service.name, "--reason", "wrong units")
    kubectl("apply --server-side --force-conflicts -f -", manifest(service.name, models.v2, 10))
    wait_for(lambda: service.status().canary, "the canary is there again")
    notes = " ".join(service.sandbox.answer("status", service.name)["notes"])
    for told in ("v2 is back in the spec", "denied it", "wrong units"):
        assert told in notes
    refused = service.sandbox.run("promote", service.name)
    assert refused.returncode != 0
    assert service.sandbox.answer("rollback", service.name)["outcome"] == "done"
    assert service.status().notes == ()


def test_kserves_own_client_creates_patches_and_deletes(empty: Service, models: Models) -> None:
    kserve = pytest.importorskip("kserve")
    from kubernetes import client as kubernetes

    def wanted(model: Model, percent: int | None = None) -> object:
        document = manifests.inference_service(empty.name, NAMESPACE, model.uri, model.version, model.digest)
        predictor = kserve.V1beta1PredictorSpec(
            annotations=document["spec"]["predictor"]["annotations"],
            canary_traffic_percent=percent,
            model=kserve.V1beta1ModelSpec(model_format=kserve.V1beta1ModelFormat(name="kanary"), storage_uri=model.uri),
        )
        return kserve.V1beta1InferenceService(
            api_version=manifests.API_VERSION,
            kind="InferenceService",
            metadata=kubernetes.V1ObjectMeta(
                name=empty.name, namespace=NAMESPACE, annotations=document["metadata"]["annotations"]
            ),
            spec=kserve.V1beta1InferenceServiceSpec(predictor=predictor),
        )

    client = kserve.KServeClient(config_file=str(empty.sandbox.kubeconfig))
    client.create(wanted(models.v1))
    client.wait_isvc_ready(empty.name, namespace=NAMESPACE, timeout_seconds=120, polling_interval=1)
    first = client.get(empty.name, namespace=NAMESPACE)["status"]["components"]["predictor"]["latestRolledoutRevision"]
    client.patch(empty.name, wanted(models.v2, 20), namespace=NAMESPACE)
    wait_for(lambda: empty.status().effective == 20, "the canary has its share")
    found = client.get(empty.name, namespace=NAMESPACE)
    shares = {
        entry["revisionName"]: entry["percent"] for entry in found["status"]["components"]["predictor"]["traffic"]
    }
    assert shares == {first: 80, empty.status().canary: 20}
    assert client.is_isvc_ready(empty.name, namespace=NAMESPACE)
    client.delete(empty.name, namespace=NAMESPACE)
    wait_for(lambda: not empty.exists(), "the service is gone")
