"""One look at a service: what is known, what was done before, what follows; and the training run, if it does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from components.retrain import evidence as evidences
from kanary import kfp, policy
from kanary.api import Client
from kanary.errors import InputError
from kanary.kfp_spec import Pipeline
from kanary.kfp_types import Run
from kanary.policy import Attempt, Decision, Evidence, Outcome, Policy
from kanary.rollout import policy as policies
from kanary.rollout.prometheus import Sample

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


def training_parameters(pipeline: Pipeline, parameters: Mapping[str, Any], service: str) -> dict[str, Any]:
    """The training run's parameters: its result goes out as a canary that is judged, unless a person is to do that.

    InputError where it would not go out as a canary of that service; ConfigError for a rollout policy that is wrong.
    """
    known = set(pipeline.parameters)
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise InputError(f"the training pipeline has no parameter {unknown[0]!r}", f"it has {', '.join(sorted(known))}")
    given = dict(parameters)
    if "automatic_rollout" in known:
        given.setdefault("automatic_rollout", True)
    automatic = given.get("automatic_rollout") is True
    percent = given.get("canary_percent", 10)
    if given.get("service") != service or not isinstance(percent, int | float) or not 0 <= percent < 100:
        raise InputError(
            f"the retrained model would not go out as a canary of {service}",
            "give the training pipeline service=, and canary_percent= below 100 where automatic_rollout is false",
        )
    if automatic:
        policies.parse(given.get("rollout_policy"), "the rollout policy")
    # KFP hands whole numbers on as floats.
    return {
        name: int(value)
        if isinstance(value, float) and pipeline.parameters[name].get("parameterType") == "NUMBER_INTEGER"
        else value
        for name, value in given.items()
    }


def look(
    api: Client,
    samples: Sequence[Sample],
    subject: Subject,
    rules: Policy,
    pipeline: Pipeline,
    parameters: Mapping[str, Any],
    experiment: str,
    kfp_namespace: str = "",
) -> Look:
    """Decide by what Prometheus said, and start the training pipeline where that follows. Raises KanaryError."""
    given = training_parameters(pipeline, parameters, subject.service)
    found = evidences.evidence(samples, subject.revision)
    known = replace(
        found,
        namespace=subject.namespace,
        service=subject.service,
        version=subject.version,
        trained_at=subject.trained_at,
        canary=subject.canary,
    )
    group = api.call(kfp.ensure_experiment(experiment, namespace=kfp_namespace))
    asked = partial(
        kfp.newest_runs, _LOOKED_AT, predicates=(), experiment_id=group.experiment_id, namespace=kfp_namespace
    )
    decision = policy.decide(rules, known, history(api.call(asked()).runs, subject.service), time.time())
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
    if other := first(api.call(asked()).runs, run):
        # Two looks at once, neither of which could see the other's: the later one gives way.
        api.call(kfp.terminate_run(run.run_id))
        held = f"another look has just begun the retraining {other}"
        return Look(replace(decision, action="alert", reasons=(*decision.reasons, held)), known)
    return Look(decision, known, run.run_id)


def first(runs: Sequence[Run], mine: Run) -> str:
    """The id of the run of the same name that was begun before `mine` and has not ended; empty where it is mine."""

    def begun(run: Run) -> tuple[float, str]:
        return (run.created_at.timestamp() if run.created_at else 0.0, run.run_id)

    alive = [run for run in runs if run.name == mine.name and (run.run_id == mine.run_id or not run.final)]
    oldest = min((*alive, mine), key=begun)
    return "" if oldest.run_id == mine.run_id else oldest.run_id


def history(runs: Sequence[Run], service: str) -> tuple[Attempt, ...]:
    """The service's retrainings among these runs. One that was cancelled has failed."""
    found = []
    for run in runs:
        key = policy.key_in(run.name, service)
        if key and run.created_at is not None:
            states: dict[str, Outcome] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELED": "failed"}
            found.append(Attempt(run.created_at.timestamp(), key, states.get(run.state, "running")))
    return tuple(found)
