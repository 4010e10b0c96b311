"""The rollout pipeline: a published release to production, or back: preflight, fetch -> deploy at 0 % -> rollout."""

# No postponed annotations here: kfp reads the types of a pipeline from live annotations.
from kfp import dsl
from kfp.dsl import base_component

from components.deploy.component import deploy
from components.fetch.component import fetch
from components.preflight.component import preflight
from components.rollout.component import rollout


def rolling_out() -> base_component.BaseComponent:
    """The pipeline."""

    @dsl.pipeline(
        name="rollout",
        description="A published release to production by a policy: fetch, deploy as a canary, roll out, judged.",
    )
    def pipeline(
        release_uri: str,
        service: str,
        namespace: str = "",
        digest: str = "",
        policy: dict = {},  # type: ignore[type-arg]  # noqa: B006  # kfp knows the bare type only
        mode: str = "",
        ready_timeout_s: int = 600,
    ) -> None:
        checked = preflight(rollout_policy=policy)
        fetched = fetch(release_uri=release_uri, digest=digest).set_caching_options(False)
        deployed = deploy(
            release=fetched.outputs["release"],
            service=service,
            namespace=namespace,
            canary_percent=0,
            mode=mode,
            ready_timeout_s=ready_timeout_s,
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        ).set_caching_options(False)
        deployed.after(checked)
        rollout(
            service=service,
            namespace=namespace,
            policy=policy,
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            revision=deployed.outputs["revision"],
        ).set_caching_options(False)

    return pipeline
