"""All that the detector knows: its streams, their ground truth, the account of false alarms; kept in a folder."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from serving.drift.budget import Account, current
from serving.drift.coverage import Counted
from serving.drift.events import Reader, Source
from serving.drift.findings import Comparison
from serving.drift.journal import Journal, read_json, replace, synced, write_json
from serving.drift.models import Models
from serving.drift.settings import Settings
from serving.drift.stream import Count, Stream, folder_of, remember, remembered
from serving.drift.table import Floats
from serving.drift.truth import Truth


@dataclass
class Tally:
    """What was counted since the process started."""

    received: Counter[tuple[Source, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    check_seconds: float = 0.0
    checks: int = 0
    failed_checks: int = 0


@dataclass
class Watch:
    """`counted` is the proxy's newest count; `online` the detections of online tests, by stream and test."""

    settings: Settings
    models: Models
    account: Account
    streams: dict[Source, Stream] = field(default_factory=dict)
    truths: dict[Source, Truth] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    counted: Counted | None = None
    online: Counter[tuple[Source, str]] = field(default_factory=Counter)
    comparisons: dict[Source, Comparison] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """Rows in memory."""
        return sum(stream.held for stream in self.streams.values())

    def stream(self, source: Source, now: float) -> Stream | None:
        """The stream of a source, a new one where it has a model; None for no model, or one stream too many."""
        if source in self.streams:
            return self.streams[source]
        model = self.models.of(source, now)
        if model is None or len(self.streams) >= self.settings.max_streams:
            return None
        remember(self.settings.home, source)
        folder = folder_of(self.settings.home, source)
        stream = Stream(source, model, Reader(model.spec), Journal(folder))
        if self.counted is not None:
            # The proxy had counted for it what it had, perhaps nothing, before its first event came.
            stream.counted, stream.counted_at = self.count_of(stream), self.counted.at
        self.streams[source] = stream
        self.truths[source] = Truth(folder, model.spec.classes, self.settings.labelled)
        return stream

    def count_of(self, stream: Stream) -> Count | None:
        """Events and requests of a stream as of the proxy's newest count."""
        if self.counted is None:
            return None
        arm = (stream.source.namespace, stream.source.service, stream.source.revision)
        return Count(stream.exchanges, self.counted.requests.get(arm, 0.0))

    def restore(self, now: float) -> None:
        """Take up what a process before left. A stream whose model is gone waits in its folder."""
        kept = read_json(self.settings.home / "state.json") or {}
        if account := kept.get("account"):
            account["alarms"] = tuple(account["alarms"])
            found = Account(**account)
            # Another budget begins a new month.
            self.account = current(found, now) if found.budget == self.account.budget else self.account
        streams = {Source(**entry["source"]): entry for entry in kept.get("streams", ())}
        for key, number in kept.get("online", ()):
            self.online[Source(**key[0]), key[1]] = number
        for source in remembered(self.settings.home):
            stream = self.stream(source, now)
            if stream is not None:
                stream.restore(streams.get(source, {}), self.settings.rule)
                self.truths[source].restore()

    def save(self) -> None:
        """Write down what was checked, in one step. Raises OSError."""
        write_json(
            self.settings.home / "state.json",
            {
                "account": asdict(self.account),
                "streams": [stream.kept() for stream in self.streams.values()],
                "online": [[[asdict(source), test], number] for (source, test), number in self.online.items()],
            },
        )

    def forget_idle(self, now: float) -> None:
        """Drop the streams that have been silent for long, their files included."""
        for source, stream in list(self.streams.items()):
            newest = max(stream.last_event, stream.counted_at if not stream.last_event else 0.0)
            if newest and now - newest > self.settings.forget_s:
                stream.journal.close()
                self.truths.pop(source).close()
                del self.streams[source]
                shutil.rmtree(folder_of(self.settings.home, source), ignore_errors=True)

    def others(self, stream: Stream) -> Iterator[Stream]:
        """Streams of the same service in other revisions."""
        for other in self.streams.values():
            one, two = stream.source, other.source
            if (one.namespace, one.service) == (two.namespace, two.service) and one.revision != two.revision:
                yield other

    def unsynced(self) -> list[int]:
        """Descriptors of what was written since the last call, for `journal.synced`."""
        found = [one for stream in self.streams.values() for one in stream.journal.unsynced()]
        return found + [one for truth in self.truths.values() for file in truth.files for one in file.unsynced()]

    def close(self) -> None:
        """Have the disk hold all files, and close them. Raises OSError."""
        synced(self.unsynced())
        for stream in self.streams.values():
            stream.journal.close()
        for truth in self.truths.values():
            truth.close()


def predictions_before(folder: Path) -> Floats:
    """The predictions that later ones are compared with, float64 [rows, 1 + classes]; no rows where there are none."""
    try:
        found: Floats = np.load(folder / "predictions.npy", allow_pickle=False)
        return found
    except (OSError, ValueError, EOFError):
        return np.zeros((0, 1))


def keep_predictions(folder: Path, predictions: Floats) -> None:
    """Keep a window's predictions for later ones to be compared with."""
    content = io.BytesIO()
    np.save(content, predictions)
    replace(folder / "predictions.npy", content.getvalue())
