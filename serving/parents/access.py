"""Who may ask for parents over HTTP: holders of tokens and certificate subjects, each of one account."""

import asyncio
import hmac
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.parents.settings import ClientSettings
from serving.wire.identity import TOKEN_LEAST, IdentityError, hash_token, is_loopback, subject_of

BEARER = "bearer "


class AccessError(PermissionError):
    """The request is nobody's who may ask; the message is what is told."""


class Access:
    """Finds the account that a request speaks for."""

    def __init__(self, clients: Mapping[str, ClientSettings], tls: bool, anonymous: str | None) -> None:
        """With `tls` certificates count and tokens do not; `anonymous` is the account of loopback without a token."""
        self._clients, self._tls, self._anonymous = dict(clients), tls, anonymous
        self.subjects: dict[tuple[str, int], str] = {}  # of open TLS connections, by the other end's address

    def account_of(self, client: tuple[str, int] | None, authorization: str) -> tuple[str, str]:
        """Account and name of whoever asks from `client`. Raises AccessError."""
        if self._tls:
            subject = self.subjects.get(client or ("", 0), "")
            for name, entry in self._clients.items():
                if subject and entry.subject == subject:
                    return entry.account, name
            raise AccessError("the certificate is not known")
        if not client or not is_loopback(client[0]):
            raise AccessError("without TLS only loopback may ask")
        if not authorization and self._anonymous is not None:
            return self._anonymous, "loopback"
        if authorization[: len(BEARER)].lower() != BEARER:
            raise AccessError("a bearer token is needed")
        token = authorization[len(BEARER) :].strip()
        if len(token) < TOKEN_LEAST:
            raise AccessError(f"a token of {len(token)} characters is shorter than {TOKEN_LEAST}")
        digest, found = hash_token(token).encode(), None
        for name, entry in self._clients.items():  # all of them: how long it takes tells nothing of which one was near
            if hmac.compare_digest(entry.token_sha256.encode(), digest):
                found = entry.account, name
        if found is None:
            raise AccessError("the token is not known")
        return found

    def protocol(self) -> type[HttpToolsProtocol]:
        """HTTP that remembers the certificate's subject of each TLS connection."""
        subjects, tls = self.subjects, self._tls

        class Named(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                peer = transport.get_extra_info("peername")
                self._peer: Any = tuple(peer[:2]) if peer else ("", 0)
                if tls:
                    try:
                        subjects[self._peer] = subject_of(transport.get_extra_info("peercert") or {})
                    except IdentityError:
                        transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                subjects.pop(self._peer, None)
                super().connection_lost(exc)

        return Named
