"""Settings of the gateway's process, read from SHORTFALL_GATEWAY_* or the command line."""

from pathlib import Path
from ssl import SSLContext
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.observe.alerts import check_webhook
from serving.wire.identity import is_loopback, server_tls


class GatewaySettings(BaseSettings):
    """Where the gateway keeps its state, whom it believes, where it listens."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_GATEWAY_", extra="forbid", cli_kebab_case=True)

    folder: Path = Field(Path("lake/gateway"), description="State: journal, FIX stores, kill socket, ports.json")
    venues: Path = Field(Path("venues.yaml"), description="Venues: FIX session, drop copy, feed, symbols")
    clients: Path = Field(Path("clients.yaml"), description="Who may send orders, for which account and strategies")
    people: Path = Field(Path("people.yaml"), description="Who may command, with which scopes")
    limits: Path | None = Field(None, description="Limits to propose at the start; two people approve what is looser")
    day: Path | None = Field(None, description="The day's book, to propose at the start where no day is open")
    host: str = Field("127.0.0.1", description="Address of the order port; beyond loopback TLS is needed")
    order_port: int = Field(9870, ge=0, le=65535, description="Port of orders; 0 takes any")
    admin_host: str = Field("127.0.0.1", description="Address of the admin plane; beyond loopback TLS is needed")
    admin_port: int = Field(9871, ge=0, le=65535, description="Port of the admin plane; 0 takes any")
    metrics_host: str = Field("127.0.0.1", description="Address of metrics and probes")
    metrics_port: int = Field(9872, ge=0, le=65535, description="Port of metrics and probes; 0 takes any")
    metrics_token_file: Path | None = Field(
        None, description="File with the bearer token of /metrics; beyond loopback the book is shown with one alone"
    )
    certificate: Path | None = Field(None, description="TLS certificate, with `key` and `authority`")
    key: Path | None = Field(None, description="TLS key")
    authority: Path | None = Field(None, description="Authority of the clients' and people's certificates")
    services: list[str] = Field(
        [], description="Certificate subjects of processes, as CN=decide: none may command, whatever people says (JSON)"
    )
    clock: Literal["kernel", "assumed"] = Field(
        "kernel", description="Offset from UTC: as the kernel's time discipline says, or assumed to be none (paper)"
    )
    paper: bool = Field(False, description="A paper venue on loopback: `auto_arm` and an assumed clock are allowed")
    auto_arm: bool = Field(False, description="paper: approve first limits and the day, and arm, without people")
    alert_url: str | None = Field(None, description="Webhook that alerts are posted to, http or https")
    alert_token_file: Path | None = Field(None, description="File with the webhook's bearer token")
    group_max: int = Field(256, ge=1, le=10_000, description="Decisions that are made durable together, at most")
    tick_s: float = Field(0.1, gt=0, le=0.1, description="How often the watch looks: ten times a second at least")
    barrier_s: float = Field(2.0, gt=0, le=30, description="A venue that answers no TestRequest in this is not flushed")
    probe_s: float = Field(1.0, gt=0, le=10, description="Between two probes of a FIX session")
    probe_timeout_s: float = Field(2.0, gt=0, le=30, description="A session that does not answer in this is not well")
    reconcile_s: float = Field(10.0, gt=0, le=300, description="Venues have this long to say how orders stand")
    cancel_on_stop: bool = Field(True, description="Cancel working orders at an orderly stop")
    stop_s: float = Field(5.0, ge=0, le=60, description="Wait this long at a stop for cancels to be confirmed")
    log_fix: bool = Field(False, description="Keep every FIX message in the folder too")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = [path is not None for path in (self.certificate, self.key, self.authority)]
        if any(given) and not all(given):
            raise ValueError("certificate, key and authority go together")
        for name in ("host", "admin_host"):
            if not all(given) and not is_loopback(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)} is not a loopback address: TLS is needed")
        if not self.paper and (self.auto_arm or self.clock == "assumed"):
            raise ValueError("auto_arm and an assumed clock are for paper trading: set paper too")
        if self.auto_arm and not (is_loopback(self.host) and is_loopback(self.admin_host)):
            raise ValueError(f"auto_arm: host {self.host} and admin_host {self.admin_host} must be loopback addresses")
        check_webhook(self.alert_url, self.alert_token_file is not None)
        ports = [port for port in (self.order_port, self.admin_port, self.metrics_port) if port]
        if len(set(ports)) != len(ports):
            raise ValueError(f"ports {', '.join(map(str, ports))} repeat")
        return self

    def tls(self) -> SSLContext | None:
        """TLS of order port and admin plane, which lets nobody in without a certificate; None without."""
        if self.certificate is None or self.key is None or self.authority is None:
            return None
        return server_tls(self.certificate, self.key, self.authority)
