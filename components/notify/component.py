"""The KFP interface of notify, as a step and as an exit handler."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def notify(title: str, body: str, level: str = "info", secret: str = "") -> bool:
    """Tell people. Failing to never fails the pipeline. It has side effects: do not cache it.

    Where to: Apprise URLs, one a line, in the key `urls` of a Kubernetes Secret, or in KANARY_NOTIFY_URLS. They hold
    tokens, so they are never a parameter, and no log names them.

    Args:
        title: The subject.
        body: The text.
        level: info, success, warning or failure.
        secret: Name of the Secret, in the namespace that this step runs in.

    Returns:
        Whether everybody was told.
    """
    from components.notify.notification import tell

    told, said = tell(title, body, level, secret)
    print(said)
    return told


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def notify_end(status: PipelineTaskFinalStatus, title: str, secret: str = "", only_failures: bool = False) -> bool:
    """Tell people how a pipeline ended: the exit task of dsl.ExitHandler. Failing to never fails the pipeline.

    Args:
        status: How it ended; KFP fills it in.
        title: The subject.
        secret: Name of the Secret with Apprise URLs, as for notify.
        only_failures: Say nothing of runs that went well.

    Returns:
        Whether everybody was told, or nobody was to be.
    """
    from components.notify.notification import tell

    well = status.state == "SUCCEEDED"
    if well and only_failures:
        print("it went well: nobody is told")
        return True
    why = f": {status.error_message}" if status.error_message else ""
    told, said = tell(
        title,
        f"{status.pipeline_job_resource_name}: {status.state}{why}",
        "success" if well else "failure",
        secret,
    )
    print(said)
    return told
