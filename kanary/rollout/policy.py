"""The `rollout:` section of a project file: what a rollout may do by itself, checked before anything is touched.

Read with `load` (a YAML or JSON file) or `parse` (the section itself); errors say where, what and what is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kanary.errors import ConfigError
from kanary.judge.counters import Warmup
from kanary.judge.margins import Limits, Margins
from kanary.rollout import reading
from kanary.rollout.reading import Field

PROMOTION = 100
AUTO = "auto"
PROFILES = (AUTO, "sandbox", "istio", "knative", "knative-otel", "gateway-api")


@dataclass(frozen=True)
class Bake:
    """How long every step lasts at least: seconds, and requests that the canary has answered."""

    seconds: float = 300.0
    requests: int = 200


@dataclass(frozen=True)
class Watch:
    """After the promotion: for so long margins.limits are watched, and a breach is rolled back."""

    seconds: float = 300.0


@dataclass(frozen=True)
class Prometheus:
    """Where and how the numbers are asked for. An empty `url` takes the setting of Kanary (`--prometheus`)."""

    url: str = ""
    token_file: str = ""  # read again for every question: tokens rotate
    ca_file: str = ""
    tenant: str = ""  # sent as X-Scope-OrgID (Mimir, Cortex, Thanos)
    headers: Mapping[str, str] = field(default_factory=dict)
    selectors: Mapping[str, str] = field(default_factory=dict)  # further label matchers, such as cluster: prod
    profile: str = AUTO
    queries: Mapping[str, str] = field(default_factory=dict)  # see kanary.rollout.profiles.custom
    timeout: float = 10.0


@dataclass(frozen=True)
class Policy:
    """All of it. Times are in seconds, steps are the canary's share in percent, the last is the promotion (100)."""

    steps: tuple[int, ...] = (5, 25, 50, 95, PROMOTION)
    bake: Bake = field(default_factory=Bake)
    deadline: float = 3600.0  # a step that lasts longer, whatever it waits for, is held
    interval: float = 15.0  # between two looks; at most 30, so that the Lease is kept
    ready_timeout: float = 600.0  # until the canary is ready
    failing_patience: float = 30.0  # a canary that was ready and is not any more
    approve: tuple[int, ...] = ()  # before these steps a person must have said yes
    sticky: bool = False  # the router keeps clients on a revision: requests are not assigned at random
    margins: Margins = field(default_factory=Margins)
    warm_up: Warmup = field(default_factory=Warmup)
    watch: Watch = field(default_factory=Watch)
    prometheus: Prometheus = field(default_factory=Prometheus)

    def as_json(self) -> dict[str, Any]:
        """The policy as plain JSON types, every default written out. `parse` reads it again."""
        found: dict[str, Any] = reading.plain(dataclasses.asdict(self))
        return found

    def as_kept(self) -> dict[str, Any]:
        """As `as_json`, for others' eyes: headers may hold credentials, and are left out but for their names."""
        found = self.as_json()
        found["prometheus"]["headers"] = dict.fromkeys(self.prometheus.headers, "(left out)")
        return found


_SECONDS = Field(reading.duration, "seconds of at least 0, or such as 90s, 15m, 2h, 1d")
_TIME = Field(reading.positive_duration, "seconds above 0, or such as 90s, 15m, 2h, 1d")
_COUNT = Field(reading.count, "a whole number of at least 0")
_MARGIN = Field(reading.inside(0, 0.5), "a share above 0 and below 0.5, such as 0.005 for half a percent")
_CHANCE = Field(reading.inside(0, 0.5), "a chance between 0 and 0.5, such as 0.01")
_SHARE = Field(reading.optional(reading.inside(0, 1)), "a share between 0 and 1, such as 0.05, or null for no limit")
_SLOWER = Field(reading.edges, "shares between 0 and 1 by milliseconds, such as {250: 0.05}")
_TRUTH = Field(reading.truth, "true or false")
_TEXT = Field(reading.text, "text")
_TEXTS = Field(reading.texts, "a mapping of text to text")

_MARGINS = {
    "errors": _MARGIN,
    "latency": Field(reading.optional(_MARGIN.read), f"{_MARGIN.allowed}, or null: not judged"),
    "classes": Field(reading.optional(_MARGIN.read), f"{_MARGIN.allowed}, or null: not judged"),
    "on_classes": Field(reading.one_of("pause", "rollback", "ignore"), "pause, rollback or ignore"),
    "alpha": _CHANCE,
    "beta": _CHANCE,
    "least": Field(reading.at_least_one, "a whole number of at least 1"),
    "limits": (Limits, {"errors": _SHARE, "slower": _SLOWER}),
}
_FIELDS: dict[str, Any] = {
    "steps": Field(reading.steps, f"at least two whole percentages, rising from 1, the last of them {PROMOTION}"),
    "bake": (Bake, {"seconds": _SECONDS, "requests": _COUNT}),
    "deadline": _TIME,
    "interval": Field(reading.interval, "seconds above 0 and at most 30, or such as 15s"),
    "ready_timeout": _TIME,
    "failing_patience": _SECONDS,
    "approve": Field(reading.approvals, f"steps of the policy, `{reading.BEFORE_PROMOTION}`, or a list of them"),
    "sticky": _TRUTH,
    "margins": (Margins, _MARGINS),
    "warm_up": (Warmup, {"seconds": _SECONDS, "requests": _COUNT}),
    "watch": (Watch, {"seconds": _SECONDS}),
    "prometheus": (
        Prometheus,
        {
            "url": Field(reading.url, "an http:// or https:// address without credentials"),
            "token_file": _TEXT,
            "ca_file": _TEXT,
            "tenant": Field(reading.header, "printable text"),
            "headers": Field(reading.headers, "a mapping of header names to printable text"),
            "selectors": Field(reading.labels, "a mapping of label names to text"),
            "profile": Field(reading.one_of(*PROFILES), ", ".join(PROFILES)),
            "queries": _TEXTS,
            "timeout": _TIME,
        },
    ),
}


def entrance(section: Mapping[str, Any], where: str) -> Prometheus:
    """How Prometheus is entered, by a section as `rollout.prometheus`; {} leaves all open. Raises ConfigError."""
    kind, known = _FIELDS["prometheus"]
    found: Prometheus = reading.section(kind, known, section, where)
    return found


def parse(section: Mapping[str, Any] | None, where: str = "rollout") -> Policy:
    """The policy of a `rollout:` section; None and {} give the defaults. Raises ConfigError."""
    policy: Policy = reading.section(Policy, _FIELDS, {} if section is None else section, where)
    unknown = [step for step in policy.approve if step not in policy.steps]
    if unknown:
        raise ConfigError(
            f"{where}.approve names {unknown[0]}, which is no step of this policy.",
            f"Its steps are {', '.join(map(str, policy.steps))}.",
        )
    bake = policy.bake.seconds
    if policy.deadline <= bake:
        raise ConfigError(
            f"{where}.deadline is {policy.deadline:g} s, and a step bakes for {bake:g} s: all would be held.",
            "Give a deadline that is longer than bake.seconds.",
        )
    if policy.prometheus.queries:
        from kanary.rollout import profiles

        profiles.custom(policy.prometheus.queries, f"{where}.prometheus.queries")
    return policy


def load(path: Path) -> Policy:
    """The policy in a project file: its `rollout:` section, the defaults where it has none. Raises ConfigError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The project file {path} cannot be read: {error}", "Name another with --project.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The project file {path} is no YAML: {error}", "Mend it there.") from error
    if not isinstance(document, dict):
        raise ConfigError(f"The project file {path} is no mapping.", "It should hold a section `rollout:`.")
    if "rollout" not in document:
        raise ConfigError(f"The project file {path} has no section `rollout:`.", "`rollout: {}` takes the defaults.")
    return parse(document["rollout"], f"{path}: rollout")
