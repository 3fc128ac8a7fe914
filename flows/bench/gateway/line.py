"""A client's end of the order port over a plain socket: what is measured is the gateway, not a client."""

import socket
from collections import deque

from flows.bench.gateway.world import accounts
from serving.wire.frames import (
    HEADER_BYTES,
    FrameDecoder,
    FrameType,
    Hello,
    Message,
    Welcome,
    decode_frame,
    decode_message,
    encode_message,
)

TOKEN = "a token of loopback for the benchmark, account "


class Line:
    """A client's end that counts answers and reads no more of them than it must."""

    def __init__(self, port: int, account: str, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        strategies = tuple(accounts()[account])
        self.socket.sendall(encode_message(Hello(account=account, strategies=strategies, token=token)))
        head = self.socket.recv(HEADER_BYTES, socket.MSG_WAITALL)
        frame = head + self.socket.recv(int.from_bytes(head[:4], "big"), socket.MSG_WAITALL)
        if not isinstance(decode_message(decode_frame(frame)), Welcome):
            raise ConnectionError(f"the order port refused account {account}")
        self._rest = b""
        self._decoder = FrameDecoder()

    def send(self, frames: deque[bytes], count: int) -> int:
        """Send up to `count` of the frames in one write; how many they were."""
        part = [frames.popleft() for _ in range(min(count, len(frames)))]
        self.socket.sendall(b"".join(part))
        return len(part)

    def answers(self) -> int:
        """How many decisions came with one read. Raises RuntimeError where one is no permission."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the order port closed the line")
        data = self._rest + data
        start = count = beats = 0
        while len(data) - start >= HEADER_BYTES:
            end = start + HEADER_BYTES + int.from_bytes(data[start : start + 4], "big")
            if end > len(data):
                break
            beats += data[start + 5] == FrameType.HEARTBEAT
            count += 1
            start = end
        allowed = data.count(b'"kind":"allowed"', 0, start)
        if allowed != count - beats:
            raise RuntimeError(f"{count - beats - allowed} orders were denied, which is another path: {data[:400]!r}")
        self._rest = data[start:]
        return count - beats

    def messages(self, wait_s: float) -> list[Message]:
        """What came, decoded; waits up to `wait_s` for it. Not to be mixed with `answers`."""
        self.socket.settimeout(wait_s)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return []
        finally:
            self.socket.settimeout(None)
        if not data:
            raise ConnectionError("the order port closed the line")
        return [decode_message(frame) for frame in self._decoder.feed(data)]
