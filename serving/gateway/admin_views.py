"""The gateway's state as plain values for people. Read in the admin plane's thread, so that no view stops a decision.

What is shown of two things at once may be a moment apart; nothing here creates, changes or looks up with a side effect.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from serving.gateway.books import Node
from serving.gateway.limits import KINDS
from serving.gateway.live import NEVER
from serving.gateway.observing import Shown
from serving.gateway.order_table import Order

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

SUMS = (
    "max_open_orders", "max_day_value", "max_day_lots", "max_gross_value", "max_net_value", "max_credit",
    "max_realised_loss", "max_loss", "max_drawdown", "max_repeated_orders", "max_venue_rejects", "max_position_lots",
)  # fmt: skip
"""Limits whose use is a running sum of their scope; the others are met order by order."""


def state_view(service: "GatewayService") -> dict[str, Any]:
    """Standing, venues, sessions, feeds, day, journal, what waits for people."""
    gateway, state = service.gateway, service.gateway.state
    nodes = list(state.nodes.values())
    mono_ns = time.monotonic_ns()
    return {
        "armed": not (state.halted or gateway.broken),
        "halted": state.halted,
        "broken": gateway.broken,
        "stopping": service.stopping,
        "reconciled": state.reconciled,
        "breaks": list(service.breaks),
        "paper": service.settings.paper,
        "utc_ns": time.time_ns(),
        "started_ns": service.started_ns,
        "day": {"date": state.date, "open": state.day_open, "opens_ns": state.opens_ns, "closes_ns": state.closes_ns},
        "killed": [
            {"scope": node.scope, "name": node.name, "liquidating": node.liquidating, "open_orders": node.open_orders}
            for node in nodes
            if node.killed
        ],
        "tripped": [{"scope": node.scope, "name": node.name, "why": node.tripped} for node in nodes if node.tripped],
        "journal": {
            "sequence": gateway.journal.sequence,
            "epoch": gateway.journal.epoch,
            "file": gateway.journal.name,
            "failed": gateway.journal.failed,
            "torn": gateway.journal.torn,
            "disk_full": gateway.disk_full,
            "free_bytes": _free_bytes(service),
        },
        "clock": {
            "offset_ns": gateway.live.clock.offset_ns,
            "age_s": _age_s(mono_ns, gateway.live.clock.measured_ns),
        },
        "venues": {name: venue_view(service, name) for name in service.venues},
        "strategies": {
            name: {"connected": beat.connected, "silent_s": _age_s(mono_ns, beat.seen_ns)}
            for name, beat in sorted(gateway.live.beats.copy().items())
        },
        "proposals": [
            {
                "change": change,
                "kind": item.kind,
                "by": item.by,
                "expires_ns": item.expires_ns,
                "approvals": list(item.approvals),
            }
            for change, item in state.proposals.copy().items()
        ],
        "postures": [
            {"scope": scope, "name": name, "factor_bps": item.factor_bps, "expires_ns": item.expires_ns}
            for (scope, name), item in state.postures.copy().items()
        ],
        "liquidations": [
            {"scope": scope, "name": name, "people": sorted(people)}
            for (scope, name), people in state.liquidations.copy().items()
        ],
        "open_orders": len(state.open_orders),
        "profit": {"realised": state.all.realised, "unrealised": state.all.unrealised, "peak": state.all.peak},
    }


def venue_view(service: "GatewayService", name: str) -> dict[str, Any]:
    """A venue's lines: FIX session, drop copy, feed."""
    session, feed, drop = service.sessions[name], service.feeds[name], service.drops.get(name)
    age_s, lag_s = feed.age_s, feed.lag_s
    waiting = service.gateway.live.unanswered.get(name)
    return {
        "session": session.state,
        "drop_copy": "none" if drop is None else "up" if drop.is_up else "down",
        "unanswered": 0 if waiting is None else len(waiting),
        "feed": {
            "up": feed.is_up,
            "age_s": None if age_s == float("inf") else round(age_s, 3),
            "lag_s": None if lag_s is None else round(lag_s, 3),
            "late": feed.is_late,
            "gaps": feed.gaps,
            "known": len(feed.follower.books),
            "symbols": len(feed.follower.symbols),
        },
    }


def orders_view(service: "GatewayService", open_only: bool, most: int) -> list[dict[str, Any]]:
    """Orders, the latest first."""
    state = service.gateway.state
    orders: Iterable[Order] = (state.open_orders if open_only else state.orders).copy().values()
    return [
        {
            "order_id": order.id,
            "key": order.request.key,
            "venue": order.request.venue,
            "account": order.request.account,
            "strategy": order.request.strategy,
            "symbol": order.request.symbol,
            "side": order.request.side,
            "type": order.request.type,
            "price_ticks": order.price_ticks or None,
            "lots": order.lots,
            "filled_lots": order.filled,
            "open_lots": order.open_lots,
            "stage": order.stage,
            "reduce_only": order.request.reduce_only,
            "algorithm": order.request.algorithm,
            "trader": order.request.trader,
            "sent_ns": order.request.sent_ns,
        }
        for order in list(orders)[: -most - 1 : -1]
    ]


def positions_view(service: "GatewayService") -> dict[str, Any]:
    """Every leg that holds or may come to hold something, and the sums of accounts, strategies and the firm."""
    state = service.gateway.state
    legs = [
        {
            "account": account,
            "strategy": strategy,
            "symbol": symbol,
            "position_lots": leg.position,
            "buying_lots": leg.buys,
            "selling_lots": leg.sells,
            "mark_ticks": leg.book.mark,
            "cost": leg.cost,
            "realised": leg.realised,
            "unrealised": leg.unrealised,
            "profit": leg.realised + leg.unrealised,
        }
        for (account, strategy, symbol), leg in sorted(state.legs.copy().items())
        if leg.position or leg.buys or leg.sells or leg.realised or leg.unrealised
    ]
    sums = [
        {
            "scope": node.scope,
            "name": node.name,
            "realised": node.realised,
            "unrealised": node.unrealised,
            "profit": node.profit,
            "peak": node.peak,
            "open_orders": node.open_orders,
            "traded_lots": node.traded_lots,
            "traded_value": node.traded_value,
        }
        for node in list(state.nodes.values())
        if node.scope in ("all", "account", "strategy")
    ]
    return {"legs": legs, "sums": sums}


def limits_view(service: "GatewayService") -> dict[str, Any]:
    """The limits in force, and how much of each that adds up is used."""
    limits = service.gateway.state.limits
    if limits is None:
        return {"document": None, "use": [], "means": {}}
    return {
        "document": limits.document(),
        "use": use_view(service),
        "means": {name: kind.means for name, kind in KINDS.items()},
    }


def use_view(service: "GatewayService", symbols: bool = True) -> list[dict[str, Any]]:
    """How much of each limit in SUMS is used, by scope; without `symbols` those of symbols are left out."""
    state = service.gateway.state
    if state.limits is None:
        return []
    found, worst = [], _worst_positions(service)
    for (scope, name), entry in sorted(state.limits.numbers.items()):
        if scope == "symbol" and not symbols:
            continue
        node = state.nodes.get((scope, name))
        used = {"max_position_lots": worst.get((scope, name), 0), **({} if node is None else _of_node(node))}
        found += [
            {
                "scope": scope,
                "name": name,
                "limit": limit,
                "most": entry[limit],
                "used": used[limit],
                "used_bps": used[limit] * 10_000 // entry[limit] if entry[limit] else None,
            }
            for limit in SUMS
            if limit in entry and limit in used
        ]
    return found


def _worst_positions(service: "GatewayService") -> dict[tuple[str, str], int]:
    """The largest worst-case position in one symbol, either way, by scope: one walk over all of them."""
    worst: dict[tuple[str, str], int] = {}
    for (scope, name, symbol), item in service.gateway.state.exposures.copy().items():
        lots = max(item.position + item.buys, item.sells - item.position)
        keys = ((scope, name), ("symbol", symbol)) if scope == "all" else ((scope, name),)
        for key in keys:
            if lots > worst.get(key, 0):
                worst[key] = lots
    return worst


def _of_node(node: Node) -> dict[str, int]:
    profit = node.profit
    return {
        "max_open_orders": node.open_orders,
        "max_day_value": node.traded_value + node.open_value,
        "max_day_lots": node.traded_lots + node.open_lots,
        "max_gross_value": node.gross,
        "max_net_value": max(node.long_value, -node.short_value),
        "max_credit": node.gross + max(-profit, 0),
        "max_realised_loss": max(-node.realised, 0),
        "max_loss": max(-profit, 0),
        "max_drawdown": max(node.peak - profit, 0),
        "max_repeated_orders": node.applied,
        "max_venue_rejects": node.rejects,
    }


def shown_view(ring: Iterable[Shown], since: int, most: int) -> list[dict[str, Any]]:
    """Entries of a ring after number `since`, oldest first, the last `most` of them."""
    found = [item for item in list(ring) if item.n > since]
    return [{"n": item.n, "utc_ns": item.utc_ns, "kind": item.kind, **item.body} for item in found[-most:]]


def _age_s(mono_ns: int, seen_ns: int) -> float | None:
    return None if seen_ns == NEVER else round((mono_ns - seen_ns) / 1e9, 3)


def _free_bytes(service: "GatewayService") -> int | None:
    try:
        return service.disk.free_bytes()
    except OSError:
        return None
