"""The checks of closed windows, one after the other: rows to tables, tables to scores, scores to a verdict, kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kanary.errors import KanaryError
from serving.drift import budget, coverage
from serving.drift.coverage import Counted, Span
from serving.drift.findings import Comparison, Finding, Kind, Result, Score, Verdict, agreeing, cause, judged
from serving.drift.link import Link, WorkerDied
from serving.drift.settings import Settings
from serving.drift.shapes import from_json
from serving.drift.stream import Stream, folder_of
from serving.drift.table import Floats, columns_of, table_of
from serving.drift.watch import Watch, keep_predictions, predictions_before
from serving.drift.window import Window

_log = logging.getLogger(__name__)
# A window waits so long for the proxy's next count; then its coverage is unobservable.
_COUNT_WAIT_S = 60.0
_ATTEMPTS = 3
_CONCEPT_ROWS = 50


@dataclass
class Checks:
    """Checks what waits in `watch` by way of `link`.

    `labels` is a process of its own: calibrating the tests of labelled rows takes minutes, and no window waits for it.
    """

    watch: Watch
    link: Link
    labels: Link

    async def turn(self, now: float) -> bool:
        """Check the window that has been closed longest of those that are ready; whether there was one."""
        ready = []
        for stream in self.watch.streams.values():
            stream.close_if(now, self.watch.settings.rule)
            if stream.waiting and self._countable(stream, stream.waiting[0], now):
                ready.append(stream)
        if not ready:
            return False
        stream = min(ready, key=lambda one: one.waiting[0].closed)
        await self._check(stream, stream.waiting[0])
        return True

    async def concept(self) -> None:
        """Hand labelled rows that are new to the online tests."""
        for source, truth in list(self.watch.truths.items()):
            stream = self.watch.streams.get(source)  # it may have been forgotten since
            if stream is None or len(truth.baseline) < truth.size or len(truth.fresh) < _CONCEPT_ROWS:
                continue
            fresh, truth.fresh = truth.fresh, []
            told = {
                **self._told(stream),
                "op": "concept",
                "ert": self.watch.settings.labelled_ert,
                "anew": False,
            }
            arrays = {
                "errors": np.array([not one.right for one in truth.baseline]),
                "doubts": np.array([1 - one.probability for one in truth.baseline]),
                "fresh_errors": np.array([not one.right for one in fresh]),
                "fresh_doubts": np.array([1 - one.probability for one in fresh]),
            }
            try:
                answer = await self.labels.ask(told, arrays)
            except WorkerDied:
                truth.fresh = fresh + truth.fresh
                continue
            except KanaryError as error:
                _log.error("labelled rows of %s could not be tested: %s", source, error)
                continue
            self._count_online(stream, answer.told["tests"])

    def _countable(self, stream: Stream, window: Window, now: float) -> bool:
        """Whether the proxy has been counted since the window ended, or will not be in time.

        A few large requests fill a window before the proxy is scraped: a count of nothing is older than they are.
        """
        if not self.watch.settings.coverage or self.watch.counted is None or now - window.closed > _COUNT_WAIT_S:
            return True
        return stream.counted_at >= window.closed and not coverage.behind(*self._seen(stream, window))

    async def _check(self, stream: Stream, window: Window) -> None:
        began = time.perf_counter()
        told = self._told(stream) | {"op": "check", "window": window.number}
        folder = folder_of(self.watch.settings.home, stream.source)
        before = predictions_before(folder)
        try:
            rows, predictions = await asyncio.to_thread(_arrays, stream, window)
            unwatched = _unwatched(stream, window)
            answer = await self.link.ask(
                told | {"unwatched": unwatched}, {"rows": rows, "predictions": predictions, "before": before}
            )
        except WorkerDied as error:
            _log.error("%s", error)
            stream.failures += 1
            if stream.failures < _ATTEMPTS:
                return
            answer_told: Mapping[str, Any] | None = None
        except KanaryError as error:
            _log.error("window %d of %s cannot be checked: %s", window.number, stream.source, error)
            answer_told = None
        else:
            answer_told = answer.told
        stream.failures = 0
        if answer_told is None:
            self.watch.tally.failed_checks += 1
            self._settle(stream, window, _unchecked(window, time.perf_counter() - began))
            return
        compared = await self._compared(stream, window, rows, predictions)
        result = self._judged(stream, window, answer_told, compared, began)
        if answer_told["online"]:
            self._count_online(stream, answer_told["online"])
        if len(predictions) and not len(before) and not _drifts(result.findings, "feature"):
            keep_predictions(folder, predictions)
        self._settle(stream, window, result)

    def _judged(
        self,
        stream: Stream,
        window: Window,
        told: Mapping[str, Any],
        compared: tuple[Stream, list[Score]] | None,
        began: float,
    ) -> Result:
        settings = self.watch.settings
        share = coverage.share(*self._seen(stream, window))
        doubt = coverage.doubt(share, settings.coverage)
        scores = self._with_agreement(stream, [Score(**score) for score in told["scores"]])
        if not doubt and not scores:
            doubt = "nothing to compare with yet"
        now = time.time()
        account = budget.current(self.watch.account, now)
        between = compared[1] if compared else []
        threshold = budget.level(account, len(scores) + len(between))
        findings = judged(scores, threshold, stream.drifting)
        if doubt:
            findings = tuple(replace(one, alarm=False) for one in findings)
        else:
            account = budget.settled(account, sum(one.alarm for one in findings)) if scores else account
            stream.drifting = tuple(one.score.name for one in findings if one.detected)
            for one in findings:
                stream.alarms[one.score.name] = stream.alarms.get(one.score.name, 0) + one.alarm
        self.watch.account = account
        stream.outliers += told["outliers"]
        stream.shapes = from_json(told["shapes"])
        verdict: Verdict = "drift" if any(one.detected for one in findings) else "no drift"
        return Result(
            window=window.number,
            at=now,
            rows=window.size,
            seconds=time.perf_counter() - began,
            verdict="unknown" if doubt else verdict,
            doubt=doubt,
            coverage=share,
            findings=findings,
            outliers=told["outliers"],
            outlier_ids=tuple(window.row_ids[row] for row in told["outlier_rows"]),
            comparison=_comparison(compared, threshold),
        )

    def _with_agreement(self, stream: Stream, scores: list[Score]) -> list[Score]:
        """The p-value of a test by permutations is that of the newest windows together."""
        found = []
        for score in scores:
            if score.kind == "multivariate" and score.test != "classifier" and score.p_value is not None:
                stream.multivariate = (*stream.multivariate, score.p_value)[-3:]
                score = replace(score, p_value=agreeing(stream.multivariate))
            found.append(score)
        return found

    async def _compared(
        self, stream: Stream, window: Window, rows: Floats, predictions: Floats
    ) -> tuple[Stream, list[Score]] | None:
        """A canary's window against stable's newest one of the same time; None where there is no such."""
        older = [
            other
            for other in self.watch.others(stream)
            if other.recent is not None
            and other.source.revision < stream.source.revision
            and other.model.spec.features == stream.model.spec.features
            and other.model.spec.classes == stream.model.spec.classes
        ]
        if not older:
            return None
        stable = max(older, key=lambda other: other.last_event)
        assert stable.recent is not None
        window_stable = stable.recent if stable.recent.closed >= window.opened else stable.window
        if window_stable.size < self.watch.settings.rule.minimum or window_stable.opened > window.closed:
            return None
        stable_rows, stable_predictions = await asyncio.to_thread(_arrays, stable, window_stable)
        told = self._told(stream) | {
            "op": "compare",
            "columns": [[column.name, column.categories] for column in columns_of(stream.model.spec.features)],
        }
        arrays = {
            "rows": rows,
            "stable_rows": stable_rows,
            "predictions": predictions,
            "stable_predictions": stable_predictions,
        }
        try:
            answer = await self.link.ask(told, arrays)
        except KanaryError as error:
            _log.error("%s could not be compared with %s: %s", stream.source, stable.source.revision, error)
            return None
        return stable, [Score(**score) for score in answer.told["scores"]]

    def _seen(self, stream: Stream, window: Window) -> tuple[int, Span]:
        """The events and the requests from the count before the window to the newest one."""
        opening, closing = stream.openings.get(window.number), stream.counted
        if opening is None or closing is None or opening.requests is None or closing.requests is None:
            return 1, Span(None)
        arm = (stream.source.namespace, stream.source.service, stream.source.revision)
        before, after = (Counted(0.0, {arm: one.requests}) for one in (opening, closing) if one.requests is not None)
        return closing.events - opening.events, coverage.between(before, after, arm)

    def _settle(self, stream: Stream, window: Window, result: Result) -> None:
        """Keep what was found, then forget the window: killed between the two, it is forgotten at the next start."""
        stream.result, stream.checked = result, window.number
        if result.comparison is not None:
            self.watch.comparisons[stream.source] = result.comparison
        self.watch.tally.checks += 1
        self.watch.tally.check_seconds += result.seconds
        try:
            self.watch.save()
        except OSError as error:
            _log.error("what was checked could not be written: %s", error)
        stream.done(window)
        for one in result.findings:
            if one.alarm:
                _log.warning("drift: %s of %s, window %d: %s", one.score.name, stream.source, window.number, one)

    def _count_online(self, stream: Stream, tests: Mapping[str, Mapping[str, Any]]) -> None:
        for name, found in tests.items():
            self.watch.online[stream.source, name] += found["detections"]

    def _told(self, stream: Stream) -> dict[str, Any]:
        settings: Settings = self.watch.settings
        return {
            "key": stream.model.key,
            "stream": folder_of(settings.home, stream.source).name,
            "model": str(stream.model.folder),
            "cache": str(settings.home / "fitted"),
            "columns": [feature.name for feature in stream.model.spec.features],
            "classes": list(stream.model.spec.classes),
            "multivariate": settings.multivariate,
            "permutations": settings.permutations,
            "online": settings.online,
            "online_ert": settings.online_ert,
            "outlier_share": settings.outlier_share,
            "plotted": settings.plotted,
        }


def _arrays(stream: Stream, window: Window) -> tuple[Floats, Floats]:
    """A window's rows as the tests read them, and its predictions: the label's index, then every probability."""
    features, classes = stream.model.spec.features, stream.model.spec.classes
    rows = np.zeros((0, len(features)))
    if window.rows:
        columns = dict(zip((feature.name for feature in features), zip(*window.rows, strict=True), strict=True))
        rows = table_of(features, columns).values
    index = {name: at for at, name in enumerate(classes)}
    answers = [(index[one.label], *one.probabilities) for one in tuple(window.predictions)]
    return rows, np.array(answers, dtype=np.float64).reshape(len(answers), 1 + len(classes))


def _unwatched(stream: Stream, window: Window) -> list[str]:
    """Sensitive columns that the payload log has made null: they are not there to be watched."""
    found = []
    for at, feature in enumerate(stream.model.spec.features):
        if feature.name in stream.model.spec.sensitive and all(row[at] is None for row in window.rows):
            found.append(feature.name)
    return found


def _unchecked(window: Window, seconds: float) -> Result:
    return Result(window.number, time.time(), window.size, seconds, "unknown", "the check failed: see the log", None)


def _comparison(compared: tuple[Stream, Sequence[Score]] | None, threshold: float) -> Comparison | None:
    if compared is None:
        return None
    stable, scores = compared
    found = judged(scores, threshold, ())
    features = [one for one in found if one.score.kind == "feature"]
    predictions = [one for one in found if one.score.kind == "prediction"]
    return Comparison(
        stable.source.revision,
        cause(features, predictions, bool(stable.drifting)),
        tuple(one.score.name for one in features if one.detected),
        tuple(one.score.name for one in predictions if one.detected),
    )


def _drifts(findings: Sequence[Finding], kind: Kind) -> bool:
    return any(one.detected for one in findings if one.score.kind == kind)
