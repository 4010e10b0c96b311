"""Manifests that an installation of KServe would have applied: runtimes, applied when the sandbox starts."""

from __future__ import annotations

from pathlib import Path

from sandbox.errors import InvalidSpec, NotFound
from sandbox.kserve.client import CLUSTER_RUNTIMES, CONFIG_MAPS, RUNTIMES, Kind, Kubernetes
from sandbox.kserve.knative import Document

MANAGER = "kanary-sandbox"
_KINDS: dict[tuple[str, str], Kind] = {
    (CLUSTER_RUNTIMES.api_version, "ClusterServingRuntime"): CLUSTER_RUNTIMES,
    (RUNTIMES.api_version, "ServingRuntime"): RUNTIMES,
    (CONFIG_MAPS.api_version, "ConfigMap"): CONFIG_MAPS,
}


def load(path: Path) -> list[Document]:
    """The objects in a YAML file. NotFound where there is none; InvalidSpec for what makes no manifest."""
    import yaml

    try:
        documents = [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found is not None]
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"no YAML: {error}", where=str(path)) from error
    for document in documents:
        if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) not in _KINDS:
            kinds = ", ".join(sorted(kind for _, kind in _KINDS))
            raise InvalidSpec(f"the sandbox applies {kinds} only", where=str(path))
        if not (document.get("metadata") or {}).get("name"):
            raise InvalidSpec("metadata.name is missing", where=str(path))
    return documents


async def apply(client: Kubernetes, documents: list[Document]) -> None:
    """Apply them on the server's side; what others have set in other fields stays."""
    for document in documents:
        kind = _KINDS[document["apiVersion"], document["kind"]]
        namespace = "" if kind == CLUSTER_RUNTIMES else document["metadata"].get("namespace", "default")
        await client.apply(kind, namespace, document["metadata"]["name"], document, MANAGER)
