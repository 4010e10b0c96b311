"""Scale to zero: which servers rest because nobody asks for them, and how the next request gets them back.

Off unless ConfigMap `config-autoscaler` (namespace `knative-serving`) says `enable-scale-to-zero: "true"`; then it
concerns components with `minReplicas: 0`. What rests is not written down: a server that does not run rests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.gateway.description import RevisionKey
from sandbox.kserve.activator import Activator
from sandbox.kserve.following import Key
from sandbox.kserve.knative import Components, Revision, Server, Servers, referenced, seconds
from sandbox.kserve.router import Router

NAMESPACE, NAME = "knative-serving", "config-autoscaler"
_MIN_SCALE, _WINDOW = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/window"
_LOOK_S = 0.5
# Between the last route to a server and its end: whoever was let in just before is answered.
_DRAIN_S = 2.0


@dataclass(frozen=True)
class Scaling:
    """Whether servers may rest, and after how long without a request."""

    to_zero: bool = False
    window_s: float = 60.0


@dataclass(frozen=True)
class Rest:
    """Of one service's revisions: `ports` where requests are held for those whose server does not answer yet, `asleep`
    those that need no server now, with whether it may be stopped at once.
    """

    ports: Mapping[str, int] = field(default_factory=dict)
    asleep: Mapping[str, bool] = field(default_factory=dict)

    def as_ready(self, servers: Servers) -> Servers:
        """The servers as Knative shows them: one that rests is no failure, its revision stays ready."""
        resting = {name: servers.get(name) or Server(0, "stopped", False) for name in self.ports}
        return dict(servers) | {name: replace(one, state="ready", ready=True) for name, one in resting.items()}


def read(config_map: Mapping[str, Any] | None) -> Scaling:
    """The settings in ConfigMap `config-autoscaler`."""
    data = (config_map or {}).get("data") or {}
    on = str(data.get("enable-scale-to-zero", "")).lower() == "true"
    return Scaling(on, seconds(str(data.get("stable-window", ""))) or Scaling.window_s)


def may_rest(revision: Revision, scaling: Scaling) -> bool:
    """Whether a revision's server may be scaled to zero; never before it has answered once."""
    return scaling.to_zero and revision.ready and revision.template.document["annotations"].get(_MIN_SCALE) == "0"


class Scaler:
    """Watches what the gateway counts; `look_at` is called with a service whose servers shall rest or be woken."""

    def __init__(self, router: Router, look_at: Callable[[Key], None]) -> None:
        self.scaling = Scaling()
        self._router = router
        self._look_at = look_at
        self._activator = Activator(self._wake)
        self._watched: dict[RevisionKey, float] = {}
        self._counted: dict[RevisionKey, tuple[int, float]] = {}
        self._falling_asleep: dict[RevisionKey, float] = {}
        self._woken: set[RevisionKey] = set()
        # Servers that are told to end, of whose end nothing was heard yet: that they are ready is old news.
        self._ending: set[RevisionKey] = set()

    async def run(self) -> None:
        """Until cancelled: have what nobody asks for fall asleep."""
        while True:
            await asyncio.sleep(_LOOK_S)
            awake = [key for key in self._watched if key not in self._falling_asleep]
            now = time.monotonic()
            for key, (total, active) in (await self._router.activity(awake)).items():
                known, since = self._counted.get(key, (-1, now))
                self._counted[key] = (total, since if total == known and not active else now)
                if now - self._counted[key][1] >= self._watched.get(key, now):
                    self._falling_asleep[key] = now
            for key in list(self._falling_asleep):
                self._look_at((key.namespace, key.service))

    async def attend(self, key: Key, components: Components, servers: Servers) -> Rest:
        """What of a service rests now."""
        ports: dict[str, int] = {}
        asleep: dict[str, bool] = {}
        known = {one for one in self._watched if (one.namespace, one.service) == key}
        for knative in components.values():
            active = referenced(knative)
            for revision in [one for one in knative.revisions if one.name in active]:
                name = RevisionKey(*key, revision.name)
                if not may_rest(revision, self.scaling):
                    continue
                known.discard(name)
                window = revision.template.document["annotations"].get(_WINDOW, "")
                self._watched[name] = seconds(window) or self.scaling.window_s
                await self._attend(name, servers.get(revision.name), ports, asleep)
        for gone in known:
            self._let_go(gone, servers.get(gone.revision))
        return Rest(ports, asleep)

    def close(self) -> None:
        """Hold no more requests."""
        self._activator.close()

    async def _attend(
        self, key: RevisionKey, server: Server | None, ports: dict[str, int], asleep: dict[str, bool]
    ) -> None:
        running = server is not None and server.running
        if not running:
            self._falling_asleep.pop(key, None)
            self._counted.pop(key, None)
            self._ending.discard(key)
        since = self._falling_asleep.get(key)
        if since is not None:
            asleep[key.revision] = time.monotonic() - since >= _DRAIN_S
            if asleep[key.revision]:
                self._ending.add(key)
        elif not running and key not in self._woken:
            asleep[key.revision] = True
        elif server is not None and server.ready:
            self._woken.discard(key)
            self._activator.open(key, server.port)
            return
        if key.revision in asleep or key in self._woken:
            self._activator.shut(key)
            ports[key.revision] = await self._activator.listen(key)

    def _wake(self, key: RevisionKey) -> None:
        if key not in self._ending:  # else it ends first, and is started again
            self._falling_asleep.pop(key, None)
        self._counted.pop(key, None)
        self._woken.add(key)
        self._look_at((key.namespace, key.service))

    def _let_go(self, key: RevisionKey, server: Server | None) -> None:
        """Hold no more requests for that revision; those that wait for its server still get there."""
        if server is not None and server.ready:
            self._activator.open(key, server.port)
        elif server is not None and server.running and self._activator.holds(key):
            return  # once it answers, or ends, its service is looked at again
        self._forget(key)

    def _forget(self, key: RevisionKey) -> None:
        for known in (self._watched, self._counted, self._falling_asleep):
            known.pop(key, None)
        self._woken.discard(key)
        self._ending.discard(key)
        self._activator.forget(key)
