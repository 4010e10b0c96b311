"""The KFP interface of retrain."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Metrics, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def retrain(
    service: str,
    training_uri: str,
    parameters: dict,  # type: ignore[type-arg]  # kfp knows the bare type only
    record: Output[Metrics],
    namespace: str = "",
    policy: dict = {},  # type: ignore[type-arg]  # noqa: B006
    experiment: str = "retraining",
    prometheus_url: str = "",
) -> NamedTuple("Outputs", [("action", str), ("told", str), ("run_id", str)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Decide whether a service's model is trained again, and start that run. It has side effects: do not cache it.

    What comes of the run is a canary, which is judged as any other. Whatever is decided is recorded with its reasons.

    Args:
        service: The InferenceService.
        training_uri: The compiled training pipeline, as a path or URL.
        parameters: Its parameters; service and canary_percent below 100 must be among them.
        namespace: The service's namespace; empty: the one this step runs in.
        policy: What asks for a retraining and what holds it back: the fields of kanary.policy.Policy.
        experiment: Where the retrainings' runs are kept: what was done before is read from there.
        prometheus_url: Where the drift detector's metrics are; empty: what the environment says.

    Returns:
        action: nothing, alert or retrain.
        told: The decision in a sentence or two, for people.
        run_id: Of the training run; empty where none was started.
    """
    from components.retrain.evidence import prometheus
    from components.retrain.retraining import look
    from components.retrain.service import serving_model
    from components.source import read_text
    from components.step import reporting
    from kanary import config, kfp
    from kanary.api import Client
    from kanary.kfp_spec import read_pipeline
    from kanary.policy import policy as parse

    with reporting():
        rules = parse(policy)
        given = config.load({"prometheus_url": prometheus_url} if prometheus_url else {})
        pipeline = read_pipeline(read_text(training_uri), training_uri)
        subject = serving_model(given, service, namespace)
        with Client(kfp.server(given)) as api:
            ask = prometheus(given.prometheus_url)
            found = look(api, ask, subject, rules, pipeline, parameters, experiment, given.namespace)
        decision = found.decision
        record.metadata.update(
            decision.as_json() | {"run_id": found.run_id, "verdict": found.evidence.verdict, "version": subject.version}
        )
        told = f"{subject.namespace}/{service} {subject.version}: {decision.action}: {'; '.join(decision.reasons)}"
        print(told)
        return (decision.action, told, found.run_id)
