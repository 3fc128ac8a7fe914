"""Orders and requests as FIX 4.4 messages, both ways: what a client sends to a venue, or an OMS to the EMS.

A client's ClOrdID is its number of the order, then `-` and the number of the request that changes it: `17`, `17-21`. So
each answer says which order it is about, whatever was lost meanwhile.
"""

from collections.abc import Mapping
from typing import Literal

import quickfix

from serving.contracts.orders import INT64_MAX, ChildOrder, Side
from serving.wire.fix_fields import CANCEL, MASS_STATUS, NEW_ORDER, REPLACE, STATUS, Fields, FixMessageError, Tag, build
from serving.wire.fix_numbers import FixNumberError, Scale, utc_ns, utc_text
from serving.wire.messages import CancelOrder, Inbound, MassStatus, NewOrder, ReplaceOrder, StatusOrder

SIDES: dict[str, str] = {"1": "buy", "2": "sell", "5": "sell"}  # 5 is a short sale: for a venue a sale
SIDE_CODES = {"buy": "1", "sell": "2"}
_TYPES: dict[str, str] = {"1": "market", "2": "limit"}
_TYPE_CODES = {"market": "1", "limit": "2"}
_TIFS: dict[str, str] = {"0": "day", "3": "ioc", "4": "fok"}
_TIF_CODES = {"day": "0", "ioc": "3", "fok": "4"}
Scales = Mapping[str, Scale]


def cl_ord_id(order_id: int, request_id: int | None = None) -> str:
    """ClOrdID of an order, or of a request that changes it."""
    return str(order_id) if request_id is None or request_id == order_id else f"{order_id}-{request_id}"


def order_of(cl_ord_id: str) -> tuple[int, int]:
    """Order and request number of a ClOrdID of our own. Raises FixMessageError for anyone else's."""
    order, _, request = cl_ord_id.partition("-")
    try:
        numbers = int(order), int(request or order)
    except ValueError:
        numbers = (0, 0)
    plain = cl_ord_id in (str(numbers[0]), f"{numbers[0]}-{numbers[1]}")  # one spelling, so that two ids are two orders
    if not (plain and 1 <= numbers[0] <= INT64_MAX and 0 <= numbers[1] <= INT64_MAX):
        raise FixMessageError(f"ClOrdID {cl_ord_id!r} is none of ours")
    return numbers


def encode_new(order_id: int, order: ChildOrder, scale: Scale, sent_ns: int, link: str = "") -> quickfix.Message:
    """NewOrderSingle of a child order under the gateway's number."""
    return build(
        NEW_ORDER,
        {
            Tag.SENDER_SUB_ID: order.trader,
            Tag.CL_ORD_ID: cl_ord_id(order_id),
            Tag.ACCOUNT: order.account,
            Tag.SYMBOL: order.symbol,
            Tag.SIDE: SIDE_CODES[order.side],
            Tag.TRANSACT_TIME: utc_text(sent_ns),
            Tag.ORDER_QTY: scale.quantity(order.lots),
            Tag.ORD_TYPE: _TYPE_CODES[order.type],
            Tag.PRICE: None if order.price_ticks is None else scale.price(order.price_ticks),
            Tag.TIME_IN_FORCE: _TIF_CODES[order.tif],
            Tag.CL_ORD_LINK_ID: link or None,
            Tag.ALGORITHM: order.algorithm,
            Tag.STRATEGY: order.strategy,
        },
    )


def encode_replace(
    order_id: int,
    request_id: int,
    orig: str,
    order: ChildOrder,
    price_ticks: int,
    lots: int,
    scale: Scale,
    sent_ns: int,
) -> quickfix.Message:
    """OrderCancelReplaceRequest; `orig` is the ClOrdID that the venue last accepted for the order."""
    return build(
        REPLACE,
        {
            Tag.SENDER_SUB_ID: order.trader,
            Tag.CL_ORD_ID: cl_ord_id(order_id, request_id),
            Tag.ORIG_CL_ORD_ID: orig,
            Tag.ACCOUNT: order.account,
            Tag.SYMBOL: order.symbol,
            Tag.SIDE: SIDE_CODES[order.side],
            Tag.TRANSACT_TIME: utc_text(sent_ns),
            Tag.ORDER_QTY: scale.quantity(lots),
            Tag.ORD_TYPE: _TYPE_CODES["limit"],
            Tag.PRICE: scale.price(price_ticks),
            Tag.TIME_IN_FORCE: _TIF_CODES[order.tif],
            Tag.ALGORITHM: order.algorithm,
            Tag.STRATEGY: order.strategy,
        },
    )


def encode_cancel(
    order_id: int, request_id: int, orig: str, symbol: str, side: Side, sent_ns: int, strategy: str = ""
) -> quickfix.Message:
    """OrderCancelRequest; `strategy` where it asked, "" where the gateway itself cancels."""
    return build(
        CANCEL,
        {
            Tag.CL_ORD_ID: cl_ord_id(order_id, request_id),
            Tag.ORIG_CL_ORD_ID: orig,
            Tag.SYMBOL: symbol,
            Tag.SIDE: SIDE_CODES[side],
            Tag.TRANSACT_TIME: utc_text(sent_ns),
            Tag.STRATEGY: strategy or None,
        },
    )


def encode_status(order_id: int, symbol: str, side: Side, request: str) -> quickfix.Message:
    """OrderStatusRequest; the answer repeats `request`."""
    fields = {Tag.CL_ORD_ID: cl_ord_id(order_id), Tag.SYMBOL: symbol, Tag.SIDE: SIDE_CODES[side]}
    return build(STATUS, {**fields, Tag.ORD_STATUS_REQ_ID: request})


def encode_mass_status(request: str) -> quickfix.Message:
    """OrderMassStatusRequest: every open order of this session, one report each."""
    return build(MASS_STATUS, {Tag.MASS_STATUS_REQ_ID: request, Tag.MASS_STATUS_REQ_TYPE: "7"})


def decode_inbound(fields: Fields, scales: Scales) -> Inbound:
    """What a client asks. Raises FixMessageError, also for a price between two ticks or a symbol that is not here."""
    try:
        kind = fields.type
        if kind == NEW_ORDER:
            return _new(fields, scales)
        if kind == REPLACE:
            return _replace(fields, scales)
        if kind == CANCEL:
            own, orig = fields.name(Tag.CL_ORD_ID), fields.name(Tag.ORIG_CL_ORD_ID)
            return CancelOrder(own, orig, fields.name(Tag.SYMBOL), _side(fields), fields.get(Tag.STRATEGY) or "")
        if kind == STATUS:
            own, request = fields.name(Tag.CL_ORD_ID), fields.get(Tag.ORD_STATUS_REQ_ID) or ""
            return StatusOrder(own, fields.name(Tag.SYMBOL), _side(fields), request)
        if kind == MASS_STATUS:
            fields.one_of(Tag.MASS_STATUS_REQ_TYPE, {"7": "all"})
            return MassStatus(fields.name(Tag.MASS_STATUS_REQ_ID))
    except FixNumberError as error:
        raise FixMessageError(str(error)) from error
    raise FixMessageError(f"MsgType {kind} is none of D, F, G, H, AF")


def scale_of(fields: Fields, scales: Scales) -> tuple[str, Scale]:
    """Symbol and its scale. Raises FixMessageError for a symbol that is not here."""
    symbol = fields.name(Tag.SYMBOL)
    if symbol not in scales:
        raise FixMessageError(f"Symbol {symbol} is not traded here")
    return symbol, scales[symbol]


def _side(fields: Fields) -> Side:
    return fields.one_of(Tag.SIDE, SIDES)  # type: ignore[return-value]


def _lots(fields: Fields, scale: Scale) -> int:
    lots = scale.lots(fields.text(Tag.ORDER_QTY))
    if lots < 1:
        raise FixMessageError(f"OrderQty {fields.text(Tag.ORDER_QTY)} is less than one lot")
    return lots


def _new(fields: Fields, scales: Scales) -> NewOrder:
    symbol, scale = scale_of(fields, scales)
    kind: Literal["market", "limit"] = fields.one_of(Tag.ORD_TYPE, _TYPES)  # type: ignore[assignment]
    price = fields.get(Tag.PRICE)
    if (price is None) == (kind == "limit"):
        raise FixMessageError(f"a {kind} order with Price {price}")
    effective, expire = fields.get(Tag.EFFECTIVE_TIME), fields.get(Tag.EXPIRE_TIME)
    return NewOrder(
        cl_ord_id=fields.name(Tag.CL_ORD_ID),
        account=fields.name(Tag.ACCOUNT) if fields.get(Tag.ACCOUNT) else "",
        symbol=symbol,
        side=_side(fields),
        type=kind,
        price_ticks=None if price is None else scale.ticks(price),
        lots=_lots(fields, scale),
        tif=fields.one_of(Tag.TIME_IN_FORCE, _TIFS, default="0"),  # type: ignore[arg-type]
        trader=fields.get(Tag.SENDER_SUB_ID) or "",
        algorithm=fields.get(Tag.ALGORITHM) or "",
        strategy=fields.get(Tag.STRATEGY) or "",
        link=fields.get(Tag.CL_ORD_LINK_ID) or "",
        target_strategy=fields.get(Tag.TARGET_STRATEGY),
        effective_ns=None if effective is None else utc_ns(effective),
        expire_ns=None if expire is None else utc_ns(expire),
    )


def _replace(fields: Fields, scales: Scales) -> ReplaceOrder:
    symbol, scale = scale_of(fields, scales)
    fields.one_of(Tag.ORD_TYPE, {"2": "limit"})
    own, orig = fields.name(Tag.CL_ORD_ID), fields.name(Tag.ORIG_CL_ORD_ID)
    price, strategy = scale.ticks(fields.text(Tag.PRICE)), fields.get(Tag.STRATEGY) or ""
    return ReplaceOrder(own, orig, symbol, _side(fields), price, _lots(fields, scale), strategy)
