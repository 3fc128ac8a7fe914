"""Who is at the other end: certificate subjects and loopback tokens, each bound to an account and to strategies."""

import hmac
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from serving.contracts.orders import Request
from serving.wire.frames import Hello

TOKEN_LEAST = 32
"""Fewest characters of a token: at least 128 bits where they are hexadecimal digits."""


class IdentityError(PermissionError):
    """The other end is not who it must be; the message is for the log, what the other end hears is less."""


@dataclass(frozen=True)
class Principal:
    """Someone who may send orders: known by a certificate's subject, by a token, or by both."""

    account: str
    strategies: frozenset[str]
    subject: str = ""  # RFC 4514, as `subject_of` writes it
    token_sha256: str = ""  # hexadecimal; the token itself is not kept

    def __post_init__(self) -> None:
        if not self.subject and not self.token_sha256:
            raise ValueError(f"a principal of account {self.account} has neither a subject nor a token")
        if not self.strategies:
            raise ValueError(f"the principal of account {self.account} speaks for no strategy")
        if self.token_sha256 and len(self.token_sha256) != 64:
            raise ValueError(f"token_sha256 has {len(self.token_sha256)} characters, a SHA-256 has 64")


@dataclass(frozen=True)
class Identity:
    """Whom a connection was taken for. It lasts as long as the connection."""

    subject: str
    account: str
    strategies: frozenset[str]
    principal: Principal | None = field(default=None, compare=False)  # whom it was taken for

    def why_not(self, request: Request) -> str | None:
        """Why this identity may not send `request`, or None."""
        if request.account != self.account:
            return f"account {request.account} is not {self.account}, that of {self.subject}"
        if request.strategy not in self.strategies:
            return f"strategy {request.strategy} is none of {', '.join(sorted(self.strategies))}, those of this line"
        return None


class Directory:
    """Everybody who may connect. Two principals never share a subject or a token."""

    def __init__(self, principals: Iterable[Principal]) -> None:
        self._principals: tuple[Principal, ...] = ()
        self.replace(principals)

    def replace(self, principals: Iterable[Principal]) -> None:
        """Let these connect from now on, and nobody else. Raises ValueError where two share a subject or a token."""
        found = tuple(principals)
        for name in ("subject", "token_sha256"):
            known = [value for item in found if (value := getattr(item, name))]
            if len(set(known)) != len(known):
                raise ValueError(f"two principals share a {name}: each must be one's own")
        self._principals = found

    def authenticate(self, hello: Hello, *, peer: str, certificate: dict[str, Any] | None) -> Identity:
        """Who said `hello`: by the certificate of a TLS connection, else by a token from a loopback address.

        `certificate` is what `getpeercert()` gave, None without TLS. Raises IdentityError.
        """
        if certificate is not None:
            name = subject_of(certificate)
            if hello.token:
                raise IdentityError(f"{name} sent a token over TLS; the certificate alone counts")
            found = [item for item in self._principals if item.subject and item.subject == name]
        else:
            if not is_loopback(peer):
                raise IdentityError(f"{peer} is not a loopback address: a certificate is needed")
            name = "token"
            found = self._by_token(hello.token)
        if not found:
            raise IdentityError(f"{name} from {peer} is not known")
        principal = found[0]
        if hello.account != principal.account:
            raise IdentityError(f"{name} asks for account {hello.account}, its own is {principal.account}")
        if alien := sorted(set(hello.strategies) - principal.strategies):
            raise IdentityError(f"{name} asks for strategy {alien[0]}, which is not its own")
        subject = principal.subject or f"token {principal.token_sha256[:8]}"
        return Identity(subject, principal.account, frozenset(hello.strategies), principal)

    def _by_token(self, token: str) -> list[Principal]:
        if len(token) < TOKEN_LEAST:
            raise IdentityError(f"a token of {len(token)} characters is shorter than {TOKEN_LEAST}")
        digest = hash_token(token)
        # every entry is compared in full: how long it takes tells nothing of which one was near
        return [item for item in self._principals if hmac.compare_digest(item.token_sha256.encode(), digest.encode())]


def hash_token(token: str) -> str:
    """What is kept of a token: its SHA-256 in hexadecimal digits. Tokens are random, so that no salt is needed."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_loopback(address: str) -> bool:
    """Whether an IP address is of this machine alone; a name is none."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def subject_of(certificate: dict[str, Any]) -> str:
    """The subject of a verified certificate, as `commonName=..., organizationName=...`, most specific first.

    Raises IdentityError where there is none.
    """
    parts = [f"{name}={_escaped(value)}" for rdn in reversed(certificate.get("subject", ())) for name, value in rdn]
    if not parts:
        raise IdentityError("the certificate has no subject")
    return ",".join(parts)


def _escaped(value: str) -> str:
    """A value in which no comma or equals sign can pass for a further part of the subject."""
    return "".join(f"\\{character}" if character in '\\,+"<>;=' else character for character in value)


def server_tls(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """TLS 1.3 that lets no client in without a certificate of `authority`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """TLS 1.3 with a certificate of one's own, to a server whose name and certificate `authority` vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context
