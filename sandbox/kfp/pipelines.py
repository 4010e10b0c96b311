"""Handlers of /apis/v2beta1/pipelines: uploads, pipelines, versions. A pipeline is checked before it is kept."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from sandbox.documents import PipelineDocument, parse_pipeline, pipeline_of, unpack
from sandbox.errors import InvalidSpec
from sandbox.kfp import tags
from sandbox.kfp.download import download
from sandbox.kfp.messages import apart, bounded, message, read_message, reply, text
from sandbox.kfp.service import Service
from sandbox.kfp.shape import check_pipeline
from sandbox.kfp.wire import pipeline_json, version_json
from sandbox.runstore.catalog import PipelineVersion
from sandbox.runstore.listing import PIPELINES, VERSIONS, parse_query, shown_time

_PIPELINE_FIELDS = frozenset(
    {"pipeline_id", "display_name", "name", "description", "created_at", "namespace", "error", "tags"}
)
_VERSION_FIELDS = frozenset(
    {
        "pipeline_id",
        "pipeline_version_id",
        "display_name",
        "name",
        "description",
        "created_at",
        "package_url",
        "code_source_url",
        "pipeline_spec",
        "error",
        "tags",
    }
)


async def upload(service: Service, request: Request) -> Response:
    """A pipeline and its first version from an uploaded file."""
    file_name, document = await _uploaded(request)
    given = request.query_params
    version = _version_of(given, "", file_name, document)
    with service.store.database.transaction():
        pipeline = service.catalog.create_pipeline(
            version.name,
            version.display_name,
            version.description,
            bounded(given.get("namespace", ""), 63, "namespace"),
            tags.parsed(given.get("tags", ""), "tags"),
        )
        service.catalog.create_version(replace(version, pipeline_id=pipeline.pipeline_id))
    return reply(pipeline_json(pipeline))


async def upload_version(service: Service, request: Request) -> Response:
    """A further version of the pipeline named by `pipelineid`."""
    file_name, document = await _uploaded(request)
    pipeline_id = request.query_params.get("pipelineid", "")
    if not pipeline_id:
        raise InvalidSpec("the pipeline's id is missing", "pipelineid")
    version = _version_of(request.query_params, pipeline_id, file_name, document)
    version = replace(version, tags=tags.parsed(request.query_params.get("tags", ""), "tags"))
    service.catalog.create_version(version)
    return reply(version_json(version))


async def _uploaded(request: Request) -> tuple[str, PipelineDocument]:
    """The name and content of the multipart field `uploadfile`, checked. Raises InvalidSpec."""
    async with request.form(max_files=1, max_fields=10) as form:
        part = form.get("uploadfile")
        if not isinstance(part, UploadFile):
            raise InvalidSpec("the multipart field is missing", "uploadfile")
        name, content = part.filename or "", await part.read()
    # YAML of a few megabytes takes seconds to read; other requests go on meanwhile.
    return name, await asyncio.to_thread(_read, name, content)


def _read(name: str, content: bytes, where: str = "uploadfile") -> PipelineDocument:
    document = parse_pipeline(unpack(name, content), where)
    check_pipeline(document)
    return document


def _version_of(
    given: Mapping[str, str], pipeline_id: str, file_name: str, document: PipelineDocument
) -> PipelineVersion:
    name = given.get("name") or given.get("display_name") or file_name
    return PipelineVersion(
        pipeline_version_id=str(uuid.uuid4()),
        pipeline_id=pipeline_id,
        name=bounded(name, 127, "name"),
        display_name=given.get("display_name") or name,
        description=given.get("description", ""),
        code_source_url=given.get("code_source_url", ""),
        created_at=shown_time(time.time()),
        spec=document.spec,
        platform_spec=document.platform_spec,
    )


async def create(service: Service, request: Request) -> Response:
    """A pipeline without versions."""
    fields = await read_message(request, "pipeline", _PIPELINE_FIELDS)
    return reply(pipeline_json(service.catalog.create_pipeline(*_named(fields))))


def _named(fields: dict[str, Any]) -> tuple[str, str, str, str, dict[str, str]]:
    """Name, display name, description, namespace and tags of a pipeline message. Raises InvalidSpec."""
    display_name = text(fields, "display_name", "pipeline", 128)
    name = text(fields, "name", "pipeline", 128) or display_name
    if not name:
        raise InvalidSpec("the pipeline's name is empty", "pipeline.display_name")
    namespace = text(fields, "namespace", "pipeline", 63)
    description = text(fields, "description", "pipeline")
    given = tags.checked(fields.get("tags", {}), "pipeline.tags")
    return name, display_name or name, description, namespace, given


async def update(service: Service, request: Request) -> Response:
    """Changes what may change: the display name and, where they are given, all tags."""
    fields = await read_message(request, "pipeline", _PIPELINE_FIELDS)
    found = service.catalog.pipeline(request.path_params["pipeline_id"])
    name = text(fields, "display_name", "pipeline", 128) or found.display_name
    given = tags.checked(fields.get("tags", found.tags), "pipeline.tags")
    found = replace(found, display_name=name, tags=given)
    service.catalog.update_pipeline(found)
    return reply(pipeline_json(found))


async def update_version(service: Service, request: Request) -> Response:
    """Changes what may change: the display name and, where they are given, all tags."""
    fields = await read_message(request, "pipeline_version", _VERSION_FIELDS)
    wanted = request.path_params
    found = service.catalog.version(wanted["pipeline_id"], wanted["pipeline_version_id"])
    name = text(fields, "display_name", "pipeline_version", 128) or found.display_name
    given = tags.checked(fields.get("tags", found.tags), "pipeline_version.tags")
    found = replace(found, display_name=name, tags=given)
    service.catalog.update_version(found)
    return reply(version_json(found))


async def create_with_version(service: Service, request: Request) -> Response:
    """A pipeline and its first version, which is at a URL."""
    fields = await read_message(request, "body", {"pipeline", "pipeline_version"})
    given = message(fields.get("pipeline", {}), "pipeline", _PIPELINE_FIELDS)
    wanted = message(fields.get("pipeline_version", {}), "pipeline_version", _VERSION_FIELDS)
    pipeline = _named(given)
    version = await _from_url(wanted, "")
    with service.store.database.transaction():
        made = service.catalog.create_pipeline(*pipeline)
        service.catalog.create_version(replace(version, pipeline_id=made.pipeline_id))
    return reply(pipeline_json(made))


async def create_version(service: Service, request: Request) -> Response:
    """A version from a URL, as with the real server, or from the spec in the request."""
    fields = await read_message(request, "pipeline_version", _VERSION_FIELDS)
    pipeline_id = request.path_params["pipeline_id"]
    if "pipeline_spec" not in fields:
        service.catalog.pipeline(pipeline_id)
        version = await _from_url(fields, pipeline_id)
    else:
        document = pipeline_of(fields["pipeline_spec"], "pipeline_spec")
        await apart(request, check_pipeline, document)
        version = _version_of(_texts(fields), pipeline_id, "", document)
    if not version.name:
        raise InvalidSpec("the version's name is empty", "pipeline_version.display_name")
    version = replace(version, tags=tags.checked(fields.get("tags", {}), "pipeline_version.tags"))
    service.catalog.create_version(version)
    return reply(version_json(version))


async def _from_url(fields: dict[str, Any], pipeline_id: str) -> PipelineVersion:
    """The version that lies at the `package_url` of a pipeline_version."""
    package = message(fields.get("package_url", {}), "pipeline_version.package_url", {"pipeline_url"})
    where = "pipeline_version.package_url.pipeline_url"
    url = text(package, "pipeline_url", "pipeline_version.package_url", 4096)
    if not url:
        raise InvalidSpec("the URL is missing", where)
    name, content = await download(url, where)
    # What is no archive is text, whatever the URL ends with.
    kind = "archive" if content.startswith((b"PK\x03\x04", b"\x1f\x8b")) else "pipeline.yaml"
    return _version_of(_texts(fields), pipeline_id, name, await asyncio.to_thread(_read, kind, content, where))


def _texts(fields: dict[str, Any]) -> dict[str, str]:
    return {
        name: text(fields, name, "pipeline_version")
        for name in ("name", "display_name", "description", "code_source_url")
    }


async def listed(service: Service, request: Request) -> Response:
    query = parse_query(PIPELINES, request.query_params)
    page = service.catalog.list_pipelines(query.where("namespace", request.query_params.get("namespace", "")))
    return reply(
        {
            "pipelines": [pipeline_json(pipeline) for pipeline in page.records],
            "total_size": page.total,
            "next_page_token": page.next_page_token,
        }
    )


async def get(service: Service, request: Request) -> Response:
    return reply(pipeline_json(service.catalog.pipeline(request.path_params["pipeline_id"])))


async def get_by_name(service: Service, request: Request) -> Response:
    namespace = request.query_params.get("namespace", "")
    return reply(pipeline_json(service.catalog.pipeline_by_name(request.path_params["name"], namespace)))


async def delete(service: Service, request: Request) -> Response:
    cascade = request.query_params.get("cascade", "") in ("true", "True", "1")
    service.catalog.delete_pipeline(request.path_params["pipeline_id"], cascade)
    return reply({})


async def list_versions(service: Service, request: Request) -> Response:
    pipeline_id = request.path_params["pipeline_id"]
    service.catalog.pipeline(pipeline_id)
    page = service.catalog.list_versions(parse_query(VERSIONS, request.query_params).where("pipeline_id", pipeline_id))
    return reply(
        {
            "pipeline_versions": [version_json(version) for version in page.records],
            "total_size": page.total,
            "next_page_token": page.next_page_token,
        }
    )


async def get_version(service: Service, request: Request) -> Response:
    wanted = request.path_params
    return reply(version_json(service.catalog.version(wanted["pipeline_id"], wanted["pipeline_version_id"])))


async def delete_version(service: Service, request: Request) -> Response:
    wanted = request.path_params
    service.catalog.delete_version(wanted["pipeline_id"], wanted["pipeline_version_id"])
    return reply({})
