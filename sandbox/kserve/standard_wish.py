"""From an InferenceService in Standard mode to what it wishes for: Deployments for the predictor and its canaries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sandbox.kserve import transformer as transformers
from sandbox.kserve.config import Config
from sandbox.kserve.decide import Problem
from sandbox.kserve.knative import Document, Template
from sandbox.kserve.predictor import STOP_ANNOTATION, model_of, pod_template, service_name
from sandbox.kserve.runtimes import NoRuntime, Runtime
from sandbox.kserve.standard import Workload
from sandbox.kserve.status import TRANSFORMER, Names, Urls
from sandbox.kserve.template import NOT_EMULATED, Refused, digest, problem_of

# Releases of KServe that differ in what they do with canaries: the first with `spec.canary`, which sets no weights,
# and the one after it.
FIRST_RELEASE, NEXT_RELEASE = "0.20.0", "next"
_AUTOSCALER = "serving.kserve.io/autoscalerClass"
_SCALING_FIELDS = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")
# Fields of a predictor that Knative takes into its revisions, and a pod has not.
_NO_POD_FIELDS = ("timeout", "containerConcurrency")


@dataclass(frozen=True)
class Pods:
    """What a predictor, or a transformer, wishes for. One of `template` and `problem` is set.

    `deployment` is the name of its Deployment and Service.
    """

    deployment: str
    template: Template | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Canary:
    """An entry of spec.canary: its share of the traffic in percent, and how many pods it gets."""

    name: str
    percent: int
    replicas: int
    pods: Pods


Bounds = tuple[int | None, int]


@dataclass(frozen=True)
class StandardWish:
    """What an InferenceService asks for. `bounds` are the predictor's minReplicas, if it names any, and maxReplicas."""

    name: str
    names: Names
    stable: Pods
    canaries: tuple[Canary, ...] = ()
    bounds: Bounds = (None, 0)
    transformer: Pods | None = None
    transformer_bounds: Bounds = (None, 0)
    timeout_s: float | None = None
    stopped: bool = False


def standard_wish(isvc: Document, available: Sequence[Runtime], config: Config, urls: Urls) -> StandardWish:
    """What `isvc` asks for, with `available` the runtimes it may use; canaryTrafficPercent means nothing here."""
    spec = isvc.get("spec") or {}
    predictor: Document = spec.get("predictor") or {}
    names, pods = Names(urls), Pods(service_name(isvc))
    transformer: Document | None = spec.get(TRANSFORMER)
    if transformer is not None:
        names = Names(replace(urls, address=urls.direct.format(name=transformers.service_name(isvc))))
    try:
        _check_emulated(spec, predictor)
        names, template = pod_template(isvc, predictor, available, config, names)
        pods = replace(pods, template=_for_pods(template, pods.deployment))
    except (Refused, NoRuntime) as refusal:
        pods = replace(pods, problem=problem_of(refusal))
    annotations = isvc["metadata"].get("annotations") or {}
    return StandardWish(
        name=isvc["metadata"]["name"],
        names=names,
        stable=pods,
        canaries=tuple(_canary(isvc, predictor, entry, available, config, urls) for entry in spec.get("canary") or []),
        bounds=_bounds(predictor),
        transformer=_transformer(isvc, config) if transformer is not None else None,
        transformer_bounds=_bounds(transformer or {}),
        timeout_s=predictor.get("timeout"),
        stopped=annotations.get(STOP_ANNOTATION, "").lower() == "true",
    )


def workloads(wish: StandardWish, ready: Callable[[str], bool], release: str) -> list[Workload]:
    """The Deployments that KServe asks for. `ready` says of a canary's Deployment whether it has an available replica.

    Replicas of canaries are taken from the predictor's minReplicas, down to one: of all of them in KServe 0.20.0, later
    of those that are ready. Source: reconcileRawDeployment and reconcileCanaryDeployments in predictor.go.
    """
    minimum, maximum = wish.bounds
    counted = [one.replicas for one in wish.canaries if release == FIRST_RELEASE or ready(one.pods.deployment)]
    if minimum is not None and counted:
        minimum = max(minimum - sum(counted), 1)
    found = [(wish.stable, (minimum, maximum)), *((one.pods, (one.replicas, 0)) for one in wish.canaries)]
    made = [_workload(pods, bounds) for pods, bounds in found if pods.template is not None]
    if wish.transformer is not None and wish.transformer.template is not None:
        made.append(replace(_workload(wish.transformer, wish.transformer_bounds), component="transformer"))
    return made


def merged_canary(stable: Document, canary: Document) -> Document:
    """The predictor of a canary: what it does not set it has from the stable one.

    Maps are merged, lists and values replaced. Source: buildCanaryPredictor in predictor.go.
    """
    found = _merge(_with_model(stable), _with_model(canary))
    return {key: value for key, value in found.items() if key not in _SCALING_FIELDS}


def _workload(pods: Pods, bounds: Bounds) -> Workload:
    assert pods.template is not None
    minimum, maximum = bounds
    scaling = pods.template.document["annotations"].get(_AUTOSCALER, "hpa")
    fixed = (1 if minimum is None else minimum) if scaling == "none" else None
    least = max(1, minimum or 1)
    return Workload(pods.deployment, pods.template, fixed, scaling == "hpa", least, max(least, maximum))


def _canary(
    isvc: Document, stable: Document, entry: Document, available: Sequence[Runtime], config: Config, urls: Urls
) -> Canary:
    own = entry.get("predictor") or {}
    percent = entry.get("trafficPercent") or 0
    replicas = own.get("minReplicas")
    if replicas is None:
        at_stable = stable.get("minReplicas")
        replicas = math.ceil((1 if at_stable is None else at_stable) * percent / 100)
    name = own.get("name", "")
    pods = Pods(f"{isvc['metadata']['name']}-{name}-predictor")
    predictor = merged_canary(stable, own)
    try:
        _check_emulated(isvc["spec"], predictor)
        _, template = pod_template(isvc, predictor, available, config, Names(urls))
        pods = replace(pods, template=_for_pods(template, pods.deployment))
    except (Refused, NoRuntime) as refusal:
        pods = replace(pods, problem=problem_of(refusal))
    return Canary(name, percent, replicas, pods)


def _transformer(isvc: Document, config: Config) -> Pods:
    pods = Pods(transformers.service_name(isvc))
    try:
        template = transformers.pod_template(isvc, config, service_name(isvc))
        return replace(pods, template=_for_pods(template, pods.deployment))
    except Refused as refused:
        return replace(pods, problem=problem_of(refused))


def _bounds(component: Document) -> Bounds:
    return component.get("minReplicas"), component.get("maxReplicas") or 0


def _for_pods(template: Template, deployment: str) -> Template:
    document = template.document
    spec = {key: value for key, value in document["spec"].items() if key not in _NO_POD_FIELDS}
    labels = document["labels"] | {"app": f"isvc.{deployment}"}
    document = document | {"labels": labels, "spec": spec}
    return Template(document, digest(document), template.preload)


def _check_emulated(spec: Document, predictor: Document) -> None:
    if spec.get("explainer"):
        raise Refused("spec.explainer: the sandbox does not emulate it", NOT_EMULATED)
    for field in ("workerSpec", "storageUris", "storageContainerName"):
        if predictor.get(field):
            raise Refused(f"{field} of a predictor: the sandbox does not emulate it", NOT_EMULATED)


def _with_model(predictor: Document) -> Document:
    """`predictor` with a framework's own field made into `model`, as KServe's webhook does."""
    model = model_of(predictor)
    return predictor if model is None or "model" in predictor else predictor | {"model": model}


def _merge(base: Document, over: Document) -> Document:
    merged: dict[str, Any] = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            merged[key] = _merge(known, value)
        elif value or key not in merged:
            merged[key] = value
    return merged
