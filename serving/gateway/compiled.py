"""Limits and state as one order meets them: looked up once for (venue, account, strategy, symbol), then only read.

An `At` is thrown away when limits, postures or the day change (`State.revision`); the sums in it are the state's own.
"""

from serving.contracts.orders import INT64_MAX, ChildOrder, Replace
from serving.gateway.books import SUM_LIMITS, Node
from serving.gateway.limits import KINDS
from serving.gateway.live import Beat, ClockOffset, Live, Market, Recent, Waiting
from serving.gateway.money import BPS
from serving.gateway.order_table import Order
from serving.gateway.state import Place, State, Sums

ORDER_LIMITS = (
    "collar_bps", "dead_man_ns", "drift_collar_bps", "duplicate_window_ns", "free_cancels", "max_cancels_per_fill",
    "max_clock_age_ns", "max_clock_offset_ns", "max_feed_lag_ns", "max_heartbeat_age_ns", "max_order_adv_bps",
    "max_order_lots", "max_order_value", "max_participation_bps", "max_reference_age_ns", "max_repeated_orders",
    "max_request_age_ns", "max_send_age_ns", "max_unacknowledged_ns", "max_venue_rejects", "participation_floor_lots",
)  # fmt: skip
"""Limits on what an order is."""
NOT_SET = -INT64_MAX
"""A limit that came later than the document in force: tighter than any value."""


class Effective:
    """The limits on what an order is: the tightest of its scopes. Limits on sums are bound to the sums (`Node`)."""

    __slots__ = (
        "collar_bps", "dead_man_ns", "drift_collar_bps", "duplicate_window_ns", "free_cancels", "max_cancels_per_fill",
        "max_clock_age_ns", "max_clock_offset_ns", "max_feed_lag_ns", "max_heartbeat_age_ns", "max_order_adv_bps",
        "max_order_lots", "max_order_value", "max_participation_bps", "max_reference_age_ns", "max_repeated_orders",
        "max_request_age_ns", "max_send_age_ns", "max_unacknowledged_ns", "max_venue_rejects",
        "participation_floor_lots",
    )  # fmt: skip

    collar_bps: int
    dead_man_ns: int
    drift_collar_bps: int
    duplicate_window_ns: int
    free_cancels: int
    max_cancels_per_fill: int
    max_clock_age_ns: int
    max_clock_offset_ns: int
    max_feed_lag_ns: int
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


class At(Sums):
    """A place: the state's sums and the live things there. It holds the sums itself: each step to another object is a
    wait for memory, with 20,000 places.

    `unknown` says why it is none, and then only `answers` is set beside it.
    """

    __slots__ = (
        "account", "all", "beat", "clock", "limits", "market", "place", "recent", "started_ns", "state", "strategy",
        "symbol", "symbol_denial", "unanswered", "unknown", "venue",
    )  # fmt: skip

    state: State
    place: Place
    unknown: str
    limits: Effective
    symbol_denial: str
    all: Node
    venue: Node
    account: Node
    strategy: Node
    symbol: Node
    market: Market
    beat: Beat
    clock: ClockOffset
    recent: Recent
    unanswered: Waiting
    started_ns: int


class Intent:
    """What a new order or a replace asks for, worked out once for all controls."""

    __slots__ = (
        "added",
        "added_value",
        "at_mark",
        "is_new",
        "lots",
        "price",
        "reduce_only",
        "request",
        "sign",
        "target",
        "total",
        "unit",
        "value",
    )

    request: ChildOrder | Replace
    is_new: bool
    sign: int  # +1 buys, -1 sells
    price: int  # ticks, 0 for a market order
    total: int  # lots asked for, filled ones of a replaced order included
    lots: int  # that may trade: of a replace, what its new total leaves
    added: int  # lots beyond what the order already reserves
    unit: int  # minor units reserved a lot
    value: int
    added_value: int
    at_mark: int  # minor units of `added` at the symbol's mark
    reduce_only: bool
    target: Order | None  # what a replace changes


def at_place(state: State, live: Live, place: Place, mono_ns: int) -> At:
    """Put together what an order at `place` meets."""
    at = At()
    at.state, at.place = state, place
    at.unknown = _unknown(state, place)
    at.answers = state.keys.of(place[1], place[2])
    if at.unknown:
        at.limits = Effective()  # holds none: a control that read one would raise, and so deny
        return at
    venue, account, strategy, symbol = place
    sums = state.sums(place)
    at.nodes, at.leg, at.own = sums.nodes, sums.leg, sums.own
    at.all, at.venue, at.account, at.strategy, at.symbol = at.nodes
    at.market, at.beat, at.clock = live.market(venue, symbol), live.beat(strategy), live.clock
    at.recent, at.unanswered = live.recent_at(place), live.waiting(venue)
    at.started_ns = live.started_ns
    at.symbol_denial = _symbol_denial(state, place)
    at.limits = _bind(state, live, at, mono_ns)
    return at


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


def _bind(state: State, live: Live, at: At, mono_ns: int) -> Effective:
    """Bind the limits on sums to the sums of this place, and return those on what an order is."""
    numbers = {node.scope: _numbers(state, node.scope, node.name) for node in at.nodes}
    for node in at.nodes:
        if node.revision != state.revision:
            _bind_node(node, numbers[node.scope], live, mono_ns)
            node.revision = state.revision
    firm, account, strategy = at.leg.exposures
    firm.max_lots = min(numbers[scope].get("max_position_lots", INT64_MAX) for scope in ("all", "symbol"))
    account.max_lots = numbers["account"].get("max_position_lots", INT64_MAX)
    strategy.max_lots = numbers["strategy"].get("max_position_lots", INT64_MAX)
    limits = Effective()
    for limit in ORDER_LIMITS:
        found = [entry[limit] for entry in numbers.values() if limit in entry]
        setattr(limits, limit, max(found) if KINDS[limit].larger_is_tighter else min(found, default=NOT_SET))
    return live.interned(limits, tuple(getattr(limits, limit) for limit in ORDER_LIMITS))


def _bind_node(node: Node, numbers: dict[str, int], live: Live, mono_ns: int) -> None:
    node.unlimit()
    for limit in SUM_LIMITS:
        if limit in numbers:
            setattr(node, limit, numbers[limit])
    for limit, window in (("max_messages_per_second", "messages"), ("max_cancels_per_second", "cancel_messages")):
        if limit in numbers:
            setattr(node, window, live.window(limit, node.scope, node.name, numbers[limit], mono_ns))


def _numbers(state: State, scope: str, name: str) -> dict[str, int]:
    """What a scope sets, shrunk by its posture."""
    assert state.limits is not None
    own = dict(state.limits.numbers.get((scope, name), {}))
    posture = state.postures.get((scope, name))
    if posture is not None:
        wide = state.limits.numbers["all", ""]
        for limit, kind in KINDS.items():
            if kind.scaled and scope in kind.scopes:
                own[limit] = own.get(limit, wide[limit]) * posture.factor_bps // BPS
    return own


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
