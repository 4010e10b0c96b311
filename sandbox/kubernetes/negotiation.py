"""Which form of an answer a client asked for: the object, its metadata only, or a table; JSON or YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sandbox.kubernetes import protobuf
from sandbox.kubernetes.status import internal, not_acceptable

Form = Literal["object", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]
JSON, YAML = "application/json", "application/yaml"
FORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


@dataclass(frozen=True)
class Wanted:
    """A form and a media type; `version` is that of the meta.k8s.io group."""

    form: Form = "object"
    media: str = JSON
    version: str = "v1"
    pretty: bool = False


def negotiate(accept: str, *, pretty: bool = False) -> Wanted:
    """The first alternative of an Accept header that can be served; `pretty`: for eyes. Raises ApiError 406."""
    for media, parameters in _clauses(accept):
        media = {"*/*": JSON, "application/*": JSON, "": JSON}.get(media, media)
        if media not in (JSON, YAML):
            continue
        form = parameters.get("as", "")
        if not form:
            return Wanted(media=media, pretty=pretty)
        if form in FORMS and parameters.get("g") == "meta.k8s.io" and parameters.get("v") in ("v1", "v1beta1"):
            return Wanted(form, media, parameters["v"], pretty)  # type: ignore[arg-type]
    raise not_acceptable(f"only the following media types are accepted: {JSON}, {YAML}, {protobuf.MEDIA}")


def _clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    """Media types with their parameters, the most wanted first."""
    found = []
    for clause in (accept or "*/*").split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        found.append((media, dict(part.partition("=")[::2] for part in rest)))
    return sorted(found, key=lambda one: -_quality(one[1].get("q", "1")))


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def wants_yaml(accept: str) -> bool:
    """Whether YAML is the first thing asked for that can be served; for answers of no kind, which never refuse."""
    media = next((media for media, _ in _clauses(accept) if media in (JSON, YAML, "*/*", "application/*")), JSON)
    return media == YAML


def check_watch(wanted: Wanted) -> None:
    """Refuses a watch in YAML, which has no stream. Raises ApiError 406."""
    if wanted.media == YAML:
        streams = ", ".join(f"{media};stream=watch" for media in (JSON, protobuf.MEDIA))
        raise not_acceptable(f"only the following media types are accepted: {streams}")


def check_form(wanted: Wanted, is_list: bool, custom: bool) -> None:
    """Refuses the form of one object for a list, and, as recorded with a 500, the other way round."""
    if is_list and wanted.form == "PartialObjectMetadata":
        kind = "*unstructured.UnstructuredList" if custom else "*v1.List"
        raise not_acceptable(f"you requested PartialObjectMetadata, but the requested object is a list ({kind})")
    if not is_list and wanted.form == "PartialObjectMetadataList":
        raise internal("content is not a list")
