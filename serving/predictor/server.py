"""KServe's model server, started: on uvloop, on the address asked for, quiet, and only with a model that works."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import os
import signal
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import kserve
import torch
import uvloop
from fastapi import FastAPI
from kserve.model_server import app as kserve_app
from prometheus_client import disable_created_metrics
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kanary.errors import KanaryError
from serving.predictor.bodies import Bodies
from serving.predictor.drain import Drain
from serving.predictor.edge import Edge
from serving.predictor.load import load
from serving.predictor.model import PredictorModel
from serving.predictor.onewrite import OneWriteProtocol
from serving.predictor.payloads.counters import Counters
from serving.predictor.payloads.recorder import Recorder
from serving.predictor.rpc import CannotListen, Servicer, listen
from serving.predictor.service import Service
from serving.predictor.settings import Settings, settings

MOST_THREADS = 4

_logger = logging.getLogger("serving.predictor")


class Server(kserve.ModelServer):  # type: ignore[misc]  # kserve carries no types
    """KServe's server with our application in front, on an address of our choice. One a process."""

    def __init__(self, service: Service, wanted: Settings) -> None:
        # Every argument that KServe would take from sys.argv is given: a forked process has its parent's.
        super().__init__(
            http_port=wanted.http_port,
            workers=1,
            enable_grpc=False,  # its servicer answers bad input with INTERNAL, on every address: ours is started beside
            enable_latency_logging=False,
            access_log_format=None,
            event_loop="uvloop",
            grace_period=wanted.grace_s,
        )
        self._service = service
        self._wanted = wanted
        self._bodies = Bodies(wanted.max_body_bytes)
        self._drain = Drain()
        self._told_to_leave = asyncio.Event()

    def register_signal_handler(self) -> None:
        """Be told to leave while it starts, before uvicorn listens to signals.

        KServe's own handler takes the model out of its registry first, and does not stop a server that is starting.
        """

        def leave(*_: object) -> None:
            self._rest_server._server.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, leave)

    async def _serve(self) -> None:
        """KServe calls this inside the loop, with its REST server made and not yet started."""
        config = self._rest_server.config
        config.host = self._wanted.host
        payloads = recorder(self._service, self._wanted)
        config.app = Edge(kserve_app, self._service, self._bodies, self._drain, payloads)
        config.http = OneWriteProtocol
        config.proxy_headers = False  # nobody asks here who the client is
        server, loop = self._rest_server._server, asyncio.get_running_loop()

        def told_to_leave(number: int, _: FrameType | None) -> None:
            """What uvicorn does at a signal: the first SIGTERM drains; a second one, and every other, ends it now."""
            if number == signal.SIGTERM and server.started and not self._told_to_leave.is_set():
                loop.call_soon_threadsafe(self._told_to_leave.set)
            else:
                server.should_exit = True

        server.handle_exit = told_to_leave
        grpc_port, end_grpc = await self._serve_grpc() if self._wanted.enable_grpc else (0, None)
        if payloads is not None:
            payloads.start()
        tasks = [asyncio.create_task(self._tell(grpc_port)), asyncio.create_task(self._leave_when_told())]
        try:
            await super()._serve()
        finally:
            for task in tasks:
                task.cancel()
            if end_grpc is not None:
                await end_grpc(0)
            if payloads is not None:
                await payloads.close()

    async def _serve_grpc(self) -> tuple[int, Callable[[float], Awaitable[None]]]:
        """Answer gRPC too, with our servicer for KServe's; the port, and what ends it within so many seconds.

        It goes on answering while the server drains, and is ended with uvicorn, both with what is left of the grace.
        """
        servicer = Servicer(self._service, self._bodies, self.dataplane.metadata(), self._drain)
        try:
            server, port = await listen(servicer, self._wanted.host, self._wanted.grpc_port)
        except CannotListen:
            for waiting in self.servers:
                waiting.close()
            raise
        uvicorn = self._rest_server._server
        end_http = uvicorn.shutdown

        async def end(*arguments: Any, **named: Any) -> None:
            left = self._rest_server.config.timeout_graceful_shutdown
            await asyncio.gather(end_http(*arguments, **named), server.stop(left))

        uvicorn.shutdown = end
        return port, server.stop

    async def _leave_when_told(self) -> None:
        """Drain, then let uvicorn end; nothing happens before SIGTERM."""
        await self._told_to_leave.wait()
        for model in self.registered_models.get_models().values():
            model.ready = False  # so that probes tell whoever asks to go elsewhere
        told = time.monotonic()
        await self._drain.quiet(self._wanted.grace_s / 2)
        self._rest_server.config.timeout_graceful_shutdown = self._wanted.grace_s - (time.monotonic() - told)
        self._rest_server._server.should_exit = True

    async def _tell(self, grpc_port: int) -> None:
        """Say once where the server listens: it is ready from then on."""
        server = self._rest_server._server
        while not server.started:
            await asyncio.sleep(0.005)
        if server.should_exit:
            return
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        loop = type(asyncio.get_running_loop()).__module__
        spec = self._service.predictor.spec
        where = f"http://{host}:{port}" + (f" and grpc://{host}:{grpc_port}" if grpc_port else "")
        text = "serving %s, version %s, %s, on %s (%s, torch threads: %d)"
        _logger.info(text, self._service.name, spec.version, spec.digest(), where, loop, torch.get_num_threads())


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status, with the reason of a failure on stderr."""
    logging.config.dictConfig(_LOGGING)
    try:
        wanted = settings(sys.argv[1:] if argv is None else argv)
        told = wanted.torch_threads or told_threads(os.environ)
        torch.set_num_threads(told or 1)
        service = load(wanted.model_dir, wanted.model_name, wanted.digest)
        if not told and not service.predict.cost.is_small:
            torch.set_num_threads(cores())
        run(service, wanted)
    except KanaryError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def run(service: Service, wanted: Settings) -> None:
    """Serve `service` until told to stop; requests under way are answered first."""
    # KServe hands its loop's name to uvicorn and then runs asyncio's own: the policy decides.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # KServe's to mend
    # What was imported and loaded stays; a full collection would stop every request for a tenth of a second.
    gc.collect()
    gc.freeze()
    disable_created_metrics()  # type: ignore[no-untyped-call]  # when a series began: as many lines again, and nobody asks
    _use_protocol_errors(kserve_app)
    Server(service, wanted).start([PredictorModel(service)])
    _logger.info("stopped")


def recorder(service: Service, wanted: Settings) -> Recorder | None:
    """The payload log that is wanted, with what it must know of the model; None where none is."""
    if wanted.payload_log is None:
        return None
    spec = service.predictor.spec
    return Recorder(wanted.payload_log, Counters(service.name, spec.version), service.contract.names, spec.sensitive)


def told_threads(environment: Mapping[str, str]) -> int:
    """Threads that OMP_NUM_THREADS asks for; 0 where it asks for none."""
    told = environment.get("OMP_NUM_THREADS", "")
    return int(told) if told.isascii() and told.isdigit() else 0


def cores() -> int:
    """Cores that this process may use, up to 4: more threads than that wait for each other more than they work."""
    return max(1, min(len(os.sched_getaffinity(0)), _quota(Path("/sys/fs/cgroup/cpu.max")), MOST_THREADS))


def _quota(path: Path) -> int:
    """Whole cores that the control group allows, rounded up; many where it sets no limit."""
    try:
        quota, period = path.read_text(encoding="utf-8").split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return MOST_THREADS


def _use_protocol_errors(app: FastAPI) -> None:
    """Make unknown paths and methods answer in the protocols' shape, as every other error does."""

    async def answer(_: Request, error: Exception) -> Response:
        status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
        return JSONResponse({"error": getattr(error, "detail", "")}, status, headers)

    app.add_exception_handler(HTTPException, answer)


# One line when it serves, one when it stops, and what is the server's own fault: clients cannot fill the log.
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {
        "serving.predictor": {"level": "INFO"},
        "kserve": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
        "kserve.trace": {"level": "WARNING"},
        "uvicorn": {"level": "ERROR", "handlers": ["stderr"], "propagate": False},
        "uvicorn.access": {"handlers": [], "propagate": False},
    },
}
