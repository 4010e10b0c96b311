"""Which model serves now: the stable one of a service, by what the cluster says."""

from __future__ import annotations

from datetime import datetime

from components.retrain.retraining import Subject
from kanary import kubernetes
from kanary.config import Config
from kanary.errors import InputError
from kanary.kserve import store
from kanary.kserve.status import ServiceStatus, service_status
from kanary.release import State


def serving_model(config: Config, service: str, namespace: str) -> Subject:
    """The service's stable model. InputError where there is no such service, or nobody knows its model's version."""
    with kubernetes.connect(config) as api:
        where = namespace or config.namespace or api.access.namespace
        document, state = api.call(store.both(service, where))
    return subject(service_status(document, state), state)


def subject(status: ServiceStatus, state: State) -> Subject:
    """Whose model it is. It counts as trained when it was released."""
    stable = status.revision(status.stable)
    if stable is None or not stable.version:
        raise InputError(
            f"{status.namespace}/{status.name} has no stable revision whose model version is known",
            "deploy a release first, or name it in spec.predictor.annotations.model-version",
        )
    released = [entry.when for entry in state.history if entry.version == stable.version and entry.when]
    return Subject(
        status.name,
        status.namespace,
        stable.version,
        stable.name,
        canary=status.canary,
        trained_at=datetime.fromisoformat(released[-1]).timestamp() if released else None,
    )
