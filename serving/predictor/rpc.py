"""The V2 protocol over gRPC: inference.GRPCInferenceService on a grpc.aio server. Answers whatever it is sent.

Requests are taken as bytes, so that one that is no message is refused like any other, and no status is ever gRPC's own
UNKNOWN or INTERNAL for what a client did. No message longer than twice the limit is ever held.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from kanary.errors import KanaryError
from serving.predictor import rpc_tensors, v2
from serving.predictor.bodies import LONG, Bodies
from serving.predictor.drain import Drain
from serving.predictor.refusal import Reason, Refused
from serving.predictor.service import Service

SERVICE = "inference.GRPCInferenceService"
VERSION_METADATA = "kanary-model-version"

# A status goes in a header, which is bounded; three times as many bytes where they have to be escaped.
_LONGEST_DETAILS = 2000
_CODES = {
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
_logger = logging.getLogger(__name__)


class CannotListen(KanaryError):
    """The address asked for cannot be listened on."""

    exit_code = 3


class Servicer:
    """The methods of the service, bytes to bytes. `about` is the server's metadata."""

    def __init__(self, service: Service, bodies: Bodies, about: Mapping[str, Any], drain: Drain) -> None:
        self.service = service
        self.bodies = bodies
        self.about = about
        self.drain = drain
        self._version = ((VERSION_METADATA, service.version),)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server is given."""
        methods: dict[str, tuple[type[Message], Callable[[Any], Awaitable[Message]]]] = {
            "ServerLive": (pb.ServerLiveRequest, self._live),
            "ServerReady": (pb.ServerReadyRequest, self._ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelInfer": (pb.ModelInferRequest, self._infer),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._not_offered),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._not_offered),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.stream_unary_rpc_method_handler(self._answering(kind, method, name == "ModelInfer"))
                for name, (kind, method) in methods.items()
            },
        )

    def _answering(
        self, kind: type[Message], method: Callable[[Any], Awaitable[Message]], counted: bool
    ) -> Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext], Awaitable[bytes]]:
        async def answer(bodies: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
            if self.drain.leaving:
                self.drain.asked()
            started = time.perf_counter()
            context.set_trailing_metadata(self._version)
            code, details, content = grpc.StatusCode.OK, "", b""
            reason: Reason | None = None
            try:
                content = (await method(self._parsed(kind, await anext(bodies, None)))).SerializeToString()
            except Refused as refused:
                code = _CODES.get(refused.status, grpc.StatusCode.INVALID_ARGUMENT)
                details, reason = refused.message, refused.reason
            except Exception:  # the outermost loop of a request
                _logger.exception("a prediction failed")
                code, reason = grpc.StatusCode.INTERNAL, "internal"
                details = "the prediction failed; the server's log says why"
            if counted and self.service.metrics is not None:
                self.service.metrics.answered("grpc", code.name, time.perf_counter() - started, reason)
            if code is not grpc.StatusCode.OK:
                await context.abort(code, details.encode()[:_LONGEST_DETAILS].decode(errors="ignore"))
            return content

        return answer

    def _parsed(self, kind: type[Message], body: bytes | None) -> Message:
        if body is None:
            raise Refused("malformed", f"no {kind.DESCRIPTOR.full_name} came before the end of the call")
        if len(body) > self.bodies.limit:
            raise self.bodies.too_large()
        try:
            return kind.FromString(body)
        except DecodeError:
            raise Refused("malformed", f"the body is no {kind.DESCRIPTOR.full_name}") from None

    async def _infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        self.service.check_model(request.model_name, request.model_version)
        size = request.ByteSize()
        if size <= LONG:
            answer = await self.service.answer_v2(*rpc_tensors.document(request))
            return rpc_tensors.response(answer, raw=bool(request.raw_input_contents))
        with self.bodies.room(size):
            return await self.bodies.work_on(self._answer_alone, request)

    def _answer_alone(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        answer = self.service.v2(*rpc_tensors.document(request))
        return rpc_tensors.response(answer, raw=bool(request.raw_input_contents))

    async def _live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self.drain.leaving)

    async def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        self.service.check_model(request.name, request.version)
        return pb.ModelReadyResponse(ready=not self.drain.leaving)

    async def _metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(**self.about)

    async def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        self.service.check_model(request.name, request.version)
        spec = self.service.predictor.spec
        return pb.ModelMetadataResponse(
            name=self.service.name,
            versions=[self.service.version],
            platform="",
            inputs=v2.input_metadata(spec),
            outputs=v2.output_metadata(spec),
        )

    async def _not_offered(self, _: Message) -> Message:
        raise Refused("method", "which model is served is the InferenceService's to say", 405)


async def listen(servicer: Servicer, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """A server that answers on `port` of `host` (0: a free one), and its port. CannotListen where it is taken."""
    server = grpc.aio.server(
        options=[
            # What is a little too long is told so in our words, as over HTTP; what is far too long, in gRPC's.
            ("grpc.max_receive_message_length", min(2 * servicer.bodies.limit, 2**31 - 1)),
            # With it two servers could hold one port, and each would answer half of the requests.
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers((servicer.handlers(),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        raise CannotListen(f"cannot listen on {address} for gRPC: is the address already in use?") from None
    await server.start()
    return server, bound
