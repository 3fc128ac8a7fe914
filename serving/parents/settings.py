"""Settings of the EMS, read from SHORTFALL_PARENTS_* or the command line."""

from pathlib import Path
from ssl import SSLContext
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.errors import InputError
from feature_repo.ticks.instruments import Instrument, load_instruments
from serving.observe.alerts import check_webhook
from serving.parents.outputs import AccountRules, CoreRules
from serving.wire.fix_settings import FixTls, session_day
from serving.wire.identity import TOKEN_LEAST, client_tls, is_loopback, server_tls

NS = 1_000_000_000


class AccountSettings(BaseModel):
    """An account whose parents are worked here, and its line to the gateway."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str = Field("agent", description="Strategy of its parents, as the gateway knows it")
    fallback_strategy: str = Field("twap_fallback", description="Strategy under which the fallback finishes a parent")
    trader: str = Field("desk", description="The person responsible, where a parent names none")
    order_token: str = Field("", repr=False, description="Token for the gateway's order port, on loopback")
    order_token_file: Path | None = Field(None, description="File that holds the token instead")

    def token(self) -> str:
        """The token for the order port. Raises OSError where its file cannot be read."""
        return self.order_token if self.order_token_file is None else self.order_token_file.read_text().strip()


class ClientSettings(BaseModel):
    """Somebody who may ask for parents of one account: by a token on loopback, by a certificate's subject beyond."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account: str
    token_sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    subject: str = ""


class FixPeer(BaseModel):
    """A FIX client: its account, the subject of its certificate, and the SHA-256 of its logon's Password.

    On loopback the Password alone is needed; over TLS the subject is, and the Password too where it is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    account: str
    token_sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    subject: str = ""  # as `serving.wire.identity.subject_of` writes it


class ParentsSettings(BaseSettings):
    """What is followed, for whom parents are worked, and where everybody else is."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_PARENTS_", extra="forbid", cli_kebab_case=True)

    folder: Path = Field(Path("lake/parents"), description="State: the journal, FIX stores, ports.json")
    instruments: Path = Field(Path("lake/features"), description="Folder with instruments.json")
    venue: str = Field("SYN", description="Name of the venue, as orders call it")
    symbols: list[str] = Field(["SYN1"], min_length=1, description="Symbols that are followed")
    accounts: dict[str, AccountSettings] = Field({"main": AccountSettings()}, description="Accounts by name (JSON)")
    algorithm: str = Field("shortfall", description="Registered id of the algorithm in every request")

    feed_url: str = Field("ws://127.0.0.1:9881", description="The venue's feed")
    feed_lag_s: float = Field(2.0, gt=0, le=60, description="Nothing is sent while the feed's messages take longer")
    feed_has_no_send_time: bool = Field(False, description="Of a feed whose lag cannot be known: it counts as none")
    paces: bool = Field(False, description="In lockstep the venue waits for this process")
    speed: float = Field(1.0, gt=0, le=10_000, description="Seconds of the venue's day for one of the clock")
    gateway_host: str = Field("127.0.0.1", description="The gateway's order port")
    gateway_port: int = Field(9870, ge=1, le=65535, description="The gateway's order port")
    decide_url: str = Field("http://127.0.0.1:9860", description="The decide service")
    decide_token: str = Field("", repr=False, description="Bearer token for decide")
    decide_token_file: Path | None = Field(None, description="File that holds the token instead")
    decide_deadline_s: float = Field(0.5, gt=0, le=30, description="A decision that takes longer is none")
    decide_wait_s: float = Field(10.0, ge=0, le=600, description="At the start wait so long for a champion")
    policies_s: float = Field(0.5, gt=0, le=60, description="Ask so often which policies there are")

    host: str = Field("127.0.0.1", description="Address of HTTP; beyond loopback TLS is needed")
    port: int = Field(9850, ge=0, le=65535, description="Port of HTTP; 0 takes any")
    clients: dict[str, ClientSettings] = Field({}, description="Who may ask over HTTP, by name (JSON)")
    allow_anonymous_loopback: bool = Field(
        False, description="On loopback ask without a token, if there is one account"
    )
    fix_host: str = Field("127.0.0.1", description="Address of FIX; beyond loopback TLS is needed")
    fix_port: int = Field(9851, ge=0, le=65535, description="Port of FIX; 0 takes any")
    fix_comp_id: str = Field("PARENTS", description="Own CompID")
    fix_day_start: str | None = Field(
        None, description="UTC time of day, HH:MM:SS, at which sessions begin anew at number 1; never where absent"
    )
    fix_peers: dict[str, FixPeer] = Field({}, description="FIX clients by CompID (JSON); none: no FIX")
    fix_strategies: list[str] = Field(["1001"], description="TargetStrategy(847) values that mean this EMS")
    metrics_host: str = Field("127.0.0.1", description="Address of metrics and probes")
    metrics_port: int = Field(9852, ge=0, le=65535, description="Port of metrics and probes; 0 takes any")
    metrics_token_file: Path | None = Field(None, description="File with the bearer token of /metrics")
    certificate: Path | None = Field(None, description="TLS certificate, with `key` and `authority`, for all lines")
    key: Path | None = Field(None, description="TLS key")
    authority: Path | None = Field(None, description="Authority of everybody's certificates")
    alert_url: str | None = Field(None, description="Webhook that alerts are posted to, http or https")
    alert_token_file: Path | None = Field(None, description="File with the webhook's bearer token")

    max_lots: int = Field(1_000_000, ge=1, description="Lots of a parent at most")
    max_parents: int = Field(200, ge=1, le=10_000, description="Parents at work at once, at most")
    room_s: float = Field(5.0, ge=1, le=60, description="After the horizon the sweep may be repeated for so long")
    backoff_s: float = Field(1.0, gt=0, le=60, description="After a denial; doubles with each in a row")
    backoff_max_s: float = Field(30.0, gt=0, le=600, description="After denials, at most")
    features_s: float = Field(90.0, gt=0, description="Without features for so long the fallback takes over")
    failures: int = Field(3, ge=1, le=100, description="Missing answers in a row until the fallback takes over")
    fallback_slice_s: float = Field(30.0, gt=0, description="A slice of the fallback where no policy gave one")
    told_s: float = Field(10.0, gt=0, le=600, description="Lockstep: wait so long for reports that are on their way")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = [path is not None for path in (self.certificate, self.key, self.authority)]
        if any(given) and not all(given):
            raise ValueError("certificate, key and authority go together")
        for name in ("host", "fix_host"):
            if not all(given) and not is_loopback(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)} is not a loopback address: TLS is needed")
        if self.fix_day_start is not None:
            session_day(self.fix_day_start)
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols {', '.join(self.symbols)} repeat")
        asked = {**{n: c.account for n, c in self.clients.items()}, **{n: c.account for n, c in self.fix_peers.items()}}
        for name, account in asked.items():
            if account not in self.accounts:
                raise ValueError(f"client {name} asks for account {account}, which is not worked here")
        for name, client in self.clients.items():
            if bool(client.token_sha256) == bool(client.subject):
                raise ValueError(f"client {name} needs a token's hash or a certificate's subject, and one of them only")
        for name, peer in self.fix_peers.items():
            if not peer.token_sha256 and not all(given):
                raise ValueError(f"FIX peer {name} needs a token's hash: without TLS anybody here could be it")
            if bool(peer.subject) != all(given):
                wrong = "a subject, and there is no TLS" if peer.subject else "no subject: any certificate could be it"
                raise ValueError(f"FIX peer {name} has {wrong}")
        for name, item in self.accounts.items():
            if item.strategy == item.fallback_strategy:
                raise ValueError(f"account {name}: the fallback needs a strategy of its own, not {item.strategy}")
        if not self.clients and not self.fix_peers and not self.allow_anonymous_loopback:
            raise ValueError("nobody could ask: give clients, fix_peers, or allow_anonymous_loopback")
        if self.allow_anonymous_loopback and (all(given) or len(self.accounts) != 1):
            raise ValueError("allow_anonymous_loopback is for one account without TLS")
        check_webhook(self.alert_url, self.alert_token_file is not None)
        return self

    def rules(self) -> CoreRules:
        """Settings of the core."""
        return CoreRules(
            venue=self.venue,
            accounts={
                name: AccountRules(item.strategy, item.fallback_strategy, item.trader)
                for name, item in self.accounts.items()
            },
            max_lots=self.max_lots, max_parents=self.max_parents, room_ns=int(self.room_s * NS),
            backoff_ns=int(self.backoff_s * NS), backoff_max_ns=int(self.backoff_max_s * NS),
            patience_ns=int(self.features_s * NS), failures=self.failures,
            fallback_interval_ns=int(self.fallback_slice_s * NS), algorithm=self.algorithm,
            max_feed_lag_ns=int(self.feed_lag_s * NS),
        )  # fmt: skip

    def known_instruments(self) -> dict[str, Instrument]:
        """The instruments that are followed, by symbol. Raises InputError where one is not known."""
        known = load_instruments(self.instruments)
        found = {}
        for symbol in self.symbols:
            named = known.get(f"{self.venue}:{symbol}")
            same = [named] if named else [item for item in known.values() if item.symbol == symbol]
            if len(same) != 1:
                raise InputError(f"{self.instruments}/instruments.json names {len(same)} instruments {symbol}, not one")
            found[symbol] = same[0]
        return found

    def decide_bearer(self) -> str:
        """The token for decide. Raises OSError where its file cannot be read."""
        return self.decide_token if self.decide_token_file is None else self.decide_token_file.read_text().strip()

    def metrics_token(self) -> str:
        """The token of /metrics, "" for none. Raises OSError for an unreadable file, InputError for a short token."""
        if self.metrics_token_file is None:
            return ""
        token = self.metrics_token_file.read_text().strip()
        if len(token) < TOKEN_LEAST:
            raise InputError(f"{self.metrics_token_file}: {len(token)} characters, a token has {TOKEN_LEAST} at least")
        return token

    def own_tls(self) -> SSLContext | None:
        """TLS of the process's own port, None without."""
        if self.certificate is None or self.key is None or self.authority is None:
            return None
        return server_tls(self.certificate, self.key, self.authority)

    def tls_to_others(self) -> SSLContext | None:
        """TLS towards gateway, feed and decide, None without."""
        if self.certificate is None or self.key is None or self.authority is None:
            return None
        return client_tls(self.certificate, self.key, self.authority)

    def fix_tls(self) -> FixTls | None:
        """Files of FIX's TLS, None without."""
        if self.certificate is None or self.key is None or self.authority is None:
            return None
        subjects = tuple((name, peer.subject) for name, peer in self.fix_peers.items())
        return FixTls(self.certificate, self.key, self.authority, subjects)
