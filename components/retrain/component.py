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
    prometheus: dict = {},  # type: ignore[type-arg]  # noqa: B006
) -> NamedTuple("Outputs", [("action", str), ("told", str), ("run_id", str)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Decide whether a service's model is trained again, and start that run. It has side effects: do not cache it.

    What comes of the run is a canary, which is judged as any other. Whatever is decided is recorded with its reasons.

    Args:
        service: The InferenceService.
        training_uri: The compiled training pipeline, as a path or URL.
        parameters: Its parameters, service among them. automatic_rollout is true unless they say false: the canary is
            judged by their rollout_policy, and promoted or taken back.
        namespace: The service's namespace; empty: the one this step runs in.
        policy: What asks for a retraining and what holds it back: the fields of kanary.policy.Policy.
        experiment: Where the retrainings' runs are kept: what was done before is read from there.
        prometheus: Where the drift detector's metrics are: the section `rollout.prometheus` of a project file; what it
            leaves open is as Kanary's settings say.

    Returns:
        action: nothing, alert or retrain.
        told: The decision in a sentence or two, for people.
        run_id: Of the training run; empty where none was started.
    """
    import time

    from components.retrain.evidence import query
    from components.retrain.retraining import look
    from components.retrain.service import serving_model
    from components.source import read_text
    from components.step import reporting
    from kanary import config, kfp
    from kanary.api import Client
    from kanary.kfp_spec import read_pipeline
    from kanary.policy import policy as parse
    from kanary.rollout.policy import Policy, entrance
    from kanary.rollout.prometheus import SETTING
    from kanary.rollout_source import opened, with_settings

    with reporting():
        rules = parse(policy)
        given = config.load()
        asked = Policy(prometheus=entrance(prometheus, "the parameter prometheus"))
        entered = with_settings(asked, given).prometheus
        pipeline = read_pipeline(read_text(training_uri), training_uri)
        subject = serving_model(given, service, namespace)
        with opened(entered, given, SETTING) as source:
            samples = source.instant(query(subject.namespace, service, entered.selectors), time.time())
        with Client(kfp.server(given)) as api:
            found = look(api, samples, subject, rules, pipeline, parameters, experiment, given.namespace)
        decision = found.decision
        record.metadata.update(
            decision.as_json() | {"run_id": found.run_id, "verdict": found.evidence.verdict, "version": subject.version}
        )
        told = f"{subject.namespace}/{service} {subject.version}: {decision.action}: {'; '.join(decision.reasons)}"
        print(told)
        return (decision.action, told, found.run_id)
