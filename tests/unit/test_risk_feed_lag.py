"""A feed that lags, with nothing missing, is no reference: how long its messages were on their way counts."""

from collections import deque

import msgspec
import pytest
from gateway_world import ASK, BID, SYMBOL, VENUE, World, limits_of

from serving.contracts.decisions import Allowed
from serving.gateway import feed_in
from serving.gateway.changes import propose_limits
from serving.gateway.config import VenueConfig
from serving.gateway.dump import decode_dump
from serving.gateway.events import LimitsSet
from serving.gateway.feed_in import FeedIn
from serving.gateway.live import DRIFT_WINDOW_NS, SECOND_NS
from serving.gateway.state import State
from serving.wire.feed import VERSION, Opening, encode_feed
from serving.wire.feed_state import Follower, Publisher

LIMIT = 1_000_000_000
OFFSET = 10_000_000
"""`max_feed_lag_ns` and `max_clock_offset_ns` of the world's limits."""


class Feeding:
    """A publisher whose messages come when a test says, and the gateway's own end of the feed."""

    def __init__(self, tmp_path, monkeypatch, timeless=False):
        self.world = World(limits_of(max_unacknowledged_ns=10**15))
        config = VenueConfig.model_validate(
            {
                "fix": {}, "feed": {"url": "ws://127.0.0.1:1"}, "symbols": {SYMBOL: {"tick_size": "0.01"}},
                "feed_has_no_send_time": timeless,
            }
        )  # fmt: skip
        monkeypatch.setattr(feed_in, "read_now", self.world.clock)
        self.sent_ns = lambda: self.world.clock.utc_ns
        self.publisher = Publisher(VENUE, "s1", [SYMBOL], False, utc_ns=lambda: self.sent_ns())
        self.feed = FeedIn(VENUE, config, tmp_path, self.world.watch)
        self.follower: Follower = self.feed.follower
        self.world.watch.gap(VENUE)
        self.on_the_way = [encode_feed(self.publisher.opening)]
        self.say(self.publisher.status(SYMBOL, 1, "open"))
        self.say(self.publisher.row(SYMBOL, 1, {BID: 100}, {ASK: 100}))
        self.say(self.publisher.snapshot(SYMBOL))

    def say(self, raw):
        self.on_the_way.append(raw)

    def arrive(self):
        for raw in self.on_the_way:
            for event in self.follower.take(raw):
                self.feed.take(event)
        self.on_the_way.clear()

    def order(self):
        self.world.watch.heartbeat("S1", self.world.clock())
        self.world.watch.clock_offset(0, self.world.clock())
        return self.world.send(lots=1)


@pytest.fixture()
def feeding(tmp_path, monkeypatch):
    return Feeding(tmp_path, monkeypatch)


def test_feed_that_is_late_and_misses_nothing_is_denied_until_it_has_caught_up(feeding):
    feeding.arrive()
    assert isinstance(feeding.order(), Allowed)
    line = deque([[] for _ in range(12)])
    for tick in range(60):  # ten messages a second, each 1.2 s on its way: never silent, never a gap
        feeding.world.clock.pass_(0.1)
        line.append([feeding.publisher.row(SYMBOL, 2 + tick, {BID - tick: 1}, {ASK: 9}), feeding.publisher.beat(2)])
        feeding.on_the_way = line.popleft()
        feeding.arrive()
        if tick >= 12:
            assert feeding.follower.books[SYMBOL].best()[0] == BID - tick + 12
            denied = feeding.order()
            assert (denied.control, denied.value, denied.limit) == ("reference", 1_200_000_000, LIMIT)
    assert feeding.feed.gaps == 0 and feeding.feed.lag_s == 1.2
    feeding.on_the_way = [raw for late in line for raw in late] + [feeding.publisher.beat(99)]
    feeding.arrive()
    assert isinstance(feeding.order(), Allowed)


@pytest.mark.parametrize(
    ("lag_ns", "passes"), [(LIMIT, True), (LIMIT + 1, False), (-OFFSET, True), (-OFFSET - 1, False)]
)
def test_lag_at_its_limit_passes_and_one_beyond_is_denied_either_way(lag_ns, passes):
    world = World()
    world.watch.heard(VENUE, world.clock.utc_ns - lag_ns, world.clock())
    answer = world.send()
    assert isinstance(answer, Allowed) == passes
    if not passes:
        assert answer.control == "reference" and answer.value == abs(lag_ns)
        assert f"the feed of {VENUE} " in answer.message


@pytest.mark.parametrize("offset_ns", [OFFSET, -OFFSET])
def test_offset_of_the_clock_counts_as_lag_whichever_way_it_is(offset_ns):
    world = World()
    world.watch.clock_offset(offset_ns, world.clock())
    world.watch.heard(VENUE, world.clock.utc_ns - (LIMIT - OFFSET), world.clock())
    assert isinstance(world.send(), Allowed)
    world.watch.heard(VENUE, world.clock.utc_ns - (LIMIT - OFFSET + 1), world.clock())
    denied = world.send()
    assert denied.control == "reference" and denied.value == LIMIT + 1


def test_feed_that_does_not_say_when_it_sent_is_no_reference(feeding):
    feeding.sent_ns = lambda: 0
    feeding.arrive()
    feeding.say(feeding.publisher.beat(9))
    feeding.arrive()
    denied = feeding.order()
    assert denied.control == "reference" and "does not say when it sent" in denied.message
    assert feeding.feed.lag_s is None


@pytest.mark.parametrize(("lag_ns", "late"), [(LIMIT, False), (LIMIT + 1, True), (-OFFSET, False), (-OFFSET - 1, True)])
def test_people_hear_of_a_feed_that_lags_and_of_one_that_sends_from_ahead(feeding, lag_ns, late):
    sent_ns = feeding.world.clock.utc_ns - lag_ns
    feeding.sent_ns = lambda: sent_ns
    feeding.say(feeding.publisher.beat(9))
    feeding.arrive()
    assert feeding.feed.is_late == late and isinstance(feeding.order(), Allowed) != late


def test_feed_is_not_called_late_before_there_are_limits(feeding):
    feeding.arrive()
    feeding.world.state.limits = None
    assert not feeding.feed.is_late


def test_feed_without_a_send_time_is_one_where_the_venue_s_settings_say_so(tmp_path, monkeypatch):
    feeding = Feeding(tmp_path, monkeypatch, timeless=True)
    feeding.sent_ns = lambda: 0
    feeding.arrive()
    feeding.say(feeding.publisher.beat(9))
    feeding.arrive()
    assert isinstance(feeding.order(), Allowed)


def test_lag_is_unknown_again_after_the_line_was_lost():
    world = World()
    world.watch.gap(VENUE)
    for symbol in world.state.symbols:  # prices and sessions are back, the time is not
        world.watch.quote(VENUE, symbol, BID, ASK, world.clock())
        world.watch.status(VENUE, symbol, "open")
    assert world.send().control == "reference"


def test_clock_that_jumps_either_way_leaves_no_reference():
    for jump_ns in (-OFFSET - 1, LIMIT + 1):
        world = World()
        sent_ns = world.clock.utc_ns
        world.clock.utc_ns += jump_ns
        world.watch.heard(VENUE, sent_ns, world.clock())
        assert world.send(sent_ns=world.clock.utc_ns).control in ("reference", "clock")


def test_heartbeat_confirms_what_is_known_and_revives_nothing(feeding):
    feeding.arrive()
    market = feeding.world.gateway.live.market(VENUE, SYMBOL)
    feeding.world.clock.pass_(4)
    feeding.say(feeding.publisher.beat(5))
    feeding.arrive()
    assert market.seen_ns == feeding.world.clock.mono_ns
    feeding.say(feeding.publisher.row(SYMBOL, 6, {BID: 100}, {}))  # a side is empty
    feeding.say(feeding.publisher.beat(6))
    feeding.arrive()
    assert not market.bid and feeding.order().control == "reference"


def test_quiet_symbol_s_older_reference_moves_on_with_heartbeats(feeding):
    feeding.arrive()
    market = feeding.world.gateway.live.market(VENUE, SYMBOL)
    feeding.say(feeding.publisher.row(SYMBOL, 2, {BID + 4: 100}, {ASK + 4: 100}))
    feeding.arrive()
    assert market.older_mid2 == BID + ASK
    for _ in range(2):
        feeding.world.clock.pass_(DRIFT_WINDOW_NS / SECOND_NS)
        feeding.say(feeding.publisher.beat(9))
        feeding.arrive()
    assert market.older_mid2 == BID + ASK + 8


def old_limits():
    document = limits_of().document()
    del document["limits"]["all"]["max_feed_lag_ns"]
    return msgspec.json.encode(document, order="sorted").decode()


def test_limits_of_an_older_journal_read_keep_their_hash_and_deny_until_the_new_one_is_named():
    state = State()
    state.apply(LimitsSet(utc_ns=1, document=old_limits(), why="before"))
    again = State()
    again.load(decode_dump(state.encoded()))
    assert again.hash() == state.hash() and b"max_feed_lag_ns" not in state.encoded()

    world = World()
    world.gateway.record(LimitsSet(utc_ns=world.clock.utc_ns, document=old_limits(), why="before"))
    world.gateway.commit(world.clock())
    denied = world.send()
    assert denied.control == "reference" and "propose it" in denied.message
    change = propose_limits(world.gateway, limits_of(), "CN=settings", world.clock())
    assert change.tightened and not change.change  # a bound where two people had agreed on none
    assert isinstance(world.send(), Allowed)


def test_opening_names_its_version():
    assert b'"version":2' in encode_feed(Opening(version=VERSION, venue=VENUE, session="s", lockstep=False, symbols=()))
