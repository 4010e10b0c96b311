"""Ground truth that comes later: joined to answers by event id, accuracy over windows of labelled rows with intervals.

Answers wait for labels and labels for answers, the newest of each; both outlast a restart.
"""

from __future__ import annotations

import io
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from serving.drift.journal import read_json, write_json
from serving.drift.window import Prediction

ANSWERS = 100_000
_LABELS = 20_000
_OUTCOMES = 100_000
Z = 1.959963984540054  # 95 %


@dataclass(frozen=True)
class Outcome:
    """One labelled row: whether the model was right, and the probability that it gave the true class."""

    right: bool
    probability: float


@dataclass(frozen=True)
class Accuracy:
    """The share of `rows` that was right, and its 95 % interval."""

    rows: int
    value: float
    low: float
    high: float


@dataclass
class Rolling:
    """An append-only file of lines that begins anew after `lines`; the one before it is kept."""

    path: Path
    lines: int
    _count: int = 0
    _file: io.FileIO | None = None
    _fresh: bool = False

    def append(self, document: Any) -> None:
        """Write a line. Raises OSError."""
        if self._file is not None and self._count >= self.lines:
            os.fsync(self._file)
            self.close()
            self.path.replace(self.path.with_suffix(".1.jsonl"))
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._count = sum(1 for _ in _lines(self.path))
            self._file = self.path.open("ab", buffering=0)
        self._file.write(orjson.dumps(document) + b"\n")
        self._count += 1
        self._fresh = True

    def unsynced(self) -> list[int]:
        """A descriptor of what was written since the last call; it is the caller's now, for `journal.synced`."""
        fresh, self._fresh = self._fresh, False
        return [os.dup(self._file.fileno())] if fresh and self._file is not None else []

    def read(self) -> Iterator[Any]:
        """All lines that are kept, the oldest first."""
        yield from _lines(self.path.with_suffix(".1.jsonl"))
        yield from _lines(self.path)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None


@dataclass
class Truth:
    """Answers, labels and outcomes of one stream. `fresh` are outcomes that no concept test has seen yet.

    `baseline` are the first `size` outcomes: what later ones are compared with.
    """

    folder: Path
    classes: Sequence[str]
    size: int
    answers: OrderedDict[str, list[Prediction]] = field(default_factory=OrderedDict)
    labels: OrderedDict[str, list[str]] = field(default_factory=OrderedDict)
    baseline: list[Outcome] = field(default_factory=list)
    window: list[Outcome] = field(default_factory=list)
    fresh: list[Outcome] = field(default_factory=list)
    complete: Accuracy | None = None
    rows: int = 0

    def __post_init__(self) -> None:
        self._answered = Rolling(self.folder / "answers.jsonl", ANSWERS // 2)
        self._outcomes = Rolling(self.folder / "outcomes.jsonl", _OUTCOMES)
        self._waiting = Rolling(self.folder / "labels.jsonl", _LABELS // 2)

    @property
    def files(self) -> tuple[Rolling, ...]:
        """What it is kept in."""
        return (self._answered, self._outcomes, self._waiting)

    def restore(self) -> None:
        """Take up what a process before left."""
        kept = read_json(self.folder / "baseline.json") or []
        self.baseline = [Outcome(bool(right), float(probability)) for right, probability in kept]
        for event_id, predictions in self._answered.read():
            self.answers[event_id] = [Prediction(label, tuple(shares)) for label, shares in predictions]
        judged = set()
        for number, event_id, right, probability in self._outcomes.read():
            judged.add(event_id)
            self.answers.pop(event_id, None)
            self.rows = number - 1
            self._count(Outcome(right, probability))
        for event_id, labels in self._waiting.read():
            if event_id not in judged:
                self.labels[event_id] = labels
        self._trim()

    def answer(self, event_id: str, predictions: list[Prediction]) -> None:
        """Keep what the model answered, or judge it where its label came first. Raises OSError."""
        if event_id in self.labels:
            self._judge(event_id, predictions, self.labels.pop(event_id))
            return
        self._answered.append([event_id, [[one.label, one.probabilities] for one in predictions]])
        self.answers[event_id] = predictions
        self._trim()

    def label(self, event_id: str, labels: list[str]) -> bool:
        """Judge an answer, True, or keep the labels until it comes. ValueError where they are not one a row."""
        predictions = self.answers.get(event_id)
        if predictions is None:
            self._waiting.append([event_id, labels])
            self.labels[event_id] = labels
            self._trim()
            return False
        self._judge(event_id, predictions, labels)
        del self.answers[event_id]
        return True

    def close(self) -> None:
        """Close the files."""
        for rolling in self.files:
            rolling.close()

    def accuracy(self) -> Accuracy | None:
        """Of the window that is under way, or, where it has no row yet, the last whole one."""
        return wilson(self.window) if self.window else self.complete

    def _judge(self, event_id: str, predictions: list[Prediction], labels: list[str]) -> None:
        if len(labels) != len(predictions):
            raise ValueError(f"{len(labels)} labels for {len(predictions)} rows")
        for prediction, label in zip(predictions, labels, strict=True):
            shares = dict(zip(self.classes, prediction.probabilities, strict=True))
            outcome = Outcome(prediction.label == label, shares.get(label, 0.0))
            self._outcomes.append([self.rows + 1, event_id, outcome.right, outcome.probability])
            self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        self.rows += 1
        if self.rows <= self.size:
            self.baseline[self.rows - 1 :] = [outcome]
            if self.rows == self.size:
                write_json(self.folder / "baseline.json", [[one.right, one.probability] for one in self.baseline])
        else:
            self.fresh.append(outcome)
            del self.fresh[:-_OUTCOMES]
        self.window.append(outcome)
        if len(self.window) >= self.size:
            self.complete, self.window = wilson(self.window), []

    def _trim(self) -> None:
        while len(self.answers) > ANSWERS:
            self.answers.popitem(last=False)
        while len(self.labels) > _LABELS:
            self.labels.popitem(last=False)


def wilson(outcomes: Sequence[Outcome]) -> Accuracy:
    """The share that is right with Wilson's 95 % score interval. Source: Wilson, JASA 22 (1927)."""
    rows, right = len(outcomes), sum(outcome.right for outcome in outcomes)
    share = right / rows
    middle = (share + Z * Z / (2 * rows)) / (1 + Z * Z / rows)
    half = Z / (1 + Z * Z / rows) * math.sqrt(share * (1 - share) / rows + Z * Z / (4 * rows * rows))
    return Accuracy(rows, share, max(0.0, middle - half), min(1.0, middle + half))


def _lines(path: Path) -> Iterator[Any]:
    try:
        content = path.read_bytes()
    except OSError:
        return
    for line in content.split(b"\n")[:-1]:
        try:
            yield orjson.loads(line)
        except ValueError:  # killed while it wrote
            continue
