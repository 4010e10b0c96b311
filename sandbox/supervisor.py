"""Keeps a sandbox's parts running: starts them in order, restarts those that die, stops them all, leaves nothing.

It only watches processes and ports; it never carries a request, so that parts go on when it is killed. The next
supervisor of the same home adopts what still works and replaces the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.health import answers
from sandbox.home import Home, read_json, remove_files, write_json
from sandbox.partprocess import PartProcess, adopt, choose_port, start, stop
from sandbox.parts import Part, urls
from sandbox.processes import kill_marked, listens, process_of, recorded, send, wait_gone
from sandbox.rotation import rotate, tail

_log = logging.getLogger(__name__)

FREE_PORTS = "KANARY_FREE_PORTS"  # set: take free ports from the start, for sandboxes that come and go in numbers
CANNOT_RUN = 78  # a part's exit status for "starting again will not help"
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_FIRST_DEATHS = 3  # so many before a part was ever healthy fail the start of the sandbox
_STEADY_S = 10.0  # a part that ran so long starts again without delay
_ROTATE_EVERY_S = 5.0

Report = Callable[[Mapping[str, object]], None]


class _Stopped(Exception):
    """Ends the group of tasks: a signal came, or the start failed."""


class Supervisor:
    """Runs the parts of one home whose lock the caller holds."""

    def __init__(self, home: Home, parts: tuple[Part, ...], report: Report) -> None:
        """`report` is told, as JSON objects, of each part's first health, then {"up": true} or {"failed": why}.

        With "up" goes "later": the parts that nobody waits for, and that do not answer yet.
        """
        self._home = home
        self._parts = {part.name: part for part in parts}
        self._report = report
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._running: dict[str, PartProcess] = {}
        self._ports: dict[str, dict[str, int]] = {}
        self._restarts = dict.fromkeys(self._parts, 0)
        self._healthy = {name: asyncio.Event() for name in self._parts}
        self._states = dict.fromkeys(self._parts, "starting")
        self._stop = asyncio.Event()
        self._announced = False
        self._failure = ""

    async def run(self) -> str:
        """Runs until a signal or a failed start; gives what failed, "" for nothing. All parts have ended by then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        self._adopt_or_clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_stopped())
                group.create_task(self._announce())
                group.create_task(self._rotate())
                for part in self._parts.values():
                    group.create_task(self._keep(part))
        except* _Stopped:
            pass
        finally:
            await self._stop_all()
        return self._failure

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        raise _Stopped

    def _adopt_or_clear(self) -> None:
        """Takes over what a killed supervisor left working, ends what it left broken, chooses the ports of the rest."""
        left = read_json(self._home.state).get("parts", {})
        for name, part in self._parts.items():
            adopted = adopt(part, left.get(name, {}), self._home)
            if adopted is not None:
                self._running[name], self._ports[name] = adopted
                _log.info("%s: adopted, pid %d", name, adopted[0].process.pid)
        for name, part in self._parts.items():
            if name not in self._running:
                self._clear(part, left.get(name, {}))
                self._choose_ports(part)

    def _clear(self, part: Part, record: Mapping[str, object]) -> None:
        """Ends what is left of a part that could not be adopted; of children of its own only where they are its own."""
        main = recorded(record)
        if part.owns_children or "pid" not in record:
            kill_marked(self._home.path, part.name)
        elif main is not None:
            send(main, signal.SIGKILL)
            wait_gone([main], 5.0)

    def _choose_ports(self, part: Part) -> None:
        taken = {port for ports in self._ports.values() for port in ports.values()}
        known = self._ports.get(part.name, {})
        chosen: dict[str, int] = {}
        usual = {} if os.environ.get(FREE_PORTS) else part.ports
        for role in part.ports:
            preferred = known.get(role, usual.get(role, 0))
            chosen[role] = choose_port(preferred, taken - set(known.values()) | set(chosen.values()))
        self._ports[part.name] = chosen

    async def _keep(self, part: Part) -> None:
        """One part's life: start, wait for its end, start again, with growing delays."""
        for name in part.depends_on:
            await self._healthy[name].wait()
        quick_deaths = 0
        while True:
            running = self._running.get(part.name) or await self._start(part)
            ending = await self._watch(part, running)
            del self._running[part.name]
            lived = time.monotonic() - running.since
            _log.warning("%s: pid %d ended after %.1f s: %s", part.name, running.process.pid, lived, ending)
            quick_deaths = 0 if lived > _STEADY_S else quick_deaths + 1
            self._states[part.name] = "restarting"
            if running.status() == CANNOT_RUN and not part.required:
                self._do_without(part)
                return
            if running.status() == CANNOT_RUN or quick_deaths >= _FIRST_DEATHS:
                self._fail_unless_up(part, f"it ended: {ending}")
            if part.owns_children:
                await asyncio.to_thread(kill_marked, self._home.path, part.name)
            self._restarts[part.name] += 1
            self._save()
            await asyncio.sleep(_BACKOFF_S[min(quick_deaths, len(_BACKOFF_S)) - 1] if quick_deaths else 0)
            self._choose_ports(part)

    def _do_without(self, part: Part) -> None:
        """Leaves out a part that nobody requires and that says it cannot run here; its log says why."""
        self._states[part.name] = "absent"
        self._save()
        why = tail(self._home.log(part.name), 1).strip()
        _log.warning("%s: absent: %s", part.name, why)
        self._report({"absent": part.name, "why": why})

    async def _watch(self, part: Part, running: PartProcess) -> str:
        """Notes when the part becomes healthy, and says how it ended."""
        async with asyncio.TaskGroup() as group:
            health = group.create_task(self._await_health(part, running))
            ending = await running.ended()
            health.cancel()
        return ending

    async def _start(self, part: Part) -> PartProcess:
        """Starts the part's process; one that cannot even be executed fails the whole start."""
        while True:
            try:
                running = start(part, self._home, self._ports)
            except (OSError, SandboxError) as error:
                _log.error("%s cannot be started: %s", part.name, error)
                self._fail_unless_up(part, str(error))
                await asyncio.sleep(_BACKOFF_S[-1])
                continue
            self._running[part.name] = running
            self._states[part.name] = "starting"
            self._save()
            _log.info("%s: started, pid %d", part.name, running.process.pid)
            return running

    async def _await_health(self, part: Part, running: PartProcess) -> None:
        began = time.monotonic()
        while not await asyncio.to_thread(self._works, part, running):
            waited = time.monotonic() - began
            if waited > part.start_seconds:
                self._fail_unless_up(
                    part, f"it does not answer on {urls(part, self._ports[part.name])} after {waited:.0f} s"
                )
            await asyncio.sleep(0.02 if waited < 2 else 0.2)
        self._states[part.name] = "healthy"
        first = not self._healthy[part.name].is_set()
        self._healthy[part.name].set()
        self._save()
        if first:
            seconds = round(time.monotonic() - running.since, 2)
            self._report({"part": part.name, "seconds": seconds, **urls(part, self._ports[part.name])})
        if self._is_up() and (not first or not part.required):
            with contextlib.suppress(OSError):  # a full disk; mostly the file is right as it is
                self._write_endpoints()  # the part is there only now, or its port is another one

    def _works(self, part: Part, running: PartProcess) -> bool:
        """Whether it is this process that answers: another sandbox may have been quicker to take the port."""
        ports = self._ports[part.name]
        return answers(part, ports) and (not part.health or listens(running.process, ports[part.probe]))

    def _fail_unless_up(self, part: Part, why: str) -> None:
        """Ends a start that cannot succeed. Once all was up, a part is restarted for ever: the cause may pass."""
        if part.required and not self._is_up() and not self._failure:
            log = self._home.log(part.name)
            self._failure = f"{part.name} did not start: {why}. Its log, {log}, ends with:\n{tail(log)}"
            self._stop.set()

    def _is_up(self) -> bool:
        return all(self._healthy[part.name].is_set() for part in self._parts.values() if part.required)

    async def _announce(self) -> None:
        await asyncio.gather(*(self._healthy[part.name].wait() for part in self._parts.values() if part.required))
        self._write_endpoints()
        self._announced = True
        self._save()
        _log.info("up: %s", self._entries())
        self._report({"up": True, "later": [name for name, state in self._states.items() if state == "starting"]})

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            logs: list[Path] = []
            reopening = {part.reopens: part.name for part in self._parts.values() if part.reopens}
            with contextlib.suppress(OSError):  # a folder of them that is being deleted: the next turn looks again
                logs = list(self._home.logs.rglob("*.log"))  # model servers' too
            for path in logs:
                name = reopening.get(str(path.relative_to(self._home.logs)))
                if name is None:
                    await asyncio.to_thread(rotate, path)
                elif (running := self._running.get(name)) and self._states[name] == "healthy":
                    # Before it is healthy the signal could end it.
                    rotate(path, reopen=partial(send, running.process, signal.SIGUSR1))

    def _write_endpoints(self) -> None:
        write_json(self._home.endpoints, {**self._entries(), "pid": os.getpid(), "started": self._started})

    def _entries(self) -> dict[str, dict[str, str]]:
        """The URLs of every part that has been healthy; what is not there is not promised."""
        found = {name: urls(self._parts[name], ports) for name, ports in self._ports.items() if ports}
        return {name: entry for name, entry in found.items() if self._healthy[name].is_set()}

    def _save(self) -> None:
        """Writes the state file; a full disk must not stop the parts, only what is known of them."""
        own = process_of(os.getpid())
        shown = {
            name: {
                **(running.process.as_json() if (running := self._running.get(name)) else {}),
                "state": self._states[name],
                "restarts": self._restarts[name],
                "ports": self._ports.get(name, {}),
            }
            for name in self._parts
        }
        supervisor = own.as_json() if own else {}
        with contextlib.suppress(OSError):
            write_json(
                self._home.state,
                {"supervisor": supervisor, "started": self._started, "up": self._announced, "parts": shown},
            )

    async def _stop_all(self) -> None:
        """Ends the parts, those that depend on others first, then whatever they have left behind."""
        self._announced = False  # an `up` that comes meanwhile waits for the end, and then starts it again
        self._save()
        waiting = dict(self._running)
        while waiting:
            needed = {name for part in waiting for name in self._parts[part].depends_on}
            last = [name for name in waiting if name not in needed] or list(waiting)
            await asyncio.gather(*(stop(waiting.pop(name), self._parts[name].stop_seconds) for name in last))
        if not await asyncio.to_thread(kill_marked, self._home.path):
            _log.error("processes of this sandbox outlive SIGKILL; see `info`")
        remove_files(self._home)
