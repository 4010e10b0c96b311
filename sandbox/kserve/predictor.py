"""From an InferenceService to what it wishes for: the templates that KServe would hand to Knative, or why it cannot."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.kserve import config as configuration
from sandbox.kserve import transformer
from sandbox.kserve.config import KNATIVE, Config
from sandbox.kserve.decide import Asked, Wish
from sandbox.kserve.knative import Document, Template
from sandbox.kserve.runtimes import NoRuntime, Runtime, choose, container, fill
from sandbox.kserve.status import PREDICTOR, TRANSFORMER, Names, Urls
from sandbox.kserve.template import FRAMEWORKS, NOT_EMULATED, Refused, problem_of, storage_uri, template

STOP_ANNOTATION = "serving.kserve.io/stop"
# With "true" a service that is ready is left as it is, whatever its spec says.
FREEZE_ANNOTATION = "serving.kserve.io/disable-auto-update"


def wish(isvc: Document, available: Sequence[Runtime], config: Config, urls: Urls) -> Wish:
    """What `isvc` asks for, with `available` the runtimes it may use."""
    metadata, spec = isvc["metadata"], isvc.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    mode = configuration.mode(isvc, config)
    names, made, problem = Names(urls), None, None
    try:
        _check_emulated(isvc, mode)
        names, made = pod_template(isvc, spec.get("predictor") or {}, available, config, names)
    except (Refused, NoRuntime) as refusal:
        problem = problem_of(refusal)
    percent = (spec.get("predictor") or {}).get("canaryTrafficPercent")
    components = {PREDICTOR: Asked(service_name(isvc), made, problem, percent)}
    if spec.get(TRANSFORMER):
        components[TRANSFORMER] = transformer.asked(isvc, config, service_name(isvc))
    return Wish(
        name=metadata["name"],
        names=names,
        components=components,
        stopped=annotations.get(STOP_ANNOTATION, "").lower() == "true",
        frozen=FREEZE_ANNOTATION not in config.annotations and annotations.get(FREEZE_ANNOTATION) == "true",
        mode=mode,
    )


def kinds(isvc: Document) -> tuple[str, ...]:
    """The components that `isvc` asks for, in KServe's order."""
    return (PREDICTOR, TRANSFORMER) if (isvc.get("spec") or {}).get(TRANSFORMER) else (PREDICTOR,)


def service_name(isvc: Document) -> str:
    """The name of the Knative Service: <name>-predictor, or <name>-<variant>-predictor where the predictor is named."""
    variant = ((isvc.get("spec") or {}).get("predictor") or {}).get("name")
    return "-".join(part for part in (isvc["metadata"]["name"], variant, "predictor") if part)


def _check_emulated(isvc: Document, mode: str) -> None:
    if mode != KNATIVE:
        text = f"the sandbox does not emulate the deployment mode {mode}"
        hint = "annotate a new InferenceService with serving.kserve.io/deploymentMode: Knative, or Standard"
        raise Refused(f"{text}; {hint}", NOT_EMULATED)
    spec = isvc.get("spec") or {}
    for field in ("explainer", "canary"):
        if spec.get(field):
            raise Refused(f"spec.{field}: the sandbox does not emulate it in Knative mode", NOT_EMULATED)
    for field in ("workerSpec", "storageUris", "storageContainerName"):
        if (spec.get("predictor") or {}).get(field):
            raise Refused(f"spec.predictor.{field}: the sandbox does not emulate it", NOT_EMULATED)


def pod_template(
    isvc: Document, predictor: Document, available: Sequence[Runtime], config: Config, names: Names
) -> tuple[Names, Template]:
    """The pod template of `predictor`, one of `isvc`'s, and `names` with the runtime. Raises Refused and NoRuntime."""
    model = model_of(predictor)
    if model is None:
        main, *others = predictor.get("containers") or [{}]
        return names, template(isvc, predictor, PREDICTOR, [main, *others], storage_uri(main), config)
    runtime = choose(model, available)
    if model.get("storage"):
        raise Refused("spec.predictor.model.storage: give a storageUri instead", NOT_EMULATED)
    main = _filled(container(runtime, model), isvc["metadata"])
    containers = [main, *(predictor.get("containers") or [])]
    made = template(isvc, predictor, PREDICTOR, containers, model.get("storageUri", ""), config, runtime)
    return Names(names.urls, runtime.name, runtime.cluster), made


def model_of(predictor: Document) -> Document | None:
    """spec.predictor.model; a framework's own field is what KServe's webhook would have made a model of."""
    if "model" in predictor:
        found: Document = predictor["model"]
        return found
    for name in FRAMEWORKS:
        if name in predictor:
            return dict(predictor[name] or {}) | {"modelFormat": {"name": name}}
    return None


def _filled(main: Document, metadata: Document) -> Document:
    try:
        return fill(main, metadata)
    except ValueError as error:
        text = f"failed to replace placeholders in serving runtime container {main.get('name')}"
        raise NoRuntime("InvalidPredictorSpec", text, f"{text}: {error}") from error
