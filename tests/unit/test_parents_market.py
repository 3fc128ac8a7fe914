"""One symbol from the feed: the features of training bit for bit, and none where something was missed."""

import numpy as np
import pytest
from ems_world import NS
from market_fixtures import instrument, make_book, open_ns, random_rows

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from feature_repo.pipeline.kernels import FEATURES, SIGNAL_V1, compute_features
from feature_repo.ticks.instruments import SessionWindow
from serving.parents.market import SymbolMarket, session_of
from serving.wire.feed import Snapshot, Update
from serving.wire.feed_state import Follower, Gap, Publisher

COLUMNS = [FEATURES.index(name) for name in SIGNAL_V1]


def fed(rows, facts=None, before=None):
    """A market that heard every row, with the follower that it heard them by."""
    market = SymbolMarket(facts or instrument())
    publisher, follower = Publisher("V", "s", ["T"], False), Follower(["T"])
    follower.connected()
    for number, (ts, bids, asks, trade) in enumerate(rows):
        if before is not None:
            before(number, market)
        raw = publisher.row("T", ts, dict(bids), dict(asks), trade or (0, 0, 0))
        for event in follower.take(raw) if raw else ():
            if isinstance(event, Update):
                market.update(event)
        if follower.asks() is not None:
            for event in follower.take(publisher.snapshot("T")):
                assert isinstance(event, Snapshot)
                market.snapshot(event)
    return market, publisher, follower


def batch(rows, facts=None):
    facts = facts or instrument()
    book = make_book(rows, facts.depth)
    names = ("ts_ns", "bid_px", "bid_sz", "ask_px", "ask_sz", "trade_px", "trade_sz", "trade_side")
    return compute_features(Book(*[getattr(book, name) for name in names]), facts.session_ns("2024-01-02"))


@pytest.mark.parametrize("seed", [1, 2])
def test_features_of_the_feed_are_those_of_the_batch_bit_for_bit(seed):
    rows = random_rows(np.random.default_rng(seed), 900)
    market, _, _ = fed(rows)
    last = rows[-1][0] // NS * NS
    market.advance(last)
    ts, values, valid = batch(rows)
    checked = 0
    for place in np.flatnonzero((ts <= last) & (ts > last - 400 * NS)):
        found = market.features_at(int(ts[place]))
        if valid[place]:
            assert found.ts_ns == ts[place] and np.array_equal(found.market, values[place, COLUMNS])
            checked += 1
    assert checked > 300
    window = market.feature_rows(int(last), SIGNAL_V1, 30)
    at = int(np.flatnonzero((ts <= last) & (valid != 0))[-1])
    assert np.array_equal(window, values[at - 29 : at + 1][:, COLUMNS])


def test_no_features_are_given_for_sixty_seconds_after_a_gap():
    rows = random_rows(np.random.default_rng(3), 900)
    market, publisher, follower = fed(rows)
    now = rows[-1][0]
    market.advance(now)
    assert market.features_at(now) is not None
    for event in follower.disconnected("cut"):
        assert isinstance(event, Gap)
        market.lose()
    assert market.features_at(now) is None and market.last is None and market.gaps == 1
    follower.connected()
    for event in follower.take(publisher.snapshot("T")):
        market.snapshot(event)
    for second in range(1, 59):
        market.advance(now + second * NS)
        assert market.features_at(now + second * NS) is None and market.last is not None
    market.advance(now + 62 * NS)
    assert market.features_at(now + 62 * NS) is not None
    assert market.feature_rows(now + 62 * NS, SIGNAL_V1, 30) is None  # the first of the thirty looks back over the gap


def test_row_that_comes_after_its_second_was_closed_counts_at_the_next_moment():
    rows = random_rows(np.random.default_rng(4), 300)
    late = open_ns() + 100 * NS

    def close_early(number, market):
        if number == 60:
            market.advance(late)

    market, _, _ = fed(rows, before=close_early)
    stamps = [row.ts_ns for row in market.rows]
    assert stamps == sorted(stamps) and market.row_count == len(rows)
    market.advance(rows[-1][0] + NS)
    assert market.features_at(rows[-1][0] + NS) is not None


def test_session_of_a_moment_is_the_first_that_is_not_over():
    facts = instrument()
    opens, closes = facts.session_ns("2024-01-02")[0]
    for ts, date in (
        (opens - 1, "2024-01-02"),
        (opens, "2024-01-02"),
        (closes - 1, "2024-01-02"),
        (closes, "2024-01-03"),
    ):
        assert session_of(facts, ts)[0] == date
    night = SessionWindow("21:00:00", "02:30:00", days_before=1)
    both = facts.__class__(**{**facts.__dict__, "windows": (night, SessionWindow("09:00:00", "15:00:00"))})
    friday_evening = both.session_ns("2024-01-08")[0][0] + NS  # Monday's night session opens on Friday
    assert session_of(both, friday_evening)[0] == "2024-01-08"
    nothing = facts.__class__(**{**facts.__dict__, "windows": ()})
    with pytest.raises(InputError, match="no session within a week"):
        session_of(nothing, opens)


def test_next_day_begins_with_features_of_its_own():
    facts = instrument()
    day = facts.session_ns("2024-01-03")[0][0] - facts.session_ns("2024-01-02")[0][0]
    first = random_rows(np.random.default_rng(5), 200)
    second = [(ts + day, bids, asks, trade) for ts, bids, asks, trade in random_rows(np.random.default_rng(6), 200)]
    market, _, _ = fed([*first, *second])
    now = second[-1][0] // NS * NS
    market.advance(now)
    assert market.date == "2024-01-03" and market.features_at(now).ts_ns == now
    alone, _, _ = fed([first[-1], *second])
    alone.advance(now)
    assert np.array_equal(alone.features_at(now).market, market.features_at(now).market)
