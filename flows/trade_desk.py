"""The four serving processes of a traded day on loopback: venue, decide, gateway and parents, and their settings."""

import json
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.errors import ShortfallError
from flows.champions import open_registry
from flows.settings import settings
from flows.trade_day import TradeDay, TradeParams
from flows.trade_processes import Team, free_ports, new_token
from serving.gateway.paper import PaperInstrument, write_paper
from serving.signing import public_key_path
from serving.wire.identity import hash_token

ACCOUNT, STRATEGY, FALLBACK = "main", "agent", "twap_fallback"
DROP_COPY = "DROPCOPY"
STEP_NS = 1_000_000_000
"""Lockstep: the market moves on by this, or by the pause between two decisions where that is shorter."""


@dataclass(frozen=True)
class Desk:
    """Where the running processes are, and the words that open them."""

    feed_url: str
    parents_url: str
    parents_token: str
    gateway_metrics: str
    gateway_admin: str
    gateway_token: str  # of one who may only look
    parents_folder: Path
    gateway_folder: Path


def start_desk(team: Team, day: TradeDay, params: TradeParams) -> Desk:
    """Start the processes, one behind the other; raises ProcessFailedError where one does not come up."""
    folder, signing_key = team.folder, settings().signing_key
    fix_port, feed_port = free_ports(2)
    tokens = {name: new_token() for name in ("decide", "parents")}
    venue = day.days[0].instrument.venue
    files = write_paper(
        folder / "gateway", [_paper(market) for market in day.days], venue=venue, fix_port=fix_port,
        feed_port=feed_port, account=ACCOUNT, strategies=(STRATEGY, FALLBACK), drop_copy=DROP_COPY,
    )  # fmt: skip
    _start_venue(team, day, params, venue, fix_port, feed_port)
    _start(
        team, "decide",
        {
            "registry": open_registry(day.source).root,
            "public_key": None if signing_key is None else public_key_path(signing_key),
            "folder": folder / "decide",
            "port": 0,
            "metrics_port": 0,
            "tokens": {"parents": hash_token(tokens["decide"])},
        },
    )  # fmt: skip
    ports = [f"--{name}-port=0" for name in ("order", "admin", "metrics")]
    team.start("gateway", "serving.gateway", [*files.arguments(), *ports], {}, folder / "gateway/state/ports.json")
    decide, gateway = team.wait_ready("decide"), team.wait_ready("gateway")
    order = {"strategy": STRATEGY, "fallback_strategy": FALLBACK, "order_token": files.client_token}
    _start(
        team, "parents",
        {
            "folder": folder / "parents",
            "instruments": day.features,
            "venue": venue,
            "symbols": [market.instrument.symbol for market in day.days],
            "accounts": {ACCOUNT: order},
            "feed_url": f"ws://127.0.0.1:{feed_port}",
            "paces": params.pace == "lockstep",
            "speed": params.speed if params.pace == "real" else 1.0,
            "gateway_port": gateway["order"],
            "decide_url": f"http://127.0.0.1:{decide['http']}",
            "decide_token": tokens["decide"],
            "decide_deadline_s": 5.0,  # everything shares two cores here: a slow answer is better than the fallback
            "port": 0,
            "metrics_port": 0,
            "clients": {"trade": {"account": ACCOUNT, "token_sha256": hash_token(tokens["parents"])}},
            "max_parents": 10_000,
        },
    )  # fmt: skip
    parents = team.wait_ready("parents")
    return Desk(
        feed_url=f"ws://127.0.0.1:{feed_port}",
        parents_url=f"http://127.0.0.1:{parents['http']}",
        parents_token=tokens["parents"],
        gateway_metrics=f"http://127.0.0.1:{gateway['metrics']}",
        gateway_admin=f"http://127.0.0.1:{gateway['admin']}",
        gateway_token=files.admin_tokens["mon"],
        parents_folder=folder / "parents",
        gateway_folder=folder / "gateway" / "state",
    )


def why_not_ready(desk: Desk) -> str:
    """Why the gateway takes no orders yet, "" where it is armed: its probe is well while it is halted too."""
    headers = {"Authorization": f"Bearer {desk.gateway_token}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{desk.gateway_admin}/v1/state", headers=headers), timeout=2.0
        ) as answer:
            state = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(error)
    return "" if state["armed"] else str(state["broken"] or f"halted: {state['halted']}")


def denials(desk: Desk) -> int:
    """Requests that the gateway has denied so far, by its metrics; 0 where they cannot be had."""
    with suppress(urllib.error.URLError, OSError, ValueError):
        with urllib.request.urlopen(f"{desk.gateway_metrics}/metrics", timeout=2.0) as answer:
            lines = answer.read().decode().splitlines()
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(_DENIALS)))
    return 0


_DENIALS = "shortfall_gateway_denied_total"


def _start_venue(team: Team, day: TradeDay, params: TradeParams, venue: str, fix_port: int, feed_port: int) -> None:
    latency_ns = day.config.latency_ns
    plain: dict[str, Any] = {
        "name": venue,
        "folder": team.folder / "venue",
        "world": "depth",
        "data": day.features,
        "symbols": [market.instrument.symbol for market in day.days],
        "date": day.date,
        "fill_model": day.config.fill_model,
        "pace": params.pace,
        "speed": params.speed,
        "step_s": min(STEP_NS, day.config.pause_ns) / 1e9,
        "followers": 2,  # parents, and whoever conducts the day
        "fix_port": fix_port,
        "feed_port": feed_port,
        "drop_copy": DROP_COPY,
    }
    if latency_ns is not None:
        if latency_ns % 1000:
            raise ShortfallError(f"latency_ns {latency_ns}: the venue takes whole microseconds")
        plain["latency_us"] = latency_ns // 1000
    _start(team, "venue", plain, module="training.market.venue")


def _start(team: Team, name: str, plain: dict[str, Any], module: str = "") -> None:
    """Start a process whose settings come by the environment, where tokens are no words of a command line."""
    environment = {f"SHORTFALL_{name.upper()}_{key.upper()}": _text(value) for key, value in plain.items()
                   if value is not None}  # fmt: skip
    team.start(name, module or f"serving.{name}", [], environment, team.folder / name / "ports.json")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str).strip('"')


def _paper(market: Any) -> PaperInstrument:
    """A symbol as the gateway must know it: its scale, the first mid of the day, its daily volume."""
    instrument, book = market.instrument, market.book
    both = (book.bid_sz[:, 0] > 0) & (book.ask_sz[:, 0] > 0)
    first = int(both.argmax())
    return PaperInstrument(
        instrument.symbol,
        tick_size=repr(instrument.tick_size),
        mark_ticks=int(book.bid_px[first, 0] + book.ask_px[first, 0]) // 2,
        lot_size=repr(instrument.lot_size),
        adv_lots=max(1, round(float(market.adv_lots))),
    )
