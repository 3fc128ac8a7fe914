"""The server's end of a websocket (RFC 6455), enough for a watch: text frames out; pings and closes in."""

import base64
import hashlib
import json
import select
from http.server import BaseHTTPRequestHandler
from typing import Any

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA


class Websocket:
    """Takes over the connection of a request that asks for it."""

    def __init__(self, request: BaseHTTPRequestHandler) -> None:
        self._in, self._out, self._socket = request.rfile, request.wfile, request.connection
        self._open = True
        accept = base64.b64encode(hashlib.sha1((request.headers["Sec-WebSocket-Key"] + _MAGIC).encode()).digest())
        request.send_response(101, "Switching Protocols")
        request.send_header("Upgrade", "websocket")
        request.send_header("Connection", "Upgrade")
        request.send_header("Sec-WebSocket-Accept", accept.decode())
        if protocol := request.headers.get("Sec-WebSocket-Protocol"):
            request.send_header("Sec-WebSocket-Protocol", protocol.split(",")[0].strip())
        request.end_headers()
        self._out.flush()

    def send(self, event: dict[str, Any]) -> None:
        """One event as a text frame."""
        self._frame(_TEXT, json.dumps(event).encode())

    def alive(self) -> bool:
        """Whether the other side still listens; answers its pings on the way."""
        while self._open and select.select([self._socket], [], [], 0)[0]:
            code, payload = self._read()
            if code == _PING:
                self._frame(_PONG, payload)
            elif code == _CLOSE:
                self._frame(_CLOSE, payload[:2])
                self._open = False
        return self._open

    def close(self) -> None:
        """Say good-bye."""
        if self._open:
            self._open = False
            self._frame(_CLOSE, (1000).to_bytes(2, "big"))

    def _frame(self, code: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes([0x80 | code, size])
        elif size < 1 << 16:
            head = bytes([0x80 | code, 126]) + size.to_bytes(2, "big")
        else:
            head = bytes([0x80 | code, 127]) + size.to_bytes(8, "big")
        try:
            self._out.write(head + payload)
            self._out.flush()
        except (BrokenPipeError, ConnectionResetError):
            self._open = False

    def _read(self) -> tuple[int, bytes]:
        head = self._in.read(2)
        if len(head) < 2:
            return _CLOSE, b""
        code, size = head[0] & 0x0F, head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self._in.read(2 if size == 126 else 8), "big")
        mask = self._in.read(4) if head[1] & 0x80 else b"\0\0\0\0"
        payload = self._in.read(size)
        return code, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
