"""How an answered prediction travels from the predictor to the sender: as one length-prefixed frame of raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Bytes that follow, protocol, lengths of the five parts, bytes of JSON or -1, seconds of arrival and answer.
_HEAD = struct.Struct("<IB5Iidd")
_PROTOCOLS = ("", "v1", "v2")
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True)
class Exchange:
    """A prediction that was answered with 200. Times are seconds of the epoch; `metadata` is JSON.

    `protocol` is empty for what is none: the first frame, whose `request` says what the sender is to do.
    """

    protocol: str
    id: bytes
    content_type: bytes
    metadata: bytes
    request: bytes
    response: bytes
    json_length: int | None
    arrived: float
    answered: float


def encode(
    protocol: str,
    parts: tuple[bytes, bytes, bytes, bytes, bytes],
    json_length: int | None,
    arrived: float,
    answered: float,
) -> bytes:
    """A frame. `parts` are id, content type, metadata, request and response."""
    one, two, three, four, five = map(len, parts)
    size = HEAD_BYTES - 4 + one + two + three + four + five
    length = -1 if json_length is None else json_length
    head = _HEAD.pack(size, _PROTOCOLS.index(protocol), one, two, three, four, five, length, arrived, answered)
    return b"".join((head, *parts))


class Decoder:
    """Exchanges out of a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Exchange]:
        """The exchanges that are whole now."""
        self._buffer += data
        at, end = 0, len(self._buffer)
        while end - at >= HEAD_BYTES:
            size, protocol, *lengths, length, arrived, answered = _HEAD.unpack_from(self._buffer, at)
            if end - at < size + 4:
                break
            parts, start = [], at + HEAD_BYTES
            for part in lengths:
                parts.append(bytes(self._buffer[start : start + part]))
                start += part
            one, two, three, four, five = parts
            told = None if length < 0 else length
            yield Exchange(_PROTOCOLS[protocol], one, two, three, four, five, told, arrived, answered)
            at = start
        del self._buffer[:at]
