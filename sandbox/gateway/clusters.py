"""CDS: one Envoy cluster for each revision, and none that falls back to another revision.

A fallback would answer for a dead canary and hide from the judge exactly what it must see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from sandbox.gateway.description import Revision, Service, revision_key
from sandbox.gateway.files import Document
from sandbox.gateway.kept import Kept

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Below uvicorn's keep-alive of 5 s: otherwise a request can meet a connection that the server is just closing.
_UPSTREAM_IDLE = "3s"
_CONNECT_TIMEOUT = "1s"


def clusters(services: Iterable[Service]) -> dict[str, Document]:
    """The clusters of all revisions, by name (`namespace/service/revision`)."""
    revisions = {
        str(revision_key(service, revision)): revision for service in services for revision in service.revisions
    }
    return _KEPT.all(revisions)


def discovery(resources: Iterable[Document], version: str = "") -> Document:
    """A DiscoveryResponse around `resources` in the order of their names; its version is only shown, by admin pages."""
    return {"version_info": version, "resources": sorted(resources, key=lambda resource: str(resource["name"]))}


def resources(document: Document | None) -> list[Document] | None:
    """What a DiscoveryResponse holds; None where that is nothing Envoy could take."""
    found = document.get("resources") if document else None
    if not isinstance(found, list) or not all(_named(resource) for resource in found):
        return None
    return found


def _named(resource: object) -> bool:
    return isinstance(resource, dict) and all(isinstance(resource.get(key), str) for key in ("@type", "name"))


def digest(value: object) -> str:
    """A short digest of a JSON value, equal for values that were built alike."""
    return hashlib.sha256(json.dumps(value).encode("utf-8")).hexdigest()[:16]


def addresses(cluster: Document) -> tuple[str, ...]:
    """The `address:port` of a cluster's endpoints: one, or none for a revision that is not ready."""
    return tuple(
        "{address}:{port_value}".format(**endpoint["endpoint"]["address"]["socket_address"])
        for locality in cluster["load_assignment"]["endpoints"]
        for endpoint in locality["lb_endpoints"]
    )


def _limits(revision: Revision) -> Document:
    """At most so many requests at once; the next ones wait for a connection, or over HTTP/2 are refused."""
    if not revision.concurrency:
        return {}
    return {"max_requests" if revision.http2 else "max_connections": revision.concurrency}


def _cluster(name: str, revision: Revision) -> Document:
    socket = {"address": revision.address, "port_value": revision.port}
    endpoints = [{"endpoint": {"address": {"socket_address": socket}}}] if revision.ready else []
    return {
        "@type": CLUSTER,
        "name": name,
        "type": "STATIC",
        "connect_timeout": _CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [{"max_retries": 1024} | _limits(revision)]},
        "metadata": {"filter_metadata": {"kanary": {"revision": revision.name}}},
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                "common_http_protocol_options": {"idle_timeout": _UPSTREAM_IDLE},
                "explicit_http_config": {"http2_protocol_options" if revision.http2 else "http_protocol_options": {}},
            }
        },
    }


_KEPT = Kept(_cluster)
