"""One rollout as a pipeline step: kanary.rollout runs it, what it leaves becomes the step's artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.files import replacing, write_text
from components.rollout.report import report_page
from kanary import config, kubernetes
from kanary.errors import KanaryError
from kanary.kserve import store
from kanary.kserve.status import service_status
from kanary.rollout import acts
from kanary.rollout import bundle as bundles
from kanary.rollout import policy as policies
from kanary.rollout import record as records
from kanary.rollout.record import Record
from kanary.rollout.run import Target, rollout
from kanary.rollout_source import opened, with_settings

FIRST = "first"


@dataclass(frozen=True)
class Request:
    """What is asked of the step; see kanary.rollout.policy for `policy`."""

    service: str
    namespace: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Ended:
    """How it ended. `sha256` is the evidence bundle's."""

    outcome: str
    why: str
    sha256: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


def roll_out(asked: Request, evidence: Path, report: Path, evidence_uri: str = "") -> Ended:
    """Runs the rollout, writes the bundle to `evidence` and the page to `report`, and their hash beside the rollout.

    Raises ConfigError for a policy that is wrong, before anything is touched; what kanary.rollout.run.rollout raises.
    """
    settings = config.load({"namespace": asked.namespace} if asked.namespace else {})
    policy = with_settings(policies.parse(asked.policy, "the parameter policy"), settings)
    with kubernetes.connect(settings) as api, opened(policy.prometheus, settings) as prometheus:
        namespace = settings.namespace or api.access.namespace or "default"
        target = Target(asked.service, namespace, asked.run_id)
        if is_first(api, target, asked.revision):
            return _first(evidence, report)
        record = rollout(api, prometheus, target, policy, say=lambda text: print(text, flush=True))
        document = bundles.bundle(record, asked.service, namespace)
        content = bundles.written(document)
        with replacing(evidence) as beside:
            beside.write_bytes(content)
        write_text(report, report_page(document, bundles.sha256(content)))
        sha256 = bundles.sha256(content)
        api.call(acts.keep_evidence(asked.service, namespace, record, evidence_uri, sha256))
    return Ended(record.outcome, record.why, bundles.sha256(content), _metrics(record))


def is_first(api: kubernetes.Kubernetes, target: Target, revision: str) -> bool:
    """Whether the deployment was the service's first release, which has taken all traffic already.

    Raises KanaryError where another revision than the one deployed is the canary now.
    """
    service, state = api.call(store.both(target.service, target.namespace))
    status, record = service_status(service, state), records.find(state)
    if revision and status.canary and status.canary != revision:
        raise KanaryError(
            f"The canary of {target.namespace}/{target.service} is {status.canary}, not {revision}.",
            "Somebody has deployed since: that deployment's own run rolls it out.",
        )
    known = record is not None and revision in (record.canary, record.stable)
    return not known and not status.canary and status.split == {revision: 100}


def _first(evidence: Path, report: Path) -> Ended:
    why = "the first release of a service takes all traffic: there is nothing to compare it with"
    print(why, flush=True)
    content = bundles.written({"format": bundles.FORMAT, "outcome": FIRST, "why": why})
    with replacing(evidence) as beside:
        beside.write_bytes(content)
    write_text(report, report_page({"outcome": FIRST, "why": why}, bundles.sha256(content)))
    return Ended(FIRST, why, bundles.sha256(content))


def _metrics(record: Record) -> dict[str, float]:
    """Figures for the Kubeflow UI's list of runs."""
    canary = sum(step.canary.requests for step in record.steps)
    errors = sum(step.canary.errors for step in record.steps)
    found = {"canary_requests": float(canary), "canary_errors": float(errors), "steps": float(len(record.steps))}
    return found | ({"canary_error_rate": errors / canary} if canary else {})
