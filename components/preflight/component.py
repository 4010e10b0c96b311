"""The KFP interface of preflight."""

from typing import Optional

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def preflight(
    gates: Optional[dict] = None,  # type: ignore[type-arg]  # noqa: UP045  # kfp knows the bare type only
    rollout_policy: Optional[dict] = None,  # type: ignore[type-arg]  # noqa: UP045
    canary_percent: int = 0,
) -> None:
    """Refuse at once what a later step would refuse after hours. Reads and touches nothing.

    Args:
        gates: What evaluate will judge by; not given: there is no evaluate.
        rollout_policy: The `rollout:` section that the rollout will follow; not given: there is no rollout.
        canary_percent: The canary's share in percent, 0 to 99.
    """
    from components.preflight.checks import check
    from components.step import reporting

    with reporting():
        check(gates, rollout_policy, canary_percent)
