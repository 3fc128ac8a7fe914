"""Estimation of the queue-reactive model: what was simulated with known tables is found again within its intervals."""

import json
from dataclasses import replace

import numpy as np
import pytest
from market_fixtures import instrument, make_book, make_day

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.pipeline.books import Book
from feature_repo.ticks.reactive_tables import published_tables
from feature_repo.ticks.synthetic import (
    SyntheticOptions,
    business_days,
    clean_events,
    latent_activity,
    latent_signal,
)
from training.market.reactive.activity import fit_activity
from training.market.reactive.book_counts import BURST_NS, SAME_STAMP, count_book
from training.market.reactive.cells import poisson_interval
from training.market.reactive.counts import CANCEL, LIMIT, MARKET, make_clocks
from training.market.reactive.fit import fit_orders, fit_reactive, share_interval
from training.market.reactive.rows import simulate_book

NS = 1_000_000_000
T0 = instrument().session_ns("2024-01-02")[0][0]


@pytest.fixture(scope="module")
def orders_fit():
    tables, events, clocks = published_tables(), [], []
    for index in range(2):
        options = {"days": 2, "strength": 0.6}
        partition = Partition("SYN", "SYN1", business_days(2)[index].isoformat())
        parsed = SyntheticOptions.parse(options)
        events.append(clean_events(parsed, partition))
        signal = latent_signal(options, partition)[1]
        activity = latent_activity(options, partition)
        clocks.append(make_clocks(parsed.seconds, activity, signal, 0.6, tables.tilt(0.6)))
    return fit_orders(events, 6, clocks)


def true_rate(cell, tables, counts):
    """Mean published rate over the lengths of a cell, weighted by the time spent at each; per order for cancels."""
    units = np.arange(cell["first"], cell["last"] + 1)
    kind, level = cell["kind"], cell["level"]
    if kind == "cancel":
        return tables.cancel[level, 1]
    table = {"limit": tables.limit[level], "market": tables.market, "depletion": tables.depletion}[kind]
    time = {"limit": counts.limit_s[level], "market": counts.cancel_s[0], "depletion": counts.narrow_s}[kind]
    return (table[units] * time[units]).sum() / time[units].sum()


def not_void(cells):
    """Cells without the shortest best queue, where a cancel of the last order and a trade of the last lot are void."""
    shortest = (cells["level"] == 0) & np.isin(cells["kind"], ("cancel", "market")) & (cells["first"] <= 1)
    return cells[~shortest]


def test_fit_of_default_synthetic_days_recovers_the_published_tables(orders_fit):
    tables = published_tables()
    cells = not_void(orders_fit.cells)
    true = np.array([true_rate(cell, tables, orders_fit.counts) for cell in cells])
    covered = (cells["low"] <= true) & (true <= cells["high"])
    assert len(cells) > 300
    # of 95% intervals over 400 cells: 95% with sd 1.1%; each level and kind besides
    assert 0.91 < covered.mean() < 0.99
    for level in range(6):
        for kind in ("limit", "cancel"):
            of = (cells["level"] == level) & (cells["kind"] == kind)
            assert covered[of].mean() > 0.8, (level, kind)
    p = orders_fit.parameters
    assert p.follow == pytest.approx(0.5, abs=0.03) and p.closing == pytest.approx(1.25, rel=0.06)
    assert p.traded_share == pytest.approx(0.6, abs=0.02)
    assert p.limit_lots == pytest.approx(6.0, rel=0.02) and p.refill_least + p.refill_more == pytest.approx(9, rel=0.03)


def test_fit_of_a_simulated_book_has_intervals_that_cover_at_the_nominal_rate():
    tables = book_tables()
    item = instrument(depth=4)
    books = [simulate_book(tables, item, seed, 7200, date="2024-01-02") for seed in range(3)]
    inside = total = 0
    for book in books:
        counts, _ = count_book(book, 3, tables.unit_lots, BURST_NS)
        pairs = [(counts.limit[k], counts.limit_s[k], tables.limit[k]) for k in range(3)]
        pairs += [(counts.cancel[k], counts.cancel_s[k], tables.cancel[k]) for k in range(3)]
        pairs += [
            (counts.market, counts.cancel_s[0], tables.market),
            (counts.depletion, counts.narrow_s, tables.depletion),
        ]
        for events, time, rates in pairs:
            for units in range(2, 12):
                expected = rates[units] * time[units]
                if expected > 20:
                    low, high = poisson_interval(int(events[units]))
                    inside += low <= expected <= high
                    total += 1
    assert total > 150
    assert abs(inside / total - 0.95) < 0.055  # three sd of a share of 150


def book_tables():
    """Known tables in units of 4 lots, with depletions that grow rarer with the queue."""
    units = np.arange(65.0)
    published = published_tables()
    return published._replace(
        limit=np.array([0.8 + 1.2 / (1 + units), 0.5 + 1 / (1 + units), 0.5 + 1 / (1 + units), 0.4 + 1 / (1 + units)]),
        cancel=np.array([0.12 * units, 0.07 * units, 0.07 * units, 0.06 * units]),
        market=0.4 + 0.02 * units,
        depletion=0.2 / (1 + 0.2 * units),
        by_orders=0, unit_lots=4.0, limit_lots=4.0, cancel_lots=4.0, market_lots=3.0, follow=0.7, closing=2.0,
        opening_least=np.full(4, 2), opening_more=np.full(4, 5.0), activity_sd=0.0, u_shape=0.0,
    )  # fmt: skip


def test_fit_of_market_days_gives_a_market_that_can_be_simulated_again():
    tables, item = book_tables(), instrument(depth=4)
    day = make_day_of(simulate_book(tables, item, 5, 3600, date="2024-01-02"), item)
    fit = fit_reactive([day], levels=4)
    again = simulate_book(fit, item, 1, 1800, date="2024-01-02")
    assert again.two_sided.mean() > 0.99 and len(again) > 5000
    assert fit.parameters.follow == pytest.approx(0.7, abs=0.15)
    assert fit.reference_ticks == np.median(day.book.bid_px[:, 0])
    content = json.loads(fit.to_json())
    assert content["cells"][0]["low"] <= content["cells"][0]["rate"] <= content["cells"][0]["high"]
    assert content["pooled_lengths"] == fit.pooled and fit.to_json() == fit_reactive([day], levels=4).to_json()


def make_day_of(book, item):
    return replace(make_day([(T0, [(99, 5)], [(101, 5)], None)], depth=4), book=book, instrument=item)


def book_of_rows(rows):
    return Book(**vars(make_book(rows, depth=2)))


def day_of_rows(rows):
    return make_day_of(book_of_rows(rows), instrument(depth=2))


def test_book_rows_are_told_apart_into_limit_orders_cancels_trades_and_moves():
    rows = [
        (T0, [(99, 10), (98, 10)], [(100, 10), (101, 10)], None),
        (T0 + NS, [(99, 14), (98, 10)], [(100, 10), (101, 10)], None),  # limit order of 4 at the best bid
        (T0 + 2 * NS, [(99, 14), (98, 7)], [(100, 10), (101, 10)], None),  # cancel of 3 behind it
        (T0 + 3 * NS, [(99, 14), (98, 7)], [(100, 4), (101, 10)], (100, 6, 1)),  # a buy of 6
        (T0 + 5 * NS, [(99, 14), (98, 7)], [(101, 10), (102, 10)], (100, 4, 1)),  # which the ask does not survive
        (T0 + 6 * NS, [(100, 5), (99, 14)], [(101, 10), (102, 10)], None),  # and the bid follows
    ]
    counts, sizes = count_book(book_of_rows(rows), 2, 5.0, BURST_NS)
    assert counts.limit.sum() == 1 and counts.limit[0, 2] == 1 and sizes.lots[LIMIT, 0] == 4
    assert counts.cancel.sum() == 1 and counts.cancel[1, 2] == 1 and sizes.lots[CANCEL, 0] == 3
    assert counts.market.sum() == 1 and counts.market[2] == 1 and sizes.lots[MARKET, 0] == 6
    assert counts.depletion.sum() == 1 and counts.depletion[1] == 1
    assert tuple(counts.totals[:2]) == (1, 0) and counts.open_s[0] == 1.0
    assert counts.limit_s[0].sum() == pytest.approx(12.0)  # six seconds on two sides


def test_between_snapshots_a_queue_gives_one_event_and_trades_are_taken_off_it():
    def state(at, asks, trade=None):
        return (T0 + at, [(99, 10), (98, 10)], asks, trade)

    rows = [
        state(0, [(100, 30), (101, 10)]),
        state(NS, [(100, 30), (101, 10)], (100, 8, 1)),  # stamped with the snapshot that follows
        state(NS, [(100, 27), (101, 12)]),  # 8 were bought, so 5 joined
    ]
    counts, sizes = count_book(book_of_rows(rows), 2, 5.0, SAME_STAMP)
    assert counts.market.sum() == 1 and counts.cancel.sum() == 0 and counts.limit.sum() == 2
    assert sorted(sizes.lots[LIMIT, :2]) == [2, 5]


def test_activity_is_found_from_events_by_minute():
    rng = np.random.default_rng(3)
    minutes, places = [], []
    for _ in range(6):
        noise, path = rng.standard_normal(23_400), np.zeros(23_400)
        keep = np.exp(-1 / 120)
        for i in range(1, len(path)):
            path[i] = keep * path[i - 1] + np.sqrt(1 - keep**2) * noise[i]
        place = np.linspace(-1, 1, 23_400)
        rate = 10 * np.exp(0.6 * path - 0.18) * (1 + 0.9 * place**2)
        minutes.append(rng.poisson(rate.reshape(-1, 60).sum(axis=1)))
        places.append(place.reshape(-1, 60).mean(axis=1))
    found = fit_activity(minutes, places)
    assert found.sd == pytest.approx(0.6, abs=0.1)
    assert found.relaxation_s == pytest.approx(120, rel=0.35)
    assert found.u_shape == pytest.approx(0.9, abs=0.35)


def test_intervals_are_those_of_the_literature():
    assert poisson_interval(10) == pytest.approx((4.795, 18.390), abs=1e-3)  # Garwood 1936
    assert poisson_interval(0) == pytest.approx((0.0, 3.689), abs=1e-3)
    assert poisson_interval(400) == pytest.approx((360.8, 439.2), abs=0.01)
    assert share_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927
    assert share_interval(0, 0) == (0.0, 1.0)


def test_fit_when_there_is_nothing_to_estimate_then_says_what_is_missing():
    still = [(T0 + k * NS, [(99, 10 + k % 2)], [(100, 10)], None) for k in range(50)]
    with pytest.raises(InputError, match="spread never closed in 1 days"):
        fit_reactive([day_of_rows(still)])
    with pytest.raises(InputError, match="at least one day"):
        fit_reactive([])
    frozen = [(T0 + k * NS, [(99, 10)], [(100, 10)], None) for k in range(50)]
    with pytest.raises(InputError, match="no queue ever grew"):
        fit_reactive([day_of_rows(frozen)])
