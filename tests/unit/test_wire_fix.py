"""FIX text to contracts and back: exact decimals, both directions of each message, refusals by name."""

import pytest
import quickfix
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts.orders import (
    Acked,
    Busted,
    Cancelled,
    CancelRejected,
    ChildOrder,
    Corrected,
    Filled,
    Rejected,
    Replaced,
    ReplaceRejected,
)
from serving.wire.fix_chain import AcceptedIds
from serving.wire.fix_fields import SOH, Fields, FixMessageError, Tag, build
from serving.wire.fix_numbers import FixNumberError, Scale, amount, minor_units, utc_ns, utc_text
from serving.wire.fix_orders import (
    cl_ord_id,
    decode_inbound,
    encode_cancel,
    encode_mass_status,
    encode_new,
    encode_replace,
    encode_status,
    order_of,
)
from serving.wire.fix_reports import decode_answer, encode_cancel_reject, encode_execution, encode_no_orders
from serving.wire.messages import CancelOrder, MassStatus, NewOrder, OrderState, ReplaceOrder, StatusOrder

SCALES = {"SYN1": Scale.of("0.01"), "rb": Scale.of("1", "10"), "ZN": Scale.of("0.015625", "1"), "X": Scale.of("0.05")}
NS = 1_736_155_800_123_456_789
STATE = OrderState("17-21", "V3", "SYN1", "buy", "partially_filled", 10_001, 40, 15, 25)


def child(**more):
    fields = {
        "key": "k", "strategy": "rule", "account": "main", "algorithm": "ppo-7", "trader": "ada", "sent_ns": 1,
        "venue": "SYN", "symbol": "SYN1", "side": "buy", "type": "limit", "price_ticks": 10_001, "lots": 40,
        "tif": "day", "reduce_only": False,
    }  # fmt: skip
    return ChildOrder(**fields | more)


def again(message, scales=SCALES):
    """Through the text on the wire."""
    return decode_inbound(Fields.of(quickfix.Message(message.toString(), False).toString()), scales)


def test_value_that_would_be_two_fields_is_refused_and_an_empty_one_is_not():
    with pytest.raises(FixMessageError, match="separator"):
        build("D", {Tag.TEXT: f"fine{SOH}38=400"})
    assert build("8", {Tag.TEXT: "", Tag.SENDER_SUB_ID: "a=b"}).toString().split(SOH)[2:-2] == ["35=8", "50=a=b", "58="]


@given(st.sampled_from(sorted(SCALES)), st.integers(1, 10**12), st.integers(0, 10**9))
def test_ticks_and_lots_come_back_exactly(symbol, ticks, lots):
    scale = SCALES[symbol]
    assert scale.ticks(scale.price(ticks)) == ticks and scale.lots(scale.quantity(lots)) == lots
    assert scale.ticks(scale.price(ticks) + ("0" if "." in scale.price(ticks) else ".000")) == ticks


@given(st.integers(0, 2**62))
def test_times_come_back_to_the_nanosecond(ts_ns):
    assert utc_ns(utc_text(ts_ns)) == ts_ns


@given(st.integers(-(10**15), 10**15))
def test_amounts_come_back_exactly(minor):
    assert minor_units(amount(minor)) == minor


@pytest.mark.parametrize(
    ("symbol", "text", "error"),
    [
        ("SYN1", "100.005", "more than 2 decimals"),
        ("X", "100.03", "no multiple of the tick 0.05"),
        ("ZN", "110.02", "no multiple of the tick 0.015625"),
        ("rb", "3500.5", "more than 0 decimals"),
        ("SYN1", "0", "is 0 ticks, not 1 to"),
        ("SYN1", "-1", "no decimal number"),
        ("SYN1", "1e3", "no decimal number"),
        ("SYN1", "NaN", "no decimal number"),
        ("SYN1", "", "no decimal number"),
        ("SYN1", "1.", "no decimal number"),
        ("SYN1", "１", "no decimal number"),
        ("SYN1", "99999999999999999", "ticks, not 1 to"),
    ],
)
def test_price_that_is_not_on_a_tick_is_refused(symbol, text, error):
    with pytest.raises(FixNumberError, match=error):
        SCALES[symbol].ticks(text)


@pytest.mark.parametrize("text", ["15", "2.5", "-10", "", "1e1", "9" * 16])
def test_quantity_that_is_no_whole_lot_is_refused(text):
    with pytest.raises(FixNumberError):
        SCALES["rb"].lots(text)


@pytest.mark.parametrize("text", ["", "20250106", "20250106-25:00:00", "20251306-00:00:00", "20250106-00:00:61", "x"])
def test_time_that_is_none_is_refused(text):
    with pytest.raises(FixNumberError):
        utc_ns(text)


def test_scales_that_cannot_be_are_refused():
    for wrong in (("0", "1"), ("-1", "1"), ("a", "1"), ("0.01", "0.5"), ("NaN", "1"), ("0.01", "0")):
        with pytest.raises(FixNumberError):
            Scale.of(*wrong)


@pytest.mark.parametrize(
    "order",
    [child(), child(type="market", price_ticks=None, tif="ioc", side="sell"), child(symbol="rb", lots=3, tif="fok")],
)
def test_child_order_reaches_the_venue_as_it_was(order):
    got = again(encode_new(17, order, SCALES[order.symbol], NS, link="P1"))
    assert isinstance(got, NewOrder) and got.cl_ord_id == "17" and got.link == "P1"
    for field in ("account", "symbol", "side", "type", "price_ticks", "lots", "tif", "trader", "algorithm", "strategy"):
        assert getattr(got, field) == getattr(order, field), field


def test_other_requests_reach_the_venue_as_they_were():
    scale = SCALES["SYN1"]
    assert again(encode_replace(17, 21, "17", child(), 9_999, 50, scale, NS)) == ReplaceOrder(
        "17-21", "17", "SYN1", "buy", 9_999, 50, "rule"
    )
    assert again(encode_cancel(17, 22, "17-21", "SYN1", "buy", NS, "rule")) == CancelOrder(
        "17-22", "17-21", "SYN1", "buy", "rule"
    )
    assert again(encode_cancel(17, 0, "17", "SYN1", "sell", NS)).strategy == ""
    assert again(encode_status(17, "SYN1", "buy", "Q")) == StatusOrder("17", "SYN1", "buy", "Q")
    assert again(encode_mass_status("M")) == MassStatus("M")


def test_parent_order_says_how_it_shall_be_worked():
    message = encode_new(17, child(), SCALES["SYN1"], NS)
    for tag, value in ((847, "1001"), (168, utc_text(NS)), (126, utc_text(NS + 1))):
        message.setField(tag, value)
    got = again(message)
    assert (got.target_strategy, got.effective_ns, got.expire_ns) == ("1001", NS, NS + 1)


@pytest.mark.parametrize(
    ("tag", "value", "error"),
    [
        (Tag.PRICE, "100.005", "more than 2 decimals"),
        (Tag.ORDER_QTY, "0", "less than one lot"),
        (Tag.ORDER_QTY, "1.5", "more than 0 decimals"),
        (Tag.SYMBOL, "NOPE", "not traded here"),
        (Tag.SIDE, "9", "SIDE.54. 9 is none of"),
        (Tag.ORD_TYPE, "3", "ORD_TYPE"),
        (Tag.ORD_TYPE, "1", "a market order with Price"),
        (Tag.TIME_IN_FORCE, "1", "TIME_IN_FORCE"),
        (Tag.CL_ORD_ID, "x" * 65, "exceeds 64"),
        (Tag.EXPIRE_TIME, "soon", "time 'soon'"),
    ],
)
def test_order_with_a_wrong_field_is_refused_by_name(tag, value, error):
    message = encode_new(17, child(), SCALES["SYN1"], NS)
    message.setField(int(tag), value)
    with pytest.raises(FixMessageError, match=error):
        again(message)


@pytest.mark.parametrize("tag", [Tag.CL_ORD_ID, Tag.SYMBOL, Tag.SIDE, Tag.ORDER_QTY, Tag.ORD_TYPE, Tag.PRICE])
def test_order_without_a_field_is_refused_by_name(tag):
    message = encode_new(17, child(), SCALES["SYN1"], NS)
    message.removeField(int(tag))
    with pytest.raises(FixMessageError, match=tag.name if tag is not Tag.PRICE else "limit order with Price None"):
        again(message)


def test_tag_that_stands_twice_is_refused():
    raw = encode_new(17, child(), SCALES["SYN1"], NS).toString().replace(f"{SOH}38=40", f"{SOH}38=40{SOH}38=4000")
    with pytest.raises(FixMessageError, match="ORDER_QTY.38. stands twice"):
        decode_inbound(Fields.of(raw), SCALES)


@given(st.text(max_size=80) | st.lists(st.tuples(st.integers(1, 999), st.text(max_size=8))).map(
    lambda pairs: "".join(f"{tag}={value}{SOH}" for tag, value in pairs)
))  # fmt: skip
def test_noise_is_a_typed_error(raw):
    for decode in (decode_inbound, decode_answer):
        with pytest.raises(FixMessageError):
            decode(Fields.of(raw), SCALES)


# Answers --------------------------------------------------------------------------------------------------------------


def answer(message):
    return decode_answer(Fields.of(quickfix.Message(message.toString(), False).toString()), SCALES)


HEAD = {"order_id": 17, "ts_ns": NS}


@pytest.mark.parametrize(
    ("code", "more", "report"),
    [
        ("0", {}, Acked(**HEAD)),
        ("8", {"text": "no such luck"}, Rejected(**HEAD, reason="no such luck")),
        ("4", {"orig": "17"}, Cancelled(**HEAD)),
        ("C", {}, Cancelled(**HEAD)),
        ("3", {}, Cancelled(**HEAD)),
        ("5", {"orig": "17"}, Replaced(**HEAD, price_ticks=10_001, lots=40)),
        ("F", {"last": (9_999, 15), "fee": -12}, Filled(**HEAD, exec_id="x1", price_ticks=9_999, lots=15, fee=-12)),
        ("H", {"exec_ref": "x0"}, Busted(**HEAD, exec_id="x0")),
        ("G", {"exec_ref": "x0", "last": (9_998, 5)}, Corrected(**HEAD, exec_id="x0", price_ticks=9_998, lots=5)),
        ("6", {}, None),
        ("A", {}, None),
        ("E", {}, None),
    ],
)
def test_execution_report_says_what_happened_and_where_the_order_stands(code, more, report):
    got = answer(encode_execution(code, STATE, SCALES["SYN1"], "x1", NS, **more))
    assert (got.order_id, got.request_id, got.report, got.state) == (17, 21, report, STATE) and not got.is_status


def test_rejects_say_what_they_answer():
    got = answer(encode_cancel_reject("17-21", "17", "V3", "filled", "cancel", "too late", NS))
    assert got.report == CancelRejected(**HEAD, reason="too late")
    got = answer(encode_cancel_reject("17-21", "17", "NONE", "filled", "replace", "unknown", NS))
    assert got.report == ReplaceRejected(**HEAD, reason="unknown") and got.state is None


def test_status_answers_name_their_question():
    message = encode_execution("I", STATE, SCALES["SYN1"], "0", NS, request=(Tag.ORD_STATUS_REQ_ID, "Q"))
    got = answer(message)
    assert got.is_status and got.request == "Q" and got.state == STATE and got.report is None
    nothing = answer(encode_no_orders("M", "0", NS))
    assert nothing.is_status and nothing.request == "M" and nothing.state is None


@pytest.mark.parametrize("own", ["", "x", "17-x", "-5", "0", "017", "17-21-3", "17-021", "17-", "1_7", "1.5", "9" * 30])
def test_number_that_is_none_of_ours_is_refused(own):
    with pytest.raises(FixMessageError, match="none of ours"):
        order_of(own)
    message = encode_execution("0", STATE._replace(cl_ord_id=own or "?"), SCALES["SYN1"], "x1", NS)
    with pytest.raises(FixMessageError):
        answer(message)


def test_own_numbers_come_back():
    assert order_of(cl_ord_id(17)) == (17, 17) and order_of(cl_ord_id(17, 21)) == (17, 21)
    assert cl_ord_id(17, 17) == "17" and order_of(cl_ord_id(17, 0)) == (17, 0)


@pytest.mark.parametrize(
    ("tag", "value"),
    [(Tag.LAST_PX, "1.005"), (Tag.EXEC_TYPE, "Z"), (Tag.ORD_STATUS, "Z"), (Tag.CUM_QTY, "-1"), (Tag.LAST_QTY, "0"),
     (Tag.SYMBOL, "NOPE"), (Tag.TRANSACT_TIME, "now"), (Tag.COMM_TYPE, "1")],
)  # fmt: skip
def test_report_with_a_wrong_field_is_refused(tag, value):
    message = encode_execution("F", STATE, SCALES["SYN1"], "x1", NS, last=(9_999, 15), fee=5)
    message.setField(int(tag), value)
    with pytest.raises(FixMessageError):
        answer(message)


def test_next_request_names_the_id_that_was_accepted_last():
    ids = AcceptedIds()
    assert ids.orig(17) == "17"
    ids.take(answer(encode_cancel_reject("17-20", "17", "V3", "new", "replace", "too late", NS)))
    ids.take(answer(encode_execution("6", STATE._replace(cl_ord_id="17-20"), SCALES["SYN1"], "x0", NS)))
    assert ids.orig(17) == "17"
    ids.take(answer(encode_execution("5", STATE, SCALES["SYN1"], "x1", NS, orig="17")))
    ids.take(answer(encode_execution("F", STATE, SCALES["SYN1"], "x2", NS, last=(9_999, 15))))
    assert ids.orig(17) == "17-21"
    restarted = AcceptedIds()
    status = encode_execution("I", STATE, SCALES["SYN1"], "0", NS, request=(Tag.MASS_STATUS_REQ_ID, "M"))
    restarted.take(answer(status))
    assert restarted.orig(17) == "17-21"
    done = STATE._replace(status="cancelled", left_lots=0)
    ids.take(answer(encode_execution("4", done, SCALES["SYN1"], "x3", NS)))
    assert ids.orig(17) == "17"
