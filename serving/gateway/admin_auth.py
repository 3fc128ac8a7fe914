"""Who speaks on the admin plane, and what may be done: scopes by certificate subject, or by a token on loopback."""

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from serving.gateway.config import Commander, subject_of
from serving.gateway.people import PersonError, person
from serving.wire.identity import TOKEN_LEAST, hash_token, is_loopback

PEER_CERTIFICATE = "shortfall.certificate"
"""Where the server puts what `getpeercert()` gave into the ASGI scope; absent without TLS."""


class UnknownError(PermissionError):
    """Nobody that the gateway knows. What the other end hears is less than the message."""


class People:
    """Everybody of the admin plane, as `people` gives them when someone asks."""

    def __init__(self, people: Callable[[], tuple[Commander, ...]]) -> None:
        self._everybody = people

    def knows(self, who: Commander) -> bool:
        """Whether someone who was known may still do all that he might then."""
        return any(item.subject == who.subject and item.scopes >= who.scopes for item in self._everybody())

    def who(self, scope: Mapping[str, Any]) -> Commander:
        """Who sent a request (ASGI scope). Raises UnknownError."""
        if PEER_CERTIFICATE in scope:
            return self._by_certificate(scope[PEER_CERTIFICATE] or {}, scope)
        peer = str((scope.get("client") or ("",))[0])
        if not is_loopback(peer):
            raise UnknownError(f"{peer} is not a loopback address: a certificate is needed")
        return self._by_token(_bearer(scope), peer)

    def _by_certificate(self, certificate: Mapping[str, Any], scope: Mapping[str, Any]) -> Commander:
        if _bearer(scope):
            raise UnknownError("a token over TLS: the certificate alone counts")
        try:
            subject = person(subject_of(certificate))
        except PersonError as error:
            raise UnknownError(str(error)) from error
        found = [item for item in self._everybody() if item.subject == subject]
        if not found:
            raise UnknownError(f"{subject} is not known")
        return found[0]

    def _by_token(self, token: str, peer: str) -> Commander:
        if len(token) < TOKEN_LEAST:
            raise UnknownError(f"{peer} gave no token of {TOKEN_LEAST} characters")
        digest = hash_token(token).encode()
        # every entry is compared in full: how long it takes tells nothing of which one was near
        found = [item for item in self._everybody() if hmac.compare_digest(item.token_sha256.encode(), digest)]
        if not found:
            raise UnknownError(f"the token of {peer} is not known")
        return found[0]._replace(by_token=True)


def _bearer(scope: Mapping[str, Any]) -> str:
    values = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
    if len(values) != 1:
        return ""
    kind, _, token = values[0].decode("latin-1").partition(" ")
    return str(token.strip()) if kind.lower() == "bearer" else ""
