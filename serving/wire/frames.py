"""The framed TCP protocol of orders: one frame a message, checked before anything in it is believed.

| offset | bytes | what |
| --- | --- | --- |
| 0 | 4 | length of the payload, big endian, at most MAX_PAYLOAD |
| 4 | 1 | version, 1 |
| 5 | 1 | type, `FrameType` |
| 6 | 4 | CRC-32 of the six bytes before and of the payload |
| 10 | length | payload: the one JSON encoding of its type |

Payloads are decoded by `decode_message`; requests, decisions and reports are those of serving.contracts. A frame that
is wrong in any way ends the connection: behind it nobody knows where the next one begins.
"""

import struct
from enum import IntEnum
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from serving.contracts.decisions import Allowed, Decision, Denied, decode_decision
from serving.contracts.orders import (
    INT64_MAX,
    TEXT_MAX,
    Cancel,
    ChildOrder,
    ContractError,
    Replace,
    Report,
    Request,
    decode_exactly,
    decode_report,
    decode_request,
    encode,
)

VERSION = 1
MAX_PAYLOAD = 16_384
NAMES_MAX = 64
"""Strategies that one connection may speak for."""
TOKEN_MAX = 256
_HEADER = struct.Struct(">IBBI")
_CHECKED = struct.Struct(">IBB")
HEADER_BYTES = _HEADER.size


class FrameError(ValueError):
    """Bytes that are no frame of this protocol; the message names the value and the limit."""


class FrameType(IntEnum):
    """What a frame carries, and who sends it."""

    HELLO = 1  # client: who it is, and the strategies that it speaks for
    WELCOME = 2  # server: the identity that it took the client for
    REFUSED = 3  # server: why the connection ends
    REQUEST = 4  # client
    DECISION = 5  # server
    REPORT = 6  # server: what the venue said of an order of this connection's strategies
    HEARTBEAT = 7  # both


class Frame(NamedTuple):
    """A frame whose length and checksum are right; its payload is not yet decoded."""

    type: FrameType
    payload: bytes


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Hello(_Message, frozen=True, kw_only=True, tag="hello", tag_field="kind"):
    """Opens a connection. `token` is for loopback; behind TLS the certificate says who it is, and it stays empty."""

    account: str
    strategies: tuple[str, ...]
    token: str = ""

    def __post_init__(self) -> None:
        _require_name("account", self.account)
        if not 1 <= len(self.strategies) <= NAMES_MAX or len(set(self.strategies)) != len(self.strategies):
            raise ContractError(f"{len(self.strategies)} strategies, not 1 to {NAMES_MAX} different ones")
        for name in self.strategies:
            _require_name("strategy", name)
        if len(self.token) > TOKEN_MAX:
            raise ContractError(f"a token of {len(self.token)} characters exceeds {TOKEN_MAX}")

    def __repr__(self) -> str:
        return f"Hello(account={self.account!r}, strategies={self.strategies!r})"  # a token belongs in no log


class Welcome(_Message, frozen=True, kw_only=True, tag="welcome", tag_field="kind"):
    """The connection is open for this subject, account and strategies."""

    subject: str
    account: str
    strategies: tuple[str, ...]


class Refusal(_Message, frozen=True, kw_only=True, tag="refused", tag_field="kind"):
    """The connection ends."""

    reason: str


class Heartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat", tag_field="kind"):
    """The sender lives; a client's is that of each of its strategies."""

    sent_ns: int

    def __post_init__(self) -> None:
        if not 0 <= self.sent_ns <= INT64_MAX:
            raise ContractError(f"sent_ns {self.sent_ns!r} is not an integer from 0 to {INT64_MAX}")


Message = Hello | Welcome | Refusal | Heartbeat | Request | Decision | Report
_PLAIN: dict[FrameType, "msgspec.json.Decoder[Any]"] = {
    FrameType.HELLO: msgspec.json.Decoder(Hello),
    FrameType.WELCOME: msgspec.json.Decoder(Welcome),
    FrameType.REFUSED: msgspec.json.Decoder(Refusal),
    FrameType.HEARTBEAT: msgspec.json.Decoder(Heartbeat),
}
_TYPES: dict[type, FrameType] = {
    Hello: FrameType.HELLO,
    Welcome: FrameType.WELCOME,
    Refusal: FrameType.REFUSED,
    Heartbeat: FrameType.HEARTBEAT,
    ChildOrder: FrameType.REQUEST,
    Replace: FrameType.REQUEST,
    Cancel: FrameType.REQUEST,
    Allowed: FrameType.DECISION,
    Denied: FrameType.DECISION,
}
_FRAME_TYPES: dict[int, FrameType] = {int(kind): kind for kind in FrameType}


def encode_frame(kind: FrameType, payload: bytes) -> bytes:
    """One frame. Raises FrameError where the payload exceeds MAX_PAYLOAD."""
    size = len(payload)
    if size > MAX_PAYLOAD:
        raise FrameError(f"a payload of {size} bytes exceeds {MAX_PAYLOAD}")
    return _HEADER.pack(size, VERSION, kind, crc32(payload, crc32(_CHECKED.pack(size, VERSION, kind)))) + payload


def encode_message(message: Message) -> bytes:
    """The frame of a message; what is neither of this module nor a request or decision is a report."""
    return encode_frame(_TYPES.get(type(message), FrameType.REPORT), encode(message))


def decode_message(frame: Frame) -> Message:
    """What a frame says. Raises FrameError for anything but the one encoding of its type."""
    try:
        if frame.type is FrameType.REQUEST:
            return decode_request(frame.payload)
        if frame.type is FrameType.DECISION:
            return decode_decision(frame.payload)
        if frame.type is FrameType.REPORT:
            return decode_report(frame.payload)
        return decode_exactly(_PLAIN[frame.type], frame.payload)
    except ContractError as error:
        raise FrameError(f"a {frame.type.name.lower()} frame: {error}") from error


def decode_frame(raw: bytes) -> Frame:
    """Exactly one frame. Raises FrameError where bytes are missing, wrong or left over."""
    decoder = FrameDecoder()
    frames = decoder.feed(raw)
    if len(frames) != 1 or decoder.waiting:
        raise FrameError(f"{len(raw)} bytes hold {len(frames)} frames and {decoder.waiting} bytes more, not one frame")
    return frames[0]


class FrameDecoder:
    """Frames out of a stream, however it is cut. After an error it takes nothing more."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._failed = ""

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not yet whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes, give the frames that are whole.

        Raises FrameError for a length, a version, a type or a checksum that is wrong, as soon as it can be known, and
        ever after; frames before it in the same bytes are lost with it, as is the connection.
        """
        if self._failed:
            raise FrameError(self._failed)
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start, end = 0, len(buffer)
        while end - start >= HEADER_BYTES:
            size, version, kind, checksum = _HEADER.unpack_from(buffer, start)
            if size > MAX_PAYLOAD:
                self._fail(f"a payload of {size} bytes exceeds {MAX_PAYLOAD}")
            if version != VERSION:
                self._fail(f"version {version} is not {VERSION}")
            if kind not in _FRAME_TYPES:
                self._fail(f"type {kind} is none of {int(FrameType.HELLO)} to {int(FrameType.HEARTBEAT)}")
            if end - start < HEADER_BYTES + size:
                break
            payload = bytes(buffer[start + HEADER_BYTES : start + HEADER_BYTES + size])
            found = crc32(payload, crc32(buffer[start : start + _CHECKED.size]))
            if found != checksum:
                self._fail(f"checksum {checksum:#010x} does not fit the contents, {found:#010x}")
            frames.append(Frame(_FRAME_TYPES[kind], payload))
            start += HEADER_BYTES + size
        if start:
            del buffer[:start]
        return frames

    def _fail(self, why: str) -> None:
        self._failed = why
        self._buffer.clear()
        raise FrameError(why)


def _require_name(field: str, value: str) -> None:
    if not 0 < len(value) <= TEXT_MAX or not value.isascii() or not value.isprintable():
        raise ContractError(f"{field} {value!r} is not printable ASCII of 1 to {TEXT_MAX} characters")
