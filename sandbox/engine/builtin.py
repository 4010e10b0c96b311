"""Steps that Kubeflow runs in no container: importers, and the volumes that kfp-kubernetes makes and deletes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.engine.placeholders import RunFacts, TaskFailed, fill
from sandbox.engine.spec import as_text
from sandbox.engine.values import Values
from sandbox.errors import InvalidSpec

_VOLUME_IMAGES = ("argostub/createpvc", "argostub/deletepvc")


def check_importer(importer: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Raise InvalidSpec for an importer that does not say what it imports."""
    uri = importer.get("artifactUri", {})
    if len(found.get("outputDefinitions", {}).get("artifacts", {})) != 1:
        raise InvalidSpec("an importer has one output, an artifact", where)
    if not uri.get("constant") and not uri.get("runtimeParameter"):
        raise InvalidSpec("the importer names no URI", f"{where}.artifactUri")


def run_importer(importer: Mapping[str, Any], found: Mapping[str, Any], inputs: Values, facts: RunFacts) -> Values:
    """The artifact that is imported: known by its URI from now on, not fetched and not looked at."""
    source = importer["artifactUri"]
    named = source.get("runtimeParameter")
    uri = inputs.parameters.get(named) if named else fill(source["constant"], inputs.parameters, facts)
    if not isinstance(uri, str) or not uri:
        raise TaskFailed(f"the importer's URI is empty: input {named!r} has no value" if named else "no URI")
    if "://" not in uri and not Path(uri).is_absolute():
        raise TaskFailed(f"{uri!r} is neither a URI with a scheme nor an absolute path")
    (name,) = found["outputDefinitions"]["artifacts"]
    metadata = fill(importer.get("metadata", {}), inputs.parameters, facts)
    kind = importer.get("typeSchema") or found["outputDefinitions"]["artifacts"][name].get("artifactType", {})
    return Values({}, {name: [{"name": name, "type": kind, "uri": uri, "metadata": metadata}]})


def is_volume_step(container: Mapping[str, Any]) -> bool:
    """Whether a step makes or deletes a PersistentVolumeClaim, which the driver does itself."""
    return container.get("image") in _VOLUME_IMAGES


def run_volume_step(found: Mapping[str, Any], inputs: Values, facts: RunFacts) -> Values:
    """The name of the claim; there is no volume behind it here, and mounting it is reported as without meaning."""
    name = inputs.parameters.get("pvc_name") or f"{facts.run_name}{as_text(inputs.parameters.get('pvc_name_suffix'))}"
    return Values(dict.fromkeys(found.get("outputDefinitions", {}).get("parameters", {}), name))
