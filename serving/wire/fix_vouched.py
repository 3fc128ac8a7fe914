"""An acceptor's application behind a TLS line: a Logon counts only where the line vouched for it."""

import hmac
import logging
import threading
from secrets import token_hex

import quickfix

from serving.wire.fix_fields import LOGON, message_type
from serving.wire.tls_logon import LINE_TAG

log = logging.getLogger(__name__)
PENDING_MAX = 8
"""Logons of one peer that are on their way from the line, at most."""


class VouchedApplication(quickfix.Application):
    """Wraps any application; what the line did not bring, from whichever process of this machine, is turned away."""

    def __init__(self, inner: quickfix.Application) -> None:
        super().__init__()
        self._inner = inner
        self._secrets: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def vouch(self, peer: str) -> str:
        """A secret that one Logon of `peer` may carry, once."""
        secret = token_hex(16)
        with self._lock:
            known = self._secrets.setdefault(peer, [])
            known.append(secret)
            del known[:-PENDING_MAX]
        return secret

    def onCreate(self, session: quickfix.SessionID) -> None:  # noqa: N802 - QuickFIX's names
        """See quickfix.Application."""
        self._inner.onCreate(session)

    def onLogon(self, session: quickfix.SessionID) -> None:  # noqa: N802
        """See quickfix.Application."""
        self._inner.onLogon(session)

    def onLogout(self, session: quickfix.SessionID) -> None:  # noqa: N802
        """See quickfix.Application."""
        self._inner.onLogout(session)

    def toAdmin(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """See quickfix.Application."""
        self._inner.toAdmin(message, session)

    def fromAdmin(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """See quickfix.Application. Raises RejectLogon for a Logon without a secret of the line."""
        if message_type(message) == LOGON and not self._is_vouched(message, session.getTargetCompID().getValue()):
            log.warning("a Logon as %s did not come through the TLS line", session.getTargetCompID().getValue())
            raise quickfix.RejectLogon
        self._inner.fromAdmin(message, session)

    def toApp(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """See quickfix.Application."""
        self._inner.toApp(message, session)

    def fromApp(self, message: quickfix.Message, session: quickfix.SessionID) -> None:  # noqa: N802
        """See quickfix.Application."""
        self._inner.fromApp(message, session)

    def _is_vouched(self, message: quickfix.Message, peer: str) -> bool:
        given = message.getField(LINE_TAG) if message.isSetField(LINE_TAG) else ""
        with self._lock:
            known = self._secrets.get(peer, [])
            for number, secret in enumerate(known):
                if hmac.compare_digest(secret.encode(), given.encode("utf-8", "surrogateescape")):
                    del known[number]
                    return True
        return False
