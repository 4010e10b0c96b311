"""What a model directory is: model.json as frozen dataclasses, its strict parsing, digests and verification.

A directory holds model.json, model.safetensors and reference.parquet; after packaging also release.json,
which describes the release and is no part of the digest. Reads JSON and bytes only: never unpickles,
never imports numpy or torch, so that anything may ask what a model is without being able to run it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kanary.errors import ModelError

# 2: every feature says whether it is required.
FORMAT: Literal["kanary/2"] = "kanary/2"

SPEC = "model.json"
WEIGHTS = "model.safetensors"
REFERENCE = "reference.parquet"
RELEASE = "release.json"

# Names become parts of paths, URLs and Kubernetes objects; versions become folder names and label values.
NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)

_SPELLING = {
    "string": re.compile(r".*", re.DOTALL),
    "boolean": re.compile(r"true|false"),
    "integer": re.compile(r"-?\d{1,20}", re.ASCII),
    "number": re.compile(r"-?\d{1,20}(?:\.\d+)?(?:e[+-]?\d{1,3})?", re.ASCII),
}
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class NumericFeature:
    """A number, standardised as (value - mean) / std; a missing value counts as `fill`, the training median.

    `required`: the schema says that it is never missing, so a prediction without it is refused.
    """

    name: str
    type: Literal["number", "integer"]
    mean: float
    std: float
    fill: float
    required: bool = False
    kind: Literal["numeric"] = "numeric"


@dataclass(frozen=True)
class CategoricalFeature:
    """One of `categories`, in order; category i has embedding index i + 1, missing and unknown have 0.

    `required`: the schema says that it is never missing, so a prediction without it is refused.
    """

    name: str
    type: Literal["string", "boolean", "integer", "number"]
    categories: tuple[str, ...]
    required: bool = False
    kind: Literal["categorical"] = "categorical"


Feature = NumericFeature | CategoricalFeature


@dataclass(frozen=True)
class Architecture:
    """A multilayer perceptron over the numbers and one embedding per categorical feature, in feature order."""

    kind: Literal["mlp"]
    hidden: tuple[int, ...]
    dropout: float
    embeddings: tuple[int, ...]


@dataclass(frozen=True)
class Lineage:
    """Where the model comes from. `data_sha256` is the content hash of the training rows."""

    data_sha256: str
    schema_sha256: str
    rows: int
    seed: int
    code_version: str
    torch: str


@dataclass(frozen=True)
class Training:
    """How it was fitted. `epochs` is how many ran, `best_epoch` the one whose weights were kept (from 1)."""

    epochs: int
    best_epoch: int
    batch_size: int
    learning_rate: float
    validation_rows: int
    validation_loss: float
    balanced: bool
    device: str


@dataclass(frozen=True)
class ModelSpec:
    """The whole of model.json: all that is needed to run the model and to say where it came from.

    `features` stand in the order of the network's inputs. `classes` are the target's values as text
    (`true`, `false` for booleans), in the order of the probabilities; the last of two is the positive one.
    `sensitive` names columns that evaluation may slice by, whether they are features or not.
    `files` maps each file's name to the hex sha256 of its bytes.
    """

    format: Literal["kanary/2"]
    name: str
    version: str
    target: str
    target_type: Literal["string", "integer", "boolean"]
    classes: tuple[str, ...]
    features: tuple[Feature, ...]
    sensitive: tuple[str, ...]
    architecture: Architecture
    lineage: Lineage
    training: Training
    files: Mapping[str, str]

    @property
    def numeric(self) -> tuple[NumericFeature, ...]:
        """The numeric features, in order."""
        return tuple(feature for feature in self.features if isinstance(feature, NumericFeature))

    @property
    def categorical(self) -> tuple[CategoricalFeature, ...]:
        """The categorical features, in order."""
        return tuple(feature for feature in self.features if isinstance(feature, CategoricalFeature))

    def to_json(self) -> str:
        """The text of model.json, indented for people."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    def digest(self) -> str:
        """`sha256:<hex>` of the canonical JSON: sorted keys, no blanks, ASCII."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def parse(text: str, where: str = SPEC) -> ModelSpec:
    """The spec that `text` holds. ModelError, with the place, for anything missing, unknown or impossible."""
    try:
        raw = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not JSON that can be read: {error}", _HINT) from None
    if isinstance(raw, dict) and isinstance(raw.get("format"), str) and raw["format"] != FORMAT:
        raise ModelError(
            f"{where} has the format {raw['format']!r}; this Kanary reads {FORMAT!r}",
            "use the Kanary that wrote it, or train the model again",
        )
    spec = typing.cast(ModelSpec, _decode(ModelSpec, raw, where))
    check(spec, where)
    return spec


def check(spec: ModelSpec, where: str = SPEC) -> None:
    """ModelError for a spec whose parts contradict each other, or whose names could leave their folder."""

    def must(holds: bool, what: str) -> None:
        if not holds:
            raise ModelError(f"{where}: {what}", _HINT)

    must(bool(NAME.fullmatch(spec.name)), f"name {spec.name!r} must be lower-case letters, digits, '-'")
    must(bool(VERSION.fullmatch(spec.version)), f"version {spec.version!r} must be letters, digits, '.', '_', '-'")
    must(len(spec.classes) >= 2, "classes: at least two are needed")
    names = [feature.name for feature in spec.features]
    must(bool(names), "features: there are none")
    must(len(set(names)) == len(names), "features: one name stands twice")
    must(spec.target not in names, f"features: the target {spec.target!r} is among them")
    for feature in spec.numeric:
        must(feature.std > 0, f"features.{feature.name}.std must be above 0")
    for named, kind, values in [
        ("classes", spec.target_type, spec.classes),
        *((f"features.{feature.name}.categories", feature.type, feature.categories) for feature in spec.categorical),
    ]:
        must(len(set(values)) == len(values), f"{named}: one stands twice")
        must(all(spells(kind, value) for value in values), f"{named}: one is no {kind}")
    sizes = spec.architecture.hidden + spec.architecture.embeddings
    must(len(spec.architecture.embeddings) == len(spec.categorical), "architecture.embeddings: one for each category")
    must(all(size > 0 for size in sizes), "architecture: sizes must be above 0")
    must(0 <= spec.architecture.dropout < 1, "architecture.dropout must be from 0 to below 1")
    must(set(spec.files) == {WEIGHTS, REFERENCE}, f"files must name exactly {WEIGHTS} and {REFERENCE}")
    hashes = [*spec.files.values(), spec.lineage.data_sha256, spec.lineage.schema_sha256]
    must(all(_SHA256.fullmatch(value) for value in hashes), "files, lineage: a sha256 is not 64 hex digits")


def read_spec(directory: Path) -> ModelSpec:
    """The spec in `directory`, parsed but its files not yet verified. ModelError where it cannot be read."""
    return parse(_read(directory / SPEC).decode("utf-8", errors="replace"), str(directory / SPEC))


def digest(directory: Path) -> str:
    """`sha256:<hex>` of the model in `directory`: of its spec, which holds the hashes of its files."""
    return read_spec(directory).digest()


def verify(directory: Path, expected: str | None = None) -> ModelSpec:
    """The spec of `directory` after every file proved to be the one it names.

    ModelError names the file that is missing or altered, or both digests where the model is not `expected`.
    """
    spec = read_spec(directory)
    if expected is not None and spec.digest() != expected:
        raise ModelError(
            f"{directory / SPEC} is not the model expected: its digest is {spec.digest()}, not {expected}",
            "it was altered or replaced after its digest was taken; fetch or train it again",
        )
    for name in spec.files:
        read_file(directory, spec, name)
    return spec


def spells(kind: str, text: str) -> bool:
    """Whether `text` is how model.json writes a value of the type `kind`."""
    return bool(_SPELLING[kind].fullmatch(text))


def read_file(directory: Path, spec: ModelSpec, name: str) -> bytes:
    """The bytes of a file of the model, proved to be those the spec names, so that nothing else gets loaded."""
    content = _read(directory / name)
    if file_sha256(content) != spec.files[name]:
        raise ModelError(
            f"{directory / name} was altered: its sha256 is not the one that {SPEC} names",
            "fetch or train the model again",
        )
    return content


def file_sha256(content: bytes) -> str:
    """Hex sha256 of a file's bytes, as model.json holds it."""
    return hashlib.sha256(content).hexdigest()


def derived_version(weights: bytes) -> str:
    """The version of a model that was given none: `v-` and the first 12 hex digits of its weights' sha256."""
    return "v-" + file_sha256(weights)[:12]


_HINT = "the model directory is damaged or was not written by Kanary; fetch or train the model again"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", _HINT) from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _decode(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type `kind` of a dataclass field: exact keys, exact types, finite numbers."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind == Feature:
        categorical = isinstance(value, dict) and value.get("kind") == "categorical"
        return _decode(CategoricalFeature if categorical else NumericFeature, value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_object(kind, value, where)
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise ModelError(f"{where}: expected {_named(kind)}, found {json.dumps(value)[:60]}", _HINT)


def _decode_object(kind: type, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    if not isinstance(value, dict):
        raise ModelError(f"{where}: expected an object, found {json.dumps(value)[:60]}", _HINT)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        what = [f"{', '.join(keys)} {word}" for keys, word in ((missing, "missing"), (unknown, "unknown")) if keys]
        raise ModelError(f"{where}: {'; '.join(what)}", _HINT)
    return kind(**{name: _decode(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _named(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(repr(argument) for argument in typing.get_args(kind))
    plain: dict[Any, str] = {float: "a finite number", int: "an integer", str: "a text", bool: "true or false"}
    return plain.get(kind, "a list" if typing.get_origin(kind) is tuple else "an object")
