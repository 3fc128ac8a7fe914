"""The files that a gateway is told by: venues, who may send orders, who may command, the day's book. Strict YAML."""

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeVar

import msgspec
from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.gateway.day import Book
from serving.gateway.events import Holding, Instrument, Locate
from serving.gateway.limits import LimitsError, load_yaml
from serving.gateway.people import person
from serving.wire.fix_numbers import FixNumberError, Scale
from serving.wire.fix_settings import FixTls, session_day
from serving.wire.identity import TOKEN_LEAST, Directory, Principal, is_loopback

if TYPE_CHECKING:
    from serving.gateway.settings import GatewaySettings

AdminScope = Literal["read", "kill", "risk", "arm", "posture"]
ADMIN_SCOPES: tuple[AdminScope, ...] = ("read", "kill", "risk", "arm", "posture")
MODEL_SCOPES = frozenset({"read", "posture"})
"""All that the subject of a process that runs a model may hold: it can look, and it can tighten."""
T = TypeVar("T", bound=BaseModel)
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")]


class ConfigError(ValueError):
    """A file that is not as it must be; the message names the file, the entry and its value."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FixConfig(_Strict):
    """One FIX session out. Paths are relative to the file that names them."""

    host: str = "127.0.0.1"
    port: int = Field(9880, ge=1, le=65_535)
    comp_id: Name = "GATEWAY"
    peer: Name = "VENUE"
    heartbeat_s: int = Field(5, ge=1, le=60)
    day_start: str | None = None  # UTC, HH:MM:SS, as agreed with the venue: numbers begin at 1 with an empty store
    token_file: str | None = None  # holds the logon's Password; on loopback, or over TLS beside the certificate
    certificate: str | None = None
    key: str | None = None
    authority: str | None = None
    server_name: str | None = None  # what the venue's certificate must name; `host` where absent
    subject: str | None = None  # whose it must be, as `serving.wire.identity.subject_of` writes it; anybody's if absent
    dictionary: str | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = [item is not None for item in (self.certificate, self.key, self.authority)]
        if any(given) and not all(given):
            raise ValueError("certificate, key and authority go together")
        if not all(given) and not is_loopback(self.host):
            raise ValueError(f"host {self.host} is not a loopback address: certificate, key and authority are needed")
        if not all(given) and (self.server_name or self.subject):
            raise ValueError("server_name and subject are of a certificate, and there is no TLS")
        if self.day_start is not None:
            session_day(self.day_start)
        return self

    def tls(self, folder: Path) -> FixTls | None:
        """Files of the session's TLS, None without."""
        if self.certificate is None or self.key is None or self.authority is None:
            return None
        subjects = () if self.subject is None else ((self.peer, self.subject),)
        paths = (folder / self.certificate, folder / self.key, folder / self.authority)
        return FixTls(*paths, subjects, self.server_name or "")


class SymbolConfig(_Strict):
    """How a symbol's prices and quantities are written at the venue, as decimal text."""

    tick_size: str
    lot_size: str = "1"

    @model_validator(mode="after")
    def _is_scale(self) -> Self:
        try:
            Scale.of(self.tick_size, self.lot_size)
        except FixNumberError as error:
            raise ValueError(str(error)) from error
        return self


class FeedConfig(_Strict):
    """The gateway's own market data. TLS with a `wss` address: certificate, key and authority."""

    url: str = Field(pattern=r"^wss?://")
    certificate: str | None = None
    key: str | None = None
    authority: str | None = None


class VenueConfig(_Strict):
    """A venue: orders out, executions from a second source, market data in."""

    fix: FixConfig
    drop_copy: FixConfig | None = None
    feed: FeedConfig
    symbols: dict[Name, SymbolConfig] = Field(min_length=1)
    feed_has_no_send_time: bool = False  # then its lag cannot be known, and counts as none

    def scales(self) -> dict[str, Scale]:
        """Each symbol's scale."""
        return {symbol: Scale.of(item.tick_size, item.lot_size) for symbol, item in self.symbols.items()}

    @property
    def is_loopback(self) -> bool:
        """Whether every line to the venue stays on this machine."""
        host = self.feed.url.partition("://")[2].rpartition(":")[0].strip("[]")
        drop = self.drop_copy is None or is_loopback(self.drop_copy.host)
        return is_loopback(self.fix.host) and is_loopback(host) and drop


class _Client(_Strict):
    account: Name
    strategies: list[Name] = Field(min_length=1)
    subject: str = ""
    token_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")


class _Person(_Strict):
    subject: str
    scopes: list[AdminScope] = Field(min_length=1)
    token_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    runs_model: bool = False


class Commander(NamedTuple):
    """Someone of the admin plane. `subject` is in the one spelling of `people.person`."""

    subject: str
    scopes: frozenset[str]
    token_sha256: str
    by_token: bool = False  # of one who speaks: known by a token on loopback, not by a certificate


class _BookFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    date: str
    opens: str
    closes: str
    instruments: tuple[Instrument, ...]
    holdings: tuple[Holding, ...] = ()
    locates: tuple[Locate, ...] = ()
    restricted: tuple[str, ...] = ()


def load_venues(path: Path) -> dict[str, VenueConfig]:
    """`venues: {NAME: {...}}`. Raises ConfigError."""
    document = _read(path, "venues", dict)
    found = {name: _model(VenueConfig, item, f"{path}: venues.{name}") for name, item in document.items()}
    if not found:
        raise ConfigError(f"{path}: venues holds none")
    ends = [(fix.host, fix.port, fix.comp_id) for item in found.values() for fix in (item.fix, item.drop_copy) if fix]
    if len(set(ends)) != len(ends):
        raise ConfigError(f"{path}: two sessions share host, port and comp_id")
    return found


def load_clients(path: Path) -> tuple[Principal, ...]:
    """`clients: [{account, strategies, subject, token_sha256}]`: who may send orders. Raises ConfigError."""
    found = [_model(_Client, item, f"{path}: clients[{n}]") for n, item in enumerate(_read(path, "clients", list))]
    try:
        principals = tuple(
            Principal(item.account, frozenset(item.strategies), item.subject, item.token_sha256) for item in found
        )
        Directory(principals)  # refuses what two of them share
        _check_strategies(principals)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return principals


def _check_strategies(principals: tuple[Principal, ...]) -> None:
    """One account a strategy: its heartbeat is one, and one account's line must not keep another's orders alive."""
    owners: dict[str, str] = {}
    for item in principals:
        for strategy in sorted(item.strategies):
            owner = owners.setdefault(strategy, item.account)
            if owner != item.account:
                raise ValueError(f"strategy {strategy} is of accounts {owner} and {item.account}: name them apart")


def load_people(
    path: Path, clients: tuple[Principal, ...], services: Mapping[str, str] | None = None
) -> tuple[Commander, ...]:
    """`people: [{subject, scopes, token_sha256, runs_model}]`: who may command.

    `services`: subjects of certificates that are no person's, and whose they are. Raises ConfigError, also where one
    person stands twice, where someone of the order port or one of `services` is given any scope, and where a process
    that says that it runs a model is given more than to read and to tighten.
    """
    found = []
    seen: dict[str, str] = {}
    client_tokens = {item.token_sha256 for item in clients if item.token_sha256}
    client_subjects = {_spelled(item.subject, path) for item in clients if item.subject}
    others = {_spelled(subject, path): whose for subject, whose in (services or {}).items()}
    for number, item in enumerate(_read(path, "people", list)):
        where = f"{path}: people[{number}]"
        entry = _model(_Person, item, where)
        subject = _spelled(entry.subject, path)
        if subject in client_subjects or entry.token_sha256 in client_tokens:
            raise ConfigError(f"{where}: {subject} sends orders: whoever does holds no scope of the gateway")
        if subject in others:
            raise ConfigError(f"{where}: {subject} is {others[subject]}, no person: it holds no scope of the gateway")
        if entry.runs_model and (more := set(entry.scopes) - MODEL_SCOPES):
            raise ConfigError(f"{where}: {subject} runs a model and may not hold {', '.join(sorted(more))}")
        for kind, value in (("subject", subject), ("token_sha256", entry.token_sha256)):
            if value and seen.setdefault(f"{kind} {value}", where) != where:
                raise ConfigError(f"{where}: {kind} stands twice: one person is never two")
        found.append(Commander(subject, frozenset(entry.scopes), entry.token_sha256))
    return tuple(found)


def service_subjects(settings: "GatewaySettings", venues: Mapping[str, VenueConfig]) -> dict[str, str]:
    """Subjects that the settings know not to be people's, and whose they are, for `load_people`.

    Those named in `services`, the gateway's own certificate, and of each FIX session both ends'. Raises ConfigError.
    """
    found = {subject: "of a process (services)" for subject in settings.services}
    if settings.certificate is not None:
        found[certificate_subject(settings.certificate)] = "the gateway's own"
    base = settings.venues.resolve().parent
    for name, venue in venues.items():
        for fix in (venue.fix, venue.drop_copy):
            if fix is not None and fix.subject is not None:
                found[fix.subject] = f"that of venue {name}"
            if fix is not None and fix.certificate is not None:
                found[certificate_subject(base / fix.certificate)] = f"what the gateway shows venue {name}"
    return found


def certificate_subject(path: Path) -> str:
    """The subject of a certificate's file, for `people.person`. Raises ConfigError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).subject.rfc4514_string()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def load_book(path: Path) -> Book:
    """A day's book. Raises ConfigError."""
    return parse_book(_document(path), str(path))


def parse_book(document: Any, where: str) -> Book:
    """The plain value of a day's book. Raises ConfigError."""
    try:
        book = msgspec.convert(document, _BookFile)
        date.fromisoformat(book.date)
        return Book(
            book.date, _utc_ns(book.opens), _utc_ns(book.closes),
            book.instruments, book.holdings, book.locates, book.restricted,
        )  # fmt: skip
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: {error}") from error


def read_token(path: Path) -> str:
    """A token from a file. Raises ConfigError for one that is too short, OSError."""
    token = path.read_text().strip()
    if len(token) < TOKEN_LEAST:
        raise ConfigError(f"{path}: a token of {len(token)} characters is shorter than {TOKEN_LEAST}")
    return token


def subject_of(certificate: Mapping[str, Any]) -> str:
    """The subject of a verified certificate with the short names of RFC 4514, for `people.person`."""
    parts = []
    for rdn in reversed(certificate.get("subject", ())):
        for name, value in rdn:
            escaped = "".join(f"\\{c}" if c in '\\,+"<>;=/' else c for c in value)
            parts.append(f"{_SHORT.get(name, name)}={escaped}")
    return ",".join(parts)


_SHORT = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "localityName": "L", "stateOrProvinceName": "ST", "serialNumber": "SERIALNUMBER", "domainComponent": "DC",
    "userId": "UID", "emailAddress": "EMAIL", "streetAddress": "STREET", "givenName": "GN", "surname": "SN",
}  # fmt: skip


def _spelled(subject: str, path: Path) -> str:
    """A subject in the one spelling, whether its types are written short or long."""
    short = ",".join(
        f"{_SHORT.get(kind.strip(), kind)}{equals}{value}"
        for kind, equals, value in (part.partition("=") for part in subject.split(","))
    )
    try:
        return person(short)
    except PermissionError as error:
        raise ConfigError(f"{path}: {error}") from error


def _utc_ns(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text} has no zone: write ...Z")
    return int(moment.timestamp() * 1_000_000) * 1_000


def _document(path: Path) -> Any:
    try:
        return load_yaml(path.read_text())
    except (OSError, UnicodeDecodeError, LimitsError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _read(path: Path, key: str, kind: type) -> Any:
    document = _document(path)
    if not isinstance(document, dict) or list(document) != [key] or not isinstance(document[key], kind):
        raise ConfigError(f"{path}: not a map with the one entry {key} that is a {kind.__name__}")
    return document[key]


def _model(kind: type[T], item: Any, where: str) -> T:
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}{'.' if place else ''}{place}: {first['msg']}") from error
