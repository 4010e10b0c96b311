"""What Knative's validating webhook says against a Service, in its own words.

Source: pkg/apis/serving in Knative Serving; errors are merged and sorted as field_error.go in knative.dev/pkg does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sandbox.kserve.knative import PROGRESS_DEADLINE_ANNOTATION, Document, Target, Template, seconds

_DENIED = 'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: '
# config-defaults of Knative.
_LONGEST_TIMEOUT_S, _MOST_CONCURRENT = 600, 1000
_LONGEST_NAME = 63
_ANNOTATIONS = "spec.template.metadata.annotations"
_MIN, _MAX = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale"


def refusal(service: str, template: Template, traffic: Sequence[Target]) -> str:
    """What the webhook says, as KServe passes it on; empty where it takes the Service."""
    merged: dict[str, set[str]] = {}
    for message, path in (*_of_name(service), *_of_template(template.document), *_of_traffic(traffic)):
        merged.setdefault(message, set()).add(path)
    lines = [f"{message}: {', '.join(sorted(merged[message]))}" for message in sorted(merged)]
    return _DENIED + "\n".join(lines) if lines else ""


def _of_name(service: str) -> Iterator[tuple[str, str]]:
    if len(service) > _LONGEST_NAME:
        yield f"not a DNS 1035 label: [must be no more than {_LONGEST_NAME} characters]", "metadata.name"


def _of_template(document: Document) -> Iterator[tuple[str, str]]:
    spec, annotations = document["spec"], document["annotations"]
    timeout, concurrency = spec.get("timeout"), spec.get("containerConcurrency")
    if timeout and not 0 <= timeout <= _LONGEST_TIMEOUT_S:
        yield f"expected 0 <= {timeout} <= {_LONGEST_TIMEOUT_S}", "spec.template.spec.timeoutSeconds"
    if concurrency and not 0 <= concurrency <= _MOST_CONCURRENT:
        yield f"expected 0 <= {concurrency} <= {_MOST_CONCURRENT}", "spec.template.spec.containerConcurrency"
    deadline = annotations.get(PROGRESS_DEADLINE_ANNOTATION, "")
    if deadline and not seconds(deadline):
        yield f"invalid value: {deadline}", f"{_ANNOTATIONS}.{PROGRESS_DEADLINE_ANNOTATION}"
    lowest, highest = annotations.get(_MIN, "0"), annotations.get(_MAX, "0")
    if lowest.isdecimal() and highest.isdecimal() and 0 < int(highest) < int(lowest):
        for key in (_MAX, _MIN):
            yield f"max-scale={highest} is less than min-scale={lowest}", f"{_ANNOTATIONS}.{key}"


def _of_traffic(traffic: Sequence[Target]) -> Iterator[tuple[str, str]]:
    total = sum(target.percent for target in traffic)
    if total != 100:
        yield f"Traffic targets sum to {total}, want 100", "spec.traffic"
    for position, target in enumerate(traffic):
        if not 0 <= target.percent <= 100:
            yield f"expected 0 <= {target.percent} <= 100", f"spec.traffic[{position}].percent"
