"""What a drift detector's metrics look like to who asks Prometheus for them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Series = tuple[dict[str, str], float]
_MODEL = ("namespace", "service", "revision", "version")


@dataclass
class Column:
    """One finding. `course`: its p-value so many seconds ago, None for none; `bins`: values, reference, current."""

    name: str
    p_value: float
    kind: str = "feature"
    test: str = "ks"
    score: float = 0.1
    course: Callable[[float], float | None] | None = None
    bins: tuple[tuple[str, float, float], ...] = ()

    def at(self, ago: float) -> float | None:
        return self.course(ago) if self.course else self.p_value


@dataclass
class Watched:
    """One model that is watched. `numbers` are metrics by name, with labels as in `accuracy{bound=low}`."""

    namespace: str
    service: str
    revision: str
    version: str
    columns: list[Column] = field(default_factory=list)
    verdict: str = "no drift"
    threshold: float = 1e-4
    numbers: dict[str, float] = field(default_factory=dict)
    unknown_until: float = 0.0  # the verdict was unknown until so many seconds ago

    @property
    def labels(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in _MODEL}


@dataclass
class FakeDrift:
    """Answers the monitor's queries of `kanary_drift_*`; `asked` are those that came."""

    models: list[Watched] = field(default_factory=list)
    own: dict[str, float] = field(default_factory=lambda: {"coverage_least": 0.5, "false_alarm_budget": 1.0})
    asked: list[str] = field(default_factory=list)
    lasts: float = 7 * 24 * 3600.0  # seconds that the past goes back

    def answer(self, params: Mapping[str, str]) -> Json:
        """The data of an instant query, or of one over a range."""
        query = params["query"]
        self.asked.append(query)
        now = time.time()
        if "start" not in params:
            at = float(params.get("time") or now)
            found = [{"metric": labels, "value": [at, repr(value)]} for labels, value in self._series(query, 0.0)]
            return {"resultType": "vector", "result": found}
        start, end, step = (float(params[key]) for key in ("start", "end", "step"))
        courses: dict[str, Json] = {}
        for index in range(round((end - start) / step) + 1):
            at = start + index * step
            if now - at > self.lasts:
                continue
            for labels, value in self._series(query, max(0.0, now - at)):
                entry = courses.setdefault(repr(labels), {"metric": labels, "values": []})
                entry["values"].append([at, repr(value)])
        return {"resultType": "matrix", "result": list(courses.values())}

    def _series(self, query: str, ago: float) -> Iterator[Series]:
        if "coverage_least" in query and "verdict" not in query:
            yield from (({"__name__": f"kanary_drift_{name}"}, value) for name, value in self.own.items())
            return
        wanted = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', query))
        wanted = {name: value.replace('\\"', '"').replace("\\\\", "\\") for name, value in wanted.items()}
        for model in self.models:
            if all(model.labels[name] == wanted[name] for name in _MODEL if name in wanted):
                yield from self._of(model, query, ago, wanted)

    def _of(self, model: Watched, query: str, ago: float, wanted: Mapping[str, str]) -> Iterator[Series]:
        doubtful = model.verdict == "unknown" or ago > model.unknown_until > 0
        if "distribution" in query:
            yield from self._spread(model, wanted)
        elif "windows_total" in query and "__name__" not in query:
            yield {}, 3.0
        elif "kanary_drift_threshold" in query:
            yield from [(model.labels, model.threshold)] if model.columns else []
        elif "kanary_drift_verdict{" in query:
            yield from [(model.labels | {"verdict": "unknown"}, 1.0)] if doubtful else []
        elif "__name__" in query:
            yield from self._of_model(model)
        elif query.startswith("count("):
            yield {}, float(sum(len(one.columns) for one in self.models))
        else:
            yield from self._of_columns(model, query, ago, doubtful)

    def _of_columns(self, model: Watched, query: str, ago: float, doubtful: bool) -> Iterator[Series]:
        for column in model.columns:
            p_value = column.at(ago)
            if p_value is None:
                continue
            labels = model.labels | {"feature": column.name, "kind": column.kind, "test": column.test}
            if "kanary_drift_detected" not in query:
                yield labels, column.score if "kanary_drift_score" in query else p_value
            elif p_value <= model.threshold and not doubtful:
                yield labels, 1.0

    def _spread(self, model: Watched, wanted: Mapping[str, str]) -> Iterator[Series]:
        for column in model.columns:
            if (column.name, column.kind) == (wanted["feature"], wanted["kind"]):
                for at, (values, *shares) in enumerate(column.bins):
                    for side, share in zip(("reference", "current"), shares, strict=True):
                        yield {"bin": f"{at:02d}", "values": values, "side": side}, share

    def _of_model(self, model: Watched) -> Iterator[Series]:
        for verdict in ("drift", "no drift", "unknown"):
            labels = {"__name__": "kanary_drift_verdict", "verdict": verdict}
            yield model.labels | labels, float(verdict == model.verdict)
        for name, value in model.numbers.items():
            metric, _, more = name.partition("{")
            extra = dict(part.split("=") for part in more.rstrip("}").split(",") if part)
            yield model.labels | {"__name__": f"kanary_drift_{metric}"} | extra, value
