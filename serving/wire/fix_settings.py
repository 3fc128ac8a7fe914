"""QuickFIX's settings built in code: sessions and stores. TLS is not among them: `tls_line` does it.

Sequence policy: numbers are kept in the store across restarts and not reset at logon, logout or disconnect, so that
what was missed while a line was down is asked for again at logon. With `day_start`, on which both ends must agree, each
session ends at that time of day and begins again at 1 with an empty store, also where it was down then: so stores do
not grow, and nothing of another day is ever sent again. Without it numbers go on for ever (`NonStopSession`), and who
resets them removes the store on both sides, with nothing working. A lower number than expected ends the logon.

Without `dictionary` messages are not validated against FIX44.xml (the wheel does not carry it): serving.wire checks
every field that it reads itself. Repeating groups are then not understood, and none is used here.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import quickfix

from serving.wire.identity import is_loopback

BEGIN_STRING = "FIX.4.4"
ONLY_FROM = "127.0.0.1"


@dataclass(frozen=True)
class FixTls:
    """Certificate, key and authority of an end, and whose certificate the other ends must show."""

    certificate: Path
    key: Path
    authority: Path
    subjects: tuple[tuple[str, str], ...] = ()
    """CompID and subject (`identity.subject_of`) of other ends. An acceptor needs every peer's; an initiator without
    one believes whoever has the server's name from the authority."""
    server_name: str = ""  # initiator: what the venue's certificate must name; the host where absent

    def context(self, *, server: bool) -> ssl.SSLContext:
        """TLS 1.2 or 1.3, with a certificate of the authority at both ends; a client's compares the server's name.

        Raises OSError (ssl.SSLError is one) for files that cannot be read or do not fit.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        if server:
            context.num_tickets = 0  # no session is taken up again: each connection shows its certificate
        return context


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
    day_start: str | None = None  # UTC, HH:MM:SS, as the other end has it; without, numbers go on from day to day
    begin_string: str = BEGIN_STRING
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
        if self.day_start is not None:
            session_day(self.day_start)
        if self.tls is not None and (strange := {name for name, _ in self.tls.subjects} - set(self.peers)):
            raise ValueError(f"a certificate's subject is given for {', '.join(sorted(strange))}, which is no peer")


def session_day(start: str) -> dict[str, str]:
    """QuickFIX's settings of a session that lasts a day but for one second. Raises ValueError for no HH:MM:SS."""
    try:
        first = datetime.strptime(f"2000-01-02 {start}", "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - a time of day
    except ValueError as error:
        raise ValueError(f"day_start {start!r} is no time of day as HH:MM:SS") from error
    return {"StartTime": f"{first:%H:%M:%S}", "EndTime": f"{first - timedelta(seconds=1):%H:%M:%S}"}


def session_ids(settings: FixSettings) -> list[quickfix.SessionID]:
    """The sessions of an end, in the order of its peers."""
    return [quickfix.SessionID(settings.begin_string, settings.comp_id, peer) for peer in settings.peers]


def acceptor_settings(settings: FixSettings) -> quickfix.SessionSettings:
    """Settings of an acceptor for every peer."""
    own = {"SocketAcceptPort": str(settings.port), "SocketReuseAddress": "Y"}
    # it listens on every address of the machine (see fix_listen), and hangs up on whoever comes from another one
    own["AllowedRemoteAddresses"] = ONLY_FROM
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
        "PersistMessages": "Y",
        "TimestampPrecision": "9",
        "MaxLatency": str(settings.latency_max_s),
        "UseDataDictionary": "Y" if settings.dictionary else "N",
        "SocketNodelay": "Y",
        **own,
    }
    always = {"StartTime": "00:00:00", "EndTime": "00:00:00", "NonStopSession": "Y"}
    values |= always if settings.day_start is None else session_day(settings.day_start)
    if settings.dictionary is not None:
        values["DataDictionary"] = str(settings.dictionary)
        values["ValidateUserDefinedFields"] = "N"  # the strategy and the algorithm travel in such
    if settings.log is not None:
        settings.log.mkdir(parents=True, exist_ok=True)
        values["FileLogPath"] = str(settings.log)
    values |= dict(settings.more)
    built = quickfix.SessionSettings()
    built.set(_dictionary(values))
    for session in session_ids(settings):
        built.set(session, _dictionary(values))
    return built


def _dictionary(values: dict[str, str]) -> quickfix.Dictionary:
    entry = quickfix.Dictionary()
    for name, value in values.items():
        entry.setString(name, value)
    return entry


def is_set(settings: quickfix.SessionSettings, name: str) -> bool:
    """Whether a setting of QuickFIX's is given, for all sessions or for one."""
    return settings.get().has(name) or any(settings.get(session).has(name) for session in settings.getSessions())


def ports(settings: quickfix.SessionSettings) -> list[int]:
    """Where an acceptor of these settings listens."""
    return sorted({settings.get(session).getInt("SocketAcceptPort") for session in settings.getSessions()})


def names(sessions: Sequence[quickfix.SessionID]) -> tuple[str, ...]:
    """Sessions by the CompID of their other end."""
    return tuple(session.getTargetCompID().getValue() for session in sessions)
