"""Limits and state as one order meets them: looked up once for (venue, account, strategy, symbol), then only read.

An `At` is thrown away when limits, postures or the day change (`State.revision`); the sums in it are the state's own.
"""

from collections.abc import Iterator
from typing import NamedTuple

from serving.contracts.orders import INT64_MAX, ChildOrder, Replace
from serving.gateway.books import Exposure, Leg, Node, OwnBook
from serving.gateway.events import Instrument
from serving.gateway.limits import KINDS, SCOPES
from serving.gateway.live import Beat, ClockOffset, Live, Market, Window
from serving.gateway.money import BPS
from serving.gateway.order_table import Order
from serving.gateway.state import State

Place = tuple[str, str, str, str]
"""(venue, account, strategy, symbol)"""


class Effective:
    """The limits of one place. Numbers are the tightest of its scopes; tuples pair a scope's sums with its limits."""

    __slots__ = (
        "cancel_windows", "collar_bps", "credit", "day", "dead_man_ns", "drift_collar_bps", "duplicate_window_ns",
        "free_cancels", "held", "loss", "max_cancels_per_fill", "max_clock_age_ns", "max_clock_offset_ns",
        "max_heartbeat_age_ns", "max_order_adv_bps", "max_order_lots", "max_order_value", "max_participation_bps",
        "max_reference_age_ns", "max_repeated_orders", "max_request_age_ns", "max_send_age_ns", "max_unacknowledged_ns",
        "max_venue_rejects", "message_windows", "open_orders", "participation_floor_lots", "position", "symbol_denial",
    )  # fmt: skip

    open_orders: tuple[tuple[Node, int], ...]
    day: tuple[tuple[Node, int, int], ...]  # value, lots
    held: tuple[tuple[Node, int, int], ...]  # gross, net
    credit: tuple[tuple[Node, int], ...]
    loss: tuple[tuple[Node, int, int, int], ...]  # realised, in all, drawdown
    position: tuple[tuple[Exposure, int], ...]
    message_windows: tuple[tuple[str, Window], ...]
    cancel_windows: tuple[tuple[str, Window], ...]
    symbol_denial: str
    collar_bps: int
    dead_man_ns: int
    drift_collar_bps: int
    duplicate_window_ns: int
    free_cancels: int
    max_cancels_per_fill: int
    max_clock_age_ns: int
    max_clock_offset_ns: int
    max_heartbeat_age_ns: int
    max_order_adv_bps: int
    max_order_lots: int
    max_order_value: int
    max_participation_bps: int
    max_reference_age_ns: int
    max_repeated_orders: int
    max_request_age_ns: int
    max_send_age_ns: int
    max_unacknowledged_ns: int
    max_venue_rejects: int
    participation_floor_lots: int


class At:
    """A place: the state's sums and the live things there.

    `unknown` says why it is none, and then nothing else is set.
    """

    __slots__ = (
        "account", "all", "beat", "clock", "instrument", "leg", "limits", "market", "own", "place", "recent",
        "started_ns", "state", "strategy", "symbol", "unanswered", "unknown", "venue",
    )  # fmt: skip

    state: State
    place: Place
    unknown: str
    limits: Effective
    all: Node
    venue: Node
    account: Node
    strategy: Node
    symbol: Node
    leg: Leg
    instrument: Instrument
    own: OwnBook
    market: Market
    beat: Beat
    clock: ClockOffset
    recent: dict[tuple[int, int, int], int]
    unanswered: dict[int, int]
    started_ns: int


class Intent:
    """What a new order or a replace asks for, worked out once for all controls."""

    __slots__ = (
        "added",
        "added_value",
        "is_new",
        "lots",
        "price",
        "reduce_only",
        "request",
        "sign",
        "target",
        "unit",
        "value",
    )

    request: ChildOrder | Replace
    is_new: bool
    sign: int  # +1 buys, -1 sells
    price: int  # ticks, 0 for a market order
    lots: int  # that may trade: of a replace, what its new total leaves
    added: int  # lots beyond what the order already reserves
    unit: int  # minor units reserved a lot
    value: int
    added_value: int
    reduce_only: bool
    target: Order | None  # what a replace changes


def at_place(state: State, live: Live, place: Place, mono_ns: int) -> At:
    """Put together what an order at `place` meets."""
    at = At()
    at.state, at.place = state, place
    at.unknown = _unknown(state, place)
    if at.unknown:
        return at
    venue, account, strategy, symbol = place
    at.all, at.venue, at.account = state.all, state.node("venue", venue), state.node("account", account)
    at.strategy, at.symbol = state.node("strategy", strategy), state.node("symbol", symbol)
    at.leg, at.own = state.leg(account, strategy, symbol), state.own_book(venue, symbol)
    at.instrument = at.leg.book.instrument
    at.market, at.beat, at.clock = live.market(venue, symbol), live.beat(strategy), live.clock
    at.recent, at.unanswered = live.recent.setdefault(place, {}), live.unanswered.setdefault(venue, {})
    at.started_ns = live.started_ns
    at.limits = _effective(state, live, at, mono_ns)
    return at


class _Scope(NamedTuple):
    node: Node
    numbers: dict[str, int]  # what this scope sets, shrunk by its posture


def _unknown(state: State, place: Place) -> str:
    venue, account, strategy, symbol = place
    limits = state.limits
    if limits is None:
        return "no limits are in force"
    if venue not in limits.venues:
        return f"venue {venue} is not among the limits' venues"
    if account not in limits.accounts:
        return f"account {account} is not among the limits' accounts"
    if strategy not in limits.accounts[account]:
        return f"strategy {strategy} may not trade for account {account}"
    if symbol not in state.symbols:
        return f"symbol {symbol} is not among today's instruments"
    return ""


def _effective(state: State, live: Live, at: At, mono_ns: int) -> Effective:
    names = dict(zip(SCOPES, ("", *at.place), strict=True))
    scopes = [_scope(state, scope, name) for scope, name in names.items()]
    limits = Effective()
    for limit, kind in KINDS.items():
        if limit in Effective.__slots__:
            found = [scope.numbers[limit] for scope in scopes if limit in scope.numbers]
            setattr(limits, limit, max(found) if kind.larger_is_tighter else min(found))
    limits.open_orders = tuple((s.node, s.numbers["max_open_orders"]) for s in scopes if "max_open_orders" in s.numbers)
    limits.credit = tuple((s.node, s.numbers["max_credit"]) for s in scopes if "max_credit" in s.numbers)
    limits.day = tuple(_sums(scopes, "max_day_value", "max_day_lots"))
    limits.held = tuple(_sums(scopes, "max_gross_value", "max_net_value"))
    limits.loss = tuple(_losses(scopes))
    limits.position = _positions(at, scopes)
    limits.message_windows = _windows(live, scopes, "max_messages_per_second", mono_ns)
    limits.cancel_windows = _windows(live, scopes, "max_cancels_per_second", mono_ns)
    limits.symbol_denial = _symbol_denial(state, at.place)
    return limits


def _scope(state: State, scope: str, name: str) -> _Scope:
    assert state.limits is not None
    own = dict(state.limits.numbers.get((scope, name), {}))
    posture = state.postures.get((scope, name))
    if posture is not None:
        wide = state.limits.numbers["all", ""]
        for limit, kind in KINDS.items():
            if kind.scaled and scope in kind.scopes:
                own[limit] = own.get(limit, wide[limit]) * posture.factor_bps // BPS
    return _Scope(state.node(scope, name), own)


def _sums(scopes: list[_Scope], one: str, other: str) -> Iterator[tuple[Node, int, int]]:
    """Each scope that sets either of two limits, with both."""
    for scope in scopes:
        if one in scope.numbers or other in scope.numbers:
            yield scope.node, scope.numbers.get(one, INT64_MAX), scope.numbers.get(other, INT64_MAX)


def _losses(scopes: list[_Scope]) -> Iterator[tuple[Node, int, int, int]]:
    for scope in scopes:
        realised, lost, down = (scope.numbers.get(limit) for limit in ("max_realised_loss", "max_loss", "max_drawdown"))
        if realised is not None or lost is not None or down is not None:
            unlimited = INT64_MAX
            yield (
                scope.node,
                unlimited if realised is None else realised,
                unlimited if lost is None else lost,
                unlimited if down is None else down,
            )


def _positions(at: At, scopes: list[_Scope]) -> tuple[tuple[Exposure, int], ...]:
    firm, account, strategy = at.leg.exposures
    exposures = {"all": firm, "account": account, "strategy": strategy, "symbol": firm}
    found: dict[int, tuple[Exposure, int]] = {}
    for scope in scopes:
        limit = scope.numbers.get("max_position_lots")
        if limit is not None:
            exposure = exposures[scope.node.scope]
            before = found.get(id(exposure), (exposure, limit))[1]
            found[id(exposure)] = (exposure, min(before, limit))
    return tuple(found.values())


def _windows(live: Live, scopes: list[_Scope], limit: str, mono_ns: int) -> tuple[tuple[str, Window], ...]:
    return tuple(
        (
            f"{s.node.scope} {s.node.name}".strip(),
            live.window(limit, s.node.scope, s.node.name, s.numbers[limit], mono_ns),
        )
        for s in scopes
        if limit in s.numbers
    )


def _symbol_denial(state: State, place: Place) -> str:
    assert state.limits is not None
    venue, account, strategy, symbol = place
    if state.symbols[symbol].restricted:
        return f"symbol {symbol} is on today's restricted list"
    for scope, name in (("venue", venue), ("account", account), ("strategy", strategy)):
        lists = state.limits.lists.get((scope, name), {})
        if symbol in lists.get("restricted_symbols", ()):
            return f"symbol {symbol} is restricted for {scope} {name}"
        if symbol not in lists.get("allowed_symbols", (symbol,)):
            return f"symbol {symbol} is not among the allowed symbols of {scope} {name}"
    return ""
