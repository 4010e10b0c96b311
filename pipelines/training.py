"""The training pipeline: raw data to a released model and its canary, or a refusal with its reasons.

preflight, ingest -> validate -> split -> train -> evaluate -> if every gate passed: package -> if a service is named:
deploy, and with automatic_rollout the canary's rollout by rollout_policy.
"""

# No postponed annotations here: kfp reads the types of a pipeline from live annotations.
from dataclasses import dataclass

from kfp import dsl
from kfp.dsl import base_component

from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.package.component import package
from components.preflight.component import preflight
from components.rollout.component import rollout
from components.split.component import split
from components.train.component import train
from components.validate.component import validate


@dataclass(frozen=True)
class Resources:
    """What the training step asks of the cluster: whole GPUs; CPU and memory as Kubernetes quantities, "" for none."""

    gpus: int = 0
    gpu_type: str = "nvidia.com/gpu"
    cpu: str = ""
    memory: str = ""


def training(resources: Resources = Resources()) -> base_component.BaseComponent:
    """The pipeline, its training step asking for `resources`."""

    @dsl.pipeline(
        name="training",
        description="Raw data to a PyTorch model in canary: ingest, validate, split, train, evaluate, package, deploy.",
    )
    def pipeline(
        name: str,
        data_uri: str,
        schema_uri: str,
        gates: dict,  # type: ignore[type-arg]  # kfp knows the bare type only
        version: str = "",
        releases_uri: str = "",
        service: str = "",
        namespace: str = "",
        canary_percent: int = 10,
        automatic_rollout: bool = False,
        rollout_policy: dict = {},  # type: ignore[type-arg]  # noqa: B006  # kfp knows the bare type only
        test_fraction: float = 0.2,
        split_by: str = "random",
        split_seed: int = 0,
        seed: int = 0,
        epochs: int = 100,
        hidden: list = [64, 32],  # type: ignore[type-arg]  # noqa: B006
        learning_rate: float = 0.001,
    ) -> None:
        # Beside ingest, so that it costs no time.
        checked = preflight(gates=gates, rollout_policy=rollout_policy, canary_percent=canary_percent)
        # What these two read can change behind an unchanged URI, which the cache cannot see.
        ingested = ingest(uri=data_uri).set_caching_options(False)
        validated = validate(dataset=ingested.outputs["dataset"], schema_uri=schema_uri).set_caching_options(False)
        validated.after(checked)
        # A seed of its own: models of other seeds are then judged on the same rows.
        parts = split(
            dataset=validated.outputs["validated"],
            schema=validated.outputs["schema"],
            test_fraction=test_fraction,
            seed=split_seed,
            by=split_by,
        )
        trained = train(
            train_set=parts.outputs["train_set"],
            schema=validated.outputs["schema"],
            name=name,
            version=version,
            seed=seed,
            epochs=epochs,
            hidden=hidden,
            learning_rate=learning_rate,
        )
        _ask_for(trained, resources)
        evaluated = evaluate(test_set=parts.outputs["test_set"], model=trained.outputs["model"], gates=gates)
        with dsl.If(evaluated.outputs["passed"] == True, name="gates-passed"):  # noqa: E712
            packaged = package(
                model=trained.outputs["model"],
                metrics=evaluated.outputs["metrics"],
                verdicts=evaluated.outputs["verdicts"],
                releases_uri=releases_uri,
                run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                data_sha256=ingested.outputs["sha256"],
            ).set_caching_options(False)
            with dsl.If(service != "", name="service-given"):
                with dsl.If(automatic_rollout == False, name="by-hand"):  # noqa: E712
                    deploy(
                        release=packaged.outputs["release"],
                        service=service,
                        namespace=namespace,
                        canary_percent=canary_percent,
                        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                    ).set_caching_options(False)
                with dsl.Else(name="automatic"):
                    deployed = deploy(
                        release=packaged.outputs["release"],
                        service=service,
                        namespace=namespace,
                        canary_percent=0,
                        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                    ).set_caching_options(False)
                    rollout(
                        service=service,
                        namespace=namespace,
                        policy=rollout_policy,
                        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                        revision=deployed.outputs["revision"],
                    ).set_caching_options(False)

    return pipeline


def _ask_for(task: dsl.PipelineTask, resources: Resources) -> None:
    if resources.gpus:
        task.set_accelerator_type(resources.gpu_type).set_accelerator_limit(resources.gpus)
    if resources.cpu:
        task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    if resources.memory:
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
