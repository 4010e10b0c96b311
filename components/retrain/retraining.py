"""One look at a service: what is known, what was done before, what follows; and the training run, if it does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.retrain import evidence as evidences
from components.retrain.evidence import Ask
from kanary import kfp, policy
from kanary.api import Client
from kanary.errors import InputError
from kanary.kfp_spec import Pipeline
from kanary.kfp_types import Run
from kanary.policy import Attempt, Decision, Evidence, Outcome, Policy

_LOOKED_AT = 1000


@dataclass(frozen=True)
class Subject:
    """Whose model: the service, its namespace, the version and revision that serve, the canary beside it, if any.

    `trained_at` is in seconds since the epoch, None where it is not known.
    """

    service: str
    namespace: str
    version: str
    revision: str
    canary: str = ""
    trained_at: float | None = None


@dataclass(frozen=True)
class Look:
    """What was decided on what; `run_id` is the retraining's, empty where none began."""

    decision: Decision
    evidence: Evidence
    run_id: str = ""


def check_parameters(pipeline: Pipeline, parameters: Mapping[str, Any], service: str) -> dict[str, Any]:
    """The training run's parameters. InputError where its result would not go out as a canary of that service."""
    known = set(pipeline.parameters)
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise InputError(f"the training pipeline has no parameter {unknown[0]!r}", f"it has {', '.join(sorted(known))}")
    percent = parameters.get("canary_percent", 10)
    if parameters.get("service") != service or not isinstance(percent, int | float) or not 0 <= percent < 100:
        raise InputError(
            f"the retrained model would not go out as a canary of {service}",
            "give the training pipeline service= and canary_percent= below 100",
        )
    # KFP hands whole numbers on as floats.
    return {
        name: int(value)
        if isinstance(value, float) and pipeline.parameters[name].get("parameterType") == "NUMBER_INTEGER"
        else value
        for name, value in parameters.items()
    }


def look(
    api: Client,
    ask: Ask,
    subject: Subject,
    rules: Policy,
    pipeline: Pipeline,
    parameters: Mapping[str, Any],
    experiment: str,
    kfp_namespace: str = "",
) -> Look:
    """Decide, and start the training pipeline where that is decided. Raises KanaryError."""
    given = check_parameters(pipeline, parameters, subject.service)
    found = evidences.evidence(ask(evidences.query(subject.namespace, subject.service)), subject.revision)
    known = replace(
        found,
        namespace=subject.namespace,
        service=subject.service,
        version=subject.version,
        trained_at=subject.trained_at,
        canary=subject.canary,
    )
    group = api.call(kfp.ensure_experiment(experiment, namespace=kfp_namespace))
    page = api.call(
        kfp.newest_runs(_LOOKED_AT, predicates=(), experiment_id=group.experiment_id, namespace=kfp_namespace)
    )
    decision = policy.decide(rules, known, history(page.runs, subject.service), time.time())
    if decision.action != "retrain":
        return Look(decision, known)
    run = api.call(
        kfp.create_run(
            pipeline.spec,
            name=policy.run_name(subject.service, decision.key),
            parameters=given,
            platform_spec=pipeline.platform_spec,
            experiment_id=group.experiment_id,
            description="; ".join(decision.reasons)[:500],
        )
    )
    return Look(decision, known, run.run_id)


def history(runs: Sequence[Run], service: str) -> tuple[Attempt, ...]:
    """The service's retrainings among these runs. One that was cancelled has failed."""
    found = []
    for run in runs:
        key = policy.key_in(run.name, service)
        if key and run.created_at is not None:
            states: dict[str, Outcome] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELED": "failed"}
            found.append(Attempt(run.created_at.timestamp(), key, states.get(run.state, "running")))
    return tuple(found)
