"""The KFP interface of rollout."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Metrics, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def rollout(
    evidence: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    service: str,
    namespace: str = "",
    policy: dict = {},  # type: ignore[type-arg]  # noqa: B006  # kfp knows the bare type only, and copies it
    run_id: str = "",
    revision: str = "",
) -> NamedTuple("Outputs", [("outcome", str), ("why", str)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Take the service's canary through the policy's steps, judge it at each, promote it or take it back.

    A canary that is taken back or held does not fail the step: its evidence is what the step is for. Killed and
    retried it goes on where it was. It has side effects: do not cache it.

    Args:
        service: The InferenceService.
        namespace: Its namespace; empty: the one this step runs in.
        policy: The `rollout:` section of a project file; empty: the defaults.
        run_id: Id of the run that has deployed the canary: it is left alone if anybody has acted since.
        revision: The canary's revision, from deploy; refused if another one is the canary now. Empty: whatever is.

    Returns:
        outcome: promoted, rolled back or held; first, where the deployment was the service's first release.
        why: The reason, in a sentence.
    """
    from pathlib import Path

    from components.rollout.automation import Request, roll_out
    from components.step import reporting

    with reporting():
        asked = Request(service, namespace, dict(policy), run_id, revision)
        ended = roll_out(asked, Path(evidence.path), Path(report.path), evidence.uri)
        evidence.metadata.update(sha256=ended.sha256, outcome=ended.outcome)
        for name, value in ended.metrics.items():
            metrics.log_metric(name, value)
        return (ended.outcome, ended.why)
