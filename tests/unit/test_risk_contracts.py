"""Requests, reports and decisions have one encoding, and no invalid value can be built."""

import math

import msgspec
import pytest

from serving.contracts.decisions import Allowed, Denied, decode_decision
from serving.contracts.orders import (
    INT64_MAX,
    LOTS_MAX,
    PRICE_TICKS_MAX,
    Acked,
    Busted,
    Cancel,
    Cancelled,
    CancelRejected,
    ChildOrder,
    ContractError,
    Corrected,
    Filled,
    Rejected,
    Replace,
    Replaced,
    ReplaceRejected,
    decode_report,
    decode_request,
    encode,
)

WHO = {"key": "k", "strategy": "S", "account": "A", "algorithm": "twap", "trader": "ann", "sent_ns": 5}
NEW = {
    **WHO, "venue": "V", "symbol": "X", "side": "buy", "type": "limit", "price_ticks": 10, "lots": 3, "tif": "day",
    "reduce_only": False,
}  # fmt: skip
REQUESTS = [
    ChildOrder(**NEW),
    ChildOrder(**{**NEW, "type": "market", "price_ticks": None}),
    Replace(**WHO, order_key="k0", price_ticks=7, lots=2),
    Cancel(**WHO, order_key="k0"),
]
REPORTS = [
    Acked(order_id=1, ts_ns=0),
    Rejected(order_id=1, ts_ns=0, reason="no"),
    Filled(order_id=1, ts_ns=0, exec_id="x", price_ticks=1, lots=1, fee=-3),
    Cancelled(order_id=1, ts_ns=0),
    Replaced(order_id=1, ts_ns=0, price_ticks=1, lots=1),
    ReplaceRejected(order_id=1, ts_ns=0, reason="no"),
    CancelRejected(order_id=1, ts_ns=0, reason="no"),
    Busted(order_id=1, ts_ns=0, exec_id="x"),
    Corrected(order_id=1, ts_ns=0, exec_id="x", price_ticks=1, lots=1),
]
DECISIONS = [
    Allowed(key="k", order_id=1, algorithm="twap", trader="ann"),
    Denied(control="c", message="m", value=2, limit=1, key="k"),
]


@pytest.mark.parametrize(
    ("value", "decode"),
    [
        *((request, decode_request) for request in REQUESTS),
        *((report, decode_report) for report in REPORTS),
        *((decision, decode_decision) for decision in DECISIONS),
    ],
)
def test_encoding_comes_back_and_no_other_spelling_is_accepted(value, decode):
    raw = encode(value)
    assert decode(raw) == value and encode(decode(raw)) == raw
    fields = msgspec.json.decode(raw)
    for wrong in (
        raw + b" ",
        b" " + raw,
        raw[:-1],
        raw[:-1] + b',"unknown":1}',
        raw[:-1] + b',"kind":"%s"}' % fields["kind"].encode(),
        msgspec.json.encode(dict(reversed(fields.items()))),
        raw.replace(b'"kind":"', b'"kind":"un'),
    ):
        with pytest.raises(ContractError):
            decode(wrong)


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"kind":"new"}', b"NaN"])
def test_decoding_when_it_is_something_else_then_raises_the_contracts_error(raw):
    for decode in (decode_request, decode_report, decode_decision):
        with pytest.raises(ContractError):
            decode(raw)


BAD_INTEGERS = [0, -1, 1.0, math.nan, math.inf, True, "3", None, INT64_MAX + 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("lots", value) for value in (*BAD_INTEGERS, LOTS_MAX + 1)),
        *(("price_ticks", value) for value in (*BAD_INTEGERS, PRICE_TICKS_MAX + 1)),
        *(("sent_ns", value) for value in BAD_INTEGERS[1:]),
        *(
            (field, value)
            for field in ("key", "strategy", "account", "algorithm", "trader", "venue", "symbol")
            for value in ("", "x" * 65, "é", "a\n", "\x00", 5, None, b"x")
        ),
        ("side", "BUY"),
        ("side", None),
        ("type", "stop"),
        ("tif", "gtc"),
        ("reduce_only", 1),
        ("reduce_only", None),
    ],
)
def test_order_when_a_field_is_wrong_then_cannot_be_built_nor_decoded(field, value):
    with pytest.raises(ContractError, match=field):
        ChildOrder(**{**NEW, field: value})
    if not (isinstance(value, float) and not math.isfinite(value)) and not isinstance(value, bytes):
        plain = {"kind": "new", **NEW, field: value}
        with pytest.raises(ContractError):
            decode_request(msgspec.json.encode(plain))


def test_market_order_with_a_price_cannot_be_built():
    with pytest.raises(ContractError, match="price_ticks"):
        ChildOrder(**{**NEW, "type": "market"})


def test_requests_are_frozen():
    with pytest.raises(AttributeError):
        REQUESTS[0].lots = 5


@pytest.mark.parametrize("report", REPORTS)
def test_report_when_its_order_is_no_number_then_cannot_be_built(report):
    fields = msgspec.structs.asdict(report)
    for wrong in BAD_INTEGERS:
        with pytest.raises(ContractError):
            type(report)(**{**fields, "order_id": wrong})
        for field in ("price_ticks", "lots"):
            if field in fields:
                with pytest.raises(ContractError):
                    type(report)(**{**fields, field: wrong})


def test_contracts_drag_nothing_heavy_in():
    import subprocess
    import sys

    code = (
        "import sys, serving.gateway.engine, serving.gateway.recovery, serving.gateway.changes, serving.gateway.day\n"
        "heavy = {'numpy', 'numba', 'yaml', 'pydantic', 'pandas', 'fastapi', 'asyncio', 'feature_repo', 'flows'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
