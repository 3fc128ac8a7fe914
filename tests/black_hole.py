"""A TCP relay that can swallow: both ends believe that the line stands, and nothing arrives."""

import select
import socket
import threading


class BlackHole:
    """Relays from a port of its own to `target`; while `swallows` is set, what the client sends is read and lost."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.swallows = False
        self.swallowed = b""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection."""
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._pairs.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._pairs.append((client, server))
            threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [], 0.1)
                for end in ready:
                    data = end.recv(65_536)
                    if not data:
                        raise OSError("closed")
                    if self.swallows:
                        self.swallowed += data if end is client else b""
                    else:
                        (server if end is client else client).sendall(data)
        except (OSError, ValueError):
            for end in (client, server):
                end.close()
