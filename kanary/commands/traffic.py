"""`kanary traffic`: realistic prediction requests, from rows of a data set, through the gateway."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from kanary import dataschema, kubernetes, traffic_rows
from kanary.commands.numbers import above_zero, from_zero
from kanary.commands.rollout import namespace_of
from kanary.config import Config
from kanary.errors import ApiError, InputError, KanaryError, Unreachable
from kanary.kserve import steer
from kanary.text import one_line
from kanary.traffic import Plan, Summary, Traffic, address
from kanary.traffic_rows import Column

if TYPE_CHECKING:
    from kanary.cli import Action

_EVERY = 1.0  # seconds between two lines of live counts


def traffic(parser: argparse.ArgumentParser) -> Action:
    """Send prediction requests made of a data set's rows, and count what each revision answers.

    Which columns a request holds says the schema, or, without one, the model itself. Rows with a missing feature are
    left out. Exit code 1 if a request failed.
    """
    parser.add_argument("service", metavar="SERVICE", help="the InferenceService's name")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="rows, as CSV or Parquet")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="their Frictionless Table Schema")
    parser.add_argument("--url", help="where the service answers, if not where its status says")
    parser.add_argument("--rate", type=above_zero, default=20.0, metavar="R", help="requests a second (default: 20)")
    parser.add_argument("--seconds", type=above_zero, metavar="S", help="for so long (default: until interrupted)")
    parser.add_argument("--constant", action="store_true", help="evenly spaced, not at random (Poisson)")
    parser.add_argument("--concurrency", type=int, default=256, metavar="N", help="under way at once (default: 256)")
    parser.add_argument(
        "--drift",
        action="append",
        default=[],
        type=_shift,
        metavar="FEATURE=SHIFT",
        help="move a number by so many standard deviations; may be given more than once",
    )
    parser.add_argument("--errors", type=_share, default=0.0, metavar="SHARE", help="of the requests that are nonsense")
    parser.add_argument(
        "--labels-after",
        type=from_zero,
        metavar="S",
        help="tell the drift detector each row's true class, so long after its answer; needs --schema",
    )
    parser.add_argument("--feedback", metavar="URL", help="where that is told, if not the sandbox's detector")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return _traffic


def _traffic(given: argparse.Namespace, config: Config) -> int:
    base = given.url or service_url(given.service, config)
    schema = dataschema.load(_text(given.schema)) if given.schema else None
    columns = traffic_rows.from_schema(schema) if schema else model_columns(base, given.service, config.timeout)
    target, feedback = "", ""
    if given.labels_after is not None:
        if schema is None:
            raise InputError("--labels-after needs to know which column is the target.", "Name the schema: --schema.")
        target, feedback = schema.target, given.feedback or _feedback(config)
    missing = schema.missing_values if schema else ("",)
    rows = traffic_rows.read_rows(given.data, columns, missing, target=target, shifts=dict(given.drift))
    if rows.left_out:
        print(f"{rows.left_out} rows have a missing feature and are left out", file=sys.stderr)
    plan = Plan(
        prediction_url(base, given.service),
        rows.bodies,
        rate=given.rate,
        seconds=given.seconds,
        poisson=not given.constant,
        concurrency=max(1, given.concurrency),
        errors=given.errors,
        labels=rows.labels,
        labels_after=given.labels_after or 0.0,
        feedback=feedback,
    )
    summary = _watched(Traffic(plan), quiet=given.json)
    print(json.dumps(asdict(summary), indent=2) if given.json else report(summary))
    return 1 if summary.failed else 0


def service_url(service: str, config: Config) -> str:
    """Where a service answers: through the sandbox's gateway, else where its status says. Raises KanaryError."""
    with kubernetes.connect(config) as api:
        namespace = namespace_of(api, config)
        gateway = _gateway(config)
        if gateway and api.access.source == str(config.home / "kubeconfig"):
            return f"{gateway}/serving/{namespace}/{service}"
        found = api.call(steer.status(service, namespace))
    if not found.url:
        raise KanaryError(f"{namespace}/{service} has no URL: it is not ready yet.", f"`kanary status {service}`")
    return found.url


def prediction_url(base: str, model: str) -> str:
    """The URL that a V1 prediction is posted to."""
    return f"{base.rstrip('/')}/v1/models/{model}:predict"


def model_columns(base: str, model: str, timeout: float = 10.0) -> tuple[Column, ...]:
    """The columns that the model says it takes (V2 metadata). Raises ApiError, Unreachable, InputError."""
    url, headers = address(f"{base.rstrip('/')}/v2/models/{model}")
    try:
        response = httpx.get(url, headers=headers, timeout=timeout, trust_env=False)
        response.raise_for_status()
        metadata = response.json()
    except httpx.HTTPStatusError as error:
        raise ApiError(
            f"{url} answered {error.response.status_code}: {one_line(error.response.text)[:200]}",
            "Name the table schema with --schema.",
            error.response.status_code,
        ) from error
    except ValueError as error:
        raise ApiError(f"{url} did not answer with JSON.", "Name the table schema with --schema.") from error
    except httpx.TransportError as error:
        raise Unreachable(f"{url} cannot be reached: {error}", "Is the sandbox running? `kanary info`") from error
    return traffic_rows.from_metadata(metadata)


def report(summary: Summary) -> str:
    """The sums for a person."""
    quantiles = f"p50 {_ms(summary.p50_ms)}, p99 {_ms(summary.p99_ms)}"
    lines = [
        f"requests   {summary.requests} in {summary.seconds:.1f} s, {quantiles}",
        f"failed     {summary.failed}",
        f"status     {_counts(summary.by_status)}",
    ]
    total = sum(summary.by_revision.values())
    for revision, count in sorted(summary.by_revision.items()):
        failed = summary.failed_by_revision.get(revision, 0)
        lines.append(f"revision   {revision} {count} ({count / total:.1%}), {failed} failed")
    lines += [f"reason     {count} x {one_line(reason)}" for reason, count in summary.reasons.items()]
    if summary.nonsense:
        lines.append(f"nonsense   {summary.nonsense} of them, to be refused")
    if summary.labelled:
        lines.append(f"labels     {summary.labelled} told")
    if summary.late:
        lines.append(f"late       {summary.late}: the rate could not be kept")
    return "\n".join(lines)


def _watched(running: Traffic, quiet: bool) -> Summary:
    running.start()
    try:
        while running.running:
            summary = running.wait(_EVERY)
            if not quiet:
                print(
                    f"{summary.requests} requests, {summary.failed} failed, {_counts(summary.by_revision)}", flush=True
                )
    except KeyboardInterrupt:
        return running.stop()
    return running.wait()


def _gateway(config: Config) -> str:
    return _part(config, "gateway")


def _feedback(config: Config) -> str:
    """Where the sandbox's drift detector takes ground truth. Raises InputError where none runs."""
    url = _part(config, "drift")
    if not url:
        raise InputError("No drift detector runs in a sandbox here.", "`kanary up --drift`, or name one: --feedback.")
    return f"{url}/v1/feedback"


def _part(config: Config, name: str) -> str:
    try:
        parts = json.loads((config.home / "endpoints.json").read_text(encoding="utf-8"))
        return str(parts[name]["url"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The schema {path} cannot be read: {error}") from error


def _counts(counts: Any) -> str:
    return ", ".join(f"{key} {count}" for key, count in sorted(counts.items())) or "none"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _shift(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    shift = float(value)
    if not name or shift - shift != 0:
        raise ValueError
    return name, shift


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError
    return share
