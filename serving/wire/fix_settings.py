"""QuickFIX's settings built in code: sessions, stores, TLS.

Sequence policy: numbers are kept in the store across restarts and never reset by the session itself (`NonStopSession`,
no reset on logon, logout or disconnect), so that what was missed while a line was down is asked for again at logon.
Who resets them agrees with the other side first, with nothing working, and removes the store on both sides; a lower
number than expected ends the logon.

Without `dictionary` messages are not validated against FIX44.xml (the wheel does not carry it): serving.wire checks
every field that it reads itself. Repeating groups are then not understood, and none is used here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import quickfix

from serving.wire.identity import is_loopback

BEGIN_STRING = "FIX.4.4"


@dataclass(frozen=True)
class FixTls:
    """Certificate, key and authority of a session: both ends show a certificate of that authority."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class FixSettings:
    """One end's settings; `peers` are the CompIDs of the other ends (one for an initiator)."""

    comp_id: str
    peers: tuple[str, ...]
    store: Path  # sequence numbers and sent messages; kept across restarts
    port: int
    host: str = "127.0.0.1"
    heartbeat_s: int = 5  # asked for by the initiator; a line that is silent for 2.4 of these is taken down
    reconnect_s: int = 1
    dictionary: Path | None = None  # FIX44.xml, where messages shall be validated by QuickFIX too
    log: Path | None = None  # folder of message logs; none without
    tls: FixTls | None = None
    latency_max_s: int = 120  # SendingTime may be this far from the clock
    more: tuple[tuple[str, str], ...] = ()  # QuickFIX's own settings, in place of what is chosen here

    def __post_init__(self) -> None:
        if self.tls is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host} is not a loopback address: FIX beyond it needs TLS")
        if not 0 < self.port < 65_536:
            raise ValueError(f"port {self.port} is not from 1 to 65535")
        if not 1 <= self.heartbeat_s <= 60:
            raise ValueError(f"heartbeat_s {self.heartbeat_s} is not from 1 to 60")
        if not self.peers or len({self.comp_id, *self.peers}) != len(self.peers) + 1:
            raise ValueError(f"CompIDs {self.comp_id} and {', '.join(self.peers) or 'none'} must be different ones")


def session_ids(settings: FixSettings) -> list[quickfix.SessionID]:
    """The sessions of an end, in the order of its peers."""
    return [quickfix.SessionID(BEGIN_STRING, settings.comp_id, peer) for peer in settings.peers]


def acceptor_settings(settings: FixSettings) -> quickfix.SessionSettings:
    """Settings of an acceptor for every peer."""
    own = {"SocketAcceptHost": settings.host, "SocketAcceptPort": str(settings.port), "SocketReuseAddress": "Y"}
    return _build(settings, {"ConnectionType": "acceptor", **own})


def initiator_settings(settings: FixSettings) -> quickfix.SessionSettings:
    """Settings of an initiator. Raises ValueError for more than one peer."""
    if len(settings.peers) != 1:
        raise ValueError(f"{len(settings.peers)} peers: an initiator has one")
    own = {"SocketConnectHost": settings.host, "SocketConnectPort": str(settings.port)}
    own |= {"ReconnectInterval": str(settings.reconnect_s), "SocketNodelay": "Y"}
    return _build(settings, {"ConnectionType": "initiator", "HeartBtInt": str(settings.heartbeat_s), **own})


def _build(settings: FixSettings, own: dict[str, str]) -> quickfix.SessionSettings:
    settings.store.mkdir(parents=True, exist_ok=True)
    values = {
        "FileStorePath": str(settings.store),
        "StartTime": "00:00:00",
        "EndTime": "00:00:00",
        "NonStopSession": "Y",
        "PersistMessages": "Y",
        "TimestampPrecision": "9",
        "MaxLatency": str(settings.latency_max_s),
        "UseDataDictionary": "Y" if settings.dictionary else "N",
        "SocketNodelay": "Y",
        **own,
    }
    if settings.dictionary is not None:
        values["DataDictionary"] = str(settings.dictionary)
        values["ValidateUserDefinedFields"] = "N"  # the strategy and the algorithm travel in such
    if settings.log is not None:
        settings.log.mkdir(parents=True, exist_ok=True)
        values["FileLogPath"] = str(settings.log)
    if settings.tls is not None:
        values |= _tls(settings.tls, server=own["ConnectionType"] == "acceptor")
    values |= dict(settings.more)
    built = quickfix.SessionSettings()
    built.set(_dictionary(values))  # TLS is read from here alone
    for session in session_ids(settings):
        built.set(session, _dictionary(values))
    return built


def _dictionary(values: dict[str, str]) -> quickfix.Dictionary:
    entry = quickfix.Dictionary()
    for name, value in values.items():
        entry.setString(name, value)
    return entry


def _tls(tls: FixTls, server: bool) -> dict[str, str]:
    side = "Server" if server else "Client"
    return {
        "SSLProtocol": "+TLSv1_2 +TLSv1_3",
        f"{side}CertificateFile": str(tls.certificate),
        f"{side}CertificateKeyFile": str(tls.key),
        "CertificationAuthoritiesFile": str(tls.authority),
        "CertificateVerifyLevel": "2",
    }


def names(sessions: Sequence[quickfix.SessionID]) -> tuple[str, ...]:
    """Sessions by the CompID of their other end."""
    return tuple(session.getTargetCompID().getValue() for session in sessions)
