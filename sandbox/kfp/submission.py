"""Makes a run of what a request, or a schedule, asks for; refuses what could not run, saying where. Starts nothing."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sandbox.documents import PipelineDocument, pipeline_of
from sandbox.engine.spec import bind_parameters
from sandbox.errors import InvalidSpec, Unsupported
from sandbox.kfp import macros
from sandbox.kfp.messages import message, text
from sandbox.kfp.service import Service
from sandbox.kfp.shape import check_pipeline
from sandbox.runstore.catalog import Experiment
from sandbox.runstore.recurring import RecurringRun
from sandbox.runstore.store import Run


@dataclass(frozen=True)
class Source:
    """The pipeline to run, checked, and the ids of pipeline and version where it comes from kept ones."""

    document: PipelineDocument
    pipeline_id: str = ""
    version_id: str = ""


@dataclass(frozen=True)
class Config:
    """A request's `runtime_config`."""

    parameters: dict[str, Any]
    pipeline_root: str


def requested_run(service: Service, fields: dict[str, Any]) -> Run:
    """The run that the fields of a request describe. Raises InvalidSpec and NotFound."""
    name = text(fields, "display_name", "run", 128)
    if not name:
        raise InvalidSpec("the run's name is empty", "run.display_name")
    experiment = experiment_of(service, fields, "run")
    source = source_of(service, fields, "run")
    config = config_of(fields)
    now = service.clock()
    run_id = str(uuid.uuid4())
    facts = macros.Facts(run_id, now)
    return Run(
        run_id=run_id,
        experiment_id=experiment.experiment_id,
        display_name=name,
        description=text(fields, "description", "run"),
        namespace=experiment.namespace,
        pipeline_id=source.pipeline_id,
        pipeline_version_id=source.version_id,
        spec=source.document.spec,
        platform_spec=source.document.platform_spec,
        parameters=_bound(source.document, config.parameters, facts),
        pipeline_root=_local_root(config.pipeline_root or source.document.spec.get("defaultPipelineRoot", ""), service),
        created_at=now,
        scheduled_at=now,
        state_history=[{"state": "PENDING", "update_time": now, "error": ""}],
        service_account=text(fields, "service_account", "run"),
    )


def scheduled_run(service: Service, record: RecurringRun, scheduled_at: float, now: float) -> Run:
    """The run of a recurring run that is due. Raises InvalidSpec and NotFound: what it is made from may be gone."""
    experiment = service.catalog.experiment(record.experiment_id)
    if record.spec:
        source = Source(
            PipelineDocument(record.spec, record.platform_spec), record.pipeline_id, record.pipeline_version_id
        )
        check_pipeline(source.document)
    else:
        source = _kept(service, record.pipeline_id, record.pipeline_version_id)
    index = record.last_index + 1
    run_id = str(uuid.uuid4())
    root = record.pipeline_root or source.document.spec.get("defaultPipelineRoot", "")
    return Run(
        run_id=run_id,
        experiment_id=record.experiment_id,
        display_name=_name(record, index),
        namespace=experiment.namespace,
        pipeline_id=source.pipeline_id,
        pipeline_version_id=source.version_id,
        spec=source.document.spec,
        platform_spec=source.document.platform_spec,
        parameters=_bound(source.document, record.parameters, macros.Facts(run_id, now, scheduled_at, index)),
        pipeline_root=_local_root(root, service),
        created_at=now,
        scheduled_at=scheduled_at,
        state_history=[{"state": "PENDING", "update_time": now, "error": ""}],
        service_account=record.service_account,
        recurring_run_id=record.recurring_run_id,
    )


def _name(record: RecurringRun, index: int) -> str:
    """NAME-INDEX-HASH, as KFP names the runs of a schedule."""
    digest = 2166136261  # FNV-1a, 32 bits
    for byte in f"{record.recurring_run_id}-{index}".encode():
        digest = (digest ^ byte) * 16777619 % 2**32
    return f"{record.display_name[:100]}-{index}-{digest}"


def experiment_of(service: Service, fields: dict[str, Any], kind: str) -> Experiment:
    """The experiment that a request names, or the default one. Raises NotFound."""
    experiment_id = text(fields, "experiment_id", kind)
    catalog = service.catalog
    return catalog.experiment(experiment_id) if experiment_id else catalog.default_experiment()


def config_of(fields: dict[str, Any]) -> Config:
    """The runtime configuration of a request; which parameters there are is not asked yet. Raises InvalidSpec."""
    config = message(fields.get("runtime_config", {}), "runtime_config", ("parameters", "pipeline_root"))
    parameters = config.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidSpec("not an object", "runtime_config.parameters")
    return Config(parameters, text(config, "pipeline_root", "runtime_config"))


def source_of(service: Service, fields: dict[str, Any], kind: str) -> Source:
    """The pipeline that a request names or brings along, checked. Raises InvalidSpec and NotFound."""
    reference = message(
        fields.get("pipeline_version_reference", {}),
        "pipeline_version_reference",
        ("pipeline_id", "pipeline_version_id"),
    )
    pipeline_id = text(reference, "pipeline_id", "pipeline_version_reference")
    version_id = text(reference, "pipeline_version_id", "pipeline_version_reference")
    version_id = version_id or text(fields, "pipeline_version_id", kind)
    if "pipeline_spec" in fields:
        if pipeline_id or version_id:
            raise InvalidSpec("give either pipeline_spec or pipeline_version_reference, not both", kind)
        document = pipeline_of(fields["pipeline_spec"], "pipeline_spec")
        check_pipeline(document)
        return Source(document)
    if not pipeline_id and not version_id:
        raise InvalidSpec("give pipeline_spec or pipeline_version_reference", kind)
    return _kept(service, pipeline_id, version_id)


def _kept(service: Service, pipeline_id: str, version_id: str) -> Source:
    version = service.catalog.version(pipeline_id, version_id)
    document = PipelineDocument(version.spec, version.platform_spec)
    check_pipeline(document)
    return Source(document, version.pipeline_id, version.pipeline_version_id)


def _bound(document: PipelineDocument, parameters: dict[str, Any], facts: macros.Facts) -> dict[str, Any]:
    given = {name: macros.filled(value, facts) for name, value in parameters.items()}
    return bind_parameters(document.spec, given)


def check_request(service: Service, source: Source, config: Config) -> None:
    """Raises InvalidSpec where a run of that pipeline with that configuration would be refused."""
    _bound(source.document, config.parameters, macros.Facts("", 0.0, 0.0, 1))
    _local_root(config.pipeline_root or source.document.spec.get("defaultPipelineRoot", ""), service)


def _local_root(root: Any, service: Service) -> str:
    """Where the run's artifacts go: an absolute folder. Raises Unsupported for stores the sandbox does not have."""
    if not isinstance(root, str):
        raise InvalidSpec("not a string", "pipeline_root")
    try:
        parts = urlsplit(root)
    except ValueError:
        raise InvalidSpec(f"{root!r} is not a URL or a path", "pipeline_root") from None
    if parts.scheme not in ("", "file") or parts.netloc:
        raise Unsupported(
            f"{root!r}: the sandbox keeps artifacts in local folders",
            "pipeline_root",
            "Leave the pipeline root out, or give an absolute path.",
        )
    path = Path(unquote(parts.path) if parts.scheme else root) if root else service.artifacts
    if not path.is_absolute() or "\0" in str(path):
        raise InvalidSpec(f"{root!r} is not an absolute path", "pipeline_root")
    return str(path)
