"""What a pipeline asks of the platform beneath it: taken where it means something here, else told once per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sandbox.engine.spec import executors

_TAKEN = frozenset({"activeDeadlineSeconds"})
_RESOURCES = {"cpu": "CPU limits", "memory": "memory limits"}


def time_limit_s(platform_spec: Mapping[str, Any], label: str) -> float | None:
    """After how many seconds an attempt of a step is ended (kfp-kubernetes' set_timeout), None for never."""
    seconds = _configs(platform_spec).get(label, {}).get("activeDeadlineSeconds")
    return float(seconds) if seconds else None


def without_meaning(spec: Mapping[str, Any], platform_spec: Mapping[str, Any]) -> str:
    """What of a run's platform settings changes nothing on this machine, in one line; "" where there is none."""
    found: Counter[str] = Counter()
    for config in _configs(platform_spec).values():
        found.update(name for name, value in config.items() if value and name not in _TAKEN)
    for _, executor in executors(spec):
        resources = executor.get("container", {}).get("resources", {})
        found.update({_RESOURCES[kind] for kind in _RESOURCES for key in resources if kind in key.lower()})
    for name in _platform(platform_spec).get("pipelineConfig", {}):
        if name != "workspace":  # a folder of the run plays it
            found[f"the pipeline's {name}"] += 0
    if not found:
        return ""
    told = [f"{name} ({count} step{'s' * (count > 1)})" if count else name for name, count in sorted(found.items())]
    return f"accepted, but without meaning on this machine: {', '.join(told)}"


def _platform(platform_spec: Mapping[str, Any]) -> Mapping[str, Any]:
    found = platform_spec.get("platforms", {})
    kubernetes = found.get("kubernetes", {}) if isinstance(found, dict) else {}
    return kubernetes if isinstance(kubernetes, dict) else {}


def _configs(platform_spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The settings of each executor by its label."""
    deployment = _platform(platform_spec).get("deploymentSpec", {})
    given = deployment.get("executors", {}) if isinstance(deployment, dict) else {}
    return {label: config for label, config in given.items() if isinstance(config, dict)}
