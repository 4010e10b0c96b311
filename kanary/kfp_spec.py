"""Compiled pipelines as files: read one, name its parameters, and turn `key=value` into typed values.

Checks what the command line needs; whether the pipeline can run is the server's to say. Never imports kfp.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kanary.errors import InputError

_COMPILE = "Compile it first: `kfp dsl compile --py FILE --output FILE.yaml`, or `make compile` for Kanary's own."


@dataclass(frozen=True)
class Pipeline:
    """A compiled pipeline: the PipelineSpec and, where the file holds one, the PlatformSpec, in proto-JSON."""

    spec: Mapping[str, Any]
    platform_spec: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        info = self.spec["pipelineInfo"]
        return str(info.get("displayName") or info["name"])

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The declared inputs: name -> {parameterType, defaultValue?, isOptional?, description?}."""
        found = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return found if isinstance(found, dict) else {}


def read_pipeline(text: str, where: str) -> Pipeline:
    """A pipeline from YAML or JSON of one or two documents. Raises InputError naming `where`."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = [doc for doc in yaml.load_all(text, Loader=loader) if doc is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where} is no readable YAML: {error}", _COMPILE) from error
    platform = None
    if len(documents) == 1 and isinstance(documents[0], dict) and isinstance(documents[0].get("pipeline_spec"), dict):
        # What the API answers for a pipeline with a platform spec.
        documents = [documents[0]["pipeline_spec"], documents[0].get("platform_spec") or {}]
    if len(documents) == 2 and isinstance(documents[1], dict) and (documents[1].get("platforms") or not documents[1]):
        platform = documents.pop() or None
    if len(documents) != 1 or not _is_spec(documents[0]):
        raise InputError(f"{where} is no compiled pipeline (KFP v2).", _COMPILE)
    try:
        json.dumps([documents[0], platform], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} holds a value that JSON has no room for: {error}", _COMPILE) from error
    return Pipeline(documents[0], platform)


def bind(pipeline: Pipeline, assignments: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as values of the types that the pipeline declares: text as it is, the rest as JSON.

    Raises InputError for a malformed, unknown or doubled key, a value of another type, a missing parameter.
    """
    known = pipeline.parameters
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r} is no key=value.", f"Parameters of {pipeline.name}: {_names(known)}.")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has: {_names(known)}."
            raise InputError(f"{pipeline.name} has no parameter {key}.", hint)
        if key in values:
            raise InputError(f"{key} is given twice.", "Give each parameter once.")
        values[key] = _value(key, str(known[key].get("parameterType", "STRING")), text)
    missing = [key for key, entry in known.items() if key not in values and not _optional(entry)]
    if missing:
        raise InputError(
            f"{pipeline.name} needs a value for {', '.join(missing)}.",
            f"Add {' '.join(f'{key}=...' for key in missing)}.",
        )
    return values


def _is_spec(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and isinstance(document.get("root"), dict)
        and isinstance(document.get("pipelineInfo"), dict)
        and isinstance(document["pipelineInfo"].get("name"), str)
        and isinstance(document["root"].get("inputDefinitions", {}), dict)
    )


def _optional(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("isOptional")) or "defaultValue" in entry


def _names(known: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{key} ({entry.get('parameterType', 'STRING')})" for key, entry in known.items()) or "none"


def _value(key: str, kind: str, text: str) -> Any:
    if kind == "STRING":
        return text
    try:
        value = json.loads(text.lower() if kind == "BOOLEAN" else text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _mismatch(key, kind, text) from None
    if kind == "BOOLEAN":
        fits = isinstance(value, bool)
    elif kind in ("NUMBER_INTEGER", "NUMBER_DOUBLE"):
        fits = not isinstance(value, bool) and isinstance(value, int | float) and _finite(value)
        fits = fits and (kind == "NUMBER_DOUBLE" or value == int(value))
    else:
        fits = isinstance(value, {"LIST": list, "STRUCT": dict}.get(kind, object))
    if not fits:
        raise _mismatch(key, kind, text)
    return int(value) if kind == "NUMBER_INTEGER" else value


def _finite(value: float) -> bool:
    # An int may be too large for a float: then it is too large for the server, too.
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _no_constant(text: str) -> Any:
    raise ValueError(text)


_EXAMPLES = {
    "NUMBER_INTEGER": "a whole number, such as 3",
    "NUMBER_DOUBLE": "a number, such as 0.5",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list, such as '[64, 32]'",
    "STRUCT": """a JSON object, such as '{"accuracy": {"min": 0.9}}'""",
}


def _mismatch(key: str, kind: str, text: str) -> InputError:
    return InputError(f"{key}={text} is no {kind}.", f"Give {_EXAMPLES.get(kind, 'JSON')}.")
