"""All model servers of one home. They outlive a killed host; the next one takes over those that it knows and wants."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandbox import processes
from sandbox.errors import SandboxError
from sandbox.forkserver import ForkServer, ahead
from sandbox.modelserver import storage
from sandbox.modelserver.command import Command
from sandbox.modelserver.ports import free_port, is_free
from sandbox.modelserver.process import Process, adopt, fork, spawn
from sandbox.modelserver.server import Server
from sandbox.modelserver.spec import STOPPED, Spec, Status, spec_from, status_from, to_json
from sandbox.modelserver.stored import FOLDER, PROCESSES, WANTED

# One core serves one request of a small model best, and revisions share the machine.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_PART = "modelserver"
_PARENT = "parent "  # before a parent's pid in the file of processes; no server's id has a space

_logger = logging.getLogger(__name__)
Listener = Callable[[str, Status | None], None]


class Host:
    """The servers below `home`. Runs inside one asyncio loop; one host a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._wanted = home / WANTED
        self._processes = home / PROCESSES
        self._servers: dict[str, Server] = {}
        self._parents: dict[tuple[str, ...], ForkServer] = {}
        self._up: set[ForkServer] = set()
        self._identities: dict[int, processes.Process] = {}
        self._fetching = 0
        self._written: dict[Path, str] = {}
        self._listeners: set[Listener] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        threads = {name: os.environ.get(name, value) for name, value in _THREADS.items()}
        self._env = threads | {processes.HOME_MARK: str(home), processes.PART_MARK: _PART}

    async def start(self) -> None:
        """Take over the servers that a killed host left, end what else it left, start what is wanted besides."""
        wanted, left = _read(self._wanted), _read(self._processes)
        known: dict[str, tuple[Spec, Status]] = {}
        for name, entry in wanted.items():
            try:
                known[name] = spec_from(entry["spec"]), status_from(entry["status"])
            except (SandboxError, KeyError, TypeError) as error:
                _logger.warning("what is stored of %s makes no server: %s", name, error)
        adopted = {
            name: process
            for name, (spec, status) in known.items()
            if spec.running and (process := _left(left.get(name), status)) is not None
        }
        await asyncio.to_thread(self._end_strangers, [*adopted.values(), *_parents_in(left)])
        for name, (spec, status) in known.items():
            if (process := adopted.get(name)) is None:
                self._add(spec, _stopped(status))
                continue
            _logger.info("%s: adopted, pid %d", name, process.pid)
            status = replace(status, ready=status.ready and processes.is_alive(process))
            parent = functools.partial(self._bring_up, spec.preload) if status.warm else None
            self._add(spec, status, adopt(process, parent))
        self._discard_models()

    def _end_strangers(self, ours: Sequence[processes.Process]) -> None:
        """End what an earlier host started and nobody knows of: it was killed before it had written that down."""
        groups = {process.pid for process in ours}
        strangers = [
            process for process in processes.marked(self.home, _PART) if processes.group_of(process) not in groups
        ]
        for process in strangers:
            _logger.warning("ending the left-over process %d", process.pid)
            processes.send(process, signal.SIGKILL)
        processes.wait_gone(strangers, 5.0)

    async def stop(self) -> None:
        """End every server and every fork parent; what is wanted stays wanted."""
        # A parent that is still importing has no workers, but would keep waiting those who want one.
        await asyncio.gather(*(parent.stop() for parent in self._parents.values() if parent not in self._up))
        await asyncio.gather(*(server.stop(server.spec.grace_s) for server in self._servers.values()))
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*(parent.stop() for parent in self._parents.values()))

    def put(self, spec: Spec) -> Status:
        """Bring a server to `spec`: start it, scale it to zero or up again, or replace one of another owner."""
        server = self._servers.get(spec.id)
        if server is None:
            server = self._add(spec, None)
        elif _same_server(server.spec, spec):
            server.spec = spec
            if spec.running:
                self._after_leaving(spec.id, server.start)
            else:
                self._background(server.stop(spec.grace_s), spec.id)
        else:
            self._end(server)
            server = self._add(spec, None)
        self._persist()
        return server.status

    def remove(self, name: str) -> None:
        """End a server and forget it, its log excepted; nothing happens where there is none."""
        server = self._servers.pop(name, None)
        if server is not None:
            self._end(server)
            self._persist()

    def statuses(self) -> list[Status]:
        """What is known of every server, by name."""
        return [server.status for _, server in sorted(self._servers.items())]

    def warm(self, preload: tuple[str, ...]) -> None:
        """Start the parent of servers with this preload list where that is wanted: the first one is fast, too."""
        if preload and ahead() and self._parents.get(preload) not in self._up:
            self._background(self._bring_up(preload), f"parent for {', '.join(preload)}")

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every change from now on; with None for a server that is gone."""
        self._listeners.add(listener)

    def forget(self, listener: Listener) -> None:
        """Stop calling `listener`."""
        self._listeners.discard(listener)

    def _add(self, spec: Spec, status: Status | None, left: Process | None = None) -> Server:
        server = Server(
            spec,
            self.home,
            start=self._start_process,
            fetch=self._fetch,
            free_port=lambda preferred: self._free_port(spec.id, preferred),
            changed=lambda: self._changed(spec.id),
            status=status,
            left=left,
        )
        self._servers[spec.id] = server
        if spec.running:
            self._after_leaving(spec.id, server.start)
        return server

    async def _start_process(self, command: Command, spec: Spec, work: Path, log: Path) -> tuple[Process, bool]:
        if command.module and spec.preload and not spec.working_dir:
            return await fork(await self._bring_up(spec.preload), command, work, log), True
        return await spawn(command, Path(spec.working_dir or work), log, self._env), False

    def _parent(self, preload: tuple[str, ...]) -> ForkServer:
        """The parent for a preload list. It lasts: the next host finds it by the same address."""
        if preload not in self._parents:
            name = hashlib.sha256(json.dumps([preload, self._env]).encode()).hexdigest()[:16]
            address = self.home / FOLDER / "parents" / name
            log = self.home / "logs" / "modelserver-parents.log"
            self._parents[preload] = ForkServer(preload, log, self._env, address)
        return self._parents[preload]

    async def _bring_up(self, preload: tuple[str, ...]) -> ForkServer:
        parent = self._parent(preload)
        await parent.start()
        if parent not in self._up:
            self._up.add(parent)
            self._persist()
        return parent

    async def _fetch(self, uri: str) -> Path:
        self._fetching += 1
        fetching = asyncio.ensure_future(asyncio.to_thread(storage.fetch, uri, self.home))
        try:
            return await asyncio.shield(fetching)
        finally:  # its thread goes on though nobody waits for it any more; who does has noted the model by then
            fetching.add_done_callback(self._fetched)

    def _fetched(self, _: asyncio.Future[Path]) -> None:
        self._fetching -= 1

    def _discard_models(self) -> None:
        """Delete models that no server has; not while one is fetched, then the next time does it."""
        if not self._fetching:
            used = {Path(server.status.model) for server in self._servers.values() if server.status.model}
            if unused := storage.discard_unused(self.home, used):
                self._background(asyncio.to_thread(storage.delete, unused), "unused models")

    def _free_port(self, name: str, preferred: int) -> int:
        taken = {server.status.port for other, server in self._servers.items() if other != name}
        if preferred and preferred not in taken and is_free(preferred):
            return preferred
        return free_port(taken)

    def _changed(self, name: str) -> None:
        server = self._servers.get(name)
        if server is None:
            return
        self._persist()
        for listener in list(self._listeners):
            listener(name, server.status)

    def _after_leaving(self, name: str, start: Callable[[], None]) -> None:
        """Start a server once its predecessor of the same name has ended: they share log and folder."""
        leaving = self._leaving(name)
        if not leaving:
            start()
            return

        async def later() -> None:
            await asyncio.wait(leaving)
            server = self._servers.get(name)
            if server is not None and server.spec.running:
                server.start()

        self._background(later(), f"successor of {name}")

    def _leaving(self, name: str) -> list[asyncio.Task[None]]:
        """What ends a server of that name just now."""
        return [task for task in self._tasks if task.get_name() == name]

    def _background(self, work: Coroutine[Any, Any, object], name: str) -> None:
        async def guarded() -> None:
            try:
                await work
            except (OSError, RuntimeError) as error:
                _logger.warning("%s: %s", name, error)

        task = asyncio.create_task(guarded(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, server: Server) -> None:
        """End a server that is no more; its successor of the same name, if there is one, waits for that."""

        stopping = self._leaving(server.spec.id)

        async def end() -> None:
            if stopping:  # it was to be scaled to zero: then that ends it
                await asyncio.wait(stopping)
            await server.stop(server.spec.grace_s)
            self._persist()
            if server.spec.id not in self._servers:  # told before anything that may fail: it is told only once
                for listener in list(self._listeners):
                    listener(server.spec.id, None)
            shutil.rmtree(server.work, ignore_errors=True)
            self._discard_models()

        self._background(end(), server.spec.id)

    def _persist(self) -> None:
        """Write down what must survive this process: what is wanted, and what runs."""
        self._write(self._wanted, {name: _lasting(server) for name, server in self._servers.items()})
        pids = {name: server.status.pid for name, server in self._servers.items()}
        pids |= {f"{_PARENT}{parent.pid}": parent.pid for parent in self._up if parent.pid}
        # A number is the same process for as long as it is told of: to look each of them up takes a while.
        known = {pid: self._identities.get(pid) or processes.process_of(pid) for pid in pids.values() if pid}
        self._identities = {pid: process for pid, process in known.items() if process is not None}
        running = {name: self._identities[pid].as_json() for name, pid in pids.items() if pid in self._identities}
        self._write(self._processes, running)

    def _write(self, path: Path, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, separators=(",", ":"))
        if self._written.get(path) == text:
            return
        beside = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        except OSError as error:  # servers go on on a full disk; the next change tries again
            _logger.error("cannot write %s: %s", path, error)
            return
        self._written[path] = text


def _lasting(server: Server) -> dict[str, Any]:
    return {"spec": to_json(server.spec), "status": to_json(server.status)}


def _stopped(status: Status) -> Status:
    """What is known of it without its process."""
    return replace(status, state=STOPPED, ready=False, pid=0)


def _left(entry: object, status: Status) -> processes.Process | None:
    """The process of a server as it was written down, dead or alive, if it is the one that `status` is of."""
    process = processes.told(entry)
    return process if process is not None and process.pid == status.pid else None


def _parents_in(left: Mapping[str, Any]) -> list[processes.Process]:
    found = [processes.told(entry) for name, entry in left.items() if name.startswith(_PARENT)]
    return [process for process in found if process is not None]


def _same_server(known: Spec, wanted: Spec) -> bool:
    """Whether only the scale differs."""
    return to_json(known) | {"running": True} == to_json(wanted) | {"running": True}


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON object; an unreadable one is put aside, and what it held is asked for again by the controller."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        raise ValueError("not an object")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        _logger.warning("%s cannot be read (%s); it is put aside", path, error)
        path.replace(path.with_suffix(".unreadable"))
        return {}
