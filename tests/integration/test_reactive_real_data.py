"""The queue-reactive model on real days: what is fitted to them looks like them where it should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from market_fixtures import make_day, random_rows

from feature_repo.pipeline.books import build_book
from feature_repo.ticks.reader import IngestRequest, ReadCount
from feature_repo.ticks.registry import get_reader
from feature_repo.ticks.schema import EVENT_SCHEMA
from training.market.reactive.fit import fit_reactive
from training.market.reactive.rows import simulate_book

NS = 1_000_000_000


def first_day(source: str, folder: Path, symbol: str):
    reader, request = get_reader(source), IngestRequest(source, folder, symbols=(symbol,))
    plan = next(plan for plan in reader.plan(request) if plan.partition.symbol == symbol)
    instrument = next(item for item in reader.instruments(request) if item.symbol == symbol)
    events = pa.Table.from_batches(list(reader.read(plan, ReadCount())), EVENT_SCHEMA)
    events = events.sort_by([("ts_event_ns", "ascending"), ("sequence", "ascending")])
    book, _ = build_book(events, instrument.depth)
    blank = make_day(random_rows(np.random.default_rng(0), 10))
    windows = tuple(instrument.session_ns(plan.partition.date))
    return replace(blank, book=book, instrument=instrument, partition=plan.partition, windows=windows)


def facts(book, opens, seconds):
    at = np.searchsorted(book.ts_ns, opens + np.arange(60, seconds) * NS, side="right") - 1
    at = at[book.two_sided[at]]
    traded = (book.ts_ns >= opens) & (book.ts_ns < opens + seconds * NS)
    mid = (book.bid_px[at, 0] + book.ask_px[at, 0]) / 2
    return {
        "narrow": np.mean(book.ask_px[at, 0] - book.bid_px[at, 0] == 1),
        "depth": book.bid_sz[at].mean(axis=0),
        "lots": book.trade_sz[traded].sum(),
        "sd_60s": np.std(mid[60:] - mid[:-60]),
    }


def test_market_fitted_to_futures_snapshots_has_their_spread_depth_volume_and_volatility(real_data: Path) -> None:
    day = first_day("shfe", real_data / "shfe", "rb2510")
    fit = fit_reactive([day])
    assert "lower bounds" in fit.method and fit.parameters.limit.shape[0] == 5
    assert (fit.cells["low"] <= fit.cells["rate"]).all() and (fit.cells["rate"] <= fit.cells["high"]).all()
    opens = day.windows[0][0]
    real = facts(day.book, opens, 7200)
    books = [simulate_book(fit, day.instrument, seed, 7200, date=day.partition.date) for seed in range(3)]
    made = [facts(book, int(book.ts_ns[0]), 7200) for book in books]
    assert real["narrow"] > 0.99 and min(item["narrow"] for item in made) > 0.99
    depth = np.mean([item["depth"] for item in made], axis=0)
    np.testing.assert_allclose(depth[:3], real["depth"][:3], rtol=0.35)
    assert np.mean([item["lots"] for item in made]) == pytest.approx(real["lots"], rel=0.5)
    assert np.mean([item["sd_60s"] for item in made]) == pytest.approx(real["sd_60s"], rel=0.5)


def test_market_fitted_to_best_quotes_has_one_level_and_queues_of_their_size(real_data: Path) -> None:
    day = first_day("lean", real_data / "lean", "AIG")
    fit = fit_reactive([day])
    assert fit.parameters.limit.shape[0] == 1 and len(fit.parameters.revealed) > 0
    opens, closes = day.windows[0]
    real = facts(day.book, opens, (closes - opens) // NS)
    book = simulate_book(fit, day.instrument, 1, 7200, date=day.partition.date)
    made = facts(book, int(book.ts_ns[0]), 7200)
    assert book.depth == 1 and book.two_sided.mean() > 0.99
    assert made["narrow"] == pytest.approx(real["narrow"], abs=0.06)
    assert 0.4 < made["depth"][0] / real["depth"][0] < 2.5
