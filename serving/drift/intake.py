"""What comes in, to what is answered: events, ground truth, a proxy's counts. Answers at once; checks are elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.drift import events
from serving.drift.coverage import Counted
from serving.drift.events import Corrupt, Source
from serving.drift.http import Answer, Request
from serving.drift.quarantine import Quarantine
from serving.drift.stream import Stream
from serving.drift.watch import Watch
from serving.model.preprocess import category_text

_log = logging.getLogger(__name__)
ACCEPTED = Answer(204)
_HEADERS = (b"ce-namespace", b"ce-inferenceservicename", b"ce-revision", b"ce-annotations")
_SOURCES = 4096
_ID_LENGTH = 512
# Closed windows that wait to be checked, of one stream: behind so far, the sender is told to wait.
_WAITING = 4


@dataclass
class Intake:
    """Takes events for `watch`. `_sources` remembers what the headers of an event say whom it is about."""

    watch: Watch
    quarantine: Quarantine
    _sources: dict[tuple[bytes | None, ...], Source] = field(default_factory=dict)

    def event(self, request: Request) -> Answer:
        """Take one CloudEvent: 204 once it is in the journal, also for one that came before.

        400 for a corrupt one, 404 for a model that is unknown, 429 where checks are behind or memory is full, 503 where
        the disk is.
        """
        headers = request.headers
        now = time.time()
        try:
            kind = events.KINDS.get(headers.get(b"ce-type", b""))
            if kind is None:
                raise Corrupt("type", f"ce-type is {headers.get(b'ce-type', b'')!r:.100}")
            event_id = headers.get(b"ce-id", b"").decode("utf-8", "replace")
            if not 0 < len(event_id) <= _ID_LENGTH:
                raise Corrupt("headers", f"ce-id has {len(event_id)} characters")
            source = self._source(headers)
            stream = self.watch.stream(source, now)
            if stream is None:
                return self._unknown(source)
            if len(stream.waiting) >= _WAITING or self.watch.held >= self.watch.settings.max_rows:
                self.watch.tally.refused["busy"] += 1
                return Answer(429, b"checks are behind: send it again a little later", retry_after_s=1)
            length = events.json_length(headers)
            read = stream.reader.rows if kind == "request" else stream.reader.predictions
            found: Any = read(request.body, length)
            at = min(now, events.moment(headers[b"ce-time"])) if b"ce-time" in headers else now
        except Corrupt as error:
            self.watch.tally.refused[error.reason] += 1
            self.quarantine.put(now, error.reason, error.message, headers, request.body)
            return Answer(400, error.message.encode())
        return self._accept(stream, kind, event_id, at, found, now)

    def truth(self, request: Request) -> Answer:
        """Take ground truth: a JSON list of {"id", "label" or "labels"}, one label a row of that event.

        Answers how many were judged and how many wait for their event. 400 names what is wrong and takes nothing.
        """
        try:
            given = orjson.loads(request.body)
            entries = [(_text(entry["id"]), _labels(entry)) for entry in given]
        except (ValueError, TypeError, KeyError) as error:
            self.watch.tally.refused["feedback"] += 1
            return Answer(400, f'a list of {{"id": ..., "label": ...}} is needed: {error!r:.200}'.encode())
        told = {"judged": 0, "waiting": 0, "refused": 0}
        for event_id, labels in entries:
            try:
                outcome = self._label(event_id, labels)
            except OSError as error:
                return Answer(503, f"ground truth cannot be written: {error.strerror}".encode(), retry_after_s=5)
            told[outcome] += 1
            self.watch.tally.labels[outcome] += 1
        return Answer(200, orjson.dumps(told), "application/json")

    def counts(self, request: Request) -> Answer:
        """Take a proxy's counters, where no Prometheus has them: [{"namespace", "service", "revision", "requests"}]."""
        try:
            found = {
                (_text(entry["namespace"]), _text(entry["service"]), _text(entry["revision"])): float(entry["requests"])
                for entry in orjson.loads(request.body)
            }
        except (ValueError, TypeError, KeyError) as error:
            return Answer(400, f"a list of counters is needed: {error!r:.200}".encode())
        self.counted(Counted(time.time(), found))
        return ACCEPTED

    def counted(self, counted: Counted) -> None:
        """Hold the proxy's count against the events so far, in every stream."""
        self.watch.counted = counted
        for stream in self.watch.streams.values():
            stream.counted, stream.counted_at = self.watch.count_of(stream), counted.at

    def _accept(self, stream: Stream, kind: Any, event_id: str, at: float, found: Any, now: float) -> Answer:
        try:
            fresh = stream.take(kind, event_id, at, found)
            if fresh and kind == "response":
                self.watch.truths[stream.source].answer(event_id, found)
        except ValueError as error:  # labels that came first, of another number of rows
            _log.warning("ground truth of %s: %s", event_id, error)
        except OSError as error:
            self.watch.tally.refused["disk"] += 1
            return Answer(503, f"the journal cannot be written: {error.strerror}".encode(), retry_after_s=5)
        if fresh:
            self.watch.tally.received[stream.source, kind] += 1
            stream.close_if(now, self.watch.settings.rule)
        return ACCEPTED

    def _label(self, event_id: str, labels: list[str]) -> str:
        truths = self.watch.truths.values()
        for truth in truths:
            if event_id in truth.answers:
                try:
                    truth.label(event_id, labels)
                except ValueError:
                    return "refused"
                return "judged"
        if not truths:
            return "refused"
        for truth in truths:  # whose it is will be seen when the event comes
            truth.label(event_id, labels)
        return "waiting"

    def _source(self, headers: Mapping[bytes, bytes]) -> Source:
        key = tuple(map(headers.get, _HEADERS))
        found = self._sources.get(key)
        if found is None:
            if len(self._sources) >= _SOURCES:
                self._sources.clear()
            found = self._sources[key] = events.source(headers)
        return found

    def _unknown(self, source: Source) -> Answer:
        full = len(self.watch.streams) >= self.watch.settings.max_streams
        self.watch.tally.refused["too_many_streams" if full else "unknown_model"] += 1
        what = f"of {source.namespace}/{source.service}, model {source.version or '(no model-version)'} {source.digest}"
        why = "too many are watched already" if full else "no release of it is here"
        return Answer(404, f"{what}: {why}".encode())


def _labels(entry: Mapping[str, Any]) -> list[str]:
    given = entry["labels"] if "labels" in entry else [entry["label"]]
    if not isinstance(given, list) or not given or not all(isinstance(one, str | int | float | bool) for one in given):
        raise ValueError("labels is no list of classes")
    return [category_text(one) for one in given]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value
