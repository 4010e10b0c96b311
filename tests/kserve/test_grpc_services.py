"""A service that wants gRPC, on the runtime that a cluster would use: Envoy splits its calls like any others."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from typing import Any

import grpc
import kserve
import numpy as np
import pytest
import yaml
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from sandbox.prometheus.config import targets_file
from tests.kserve.rig import Namespace, Sandbox, component, ready
from tests.serving.predictor_rig import NUMERIC, ROOT, write_model
from tests.serving.rpc_messages import INFER
from tests.waiting import wait_for

RUNTIMES = ROOT / "serving" / "manifests" / "clusterservingruntime.yaml"

pytestmark = pytest.mark.destructive


@pytest.fixture
def deployed(kserve: Sandbox, ns: Namespace) -> Namespace:
    """A namespace with the service `m` of version 1 over gRPC."""
    for runtime in yaml.safe_load_all(RUNTIMES.read_text(encoding="utf-8")):
        kserve.post("/apis/serving.kserve.io/v1alpha1/clusterservingruntimes", runtime)
    model = {"modelFormat": {"name": "kanary"}, "storageUri": release(kserve, "1"), "protocolVersion": "grpc-v2"}
    service = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "m"}}
    kserve.post(ns.path, service | {"spec": {"predictor": {"model": model}}})
    # The first one waits for its parent to import torch and kserve, on a machine that may be busy.
    wait_for(lambda: ready(ns.get().get("status") or {}), "the service is ready", deadline=120)
    ns.settled({"01": 100})
    return ns


def release(kserve: Sandbox, version: str) -> str:
    """The folder of a model of that version."""
    folder = kserve.models / f"grpc-{version}"
    write_model(folder, NUMERIC, seed=int(version), version=version)
    return str(folder)


def request() -> Any:
    """One row."""
    tensor = kserve.InferInput("rows", [1, 2], "FP64")
    tensor.set_data_from_numpy(np.array([[1.5, 3.0]]), binary_data=True)
    return kserve.InferRequest("m", [tensor])


async def test_kserves_own_client_is_answered_through_the_gateway(deployed: Namespace) -> None:
    gateway = f"127.0.0.1:{deployed.sandbox.envoy.port}"
    authority = ("grpc.default_authority", f"m.{deployed.name}.localhost")
    status = deployed.get()["status"]
    assert status["clusterServingRuntimeName"] == "kanary-torch-grpc"

    deployed.patch(
        {
            "spec": {
                "predictor": {
                    "model": {"storageUri": release(deployed.sandbox, "2")},
                    "canaryTrafficPercent": 50,
                }
            }
        }
    )
    status = deployed.settled({"01": 50, "02": 50})["status"]
    assert component(status)["latestReadyRevision"] == "m-predictor-00002"
    async with kserve.InferenceGRPCClient(gateway, channel_args=[authority]) as client:
        assert await client.is_model_ready("m")
        answers = Counter([(await client.infer(request())).model_version for _ in range(100)])
    # By chance one of them answers nothing in 1 of 2^99 runs.
    assert set(answers) == {"1", "2"}

    async with grpc.aio.insecure_channel(gateway, options=[authority]) as channel:
        call = channel.unary_unary(INFER)(pb.ModelInferRequest(model_name="ferns").SerializeToString())
        with pytest.raises(grpc.RpcError, match="ferns does not exist") as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert dict(refused.value.trailing_metadata())["kanary-model-version"] in ("1", "2")
    # What is asked besides predictions, its numbers first, is on another port.
    (first, *_) = [
        entry
        for entry in json.loads(targets_file(deployed.sandbox.home).read_text(encoding="utf-8"))
        if entry["labels"]["revision"] == "m-predictor-00001" and entry["labels"]["namespace"] == deployed.name
    ]
    with urllib.request.urlopen(f"http://{first['targets'][0]}/metrics", timeout=30) as numbers:
        assert 'kanary_requests_total{code="OK",protocol="grpc"' in numbers.read().decode()
