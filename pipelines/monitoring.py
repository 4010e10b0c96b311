"""The monitoring pipeline, to be run again and again: a look at a service, a retraining where that follows, word of it.

retrain (looks, decides, starts the training pipeline) -> unless there is nothing: notify; notify_end if it fails.
"""

# No postponed annotations here: kfp reads the types of a pipeline from live annotations.
from kfp import dsl

from components.notify.component import notify, notify_end
from components.retrain.component import retrain


@dsl.pipeline(
    name="monitoring",
    description="Drift and accuracy of a service: nothing, an alert, or a retraining that goes out as a judged canary.",
)
def monitoring(
    service: str,
    training_uri: str,
    training_parameters: dict,  # type: ignore[type-arg]  # kfp knows the bare type only
    namespace: str = "",
    policy: dict = {},  # type: ignore[type-arg]  # noqa: B006
    experiment: str = "retraining",
    prometheus: dict = {},  # type: ignore[type-arg]  # noqa: B006
    notify_secret: str = "",
) -> None:
    """Look at one service."""
    # A look that fails, such as at a Prometheus that is down, must not be taken for peace.
    failed = notify_end(title="Kanary: a look at a model failed", secret=notify_secret, only_failures=True)
    with dsl.ExitHandler(failed.set_caching_options(False), name="told-if-it-fails"):
        looked = retrain(
            service=service,
            training_uri=training_uri,
            parameters=training_parameters,
            namespace=namespace,
            policy=policy,
            experiment=experiment,
            prometheus=prometheus,
        ).set_caching_options(False)
        with dsl.If(looked.outputs["action"] != "nothing", name="worth-telling"):
            notify(
                title="Kanary: a model needs a look", body=looked.outputs["told"], level="warning", secret=notify_secret
            ).set_caching_options(False)
