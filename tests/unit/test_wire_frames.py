import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import Cancel, ChildOrder, Filled, Replace, encode
from serving.wire.frames import (
    HEADER_BYTES,
    MAX_PAYLOAD,
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    Heartbeat,
    Hello,
    Refusal,
    Welcome,
    decode_frame,
    decode_message,
    encode_frame,
    encode_message,
)

WHO = {"key": "k1", "strategy": "rule", "account": "main", "algorithm": "ppo-7", "trader": "ada", "sent_ns": 5}
NEW = ChildOrder(
    **WHO,
    venue="SYN",
    symbol="SYN1",
    side="buy",
    type="limit",
    price_ticks=10_000,
    lots=3,
    tif="day",
    reduce_only=False,
)
MESSAGES = [
    NEW,
    Replace(**WHO, order_key="k0", price_ticks=9_999, lots=4),
    Cancel(**WHO, order_key="k0"),
    Allowed(key="k1", order_id=7, algorithm="ppo-7", trader="ada"),
    Denied(control="max_order_lots", message="quantity 5 exceeds 4", value=5, limit=4, key="k1"),
    Filled(order_id=7, ts_ns=9, exec_id="x1", price_ticks=10_000, lots=2),
    Hello(account="main", strategies=("rule", "twap"), token="t" * 40),
    Welcome(subject="CN=ems", account="main", strategies=("rule",)),
    Refusal(reason="not authenticated"),
    Heartbeat(sent_ns=1),
]
STREAM = b"".join(map(encode_message, MESSAGES))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_comes_back_as_it_was(message):
    assert decode_message(decode_frame(encode_message(message))) == message


@given(st.lists(st.integers(1, 700), max_size=40))
def test_stream_gives_the_same_frames_however_it_is_cut(cuts):
    decoder, found, at = FrameDecoder(), [], 0
    for cut in [*cuts, len(STREAM)]:
        found += decoder.feed(STREAM[at : at + cut])
        at += cut
    assert [decode_message(frame) for frame in found] == MESSAGES[: len(found)]
    assert len(found) == len(MESSAGES) and decoder.waiting == 0


@given(st.data())
def test_no_flipped_bit_gets_through(data):
    raw = encode_message(data.draw(st.sampled_from(MESSAGES)))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    spoilt = bytearray(raw)
    spoilt[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        decode_frame(bytes(spoilt))


@given(st.data())
def test_frame_that_is_cut_short_is_refused(data):
    raw = encode_message(data.draw(st.sampled_from(MESSAGES)))
    with pytest.raises(FrameError):
        decode_frame(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(st.binary(max_size=200), st.integers(1, 50))
def test_noise_gives_a_typed_error_or_waits(noise, cut):
    decoder = FrameDecoder()
    try:
        for at in range(0, len(noise), cut):
            decoder.feed(noise[at : at + cut])
    except FrameError:
        with pytest.raises(FrameError):  # nothing is believed after an error
            decoder.feed(STREAM)


@given(st.sampled_from(list(FrameType)), st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_payload_that_is_not_the_contract_s_own_bytes_is_refused(kind, payload):
    with pytest.raises(FrameError):
        decode_message(decode_frame(encode_frame(kind, payload)))


@pytest.mark.parametrize(
    "payload",
    [
        encode(NEW).replace(b'"lots":3', b'"lots":NaN'),
        encode(NEW).replace(b'"lots":3', b'"lots":3.0'),
        encode(NEW).replace(b'"lots":3', b'"lots":99999999999999999999'),
        encode(NEW).replace(b'"lots":3', b'"lots":-3'),
        encode(NEW).replace(b'"lots":3', b'"lots":3,"lots":3'),
        encode(NEW).replace(b'"lots":3', b'"lots":3,"bypass":true'),
        encode(NEW).replace(b"SYN1", b"SY\xff1"),
        encode(NEW) + b" ",
        b" " + encode(NEW),
        b"[" * 10_000,
    ],
)
def test_request_with_a_wrong_value_is_refused(payload):
    with pytest.raises(FrameError, match="request"):
        decode_message(Frame(FrameType.REQUEST, payload))


def test_trailing_bytes_are_refused():
    with pytest.raises(FrameError, match="1 frames and 1 bytes more"):
        decode_frame(encode_message(NEW) + b"x")


def test_oversize_is_refused_before_it_has_come():
    header = encode_frame(FrameType.REQUEST, b"")
    with pytest.raises(FrameError, match=f"{MAX_PAYLOAD + 1} bytes exceeds {MAX_PAYLOAD}"):
        FrameDecoder().feed((MAX_PAYLOAD + 1).to_bytes(4, "big") + header[4:HEADER_BYTES])
    with pytest.raises(FrameError, match="exceeds"):
        encode_frame(FrameType.REQUEST, bytes(MAX_PAYLOAD + 1))


def test_unknown_type_and_version_are_refused():
    raw = bytearray(encode_message(NEW))
    raw[5] = 99
    with pytest.raises(FrameError, match="type 99"):
        decode_frame(bytes(raw))
    raw[4] = 2
    with pytest.raises(FrameError, match="version 2 is not 1"):
        decode_frame(bytes(raw))


def test_hello_bounds_its_names_and_keeps_its_token_out_of_logs():
    assert "secret" not in repr(Hello(account="main", strategies=("rule",), token="secret" * 8))
    for wrong in ({"strategies": ()}, {"strategies": ("a", "a")}, {"account": ""}, {"account": "a\n"}):
        with pytest.raises(ValueError):
            Hello(**{"account": "main", "strategies": ("rule",)} | wrong)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"kind":"hello","account":"main","strategies":["rule",1],"token":""}', type=Hello)
