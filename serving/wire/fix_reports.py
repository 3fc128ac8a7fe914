"""Execution reports and cancel rejects as FIX 4.4 messages, both ways."""

from typing import NamedTuple

import quickfix

from serving.contracts.orders import (
    Acked,
    Busted,
    Cancelled,
    CancelRejected,
    ContractError,
    Corrected,
    Filled,
    Rejected,
    Replaced,
    ReplaceRejected,
    Report,
    Side,
)
from serving.wire.fix_fields import CANCEL_REJECT, EXECUTION, Fields, FixMessageError, Tag, build
from serving.wire.fix_numbers import FixNumberError, Scale, amount, minor_units, utc_ns, utc_text
from serving.wire.fix_orders import SIDE_CODES, Scales, order_of, scale_of
from serving.wire.messages import OrderState

ORD_STATUSES = {
    "0": "new", "1": "partially_filled", "2": "filled", "3": "done_for_day", "4": "cancelled", "5": "replaced",
    "6": "pending_cancel", "8": "rejected", "A": "pending_new", "C": "expired", "E": "pending_replace",
}  # fmt: skip
ORD_STATUS_CODES = {name: code for code, name in ORD_STATUSES.items()}
_EXEC_TYPES = {
    "0": "new", "3": "cancelled", "4": "cancelled", "5": "replaced", "6": "pending", "8": "rejected", "A": "pending",
    "C": "cancelled", "D": "pending", "E": "pending", "F": "trade", "G": "correct", "H": "bust", "I": "status",
}  # fmt: skip
TEXT_LIMIT = 200


class Answer(NamedTuple):
    """What a venue's message says. `report` is None for a mere receipt and for the answer to a status request."""

    order_id: int
    request_id: int
    report: Report | None
    state: OrderState | None  # None in a cancel reject, and where a mass status found nothing
    is_status: bool = False
    request: str = ""  # of a status request, what it was asked under


def decode_answer(fields: Fields, scales: Scales) -> Answer:
    """An ExecutionReport or OrderCancelReject of ours. Raises FixMessageError for anything else."""
    try:
        if fields.type == CANCEL_REJECT:
            return _cancel_reject(fields)
        if fields.type == EXECUTION:
            return _execution(fields, scales)
    except (FixNumberError, ContractError) as error:
        raise FixMessageError(str(error)) from error
    raise FixMessageError(f"MsgType {fields.type} is neither 8 nor 9")


def _execution(fields: Fields, scales: Scales) -> Answer:
    kind = fields.one_of(Tag.EXEC_TYPE, _EXEC_TYPES)
    request = fields.get(Tag.ORD_STATUS_REQ_ID) or fields.get(Tag.MASS_STATUS_REQ_ID) or ""
    if kind == "status" and fields.get(Tag.TOT_NUM_REPORTS) == "0":
        return Answer(0, 0, None, None, True, request)
    state = _state(fields, scales)
    own = fields.name(Tag.CL_ORD_ID)
    order_id, request_id = order_of(own)
    if kind == "status":
        return Answer(order_id, request_id, None, state, True, request)
    return Answer(order_id, request_id, _report(kind, order_id, fields, scales[state.symbol], state), state)


def _report(kind: str, order_id: int, fields: Fields, scale: Scale, state: OrderState) -> Report | None:
    head = {"order_id": order_id, "ts_ns": utc_ns(fields.text(Tag.TRANSACT_TIME))}
    if kind == "new":
        return Acked(**head)
    if kind == "rejected":
        return Rejected(**head, reason=_reason(fields))
    if kind == "cancelled":
        return Cancelled(**head)
    if kind == "replaced":
        return Replaced(**head, price_ticks=scale.ticks(fields.text(Tag.PRICE)), lots=state.lots)
    if kind == "bust":
        return Busted(**head, exec_id=fields.name(Tag.EXEC_REF_ID))
    if kind in ("trade", "correct"):
        exec_id = fields.name(Tag.EXEC_ID if kind == "trade" else Tag.EXEC_REF_ID)
        price, lots = scale.ticks(fields.text(Tag.LAST_PX)), scale.lots(fields.text(Tag.LAST_QTY))
        if kind == "correct":
            return Corrected(**head, exec_id=exec_id, price_ticks=price, lots=lots)
        return Filled(**head, exec_id=exec_id, price_ticks=price, lots=lots, fee=_fee(fields))
    return None


def _fee(fields: Fields) -> int:
    if fields.get(Tag.COMMISSION) is None:
        return 0
    fields.one_of(Tag.COMM_TYPE, {"3": "absolute"})
    return minor_units(fields.text(Tag.COMMISSION))


def _reason(fields: Fields) -> str:
    return (fields.get(Tag.TEXT) or "no reason given")[:TEXT_LIMIT]


def _state(fields: Fields, scales: Scales) -> OrderState:
    symbol, scale = scale_of(fields, scales)
    price = fields.get(Tag.PRICE)
    side: Side = fields.one_of(Tag.SIDE, {"1": "buy", "2": "sell", "5": "sell"})  # type: ignore[assignment]
    return OrderState(
        fields.name(Tag.CL_ORD_ID),
        fields.name(Tag.ORDER_ID),
        symbol,
        side,
        fields.one_of(Tag.ORD_STATUS, ORD_STATUSES),
        None if price is None else scale.ticks(price),
        scale.lots(fields.text(Tag.ORDER_QTY)),
        scale.lots(fields.text(Tag.CUM_QTY)),
        scale.lots(fields.text(Tag.LEAVES_QTY)),
    )


def _cancel_reject(fields: Fields) -> Answer:
    order_id, request_id = order_of(fields.name(Tag.CL_ORD_ID))
    ts_ns = utc_ns(fields.text(Tag.TRANSACT_TIME))
    to = fields.one_of(Tag.CXL_REJ_RESPONSE_TO, {"1": "cancel", "2": "replace"})
    make = CancelRejected if to == "cancel" else ReplaceRejected
    return Answer(order_id, request_id, make(order_id=order_id, ts_ns=ts_ns, reason=_reason(fields)), None)


def encode_execution(
    exec_type: str,
    state: OrderState,
    scale: Scale,
    exec_id: str,
    ts_ns: int,
    *,
    orig: str | None = None,
    last: tuple[int, int] | None = None,
    fee: int = 0,
    exec_ref: str | None = None,
    text: str | None = None,
    request: tuple[Tag, str] | None = None,
    count: int | None = None,
) -> quickfix.Message:
    """An ExecutionReport of `exec_type` (FIX code): the order's state, and of a trade `last` (ticks, lots) and fee."""
    asked: dict[Tag, str | None] = {request[0]: request[1]} if request else {}
    return build(
        EXECUTION,
        {
            Tag.ORDER_ID: state.venue_order_id,
            Tag.CL_ORD_ID: state.cl_ord_id,
            Tag.ORIG_CL_ORD_ID: orig,
            Tag.EXEC_ID: exec_id,
            Tag.EXEC_REF_ID: exec_ref,
            Tag.EXEC_TYPE: exec_type,
            Tag.ORD_STATUS: ORD_STATUS_CODES[state.status],
            Tag.SYMBOL: state.symbol,
            Tag.SIDE: SIDE_CODES[state.side],
            Tag.ORDER_QTY: scale.quantity(state.lots),
            Tag.PRICE: None if state.price_ticks is None else scale.price(state.price_ticks),
            Tag.LAST_PX: None if last is None else scale.price(last[0]),
            Tag.LAST_QTY: None if last is None else scale.quantity(last[1]),
            Tag.LEAVES_QTY: scale.quantity(state.left_lots),
            Tag.CUM_QTY: scale.quantity(state.filled_lots),
            Tag.AVG_PX: "0",  # a rounded average helps nobody: fills are counted one by one
            Tag.COMMISSION: amount(fee) if fee else None,
            Tag.COMM_TYPE: "3" if fee else None,
            Tag.TRANSACT_TIME: utc_text(ts_ns),
            Tag.TEXT: text,
            Tag.TOT_NUM_REPORTS: None if count is None else str(count),
            **asked,
        },
    )


def encode_no_orders(request: str, exec_id: str, ts_ns: int) -> quickfix.Message:
    """The answer to a mass status request where nothing is open."""
    return build(
        EXECUTION,
        {
            Tag.ORDER_ID: "NONE", Tag.CL_ORD_ID: "NONE", Tag.EXEC_ID: exec_id, Tag.EXEC_TYPE: "I",
            Tag.ORD_STATUS: "8", Tag.SIDE: "1", Tag.SYMBOL: "NONE", Tag.LEAVES_QTY: "0", Tag.CUM_QTY: "0",
            Tag.AVG_PX: "0", Tag.TRANSACT_TIME: utc_text(ts_ns), Tag.MASS_STATUS_REQ_ID: request,
            Tag.TOT_NUM_REPORTS: "0", Tag.TEXT: "no open order",
        },
    )  # fmt: skip


def encode_cancel_reject(
    own: str, orig: str, venue_order_id: str, status: str, to: str, reason: str, ts_ns: int
) -> quickfix.Message:
    """An OrderCancelReject `to` a "cancel" or a "replace"."""
    unknown = venue_order_id == "NONE"
    return build(
        CANCEL_REJECT,
        {
            Tag.ORDER_ID: venue_order_id,
            Tag.CL_ORD_ID: own,
            Tag.ORIG_CL_ORD_ID: orig,
            Tag.ORD_STATUS: "8" if unknown else ORD_STATUS_CODES[status],
            Tag.CXL_REJ_RESPONSE_TO: "1" if to == "cancel" else "2",
            Tag.CXL_REJ_REASON: "1" if unknown else "0",
            Tag.TRANSACT_TIME: utc_text(ts_ns),
            Tag.TEXT: reason[:TEXT_LIMIT],
        },
    )
