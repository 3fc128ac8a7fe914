"""What an event of an order or a venue's report does to the state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serving.contracts.decisions import Allowed
from serving.contracts.orders import (
    Acked,
    Busted,
    Cancelled,
    CancelRejected,
    ChildOrder,
    Corrected,
    Filled,
    Rejected,
    Replace,
    Replaced,
    ReplaceRejected,
)
from serving.gateway.events import Accepted, CancelSent, Refused, Reported, Unsent
from serving.gateway.money import worth
from serving.gateway.order_table import Execution, Order, Status

if TYPE_CHECKING:
    from serving.gateway.state import State, Sums


def accepted(state: "State", event: Accepted) -> None:
    """Reserve for a request that passed; a sent order counts at once."""
    request, order_id, request_id = event.request, event.order_id, event.request_id
    if request_id != state.next_id:
        raise ValueError(f"request id {request_id} does not follow {state.next_id - 1}")
    if type(request) is ChildOrder:
        if order_id != request_id:
            raise ValueError(f"new order {order_id} must have its own number, not {request_id}")
        accept_new(state, request, order_id, event.unit_value, state.sums_of(request))
        return
    state.next_id = request_id + 1
    decision = Allowed(key=request.key, order_id=order_id, algorithm=request.algorithm, trader=request.trader)
    state.last = decision
    state.keys.add(state.keys.of(request.account, request.strategy), request, decision)
    order = state.orders[order_id]
    for node in order.nodes:
        node.cancels += 1
    if type(request) is Replace:
        order.begin_replace(request.price_ticks, request.lots, event.unit_value)
    else:
        order.cancelling = True


def accept_new(state: "State", request: ChildOrder, order_id: int, unit_value: int, sums: "Sums") -> Allowed:
    """Reserve for a new order that passed, under the next number."""
    state.next_id = order_id + 1
    decision = Allowed(key=request.key, order_id=order_id, algorithm=request.algorithm, trader=request.trader)
    state.keys.add(sums.answers, request, decision)
    order = Order(order_id, request, sums.nodes, sums.leg, sums.own, unit_value)
    state.orders.add(order)
    state.open_orders.add(order)
    order.enter()
    return decision


def refused(state: "State", event: Refused) -> None:
    """Remember the answer."""
    request = event.request
    state.keys.add(state.keys.of(request.account, request.strategy), request, event.denied)


def cancel_sent(state: "State", event: CancelSent) -> None:
    """Note that the gateway itself cancels; it does not count against the strategy's ratio."""
    if event.request_id != state.next_id:
        raise ValueError(f"request id {event.request_id} does not follow {state.next_id - 1}")
    state.next_id += 1
    state.orders[event.order_id].cancelling = True


def unsent(state: "State", event: Unsent) -> None:
    """Release what never reached the venue."""
    order = state.orders[event.order_id]
    if not order.is_open:
        return
    if event.what == "new":
        _finish(state, order, Status.UNSENT)
    elif event.what == "cancel":
        order.cancelling = False
    else:
        order.drop_replace()
        order.settle()
        _finish_if_filled(state, order)


def reported(state: "State", event: Reported) -> None:
    """Follow a venue's report, whatever the order in which reports come; what cannot be true opens a breaker."""
    report = event.report
    order = state.orders.get(report.order_id)
    if order is None or order.request.venue != event.venue:
        _trip(state, event.venue, f"{type(report).__name__} for order {report.order_id}, which was never sent there")
        return
    _REPORTS[type(report)](state, order, report)


def _acked(state: "State", order: Order, report: Acked) -> None:
    if order.status == Status.IN_FLIGHT:
        order.status = int(Status.WORKING)
        for node in order.nodes:
            if node.rejects and node.rejects < _fewest_rejects_that_stop(state):
                node.rejects = 0
    elif order.status == Status.UNSENT:  # the venue holds what nobody counts: reconciliation finds and cancels it
        _trip(state, order.request.venue, f"order {order.id} was acknowledged although it is {order.stage}")
        state.halted, state.reconciled = state.node("venue", order.request.venue).tripped, False


def _fewest_rejects_that_stop(state: "State") -> int:
    """A row of rejects that stopped anybody ends with a person: what was in flight is acknowledged after it too."""
    assert state.limits is not None
    return min(entry["max_venue_rejects"] for entry in state.limits.numbers.values() if "max_venue_rejects" in entry)


def _rejected(state: "State", order: Order, report: Rejected) -> None:
    if not order.is_open:
        return
    if order.filled:
        _trip(state, order.request.venue, f"order {order.id} was rejected after {order.filled} lots had been filled")
    for node in order.nodes:
        node.rejects += 1
    _finish(state, order, Status.REJECTED)


def _cancelled(state: "State", order: Order, report: Cancelled) -> None:
    if order.is_open:
        _finish(state, order, Status.DONE)


def _replaced(state: "State", order: Order, report: Replaced) -> None:
    if not order.is_open:
        return
    price, lots = order.new_price or order.price_ticks, order.new_lots or order.lots
    unit = order.new_unit or order.unit_value
    if report.price_ticks != price or report.lots > lots:
        _trip(
            state,
            order.request.venue,
            f"order {order.id} was replaced to {report.lots} lots at {report.price_ticks} ticks, "
            f"asked for {lots} at {price}",
        )
        unit = max(unit, worth(report.price_ticks, 1, order.leg.book.instrument.tick_value))
    order.status = int(Status.WORKING)
    order.stand_at(report.price_ticks, report.lots, unit)
    _finish_if_filled(state, order)


def _replace_rejected(state: "State", order: Order, report: ReplaceRejected) -> None:
    if order.new_lots and order.is_open:
        order.drop_replace()
        for node in order.nodes:
            node.rejects += 1
        order.settle()
        _finish_if_filled(state, order)


def _cancel_rejected(state: "State", order: Order, report: CancelRejected) -> None:
    order.cancelling = False


def _filled(state: "State", order: Order, report: Filled) -> None:
    key = (order.request.venue, report.exec_id)
    known = state.executions.get(key)
    if known is not None:
        if (known.order_id, known.lots, known.price_ticks) != (order.id, report.lots, report.price_ticks):
            _trip(state, order.request.venue, f"execution {report.exec_id} came twice with different contents")
        return
    value = worth(report.price_ticks, report.lots, order.leg.book.tick_value)
    order.leg.trade(order.sign, report.price_ticks, report.lots, report.fee)
    state.executions[key] = Execution(order.id, report.price_ticks, report.lots, report.fee)
    _count_traded(order, report.lots, value)
    if report.fee < -value:  # a profit that hides losses
        _trip(state, order.request.venue, f"a rebate of {-report.fee} on a trade of {value} (order {order.id})")
    if order.status > Status.DONE:
        _trip(state, order.request.venue, f"order {order.id} was filled although it is {order.stage}")
    _acked(state, order, Acked(order_id=order.id, ts_ns=report.ts_ns))
    order.filled += report.lots
    _check_fill(state, order, report.price_ticks)
    order.settle()
    _finish_if_filled(state, order)


def _busted(state: "State", order: Order, report: Busted) -> None:
    execution = state.executions.get((order.request.venue, report.exec_id))
    if execution is None or execution.order_id != order.id:
        _trip(state, order.request.venue, f"execution {report.exec_id} was busted, but never came for order {order.id}")
        return
    if not execution.standing:
        return
    order.leg.trade(-order.sign, execution.price_ticks, execution.lots, -execution.fee)
    execution.standing = False
    order.filled -= execution.lots
    order.settle()


def _corrected(state: "State", order: Order, report: Corrected) -> None:
    execution = state.executions.get((order.request.venue, report.exec_id))
    if execution is None or execution.order_id != order.id or not execution.standing:
        _trip(state, order.request.venue, f"execution {report.exec_id} was corrected, but does not stand")
        return
    if (execution.price_ticks, execution.lots) == (report.price_ticks, report.lots):
        return
    order.leg.trade(-order.sign, execution.price_ticks, execution.lots, 0)
    order.leg.trade(order.sign, report.price_ticks, report.lots, 0)
    unit = order.leg.book.tick_value  # the day's turnover grows, and is never given back
    dearer = worth(report.price_ticks, report.lots, unit) - worth(execution.price_ticks, execution.lots, unit)
    _count_traded(order, max(0, report.lots - execution.lots), max(0, dearer))
    order.filled += report.lots - execution.lots
    execution.price_ticks, execution.lots = report.price_ticks, report.lots
    _check_fill(state, order, report.price_ticks)
    order.settle()
    _finish_if_filled(state, order)


def _count_traded(order: Order, lots: int, value: int) -> None:
    for node in order.nodes:
        node.traded_lots += lots
        node.traded_value += value
    if not order.first_fill:
        order.first_fill = True
        for node in order.nodes:
            node.fills += 1


def _check_fill(state: "State", order: Order, price_ticks: int) -> None:
    allowed = max(order.lots, order.new_lots)
    if order.filled > allowed:
        _trip(state, order.request.venue, f"order {order.id} of {allowed} lots was filled with {order.filled}")
    if order.price_ticks:
        prices = (order.price_ticks, order.new_price or order.price_ticks)
        limit = max(prices) if order.sign > 0 else min(prices)
        if (price_ticks - limit) * order.sign > 0:
            _trip(
                state,
                order.request.venue,
                f"order {order.id} to {order.request.side} at {limit} ticks was filled at {price_ticks}",
            )


def _finish_if_filled(state: "State", order: Order) -> None:
    if order.is_open and not order.new_lots and order.filled >= order.lots:
        _finish(state, order, Status.DONE)


def _finish(state: "State", order: Order, status: Status) -> None:
    order.leave(status)
    state.open_orders.discard(order.id)


def _trip(state: "State", venue: str, reason: str) -> None:
    node = state.node("venue", venue)
    node.tripped = node.tripped or reason


_REPORTS: dict[type, Callable[["State", Order, Any], None]] = {
    Acked: _acked,
    Rejected: _rejected,
    Cancelled: _cancelled,
    Replaced: _replaced,
    ReplaceRejected: _replace_rejected,
    CancelRejected: _cancel_rejected,
    Filled: _filled,
    Busted: _busted,
    Corrected: _corrected,
}

EFFECTS: dict[type, Callable[["State", Any], None]] = {
    Accepted: accepted,
    Refused: refused,
    CancelSent: cancel_sent,
    Unsent: unsent,
    Reported: reported,
}
