"""The admin plane's HTTP server: a thread and an event loop of its own, TLS that hands the peer's certificate on."""

import asyncio
import logging
import socket
import ssl
import threading
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.gateway.admin_auth import PEER_CERTIFICATE

log = logging.getLogger(__name__)
START_S = 10.0


class _PeerProtocol(H11Protocol):
    """Puts the certificate of a TLS connection into each request's scope, which uvicorn does not."""

    def connection_made(self, transport: Any) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            certificate, inner = tls.getpeercert() or {}, self.app

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await inner({**scope, PEER_CERTIFICATE: certificate}, receive, send)

            self.app = app


class AdminServer:
    """Serves an ASGI application. Its failure is its own: orders go on, and the kill socket too."""

    def __init__(self, app: Any, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Bind; `port` 0 takes any. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(128)  # whoever read of the port is not turned away while the server starts
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app, http=_PeerProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, timeout_graceful_shutdown=1, limit_concurrency=200, timeout_keep_alive=30,
        )  # fmt: skip
        config.load()
        config.ssl = tls
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """End; requests in flight have a second."""
        self._server.should_exit = True
        self._thread.join(START_S)

    @property
    def is_up(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive() and self._server.started

    @property
    def has_ended(self) -> bool:
        """It served, and does no more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except BaseException:
            log.exception("the admin plane ended")
