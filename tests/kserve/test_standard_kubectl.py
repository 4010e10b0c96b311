"""What kubectl, the real one, shows of a service in Standard mode: Deployments, autoscalers, routes, pods and logs."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.kserve.rig import Namespace, wait
from tests.kserve.standard_rig import all_ready, canaries, canary, deploy, promote, routed

pytestmark = [pytest.mark.destructive, pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")]
_ROW = '{range .items[*]}{.metadata.name}{" "}'


def _kubectl(ns: Namespace, *arguments: str) -> str:
    environment = {**os.environ, "KUBECONFIG": str(ns.sandbox.home / "kubeconfig"), "HOME": str(ns.sandbox.home)}
    command = ["kubectl", "-n", ns.name, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rows(ns: Namespace, kind: str, columns: str) -> list[str]:
    return _kubectl(ns, "get", kind, "-o", f"jsonpath={_ROW}{columns}{{'\\n'}}{{end}}").splitlines()


def test_without_an_autoscaler_replicas_are_taken_from_the_predictor_and_given_back(ns: Namespace) -> None:
    deploy(ns, "one", {"serving.kserve.io/autoscalerClass": "none"}, minReplicas=4)
    canaries(ns, canary(ns, "v2", "two", 30), canary(ns, "v3", "three", 0, minReplicas=1))
    all_ready(ns, v2=30, v3=0)
    wanted = ["m-predictor 1 1", "m-v2-predictor 2 2", "m-v3-predictor 1 1"]
    replicas = "{.spec.replicas}{' '}{.status.availableReplicas}"
    wait(lambda: _rows(ns, "deployments", replicas) == wanted, "replicas are moved")
    assert _kubectl(ns, "get", "hpa") == ""
    canaries(ns)
    wait(lambda: _rows(ns, "deployments", replicas) == ["m-predictor 4 4"], "and moved back")


def test_without_an_autoscaler_a_canary_at_zero_percent_has_no_pod_and_is_never_ready(ns: Namespace) -> None:
    deploy(ns, "one", {"serving.kserve.io/autoscalerClass": "none"})
    canaries(ns, canary(ns, "v2", "two", 0))
    ns.wait("told", lambda s: bool(s.get("canaryStatuses")))
    wait(lambda: "m-v2-predictor 0" in _rows(ns, "deployments", "{.spec.replicas}"), "its Deployment has no replicas")
    assert [name for name in ns.servers() if name.startswith("m-v2-")] == []
    canaries(ns, canary(ns, "v2", "two", 20))
    all_ready(ns, v2=20)


def test_the_autoscaler_of_a_removed_canary_stays(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 10))
    all_ready(ns, v2=10)
    canaries(ns)
    wanted = ["m-predictor 1 1 1", "m-v2-predictor 1 1 0"]
    bounds = "{.spec.minReplicas}{' '}{.spec.maxReplicas}{' '}{.status.currentReplicas}"
    wait(lambda: _rows(ns, "hpa", bounds) == wanted, "two autoscalers")
    wait(lambda: _rows(ns, "deployments", "{.spec.replicas}") == ["m-predictor 1"], "one Deployment")


def test_kubectl_reads_routes_rollouts_pods_and_logs(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 10))
    all_ready(ns, v2=10)
    routed(ns, {"m-predictor": 90, "m-v2-predictor": 10})
    assert _kubectl(ns, "get", "httproute", "-o", "name").split() == [
        "httproute.gateway.networking.k8s.io/m",
        "httproute.gateway.networking.k8s.io/m-predictor",
    ]
    for name in ("m-predictor", "m-v2-predictor"):
        assert "successfully rolled out" in _kubectl(ns, "rollout", "status", f"deployment/{name}", "--timeout=30s")
    wait(lambda: len(_rows(ns, "pods", "")) == 2, "two pods")
    pods = {row.split()[0]: row.split()[1] for row in _rows(ns, "pods", "{.metadata.labels.app}")}
    logs = {app: _kubectl(ns, "logs", pod) for pod, app in pods.items()}
    assert logs == {"isvc.m-predictor": "serving one\n", "isvc.m-v2-predictor": "serving two\n"}
    assert f'["m-predictor.{ns.name}.localhost"]' in _kubectl(ns, "get", "httproute", "m-predictor")
    promote(ns, "v2", "two")
    wait(lambda: "TrafficChanged" in _kubectl(ns, "describe", "isvc", "m"), "events tell of traffic")
    described = _kubectl(ns, "describe", "isvc", "m")
    assert "Traffic is now m-predictor 90 %, m-v2-predictor 10 %" in described
    assert "Scaled up replica set m-v2-predictor-" in _kubectl(ns, "get", "events")
    ns.wait("promoted", lambda s: "canaryStatuses" not in s)
    wait(lambda: [row.split()[0] for row in _rows(ns, "services", "")] == ["m-v2-predictor"], "one Service")
