"""Settings of the venue's process, read from SHORTFALL_VENUE_* or the command line."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLContext
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.errors import InputError
from serving.wire.fix_settings import FixTls, session_day
from serving.wire.identity import is_loopback, server_tls
from training.market.venue.world import World


class VenueSettings(BaseSettings):
    """What the venue plays, how fast, and where it listens."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_VENUE_", extra="forbid", cli_kebab_case=True)

    name: str = Field("SYN", description="Name of the venue, as orders call it")
    folder: Path = Field(Path("lake/venue"), description="Of the log of what it received and of FIX's stores")
    world: Literal["synthetic", "reactive", "replay", "depth"] = Field(
        "synthetic",
        description="synthetic: a day made from its seed; reactive: one that answers own orders; replay: a day of "
        "silver order-by-order events; depth: a day of a features folder, by the fill rules of training",
    )
    symbols: list[str] = Field(["SYN1"], min_length=1, description="Symbols that trade")
    date: str = Field("2025-01-06", description="ISO session date")
    data: Path | None = Field(None, description="replay: folder of silver events; depth: of features")
    fill_model: str = Field("conservative", description="depth: how own resting orders fill")
    hours: float = Field(6.5, description="synthetic: length of the session")
    seed: int = Field(7, description="synthetic: seed of the market")
    strength: float = Field(0.6, description="synthetic: strength of the planted signal")
    latency_us: int | None = Field(
        None, ge=0, le=10**9, description="Of an order to the book; the instrument's if absent"
    )
    pace: Literal["real", "lockstep"] = Field("real", description="real: by the clock; lockstep: by its followers")
    speed: float = Field(1.0, gt=0, le=10_000, description="real: seconds of the day for one of the clock")
    step_s: float = Field(1.0, gt=0, le=3600, description="lockstep: between two moments at which followers decide")
    followers: int = Field(1, ge=1, le=100, description="lockstep: how many followers pace the venue")
    patience_s: float = Field(30.0, gt=0, description="lockstep: wait this long for orders said to be on their way")
    start: str | None = Field(None, description="UTC time of day to start at, HH:MM:SS; the open where absent")
    linger_s: float = Field(2.0, ge=0, description="Stay this long after the close")
    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback TLS is needed")
    fix_port: int = Field(9880, ge=1, le=65535, description="Port of FIX")
    feed_port: int = Field(9881, ge=1, le=65535, description="Port of the feed")
    comp_id: str = Field("VENUE", description="Own CompID")
    peers: list[str] = Field(["GATEWAY"], min_length=1, description="CompIDs that may log on")
    drop_copy: str | None = Field(
        None, description="CompID of a session that gets a copy of every execution of every peer, and sends nothing"
    )
    tokens: dict[str, str] | None = Field(None, description="SHA-256 of each peer's token; none asked for where absent")
    subjects: dict[str, str] = Field(
        {}, description="TLS: subject of the certificate of each peer and of drop_copy, e.g. commonName=gateway (JSON)"
    )
    dictionary: Path | None = Field(None, description="FIX44.xml, to validate with")
    day_start: str | None = Field(
        None, description="FIX: UTC time of day, HH:MM:SS, at which sessions begin anew at number 1; never where absent"
    )
    log_fix: bool = Field(False, description="Keep every FIX message in the folder too")
    certificate: Path | None = Field(None, description="TLS certificate, with `key` and `authority`")
    key: Path | None = Field(None, description="TLS key")
    authority: Path | None = Field(None, description="Authority of certificates that may connect")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = [path is not None for path in (self.certificate, self.key, self.authority)]
        if any(given) and not all(given):
            raise ValueError("certificate, key and authority go together")
        if not all(given) and not is_loopback(self.host):
            raise ValueError(f"host {self.host} is not a loopback address: TLS needs certificate, key and authority")
        sessions = {*self.peers, *([self.drop_copy] if self.drop_copy else [])}
        if set(self.subjects) != (sessions if all(given) else set()):
            wanted = f"of {', '.join(sorted(sessions))}" if all(given) else "none without TLS"
            raise ValueError(f"subjects of {', '.join(sorted(self.subjects)) or 'nobody'}, wanted {wanted}")
        if self.day_start is not None:
            session_day(self.day_start)
        if self.fix_port == self.feed_port:
            raise ValueError(f"fix_port and feed_port are both {self.fix_port}")
        if (self.world in ("replay", "depth")) != (self.data is not None):
            raise ValueError(
                f"world {self.world} with data {self.data}: replay and depth need a folder, others have none"
            )
        if self.drop_copy in (self.comp_id, *self.peers):
            raise ValueError(f"drop_copy {self.drop_copy} is the CompID of a session that trades")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols {', '.join(self.symbols)} repeat")
        return self

    def fix_tls(self) -> FixTls | None:
        """Files of FIX's TLS, None without."""
        if self.certificate is None or self.key is None or self.authority is None:
            return None
        return FixTls(self.certificate, self.key, self.authority, tuple(self.subjects.items()))

    def feed_tls(self) -> SSLContext | None:
        """TLS of the feed, None without."""
        tls = self.fix_tls()
        return None if tls is None else server_tls(tls.certificate, tls.key, tls.authority)

    def start_ns(self, worlds: Mapping[str, World]) -> int:
        """When the venue's clock starts. Raises InputError for a time outside the session."""
        opens, closes = min(w.opens_ns for w in worlds.values()), max(w.closes_ns for w in worlds.values())
        if self.start is None:
            return opens
        try:
            moment = datetime.fromisoformat(f"{self.date}T{self.start}").replace(tzinfo=UTC)
        except ValueError as error:
            raise InputError(f"start {self.start!r} is no time of day: {error}") from error
        start = int(moment.timestamp()) * 1_000_000_000
        if not opens <= start < closes:
            raise InputError(f"start {self.start} lies outside the session of {self.date}")
        return start
