"""What a URL path means, as kube-apiserver's RequestInfo reads it."""

from __future__ import annotations

from dataclasses import dataclass

VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class ResourcePath:
    """A path below a group and version. `rest` is what follows the subresource; `watch`: the deprecated prefix."""

    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str
    rest: str = ""
    watch: bool = False

    def verb(self, method: str, watch: bool) -> str:
        """The API verb of a request."""
        verb = VERBS.get(method, "")
        if self.name:
            return "watch" if self.watch else verb
        collection = {"get": "watch" if watch or self.watch else "list", "delete": "deletecollection"}
        return collection.get(verb, verb)


def parse(path: str) -> ResourcePath | None:
    """The resource that a path names, None if it names none (discovery, health, ...)."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch = rest[0] == "watch" and len(rest) > 1
    if watch:
        rest = rest[1:]
    namespace = ""
    # /namespaces/NAME/status is about the namespace, /namespaces/NAME/pods about what is in it.
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *tail = [*rest[:3], *[""] * (3 - len(rest[:3])), "/".join(rest[3:])]
    return ResourcePath(group, version, namespace, plural, name, subresource, tail[0], watch)
