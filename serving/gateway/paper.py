"""The files of a gateway that trades on paper: one loopback venue, one account, wide limits, a day from now on."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from serving.gateway.limits import KINDS
from serving.wire.identity import hash_token

SECOND_NS = 1_000_000_000
PAPER_LIMITS: dict[str, int] = {
    **dict.fromkeys(KINDS, 10**15),
    "max_order_lots": 100_000,
    "max_order_adv_bps": 10_000,
    "collar_bps": 500,
    "drift_collar_bps": 2_000,
    "max_reference_age_ns": 10 * SECOND_NS,
    "max_feed_lag_ns": 5 * SECOND_NS,
    "max_request_age_ns": 5 * SECOND_NS,
    "max_send_age_ns": 2 * SECOND_NS,
    "max_heartbeat_age_ns": 10 * SECOND_NS,
    "dead_man_ns": 20 * SECOND_NS,
    "max_clock_offset_ns": 100_000_000,
    "max_clock_age_ns": 10 * SECOND_NS,
    "duplicate_window_ns": 0,
    "max_unacknowledged_ns": 10 * SECOND_NS,
    "max_participation_bps": 10_000,
    "participation_floor_lots": 10**9,
    "max_venue_rejects": 100,
    "max_messages_per_second": 2_000,
    "max_cancels_per_second": 2_000,
    "max_open_orders": 10_000,
}
"""Wide enough for any policy of one parent order at a time; a book that earns money has limits of its own."""


class PaperInstrument(NamedTuple):
    """What the gateway must know of a symbol of the paper venue."""

    symbol: str
    tick_size: str  # decimal text, as "0.01"
    mark_ticks: int  # the last price that is known
    lot_size: str = "1"
    tick_value: int = 1  # minor units a lot and tick
    adv_lots: int = 10**9


class PaperFiles(NamedTuple):
    """Where the files are, and the tokens that they hold the hashes of."""

    folder: Path
    client_token: str
    admin_tokens: dict[str, str]  # by name: ann and bob hold every scope, mon reads, risk sets postures

    def settings(self) -> dict[str, Any]:
        """Settings of the process that name the files."""
        names = ("venues", "clients", "people", "limits", "day")
        return {**{name: self.folder / f"{name}.yaml" for name in names}, "folder": self.folder / "state"}

    def arguments(self) -> list[str]:
        """The same as words of the command line, with paper trading that arms by itself."""
        words = [f"--{name}={path}" for name, path in self.settings().items()]
        return [*words, "--paper=true", "--auto-arm=true", "--clock=assumed"]


def write_paper(
    folder: Path,
    instruments: Sequence[PaperInstrument],
    *,
    venue: str = "SYN",
    fix_port: int = 9880,
    feed_port: int = 9881,
    account: str = "main",
    strategies: Sequence[str] = ("policy", "twap"),
    drop_copy: str = "DROPCOPY",
    limits: Mapping[str, int] | None = None,
    hours: float = 20.0,
) -> PaperFiles:
    """Write venues, clients, people, limits and day into `folder`; the venue must be started with that `drop_copy`."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    opens = now - timedelta(minutes=1)
    client = secrets.token_hex(24)
    people = {name: secrets.token_hex(24) for name in ("ann", "bob", "mon", "risk")}
    scopes = {"mon": ["read"], "risk": ["posture"]}
    fix = {"host": "127.0.0.1", "port": fix_port, "peer": "VENUE"}
    documents: dict[str, Any] = {
        "venues": {
            "venues": {
                venue: {
                    "fix": {**fix, "comp_id": "GATEWAY"},
                    "drop_copy": {**fix, "comp_id": drop_copy},
                    "feed": {"url": f"ws://127.0.0.1:{feed_port}"},
                    "symbols": {i.symbol: {"tick_size": i.tick_size, "lot_size": i.lot_size} for i in instruments},
                }
            }
        },
        "clients": {
            "clients": [{"account": account, "strategies": list(strategies), "token_sha256": hash_token(client)}]
        },
        "people": {
            "people": [
                {
                    "subject": f"CN={name}",
                    "scopes": scopes.get(name, ["read", "kill", "risk", "arm", "posture"]),
                    "token_sha256": hash_token(token),
                    "runs_model": name == "risk",
                }
                for name, token in people.items()
            ]
        },
        "limits": {
            "version": 1,
            "venues": [venue],
            "accounts": {account: list(strategies)},
            "limits": {"all": {**PAPER_LIMITS, **(limits or {})}},
        },
        "day": {
            "date": opens.date().isoformat(),
            "opens": opens.isoformat(),
            "closes": (opens + timedelta(hours=hours)).isoformat(),
            "instruments": [
                {
                    "symbol": i.symbol, "tick_value": i.tick_value, "mark_ticks": i.mark_ticks,
                    "adv_lots": i.adv_lots, "needs_locate": False,
                }
                for i in instruments
            ],
        },
    }  # fmt: skip
    for name, document in documents.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
    return PaperFiles(folder, client, people)
