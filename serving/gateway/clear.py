"""Whether an order is so clearly within every limit that no control could deny it: what most orders are.

No control, and none can be switched off by it: `is_clear` may only say yes where each of them lets the order pass, and
what it does not say yes to is asked of them one by one, who alone deny. It repeats their comparisons in one function
because 33 calls cost more than what they compare. `tests/property/test_risk_clear.py` holds the two to one another over
the adversarial streams. A control that is changed or added, and not compared with this file, is slow and no danger:
unless the controls' files are those of `COMPARED`, `registry` asks `is_clear` nothing.
"""

from serving.gateway.compiled import At, Intent
from serving.gateway.live import Now
from serving.gateway.money import BPS

COVERED = (
    "cancel_ratio", "clock", "collar", "credit", "day_turnover", "drift_collar", "duplicate", "false_fills",
    "gross_net", "heartbeat", "identity", "increments", "kill_switch", "locate", "loss", "message_rate", "open_orders",
    "order_adv", "order_lots", "order_value", "participation", "position", "reduce_only", "reference", "repeated",
    "replace_pending", "request_age", "self_match", "session", "standing", "symbol_lists", "unacknowledged",
    "venue_rejects",
)  # fmt: skip
"""The controls whose comparisons stand here."""
COMPARED = "b39f361b99ad51695434dec860f8c113bec594eba5e62f0c3a70022f713d9a5d"
"""`registry.digest` of the controls' files when they were last compared with this one."""


def is_clear(at: At, order: Intent, now: Now) -> bool:
    """True only where every control lets the order pass; False says nothing.

    Replaces, market orders, reduce-only orders and all beside an open reduce-only one are left to the controls.
    """
    if at.unknown or not order.is_new or order.reduce_only or not order.price:
        return False
    return _may_trade(at, order, now) and _is_small(at, order) and _sums_hold(at, order, now)


def _may_trade(at: At, order: Intent, now: Now) -> bool:
    """standing, session, clock, request_age, heartbeat, symbol_lists, false_fills, venue_rejects, unacknowledged,
    duplicate, repeated, cancel_ratio, reference."""
    limits, state, market, clock, beat = at.limits, at.state, at.market, at.clock, at.beat
    mono_ns, utc_ns, offset_ns = now.mono_ns, now.utc_ns, limits.max_clock_offset_ns
    sent_ns, rejects = order.request.sent_ns, limits.max_venue_rejects
    venue, strategy, lag_ns = at.venue, at.strategy, market.feed.lag_ns
    return not (
        state.halted
        or not state.day_open
        or not state.opens_ns <= utc_ns < state.closes_ns
        or market.status != "open"
        or mono_ns - clock.measured_ns > limits.max_clock_age_ns
        or not -offset_ns <= clock.offset_ns <= offset_ns
        or utc_ns - now.raw_utc_ns > offset_ns
        or not -limits.max_request_age_ns <= utc_ns - sent_ns <= limits.max_request_age_ns
        or sent_ns < state.opens_ns
        or not beat.connected
        or mono_ns - beat.seen_ns > limits.max_heartbeat_age_ns
        or at.symbol_denial
        or venue.tripped
        or venue.rejects >= rejects
        or strategy.rejects >= rejects
        or (mono_ns - at.unanswered.floor_ns > limits.max_unacknowledged_ns and at.unanswered.parts[0])
        or mono_ns - at.recent.last_ns < limits.duplicate_window_ns
        or strategy.applied >= limits.max_repeated_orders
        or strategy.cancels > limits.free_cancels + limits.max_cancels_per_fill * strategy.fills
        or not market.bid
        or not market.ask
        or mono_ns - market.seen_ns > limits.max_reference_age_ns
        or lag_ns + abs(clock.offset_ns) > limits.max_feed_lag_ns
        or -lag_ns > offset_ns
    )


def _is_small(at: At, order: Intent) -> bool:
    """increments, order_lots, order_adv, collar, drift_collar, order_value, participation, locate, self_match."""
    limits, market, leg, price, lots = at.limits, at.market, at.leg, order.price, order.lots
    book, symbol = leg.book, at.symbol
    bid, ask, mid2 = market.bid, market.ask, market.older_mid2
    drift = limits.drift_collar_bps * mid2
    if (
        lots < book.min_lots
        or (book.lot_multiple != 1 and lots % book.lot_multiple)
        or (book.price_multiple != 1 and price % book.price_multiple)
        or lots > limits.max_order_lots
        or lots > book.adv_lots * limits.max_order_adv_bps // BPS
        or (price - ask) * BPS > limits.collar_bps * ask
        or (bid - price) * BPS > limits.collar_bps * bid
        or not -drift <= (2 * price - mid2) * BPS <= drift
        or order.value > limits.max_order_value
        or symbol.traded_lots + symbol.open_lots + lots
        > limits.participation_floor_lots + market.volume_lots * limits.max_participation_bps // BPS
    ):
        return False
    if order.sign > 0:
        return at.own.best_ask > price
    account = leg.account_exposure
    held = account.position if account.position > 0 else 0
    return at.own.best_bid < price and (
        not book.needs_locate or account.sells + lots <= held
        or account.sold_short + account.sells + lots - held <= account.located
    )  # fmt: skip


def _sums_hold(at: At, order: Intent, now: Now) -> bool:
    """kill_switch, message_rate, open_orders, reduce_only, position, gross_net, day_turnover, credit, loss."""
    leg, lots, value, change = at.leg, order.lots, order.value, order.at_mark
    if leg.reducing_buys or leg.reducing_sells:
        return False
    buys = order.sign > 0
    firm, account, strategy = leg.firm_exposure, leg.account_exposure, leg.strategy_exposure
    if buys:
        if (
            firm.position + firm.buys + lots > firm.max_lots
            or account.position + account.buys + lots > account.max_lots
            or strategy.position + strategy.buys + lots > strategy.max_lots
        ):
            return False
    elif (
        firm.sells - firm.position + lots > firm.max_lots
        or account.sells - account.position + lots > account.max_lots
        or strategy.sells - strategy.position + lots > strategy.max_lots
    ):
        return False
    gross = (leg.long_value if buys else -leg.short_value) + change - leg.gross
    if gross < 0:
        gross = 0
    for node in at.nodes:
        realised, then, window = node.realised, node.gross + gross, node.messages
        profit = realised + node.unrealised
        if (
            node.killed
            or node.open_orders >= node.max_open_orders
            or node.traded_value + node.open_value + value > node.max_day_value
            or node.traded_lots + node.open_lots + lots > node.max_day_lots
            or (window is not None and window.used >= window.limit and window.is_full(now.mono_ns))
            or then > node.max_gross_value
            or (node.long_value if buys else -node.short_value) + change > node.max_net_value
            or then - profit > node.max_credit
            or then > node.max_credit
            or -realised > node.max_realised_loss
            or -profit > node.max_loss
            or node.peak - profit > node.max_drawdown
        ):
            return False
    return True
