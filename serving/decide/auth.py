"""Who may ask: holders of a token, certificate subjects over TLS, or anybody on loopback where that is said."""

import asyncio
import hmac
import logging
from collections.abc import Collection, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.wire.identity import TOKEN_LEAST, IdentityError, hash_token, is_loopback, subject_of

log = logging.getLogger(__name__)
_BEARER = b"bearer "


class Gate:
    """Checks the bearer token of every request; without tokens, that it came from this machine or over TLS."""

    def __init__(self, tokens: Mapping[str, str], tls: bool, anonymous_loopback: bool) -> None:
        """`tokens`: SHA-256 in hexadecimal digits by the name of the holder; with `tls` certificates count instead."""
        for name, digest in tokens.items():
            if len(digest) != 64:
                raise ValueError(f"token of {name} has {len(digest)} characters, a SHA-256 has 64")
        if not tokens and not tls and not anonymous_loopback:
            raise ValueError("nobody could ask: give tokens, TLS, or allow_anonymous_loopback")
        self._digests = [digest.lower().encode() for digest in tokens.values()]
        self._tls, self._anonymous = tls, anonymous_loopback

    def why_not(self, scope: Any) -> str | None:
        """Why a request is not answered, None where it is."""
        if self._tls:
            return None  # its connection stands because the certificate's subject is known: `checked_protocol`
        if self._digests:
            return self._judge(dict(scope["headers"]).get(b"authorization", b""))
        client = scope.get("client")
        if self._anonymous and client and is_loopback(client[0]):
            return None
        return "without a token only loopback may ask"

    def _judge(self, header: bytes) -> str | None:
        if header[: len(_BEARER)].lower() != _BEARER:
            return "a bearer token is needed"
        token = header[len(_BEARER) :].strip().decode("latin-1")
        if len(token) < TOKEN_LEAST:
            return f"a token of {len(token)} characters is shorter than {TOKEN_LEAST}"
        digest = hash_token(token).encode()
        # every entry is compared in full: how long it takes tells nothing of which one was near
        found = [item for item in self._digests if hmac.compare_digest(item, digest)]
        return None if found else "the token is not known"


def checked_protocol(subjects: Collection[str]) -> type[HttpToolsProtocol]:
    """HTTP over TLS that closes a connection, before it says a word, whose certificate is of none of `subjects`."""
    known = frozenset(subjects)

    class Checked(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            try:
                subject = subject_of(transport.get_extra_info("peercert") or {})
            except IdentityError as error:
                subject = str(error)
            if subject not in known:
                log.warning("%s is not known: connection closed", subject)
                transport.abort()

    return Checked
