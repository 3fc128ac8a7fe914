"""A TLS connection joined to a plain one: bytes pass unchanged, backpressure and half-closes are kept.

TLS is worked in memory by one thread a connection: OpenSSL's objects may not be read and written by two threads at
once, and Python 3.11 does not guard them. What one side has not taken, up to BUFFER bytes, holds the other side back.
"""

import selectors
import socket
import ssl
import time
from contextlib import suppress

BUFFER = 256 * 1024
CHUNK = 64 * 1024
LINGER_S = 5.0
"""After one side has closed, the other one may go on for so long."""
LATE = "it took too long to say who it is"


class TlsEnd:
    """A connected TCP socket under TLS. `handshake` and `receive` wait until a deadline, the rest never does."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool, name: str | None = None) -> None:
        """`name`: what a client's context finds in the server's certificate, if it checks host names."""
        self.sock = sock
        self.ended = False  # the other end says nothing more
        self.broken = False  # nor does it hear anything
        self._arrived, self._sealed = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._sealed, server_side=server, server_hostname=name)
        self._unsent = b""
        self._finished = self._shut = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def certificate(self) -> dict[str, object]:
        """The other end's verified certificate, as `getpeercert` gives it; empty where it showed none."""
        return dict(self._tls.getpeercert() or {})

    @property
    def waiting(self) -> int:
        """Bytes that the network has not taken yet."""
        return 0 if self.broken else self._sealed.pending + len(self._unsent)

    def handshake(self, deadline: float) -> None:
        """Raises OSError (ssl.SSLError among them) where it fails or `deadline`, monotonic s, passes."""
        while True:
            try:
                self._tls.do_handshake()
                return self._send_all(deadline)
            except ssl.SSLWantReadError:
                self._send_all(deadline)
                self._arrive(deadline)
            except ssl.SSLError:
                with suppress(OSError):  # the other end hears why in an alert
                    self._send_all(deadline)
                raise

    def receive(self, deadline: float) -> bytes:
        """What comes next, decrypted; b"" at the end. Raises OSError."""
        while not (data := self._opened()) and not self.ended:
            self._send_all(deadline)
            self._arrive(deadline)
        return data

    def take(self) -> bytes:
        """Read the socket once, without waiting; `ended` is set at the end."""
        try:
            data = self.sock.recv(CHUNK)
            if data:
                self._arrived.write(data)
                return self._opened()
            self.ended = True  # cut off without a goodbye: FIX numbers its messages and asks again
        except BlockingIOError:
            pass
        except OSError:  # a reset, or what is no TLS
            self.ended = self.broken = True
        return b""

    def put(self, data: bytes) -> None:
        """Seal bytes for the network; `flush` sends them."""
        if not self.broken:
            self._tls.write(data)

    def finish(self) -> None:
        """Nothing more will be put: say goodbye behind what was."""
        if not self._finished:
            self._finished = True
            with suppress(ssl.SSLError):  # it waits for the other end's goodbye, which may come later
                self._tls.unwrap()

    def flush(self) -> None:
        """Send what the network takes, without waiting; half-close once all is sent and finished."""
        while self.waiting:
            self._unsent = self._unsent or self._sealed.read(CHUNK)
            try:
                sent = self.sock.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self.ended = self.broken = True
                return
            self._unsent = self._unsent[sent:]
        if self._finished and not self._shut:
            self._shut = True
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def _opened(self) -> bytes:
        """All that can be decrypted of what has arrived."""
        parts = []
        while True:
            try:
                part = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                self.ended = True
                break
            parts.append(part)
        return b"".join(parts)

    def _arrive(self, deadline: float) -> None:
        self.sock.settimeout(_left(deadline))
        try:
            data = self.sock.recv(CHUNK)
        except TimeoutError as error:
            raise TimeoutError(LATE) from error
        if not data:
            raise ConnectionResetError("it was closed before it said who it is")
        self._arrived.write(data)

    def _send_all(self, deadline: float) -> None:
        if self._sealed.pending:
            self.sock.settimeout(_left(deadline))
            self.sock.sendall(self._sealed.read())


class Pipe:
    """Carries bytes between a TLS end and a plain socket until both are closed. `run` has a thread of its own."""

    def __init__(self, tls: TlsEnd, plain: socket.socket, first: bytes = b"", peer: str = "") -> None:
        """`first` goes to the plain side before all else; `peer`: whose it is, for whoever counts."""
        self.peer = peer
        self._tls, self._plain, self._to_plain = tls, plain, bytearray(first)
        self._plain_ended = self._deaf = self._shut = False
        self._masks = {tls.sock: 0, plain: 0}

    def run(self) -> None:
        """Returns once both sides are closed, one has closed LINGER_S ago, or `abort` was called."""
        plain, tls = self._plain, self._tls
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setblocking(False)
            tls.sock.setblocking(False)
            with selectors.DefaultSelector() as selector:
                self._carry(selector)
        finally:
            plain.close()
            tls.sock.close()

    def abort(self) -> None:
        """End it, from any thread."""
        for sock in self._masks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _carry(self, selector: selectors.BaseSelector) -> None:
        ends: float | None = None
        while True:
            self._flush()
            if ends is None and (self._plain_ended or self._tls.ended):
                ends = time.monotonic() + LINGER_S
            self._watch(selector)
            if not any(self._masks.values()):
                return
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                return
            for key, mask in selector.select(left):
                if not mask & selectors.EVENT_READ:
                    continue
                if key.fileobj is self._plain:
                    self._take_plain()
                else:
                    self._to_plain += self._tls.take()

    def _watch(self, selector: selectors.BaseSelector) -> None:
        """Wait for what can go on: a side is read only while the other one takes what it brings."""
        tls, plain = self._tls, self._plain
        reads = {
            tls.sock: not tls.ended and len(self._to_plain) < BUFFER,
            plain: not self._plain_ended and tls.waiting < BUFFER,
        }
        writes = {tls.sock: tls.waiting > 0, plain: len(self._to_plain) > 0}
        for sock, old in self._masks.items():
            mask = selectors.EVENT_READ * reads[sock] | selectors.EVENT_WRITE * writes[sock]
            if mask == old:
                continue
            if not old:
                selector.register(sock, mask)
            elif mask:
                selector.modify(sock, mask)
            else:
                selector.unregister(sock)
            self._masks[sock] = mask

    def _take_plain(self) -> None:
        try:
            data = self._plain.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._tls.put(data)
        else:
            self._plain_ended = True
            self._tls.finish()

    def _flush(self) -> None:
        while self._to_plain:
            try:
                sent = len(self._to_plain) if self._deaf else self._plain.send(self._to_plain)
            except BlockingIOError:
                break
            except OSError:  # it is gone, and what it had said is still to be sent
                self._deaf = True
                continue
            del self._to_plain[:sent]
        if self._tls.ended and not self._to_plain and not self._shut:
            self._shut = True
            with suppress(OSError):
                self._plain.shutdown(socket.SHUT_WR)
        self._tls.flush()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(LATE)
    return left
