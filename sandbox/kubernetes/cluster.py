"""What every handler needs: the store, the home folder, the admission in force, the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.kubernetes.admission import Admission
from sandbox.kubernetes.storage import Store

# kube-apiserver's --event-ttl.
EVENT_SECONDS = 3600.0


def timestamp(seconds: float) -> str:
    """Kubernetes' Time: UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass(frozen=True)
class Cluster:
    """One API server's state. `admission` None: the CRDs' schemas alone speak. Events live for `event_seconds`."""

    store: Store
    home: Path
    admission: Admission | None = None
    bookmark_seconds: float = 30.0
    clock: Callable[[], float] = time.time
    event_seconds: float = EVENT_SECONDS

    def now(self) -> str:
        return timestamp(self.clock())
