"""Reading both arms' counters from Prometheus: one round of queries for one moment, through the profile that fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kanary.errors import KanaryError
from kanary.rollout import policy as policies
from kanary.rollout import profiles
from kanary.rollout.profiles import INSTANCE, Profile, Where
from kanary.rollout.prometheus import Sample
from kanary.rollout.tally import Raw

UNKNOWN_AGE = 30.0  # seconds between two scrapes, hardly ever more


class Unobservable(KanaryError):
    """No numbers for both arms can be had here; a rollout without them is held."""


class Source(Protocol):
    """What answers instant queries: kanary.rollout.prometheus.Prometheus, or recorded answers."""

    def instant(self, query: str, at: float) -> tuple[Sample, ...]:
        """The vector at that moment."""
        ...


@dataclass(frozen=True)
class Arms:
    """The two revisions, and the versions of their models: predictors count by version."""

    canary: str
    stable: str
    canary_version: str = ""
    stable_version: str = ""


@dataclass(frozen=True)
class Reading:
    """Both arms' counters as they stood. `oldest`: when the most belated instance was last scraped, in seconds."""

    profile: str
    raw: Raw
    oldest: float
    newest: float
    notes: tuple[str, ...] = field(default=())


def read(source: Source, where: Where, arms: Arms, settings: policies.Prometheus, known: str, at: float) -> Reading:
    """One round of queries, all for the moment `at`. `known`: the profile that has been found before, or "".

    Raises Unobservable where no profile fits or the arms cannot be told apart, ApiError and Unreachable besides.
    """
    profile = choose(source, where, settings, known, at)
    found = {part: source.instant(query, at) for part, query in profile.queries(where).items()}
    classes = source.instant(profiles.filled(profiles.CLASSES, where), at)
    values: dict[str, dict[str, dict[str, int]]] = {}
    for part, samples in found.items():
        if part != "seen":
            _sort(values, samples, profile, part)
    for sample in classes:
        _count_class(values, sample, arms)
    if not any("requests" in counted for arm in values.values() for counted in arm.values()):
        raise Unobservable(
            f"Prometheus knows no requests to {' or '.join(where.arms)} any more.",
            "Is the proxy still scraped? Look at Prometheus' targets.",
        )
    # Nobody says how old they are: old enough, so that no split is judged by counters from before it.
    unknown = [at - UNKNOWN_AGE]
    seen = [sample.value for sample in found.get("seen", ()) if not math.isnan(sample.value)] or unknown
    notes = () if profile.at_caller else ("counted at the revisions themselves: what never reached one is not seen",)
    return Reading(profile.name, Raw(values), min(seen), max(seen), notes)


def choose(source: Source, where: Where, settings: policies.Prometheus, known: str, at: float) -> Profile:
    """The profile that the policy names, or that was found before, else the first of which a series is there."""
    if settings.queries:
        return profiles.custom(settings.queries, "rollout.prometheus.queries")
    name = settings.profile if settings.profile != policies.AUTO else known
    profile = profiles.named(name) if name else _detected(source, where, at)
    if profile.blind:
        raise Unobservable(
            f"The arms of {where.namespace}/{where.service} are unobservable: {profile.blind}.",
            "Count at the predictors' Services (a mesh) or give rollout.prometheus.queries; until then steps are held.",
        )
    return profile


def _detected(source: Source, where: Where, at: float) -> Profile:
    for profile in profiles.ALL:
        if source.instant(profiles.filled(profile.probe, where), at):
            return profile
    raise Unobservable(
        f"Prometheus has no requests to {' or '.join(where.arms)} of {where.namespace}/{where.service} "
        f"by any profile: {', '.join(profile.name for profile in profiles.ALL)}.",
        "Is the gateway or mesh scraped, and has there been a request? See rollout.prometheus: profile, queries.",
    )


def _sort(values: dict[str, dict[str, dict[str, int]]], samples: Iterable[Sample], profile: Profile, part: str) -> None:
    for sample in samples:
        arm = sample.labels.get(profile.arm, "")
        name = part
        if part == "latency":
            edge = sample.labels.get("le", "")
            name = f"le:{edge if edge == '+Inf' else _milliseconds(edge, profile.unit)}"
        if arm and not math.isnan(sample.value) and name != "le:":
            counted = values.setdefault(arm, {}).setdefault(sample.labels.get(INSTANCE, ""), {})
            counted[name] = counted.get(name, 0) + round(sample.value)


def _milliseconds(edge: str, unit: float) -> str:
    try:
        value = float(edge) * unit * 1000
    except ValueError:
        return ""
    return f"{value:.6g}"


def _count_class(values: dict[str, dict[str, dict[str, int]]], sample: Sample, arms: Arms) -> None:
    labels: Mapping[str, str] = sample.labels
    arm = labels.get("revision", "")
    if arm not in (arms.canary, arms.stable):
        same = arms.canary_version == arms.stable_version
        by_version = {arms.canary_version: arms.canary, arms.stable_version: arms.stable}
        arm = "" if arm or same else by_version.get(labels.get("version", ""), "")
    if arm and labels.get("class") and not math.isnan(sample.value):
        # Model servers count for themselves: never one instance with the proxy.
        counted = values.setdefault(arm, {}).setdefault(f"server {labels.get(INSTANCE, '')}", {})
        name = f"class:{labels['class']}"
        counted[name] = counted.get(name, 0) + round(sample.value)
