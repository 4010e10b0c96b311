"""Reads what clients send: JSON bodies, pipeline YAML, packaged pipelines. What comes out is plain, finite JSON.

Nothing here runs or trusts its input: sizes, depth and alias expansion are bounded, and no YAML tag makes an object.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NoReturn

import yaml

from sandbox.errors import InvalidSpec

MAX_BYTES = 32 * 1024 * 1024  # the real server's limit for a request and for an uploaded file
MAX_YAML_BYTES = 8 * 1024 * 1024  # libyaml reads about half a megabyte a second here
MAX_VALUES = 1_000_000
MAX_DEPTH = 100

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class PipelineDocument:
    """A compiled pipeline: its PipelineSpec and, {} where there is none, the platform spec beside it."""

    spec: dict[str, Any]
    platform_spec: dict[str, Any]


class _Budget:
    """How many more values one document may hold, aliases counted at each use."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def spend(self, where: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise InvalidSpec(f"more than {MAX_VALUES:,} values, aliases counted where they are used", where)


def parse_json(text: str | bytes, where: str) -> Any:
    """The JSON value of `text`. Raises InvalidSpec: malformed, too deep, not finite, or not proper Unicode."""

    def refuse(constant: str) -> NoReturn:
        raise InvalidSpec(f"{constant} is not a JSON number", where)

    try:
        value = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise InvalidSpec(f"nested more than {MAX_DEPTH} deep", where) from None
    except ValueError as error:
        raise InvalidSpec(f"not valid JSON: {error}", where) from None
    return _plain(value, where, 0, _Budget())


def parse_pipeline(text: bytes, where: str) -> PipelineDocument:
    """The pipeline in YAML or JSON text, one or two documents. Raises InvalidSpec."""
    if text.lstrip()[:1] == b"{":
        return pipeline_of(parse_json(text, where), where)
    if len(text) > MAX_YAML_BYTES:
        raise InvalidSpec(f"{len(text):,} bytes of YAML; at most {MAX_YAML_BYTES:,} are read", where)
    budget = _Budget()
    try:
        _check_shape(text, where)
        documents = [_plain(value, where, 0, budget) for value in yaml.load_all(text, Loader=_Loader)]
    except yaml.YAMLError as error:
        raise InvalidSpec(f"not valid YAML: {' '.join(str(error).split())}", where) from None
    except (RecursionError, ValueError) as error:  # ValueError: a value like 2024-99-99 that looks like a date
        raise InvalidSpec(f"not valid YAML: {error}", where) from None
    return _join([document for document in documents if document is not None], where)


def _check_shape(text: bytes, where: str) -> None:
    """Refuses what the reader itself would choke on: deep nesting crashes libyaml's composer, which recurses in C,
    and merge keys over aliases multiply while values are built."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise InvalidSpec(f"nested more than {MAX_DEPTH} deep", where)
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise InvalidSpec("a merge key (<<); write the mapping out", where)
        if count > 2 * MAX_VALUES:
            raise InvalidSpec(f"more than {MAX_VALUES:,} values", where)


def _join(documents: list[Any], where: str) -> PipelineDocument:
    if len(documents) == 1:
        return pipeline_of(documents[0], where)
    platforms = [document for document in documents if isinstance(document, dict) and "platforms" in document]
    specs = [document for document in documents if document not in platforms]
    if len(specs) != 1 or len(platforms) > 1:
        raise InvalidSpec(f"{len(documents)} documents; expected a pipeline spec and at most one platform spec", where)
    return PipelineDocument(_mapping(specs[0], where), platforms[0] if platforms else {})


def pipeline_of(value: Any, where: str) -> PipelineDocument:
    """The pipeline in a `pipeline_spec` field: the spec itself, or {"pipeline_spec": ..., "platform_spec": ...}."""
    fields = _mapping(value, where)
    for spec_key, platform_key in (("pipeline_spec", "platform_spec"), ("pipelineSpec", "platformSpec")):
        if spec_key in fields:
            spec = _mapping(fields[spec_key], f"{where}.{spec_key}")
            return PipelineDocument(spec, _mapping(fields.get(platform_key) or {}, f"{where}.{platform_key}"))
    return PipelineDocument(fields, {})


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSpec("not a mapping", where)
    return value


def _plain(value: Any, where: str, depth: int, budget: _Budget) -> Any:
    """`value` as JSON has it, copied: a bomb of aliases is refused here, before anything walks or prints it."""
    budget.spend(where)
    if depth > MAX_DEPTH:
        raise InvalidSpec(f"nested more than {MAX_DEPTH} deep", where)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidSpec(f"{value} is not a JSON number", where)
        return value
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, where, depth + 1, budget) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where, depth + 1, budget) for item in value]
    if isinstance(value, date):  # unquoted in YAML; every other YAML reader in KFP sees text
        return value.isoformat()
    raise InvalidSpec(f"a value of type {type(value).__name__}, which JSON does not have", where)


def _key(key: Any, where: str) -> str:
    if isinstance(key, bool | int | float | date):
        return str(key)
    if not isinstance(key, str):
        raise InvalidSpec(f"a key of type {type(key).__name__}", where)
    return _text(key, where)


def _text(value: str, where: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidSpec("text with half a surrogate pair, which is not Unicode", where) from None
    return value


def unpack(name: str, content: bytes) -> bytes:
    """The pipeline's text inside an uploaded file: .yaml, .yml, .json, .zip or .tar.gz. Raises InvalidSpec."""
    if name.endswith((".yaml", ".yml", ".json")):
        return content
    try:
        if content.startswith(b"PK\x03\x04"):
            return _from_zip(content)
        if content.startswith(b"\x1f\x8b"):
            return _from_tarball(content)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise InvalidSpec(f"the archive cannot be read: {error}", "uploadfile") from None
    raise InvalidSpec("expected a .yaml, .yml, .json, .zip or .tar.gz file", "uploadfile")


def _from_zip(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = _pipeline_name([entry.filename for entry in archive.infolist() if not entry.is_dir()])
        with archive.open(name) as member:
            return _bounded(member.read(MAX_BYTES + 1))


def _from_tarball(content: bytes) -> bytes:
    # The whole archive is bounded, not only the member: a sparse or padded one would be read for minutes.
    with gzip.open(io.BytesIO(content)) as stream:
        unpacked = _bounded(stream.read(MAX_BYTES + 1))
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        name = _pipeline_name([member.name for member in archive.getmembers() if member.isfile()])
        member = archive.extractfile(name)
        if member is None:
            raise InvalidSpec(f"{name} is not a file", "uploadfile")
        return _bounded(member.read(MAX_BYTES + 1))


def _pipeline_name(names: list[str]) -> str:
    candidates = [name for name in names if name.endswith((".yaml", ".yml", ".json"))]
    named = [name for name in candidates if name.rsplit("/", 1)[-1] == "pipeline.yaml"]
    if len(candidates) == 1 or len(named) == 1:
        return (named or candidates)[0]
    raise InvalidSpec("the archive holds no pipeline.yaml and not exactly one YAML file", "uploadfile")


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise InvalidSpec(f"unpacked, the file is larger than {MAX_BYTES:,} bytes", "uploadfile")
    return content
