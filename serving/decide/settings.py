"""Settings of the decide service, read from SHORTFALL_DECIDE_* or the command line."""

from pathlib import Path
from ssl import SSLContext
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.observe.alerts import check_webhook
from serving.wire.identity import is_loopback, server_tls


class DecideSettings(BaseSettings):
    """Which registry is followed, and who may ask where."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_DECIDE_", extra="forbid", cli_kebab_case=True)

    registry: Path = Field(
        Path("lake/registry/synthetic"), description="Folder with journal.jsonl and bundles: a registry, or its mirror"
    )
    public_key: Path | None = Field(
        None, description="The promoter's public key; <registry>/keys/promoter.pub where absent"
    )
    folder: Path = Field(Path("lake/decide"), description="Where ports.json says what was bound")
    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback TLS is needed")
    port: int = Field(9860, ge=0, le=65535, description="Port of HTTP; 0 takes any")
    metrics_host: str = Field("127.0.0.1", description="Address of metrics and probes")
    metrics_port: int = Field(9861, ge=0, le=65535, description="Port of metrics and probes; 0 takes any")
    tokens: dict[str, str] = Field({}, description="SHA-256 of each client's bearer token by its name")
    allow_anonymous_loopback: bool = Field(False, description="On loopback answer without tokens too")
    certificate: Path | None = Field(None, description="TLS certificate, with `key` and `authority`")
    key: Path | None = Field(None, description="TLS key")
    authority: Path | None = Field(None, description="Authority of the clients' certificates")
    subjects: list[str] = Field([], description="Certificate subjects that may ask, e.g. commonName=parents")
    alert_url: str | None = Field(None, description="Webhook that alerts are posted to, http or https")
    alert_token_file: Path | None = Field(None, description="File with the webhook's bearer token")
    watch_s: float = Field(0.25, gt=0, le=60, description="Look so often whether the journal's file changed")
    poll_s: float = Field(30.0, gt=0, le=3600, description="Read journal and bundles again so often whatever it shows")
    keep_s: float = Field(86_400.0, gt=0, description="Keep a policy that was asked for in so many last seconds")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = [path is not None for path in (self.certificate, self.key, self.authority)]
        if any(given) and not all(given):
            raise ValueError("certificate, key and authority go together")
        if all(given) and not self.subjects:
            raise ValueError("subjects are missing: with TLS only named certificates may ask")
        if not all(given) and not is_loopback(self.host):
            raise ValueError(f"host {self.host} is not a loopback address: TLS needs certificate, key and authority")
        if not all(given) and not self.tokens and not self.allow_anonymous_loopback:
            raise ValueError("nobody could ask: give tokens, TLS, or allow_anonymous_loopback")
        check_webhook(self.alert_url, self.alert_token_file is not None)
        return self

    @property
    def verifying_key(self) -> Path:
        """The promoter's public key."""
        return self.public_key or self.registry / "keys" / "promoter.pub"

    def tls(self) -> SSLContext | None:
        """TLS of the service, None without."""
        if self.certificate is None or self.key is None or self.authority is None:
            return None
        return server_tls(self.certificate, self.key, self.authority)
