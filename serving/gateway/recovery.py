"""After a restart: the journal's book against the venues' and the drop copy's, then a person arms.

The gateway comes up halted. It never sends an order again that it does not find at the venue: what is not there is
released, and its sender learns so; whether it ever left does not matter then.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from serving.contracts.orders import Acked, Cancelled, Filled, Replaced, ReplaceRejected
from serving.gateway.disk import Disk
from serving.gateway.engine import Gateway, Listener
from serving.gateway.events import Armed, Reconciled, Unsent
from serving.gateway.journal import Journal
from serving.gateway.live import Now
from serving.gateway.order_table import Order, Status
from serving.gateway.people import person
from serving.gateway.transport import CancelMessage, Transport


class OrderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue says of one order: FIX OrderStatusRequest, and the executions that it lists."""

    order_id: int
    is_open: bool
    price_ticks: int  # 0 for a market order
    lots: int  # in all
    filled_lots: int
    fills: tuple[Filled, ...] = ()  # every execution that stands
    is_old: bool = False  # the order was changed since the venue was asked: price and lots may be from before


Ask = Callable[[str, int], OrderStatus | None]
"""(venue, order_id) to what the venue says; None where it does not know the order. To raise is not to know: a break."""


def open_gateway(disk: Disk, transport: Transport, now: Now, listener: Listener | None = None) -> Gateway:
    """Take the journal and come up halted, in the state that it leads to.

    Raises LockedError, CorruptError, JournalError (`Journal.open`).
    """
    journal, state = Journal.open(disk, now.utc_ns)
    return Gateway(journal, state, transport, now, listener)


def reconcile(
    gateway: Gateway,
    ask: Ask,
    open_at_venue: Mapping[str, Iterable[int]],
    drop_copy: Iterable[tuple[str, Filled]] | None,
    now: Now,
    positions: Mapping[tuple[str, str], int] | None = None,
) -> tuple[str, ...]:
    """Bring the book to what the venues say, and list what does not agree; durable on return, empty where all agrees.

    `open_at_venue` lists each venue's open orders: those that the journal does not know are cancelled and are a break.
    `drop_copy` is the day's executions from the second source, None where there is none (a break by itself);
    `positions` the clearer's (account, symbol) to lots, where it gives any. Nothing that fails here raises: it is a
    break.
    """
    breaks: list[str] = []
    for order in list(gateway.state.open_orders.values()):
        try:
            status = ask(order.request.venue, order.id)
        except Exception as error:
            breaks.append(f"venue {order.request.venue} does not answer for order {order.id}: {error}")
            continue
        breaks += _follow(gateway, order, status, now)
    for venue, order_ids in sorted(open_at_venue.items()):
        for order_id in sorted(order_ids):
            if order_id not in gateway.state.open_orders:
                breaks.append(f"venue {venue} holds order {order_id}, which is not open here: it is being cancelled")
                _cancel_orphan(gateway, venue, order_id, now)
    breaks += _compare_drop_copy(gateway, drop_copy, now)
    for (account, symbol), lots in sorted((positions or {}).items()):
        own = gateway.state.exposure("account", account, symbol).position
        if own != lots:
            breaks.append(f"account {account} holds {own} lots of {symbol} here, {lots} at the clearer")
    if gateway.broken:
        breaks.append(gateway.broken)
        return tuple(breaks)
    gateway.record(Reconciled(utc_ns=gateway.read_clock(now).utc_ns, breaks=tuple(breaks)))
    gateway.commit(now)
    return tuple(breaks)


def arm(gateway: Gateway, by: str, now: Now) -> None:
    """Let new orders through. Durable on return.

    Raises PersonError where `by` is no person; ValueError where the book is not reconciled or no limits hold;
    JournalError.
    """
    who, clock = person(by), gateway.read_clock(now)
    if gateway.broken:
        raise ValueError(gateway.broken)
    if not gateway.state.reconciled:
        raise ValueError("the book is not reconciled: compare it with the venue and the drop copy first")
    if gateway.state.limits is None:
        raise ValueError("no limits are in force")
    gateway.record(Armed(utc_ns=clock.utc_ns, by=who))
    gateway.commit(now)


def _follow(gateway: Gateway, order: Order, status: OrderStatus | None, now: Now) -> list[str]:
    venue = order.request.venue
    if status is None:
        if order.status != Status.IN_FLIGHT:
            return [f"venue {venue} does not know order {order.id}, which it had acknowledged"]
        clock = gateway.read_clock(now)
        reason = "the venue does not know it after a restart"
        gateway.record(Unsent(utc_ns=clock.utc_ns, order_id=order.id, what="new", reason=reason))
        gateway.unanswered.forget_all(order)
        return []
    for fill in status.fills:
        if (venue, fill.exec_id) not in gateway.state.executions:
            gateway.on_report(venue, fill, now)
    ts_ns = now.utc_ns
    if order.is_open and not status.is_open:
        gateway.on_report(venue, Cancelled(order_id=order.id, ts_ns=ts_ns), now)
    elif order.is_open:
        if order.status == Status.IN_FLIGHT:
            gateway.on_report(venue, Acked(order_id=order.id, ts_ns=ts_ns), now)
        if status.is_old:
            return _filled_elsewhere(order, status)
        if order.new_lots and (status.price_ticks, status.lots) != (order.new_price, order.new_lots):
            gateway.on_report(venue, ReplaceRejected(order_id=order.id, ts_ns=ts_ns, reason="not in force"), now)
        if order.price_ticks and (status.price_ticks, status.lots) != (order.price_ticks, order.lots):
            report = Replaced(order_id=order.id, ts_ns=ts_ns, price_ticks=status.price_ticks, lots=status.lots)
            gateway.on_report(venue, report, now)
    return _filled_elsewhere(order, status)


def _filled_elsewhere(order: Order, status: OrderStatus) -> list[str]:
    if order.filled == status.filled_lots:
        return []
    venue = order.request.venue
    return [f"order {order.id} is filled with {order.filled} lots here, {status.filled_lots} at venue {venue}"]


def _cancel_orphan(gateway: Gateway, venue: str, order_id: int, now: Now) -> None:
    try:
        gateway.transport.send(CancelMessage(order_id, 0, venue))
    except Exception as error:
        gateway.halt(f"an unknown order could not be cancelled: {type(error).__name__}: {error}", now)


def _compare_drop_copy(gateway: Gateway, drop_copy: Iterable[tuple[str, Filled]] | None, now: Now) -> list[str]:
    if drop_copy is None:
        return ["there is no drop copy to compare with"]
    breaks: list[str] = []
    seen: set[tuple[str, str]] = set()
    for venue, fill in drop_copy:
        seen.add((venue, fill.exec_id))
        if (venue, fill.exec_id) not in gateway.state.executions:
            gateway.on_report(venue, fill, now)
        known = gateway.state.executions.get((venue, fill.exec_id))
        if known is None or not known.standing:
            breaks.append(f"execution {fill.exec_id} at venue {venue} stands in the drop copy, not here")
        elif (known.order_id, known.lots, known.price_ticks) != (fill.order_id, fill.lots, fill.price_ticks):
            breaks.append(
                f"execution {fill.exec_id} at venue {venue} is {known.lots} lots at {known.price_ticks} of order "
                f"{known.order_id} here, {fill.lots} at {fill.price_ticks} of order {fill.order_id} in the drop copy"
            )
    for (venue, exec_id), execution in gateway.state.executions.items():
        if execution.standing and (venue, exec_id) not in seen:
            breaks.append(f"execution {exec_id} at venue {venue} stands here, not in the drop copy")
    return breaks
