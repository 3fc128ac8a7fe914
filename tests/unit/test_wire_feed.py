import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.wire.feed import (
    VERSION,
    Ask,
    Beat,
    FeedError,
    Opening,
    Snapshot,
    SymbolStatus,
    Until,
    Update,
    Watermark,
    decode_down,
    decode_up,
    encode_feed,
)
from serving.wire.feed_state import Follower, Gap, Publisher

SIDE = st.dictionaries(st.integers(1, 30), st.integers(1, 50), max_size=6)
STEPS = st.lists(st.tuples(st.sampled_from(["A", "B"]), SIDE, SIDE, st.integers(0, 3), st.sampled_from("rrrsb")))


def publisher(session="s1"):
    return Publisher("SYN", session, ["A", "B"], lockstep=False)


def played(feed, steps):
    """Messages of rows, halts and heartbeats."""
    for ts_ns, (symbol, bids, asks, lots, what) in enumerate(steps, 1):
        if what == "s":
            raw = feed.status(symbol, ts_ns, "halted" if feed.books[symbol].status == "open" else "open")
        elif what == "b":
            raw = feed.beat(ts_ns)
        else:
            raw = feed.row(symbol, ts_ns, bids, asks, (7, lots, 1) if lots else (0, 0, 0))
        if raw is not None:
            yield raw


def follow(feed, follower):
    follower.connected()
    follower.take(encode_feed(feed.opening))
    answer(feed, follower)


def answer(feed, follower):
    while (wanted := follower.asks()) is not None:
        for symbol in decode_up(wanted).symbols:
            follower.take(feed.snapshot(symbol))


def same(mine, theirs):
    return all(
        getattr(mine, field) == getattr(theirs, field)
        for field in ("bids", "asks", "status", "sequence", "volume_lots", "ts_ns")
    )


@given(STEPS)
def test_follower_keeps_the_publisher_s_book_and_volume(steps):
    feed, follower = publisher(), Follower(["A", "B"])
    follow(feed, follower)
    for raw in played(feed, steps):
        assert not [event for event in follower.take(raw) if isinstance(event, Gap)]
        assert all(same(follower.books[symbol], feed.books[symbol]) for symbol in "AB")


@given(STEPS, st.data())
@settings(max_examples=150)
def test_lost_repeated_and_spoilt_messages_make_a_symbol_unknown_never_wrong(steps, data):
    feed, follower = publisher(), Follower(["A", "B"])
    follow(feed, follower)
    for raw in played(feed, steps):
        fate = data.draw(st.sampled_from(["comes", "comes", "comes", "lost", "twice", "spoilt"]))
        if fate == "spoilt":
            cut = data.draw(st.integers(0, len(raw) - 1))
            follower.take(raw[:cut] + b"\x00" + raw[cut + 1 :])
            assert not follower.books
        elif fate != "lost":
            follower.take(raw)
            if fate == "twice":
                follower.take(raw)
        for symbol, book in follower.books.items():  # what is said to be known was true when it was said
            assert book.sequence < feed.books[symbol].sequence or same(book, feed.books[symbol])
        if data.draw(st.booleans()):
            answer(feed, follower)
    follower.take(feed.beat(10**6))
    answer(feed, follower)
    assert all(same(follower.books[symbol], feed.books[symbol]) for symbol in "AB")


def test_gap_voids_the_book_until_the_snapshot():
    feed, follower = publisher(), Follower(["A"])
    follow(feed, follower)
    feed.row("A", 1, {10: 1}, {11: 1})
    late = feed.row("A", 2, {10: 2}, {11: 1})
    assert follower.take(late) == [Gap("A", "message 2 came after 0")]
    assert "A" not in follower.books and follower.take(feed.row("A", 3, {9: 2}, {11: 1})) == []
    answer(feed, follower)
    assert follower.books["A"].best() == (9, 2, 11, 1)


def test_heartbeat_shows_that_the_last_message_was_lost():
    feed, follower = publisher(), Follower(["A"])
    follow(feed, follower)
    feed.row("A", 1, {10: 1}, {11: 1})
    gap, beat = follower.take(feed.beat(2))
    assert gap == Gap("A", "the feed is at 1, this end at 0") and isinstance(beat, Beat)


def test_venue_that_began_again_makes_everything_unknown():
    feed, follower = publisher(), Follower(["A", "B"])
    follow(feed, follower)
    events = follower.take(encode_feed(publisher("s2").opening))
    assert {event.symbol for event in events if isinstance(event, Gap)} == {"A", "B"} and not follower.books
    assert follower.asks() is not None


def test_time_that_goes_back_is_a_gap():
    feed, follower = publisher(), Follower(["A"])
    follow(feed, follower)
    follower.take(feed.row("A", 5, {10: 1}, {11: 1}))
    assert "time went back" in follower.take(feed.row("A", 4, {10: 2}, {11: 1}))[0].reason


@pytest.mark.parametrize(
    "message",
    [
        Opening(version=VERSION, venue="V", session="s", lockstep=True, symbols=("A",)),
        Snapshot(
            symbol="A", sequence=3, ts_ns=1, sent_ns=7, status="open", volume_lots=2, bids=((5, 1),), asks=((6, 2),)
        ),
        Update(symbol="A", sequence=4, ts_ns=1, sent_ns=7, bids=((5, 0),), trade_ticks=5, trade_lots=1, trade_side=-1),
        SymbolStatus(symbol="A", sequence=5, ts_ns=1, sent_ns=7, status="halted"),
        Beat(ts_ns=1, sent_ns=7, sequences={"A": 5}),
        Until(ts_ns=9),
    ],
    ids=lambda message: type(message).__name__,
)
def test_feed_message_comes_back_as_it_was(message):
    assert decode_down(encode_feed(message)) == message


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (Update(symbol="A", sequence=1, ts_ns=1, sent_ns=7, bids=((0, 1),)), "price 0 is not from 1"),
        (Update(symbol="A", sequence=1, ts_ns=1, sent_ns=7, bids=((5, -1),)), "lots -1"),
        (Update(symbol="A", sequence=1, ts_ns=1, sent_ns=7, bids=((5, 1), (5, 2))), "2 levels"),
        (Update(symbol="A", sequence=1, ts_ns=1, sent_ns=7, trade_lots=1), "trade_ticks 0"),
        (Update(symbol="A", sequence=-1, ts_ns=1, sent_ns=7), "sequence -1"),
        (Update(symbol="", sequence=1, ts_ns=1, sent_ns=7), "symbol ''"),
        (Until(ts_ns=-1), "ts_ns -1"),
        (Beat(ts_ns=1, sent_ns=-7, sequences={}), "sent_ns -7"),
        (Opening(version=1, venue="V", session="s", lockstep=True, symbols=()), "version 1 of the feed"),
        (Beat(ts_ns=1, sent_ns=7, sequences={"A": -5}), "sequence -5"),
        (
            Snapshot(symbol="A", sequence=3, ts_ns=1, sent_ns=7, status="open", volume_lots=2, bids=((5, 0),), asks=()),
            "lots 0",
        ),
    ],
)
def test_feed_value_that_cannot_be_is_refused(message, error):
    with pytest.raises(FeedError, match=error):
        decode_down(encode_feed(message))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_noise_on_the_feed_is_a_typed_error(noise):
    for decode in (decode_down, decode_up):
        with pytest.raises(FeedError):
            decode(noise)


def test_message_says_when_it_was_sent_by_the_clock_on_the_wall():
    feed = Publisher("SYN", "s1", ["A"], False, utc_ns=itertools.count(100).__next__)
    raws = [feed.status("A", 1, "open"), feed.row("A", 2, {10: 1}, {11: 1}), feed.snapshot("A"), feed.beat(3)]
    assert [decode_down(raw).sent_ns for raw in raws] == [100, 101, 102, 103]


def test_feed_of_before_there_was_a_send_time_is_not_followed():
    feed, follower = publisher(), Follower(["A"])
    follow(feed, follower)
    assert follower.books
    old = encode_feed(Opening(version=VERSION, venue="SYN", session="s1", lockstep=False, symbols=("A",)))
    assert [event.symbol for event in follower.take(old.replace(b'"version":2,', b""))] == ["A"]
    assert not follower.books
    bare = feed.row("A", 1, {10: 1}, {11: 1})
    with pytest.raises(FeedError, match="sent_ns"):
        decode_down(re.sub(rb'"sent_ns":\d+,', b"", bare))


def test_follower_s_own_messages_are_checked():
    assert decode_up(encode_feed(Ask(symbols=("A",)))).symbols == ("A",)
    assert decode_up(encode_feed(Watermark(ts_ns=4))).ts_ns == 4
    with pytest.raises(FeedError, match="ts_ns -4"):
        decode_up(encode_feed(Watermark(ts_ns=-4)))
    with pytest.raises(FeedError, match="not on this feed"):
        publisher().snapshot("Z")
