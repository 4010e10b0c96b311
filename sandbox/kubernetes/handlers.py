"""One request to one answer: discovery and health, resources by verb, subresources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sandbox.kubernetes import (
    auth,
    deletion,
    discovery,
    logs,
    openapi,
    options,
    patches,
    paths,
    proxy,
    reads,
    registry,
    representation,
    reviews,
    selectors,
    watch,
    writes,
)
from sandbox.kubernetes.auth import User
from sandbox.kubernetes.decode import decode_object
from sandbox.kubernetes.negotiation import YAML, Wanted, check_form, check_watch, negotiate, wants_yaml
from sandbox.kubernetes.paths import ResourcePath
from sandbox.kubernetes.reads import Page
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import (
    ApiError,
    bad_request,
    method_not_allowed,
    not_found,
    page_not_found,
    verb_not_supported,
)
from sandbox.kubernetes.writes import Outcome, Target

if TYPE_CHECKING:
    from sandbox.kubernetes.app import Api

# Clients behind which a person reads: they get indented JSON, as from the real server.
EYES = ("curl", "Wget", "Mozilla/5.0")
HEALTH = ("healthz", "livez", "readyz")
CHECKS = ("ping", "log", "etcd")
# kubectl still asks by the first name; no parser of media types takes that, so the answer bears the second.
PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED_V2 = ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF_V2)


def json_response(
    code: int,
    content: bytes,
    warnings: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    media: str = "application/json",
) -> Response:
    response = Response(content, code, {"Cache-Control": "no-cache, private", **(headers or {})}, media)
    for text in warnings:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.append("Warning", f'299 - "{escaped}"')
    return response


def refuse_anonymous(request: Request) -> None:
    """Raises ApiError 403 unless the path is public."""
    path = request.url.path
    if path in auth.PUBLIC:
        return
    found = paths.parse(path)
    if found is None:
        raise auth.refuse_path(request.method, path)
    verb = found.verb(request.method, options.truth(_query(request).get("watch")))
    plural = f"{found.plural}/{found.subresource}" if found.subresource else found.plural
    raise auth.refuse_resource(verb, found.group, plural, found.name, found.namespace)


def _query(request: Request) -> dict[str, str]:
    return options.first_values(request.query_params.multi_items())


async def dispatch(api: Api, request: Request, user: User, raw: bytes) -> Response:
    """The answer to an authenticated request. Raises ApiError."""
    found = paths.parse(request.url.path)
    if found is None:
        return _about_the_server(api, request)
    if (found.group, found.plural) in reviews.ANSWERS:
        return _review(api, request, user, found, raw)
    if (found.group, found.plural, found.subresource) == ("", "services", "proxy"):
        return await proxy.forward(request, api.cluster.home, found.name, found.rest, raw)
    resource = registry.find(found.group, found.version, found.plural)
    if resource is None and registry.is_builtin(found.group):
        raise _no_such_resource()
    if resource is None or bool(found.namespace) > resource.namespaced:
        raise page_not_found()
    if found.rest:
        raise not_found(resource.group, resource.plural, found.name) if resource.custom else _no_such_resource()
    watched = options.truth(_query(request).get("watch")) or found.watch
    verb = found.verb(request.method, watched)
    if resource.namespaced and not found.namespace and verb not in ("list", "watch"):
        raise page_not_found()
    target = _target(resource, found)
    if resource.log and found.subresource == "log" and verb == "get":
        return await _log(api, request, target)
    return _resource(api, request, target, verb, raw)


def _no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def _target(resource: Resource, found: ResourcePath) -> Target:
    sub = found.subresource
    if sub and not (sub == "status" and resource.status) and not (sub == "log" and resource.log):
        if resource.custom:
            raise not_found(resource.group, resource.plural, found.name)
        if (resource.kind, sub) != ("Namespace", "finalize"):
            raise _no_such_resource()
    return Target(resource, found.namespace, found.name, sub)


def _resource(api: Api, request: Request, target: Target, verb: str, raw: bytes) -> Response:
    resource = target.resource
    _check_verb(target, verb)
    wanted = negotiate(request.headers.get("accept", ""), pretty=_pretty(request))
    match verb:
        case "list":
            check_form(wanted, True, resource.custom)
            page = reads.list_objects(api.cluster, target, options.list_options(_query(request)))
            return _page(api, request, target, page, wanted)
        case "watch":
            return _watch(api, request, target, wanted)
        case "deletecollection":
            return _delete_collection(api, request, target, wanted, raw)
        case "get":
            check_form(wanted, False, resource.custom)
            if options.truth(_query(request).get("export")):
                raise bad_request("the export parameter, deprecated since v1.14, is no longer supported")
            stored = reads.get(api.cluster, target, _query(request).get("resourceVersion", ""))
            return _outcome(api, request, target, Outcome(200, stored.body), wanted)
    return _outcome(api, request, target, _write(api, request, target, verb, raw), wanted)


def _pretty(request: Request) -> bool:
    given = _query(request).get("pretty")
    return request.headers.get("user-agent", "").startswith(EYES) if given is None else options.truth(given)


def _check_verb(target: Target, verb: str) -> None:
    resource = target.resource
    if target.subresource and verb not in ("get", "patch", "update"):
        raise _not_supported(resource, verb)
    if verb not in resource.all_verbs:
        raise _not_supported(resource, verb)
    if not target.name and verb in ("update", "patch"):
        raise bad_request("name must be provided") if resource.custom else method_not_allowed()
    if target.name and verb == "create" and not resource.custom:
        raise method_not_allowed()


def _not_supported(resource: Resource, verb: str) -> ApiError:
    return verb_not_supported(resource.group, resource.plural, verb) if resource.custom else method_not_allowed()


def _write(api: Api, request: Request, target: Target, verb: str, raw: bytes) -> Outcome:
    query, media = _query(request), request.headers.get("content-type", "")
    agent = request.headers.get("user-agent", "")
    match verb:
        case "create":
            chosen = options.write_options(query, "CreateOptions", agent)
            return writes.create(api.cluster, target, decode_object(raw, media, target.resource), chosen)
        case "update":
            chosen = options.write_options(query, "UpdateOptions", agent)
            return writes.replace_object(api.cluster, target, decode_object(raw, media, target.resource), chosen)
        case "patch":
            chosen = options.write_options(query, "PatchOptions", agent, patches.is_apply(media))
            return patches.patch_object(api.cluster, target, raw, media, chosen, query.get("fieldManager", ""))
    return deletion.delete(api.cluster, target, deletion.parse_options(query, raw, media))


def _outcome(api: Api, request: Request, target: Target, outcome: Outcome, wanted: Wanted) -> Response:
    if outcome.whole:
        content = representation.encode(outcome.body, wanted)
    else:
        include = _included(request, wanted)
        content = representation.one(target.resource, outcome.body, wanted, include, api.cluster.clock())
    return json_response(outcome.code, content, outcome.warnings, media=wanted.media)


def _page(api: Api, request: Request, target: Target, page: Page, wanted: Wanted) -> Response:
    include = _included(request, wanted)
    content = representation.listed(target.resource, page, wanted, include, api.cluster.clock())
    return json_response(200, content, media=wanted.media)


def _included(request: Request, wanted: Wanted) -> str:
    """What of each object comes with its row of a table. Raises ApiError 400."""
    given = _query(request).get("includeObject", "")
    if wanted.form == "Table" and given not in ("", "Metadata", "Object", "None"):
        why = f"Invalid value: \"{given}\": must be 'Metadata', 'Object', 'None', or empty"
        raise bad_request(f"Unable to convert to Table as requested: includeObject: {why}")
    return given


def _delete_collection(api: Api, request: Request, target: Target, wanted: Wanted, raw: bytes) -> Response:
    query = _query(request)
    chosen = deletion.parse_options(query, raw, request.headers.get("content-type", ""))
    page = reads.list_objects(api.cluster, target, options.list_options(query))
    deletion.delete_collection(api.cluster, target, page.items, chosen)
    return _page(api, request, target, replace(page, version=api.cluster.store.version), wanted)


def _watch(api: Api, request: Request, target: Target, wanted: Wanted) -> Response:
    query = _query(request)
    check_watch(wanted)
    _included(request, wanted)
    chosen = options.list_options(query, watch=True)
    if target.name:
        chosen = options.named(chosen, target.name)
    # Before the headers go out: what is malformed is a 400, not an event.
    selectors.matcher(chosen.labels, chosen.fields, target.resource)
    lines = watch.stream(
        api.cluster, api.hub, target, chosen, wanted, query.get("includeObject", ""), lambda: api.cut(request.scope)
    )
    return StreamingResponse(lines, 200, {"Cache-Control": "no-cache, private"}, "application/json")


async def _log(api: Api, request: Request, target: Target) -> Response:
    pod, query = writes.current_object(api.cluster, target), _query(request)
    asked = await asyncio.to_thread(logs.part, pod, api.cluster.home, query)
    content: AsyncIterator[bytes] = logs.read(asked, query)
    return StreamingResponse(content, media_type="text/plain")


def _review(api: Api, request: Request, user: User, found: ResourcePath, raw: bytes) -> Response:
    if found.name:
        raise _no_such_resource()
    if request.method != "POST":
        raise method_not_allowed()
    wanted = negotiate(request.headers.get("accept", ""), pretty=_pretty(request))
    agent = request.headers.get("user-agent", "")
    chosen = options.write_options(_query(request), "CreateOptions", agent)
    media = request.headers.get("content-type", "")
    answer, warnings = reviews.answer(found.group, found.plural, raw, media, user, api.cluster.now(), chosen)
    return json_response(201, representation.encode(answer, wanted), warnings, media=wanted.media)


def _about_the_server(api: Api, request: Request) -> Response:
    parts = request.url.path.strip("/").split("/")
    if parts[0] in HEALTH:
        return _health(request, parts)
    if parts == ["version"]:
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        return json_response(200, representation.dump(discovery.VERSION))
    if parts[0] == "openapi":
        return _openapi(request, parts[1:])
    document = _discovered(api, request, parts)
    if document is None:
        raise page_not_found()
    return document


def _health(request: Request, parts: list[str]) -> Response:
    if len(parts) > 2 or (len(parts) == 2 and parts[1] not in CHECKS):
        raise page_not_found()
    if len(parts) == 1 and "verbose" in _query(request):
        lines = "".join(f"[+]{check} ok\n" for check in CHECKS)
        return Response(f"{lines}{parts[0]} check passed\n", media_type="text/plain")
    return Response("ok", media_type="text/plain")


def _discovered(api: Api, request: Request, parts: list[str]) -> Response | None:
    accept = request.headers.get("accept", "")
    if parts in (["api"], ["apis"]) and "as=APIGroupDiscoveryList" in accept and "v=v2;" in accept:
        found: dict[str, Any] | None = discovery.aggregated(core=parts == ["api"])
        headers = {"ETag": f'"{discovery.etag(found or {})}"', "Vary": "Accept"}
        return json_response(200, representation.dump(found), headers=headers, media=discovery.AGGREGATED)
    if parts in (["api"], ["apis"]):
        negotiate(accept)
    match parts:
        case ["api"]:
            found = discovery.api_versions(api.server)
        case ["apis"]:
            found = discovery.groups()
        case ["api", version]:
            found = discovery.resources("", version)
        case ["apis", group]:
            found = discovery.group(group)
        case ["apis", group, version]:
            found = discovery.resources(group, version)
        case _:
            found = None
    if found is None:
        return None
    if parts[0] == "api" and len(parts) == 2 and request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    if wants_yaml(accept):
        return json_response(200, representation.encode(found, Wanted(media=YAML)), media=YAML)
    return json_response(200, representation.dump(found))


def _openapi(request: Request, parts: list[str]) -> Response:
    match parts:
        case ["v2"] if any(name in request.headers.get("accept", "") for name in ASKED_V2):
            return json_response(200, openapi.v2_protobuf(), media=PROTOBUF_V2)
        case ["v2"]:
            return json_response(200, representation.dump(openapi.v2_json()))
        case ["v3"]:
            # Sic: the real server says so.
            return json_response(200, representation.dump(openapi.index()), media="text/plain; charset=utf-8")
        case ["v3", "version"]:
            return json_response(
                200, b'{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"v1.36.2"},"paths":{}}'
            )
        case ["v3", "api", version]:
            content = _document("", version)
        case ["v3", "apis", group, version]:
            content = _document(group, version)
        case _:
            raise page_not_found()
    headers = {"ETag": f'"{openapi.digest(content)}"', "Vary": "Accept"}
    return json_response(200, content, headers=headers)


def _document(group: str, version: str) -> bytes:
    try:
        return openapi.document(group, version)
    except KeyError:
        raise page_not_found() from None
