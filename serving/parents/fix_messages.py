"""Parent orders as FIX 4.4 messages: what a client asks, and the reports that it gets.

NewOrderSingle with TargetStrategy(847); EffectiveTime(168) is the start, ExpireTime(126) the end of the horizon. Market
orders only: a limit price on a parent would be forgotten, so it is refused.
"""

from collections.abc import Collection
from typing import NamedTuple

import quickfix

from serving.contracts.orders import Side
from serving.parents.orders import Parent, Phase
from serving.wire.fix_fields import CANCEL, MASS_STATUS, NEW_ORDER, REPLACE, STATUS, Fields, FixMessageError, Tag
from serving.wire.fix_numbers import FixNumberError, Scale, utc_ns
from serving.wire.fix_orders import SIDES, Scales, scale_of
from serving.wire.fix_reports import encode_cancel_reject, encode_execution
from serving.wire.messages import OrderState

SIDE_NAMES: dict[int, Side] = {1: "buy", -1: "sell"}


class AskNew(NamedTuple):
    """A parent order; `start_ns` 0 for at once."""

    own: str
    account: str  # "" where the message names none
    symbol: str
    side: int
    lots: int
    start_ns: int
    end_ns: int
    trader: str


class AskReplace(NamedTuple):
    """Another total size."""

    own: str
    orig: str
    symbol: str
    side: int
    lots: int


class AskCancel(NamedTuple):
    """End it."""

    own: str
    orig: str
    symbol: str
    side: int


class AskStatus(NamedTuple):
    """Where one parent stands, or with `own` "" every open one."""

    own: str
    request: str
    is_mass: bool


Ask = AskNew | AskReplace | AskCancel | AskStatus


def decode_parent(fields: Fields, scales: Scales, strategies: Collection[str]) -> Ask:
    """What a client asks. Raises FixMessageError."""
    try:
        kind = fields.type
        if kind == NEW_ORDER:
            return _new(fields, scales, strategies)
        if kind == REPLACE:
            symbol, scale = scale_of(fields, scales)
            _market(fields)
            ids = fields.name(Tag.CL_ORD_ID), fields.name(Tag.ORIG_CL_ORD_ID)
            return AskReplace(*ids, symbol, _side(fields), _lots(fields, scale))
        if kind == CANCEL:
            symbol, _ = scale_of(fields, scales)
            return AskCancel(fields.name(Tag.CL_ORD_ID), fields.name(Tag.ORIG_CL_ORD_ID), symbol, _side(fields))
        if kind == STATUS:
            return AskStatus(fields.name(Tag.CL_ORD_ID), fields.get(Tag.ORD_STATUS_REQ_ID) or "", False)
        if kind == MASS_STATUS:
            fields.one_of(Tag.MASS_STATUS_REQ_TYPE, {"7": "all"})
            return AskStatus("", fields.name(Tag.MASS_STATUS_REQ_ID), True)
    except FixNumberError as error:
        raise FixMessageError(str(error)) from error
    raise FixMessageError(f"MsgType {kind} is none of D, F, G, H, AF")


def _new(fields: Fields, scales: Scales, strategies: Collection[str]) -> AskNew:
    target = fields.text(Tag.TARGET_STRATEGY)
    if target not in strategies:
        raise FixMessageError(f"TargetStrategy(847) {target} is none of {', '.join(sorted(strategies))}")
    symbol, scale = scale_of(fields, scales)
    _market(fields)
    fields.one_of(Tag.TIME_IN_FORCE, {"0": "day", "6": "good till date"}, default="0")
    effective = fields.get(Tag.EFFECTIVE_TIME)
    start_ns, end_ns = 0 if effective is None else utc_ns(effective), utc_ns(fields.text(Tag.EXPIRE_TIME))
    if end_ns <= start_ns:
        raise FixMessageError(f"ExpireTime(126) {end_ns} ns does not lie after EffectiveTime(168) {start_ns} ns")
    return AskNew(
        fields.name(Tag.CL_ORD_ID), fields.name(Tag.ACCOUNT) if fields.get(Tag.ACCOUNT) else "", symbol,
        _side(fields), _lots(fields, scale), start_ns, end_ns, fields.get(Tag.SENDER_SUB_ID) or "",
    )  # fmt: skip


def _market(fields: Fields) -> None:
    fields.one_of(Tag.ORD_TYPE, {"1": "market"})
    if fields.get(Tag.PRICE) is not None:
        raise FixMessageError("Price(44) on a parent order: it is worked at the market, leave it out")


def _side(fields: Fields) -> int:
    return 1 if fields.one_of(Tag.SIDE, SIDES) == "buy" else -1


def _lots(fields: Fields, scale: Scale) -> int:
    lots = scale.lots(fields.text(Tag.ORDER_QTY))
    if lots < 1:
        raise FixMessageError(f"OrderQty {fields.text(Tag.ORDER_QTY)} is less than one lot")
    return lots


def state_of(parent: Parent, cl_ord_id: str | None = None) -> OrderState:
    """Where a parent stands, as an execution report says it."""
    ended = {"filled": "filled", "cancelled": "cancelled", "expired": "expired", "rejected": "rejected"}
    if parent.how is not None:
        status = ended[parent.how]
    elif parent.filled >= parent.lots:
        status = "filled"
    elif parent.phase is Phase.CANCELLING:
        status = "pending_cancel"
    else:
        status = "partially_filled" if parent.filled else "new"
    left = 0 if parent.how is not None else parent.left
    return OrderState(
        cl_ord_id or parent.parent_id, parent.ref, parent.symbol, SIDE_NAMES[parent.side], status, None, parent.lots,
        parent.filled, left,
    )  # fmt: skip


def rejected(ask: AskNew, scale: Scale, exec_id: str, ts_ns: int, reason: str) -> quickfix.Message:
    """The execution report of a parent that was not taken."""
    side = SIDE_NAMES[ask.side]
    state = OrderState(ask.own, "NONE", ask.symbol, side, "rejected", None, ask.lots, 0, 0)
    return encode_execution("8", state, scale, exec_id, ts_ns, text=reason[:200])


def cancel_rejected(ask: AskCancel | AskReplace, parent: Parent | None, reason: str, ts_ns: int) -> quickfix.Message:
    """A cancel or replace that was not taken."""
    to = "cancel" if isinstance(ask, AskCancel) else "replace"
    status = "rejected" if parent is None else state_of(parent).status
    venue_id = "NONE" if parent is None else parent.ref
    return encode_cancel_reject(ask.own, ask.orig, venue_id, status, to, reason, ts_ns)
