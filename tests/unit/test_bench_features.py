import numpy as np
import pytest
from feature_books import random_book, window

from feature_repo.errors import InputError
from feature_repo.pipeline.kernels import FEATURES
from flows.bench import features


def test_bench_features_when_run_then_gives_the_promised_rows_with_targets_judged(monkeypatch):
    monkeypatch.setattr(features, "synthetic_day", lambda: (random_book(1, 120, 5), window(120)))
    found = features.run()
    rows = {row["name"]: row for row in found["rows"]}
    assert found["machine"]["cores"] >= 1
    live, batch = rows["incremental us per event"], rows["batch events/s"]
    assert (live["unit"], live["target"]) == ("us", 2.0) and live["met"] == (live["value"] <= 2.0)
    assert (batch["unit"], batch["target"]) == ("events/s", 5e6) and batch["met"] == (batch["value"] >= 5e6)
    assert live["value"] > 0.0 and batch["value"] > 0.0
    assert rows["batch events/s, wall clock"]["target"] is None
    assert rows["features"]["value"] == len(FEATURES) and rows["events"]["value"] == len(random_book(1, 120))


def test_bench_features_when_there_is_nothing_to_measure_with_then_says_so(tmp_path):
    book = random_book(1, 20)
    with pytest.raises(InputError, match="holds no book row"):
        features.measure(book, [(int(book.ts_ns[-1]) + 1, int(book.ts_ns[-1]) + 10**9)])
    with pytest.raises(InputError, match=str(tmp_path)):
        features.run(tmp_path)


def test_bench_features_when_its_market_is_built_again_then_is_the_same():
    (one, windows), (other, _) = features.synthetic_day(), features.synthetic_day()
    assert one.depth == 5 and np.array_equal(one.ts_ns, other.ts_ns) and np.array_equal(one.bid_sz, other.bid_sz)
    curve = features.flat_curve(one, windows)
    assert curve.share.sum() == pytest.approx(1.0) and curve.daily_lots == one.trade_sz.sum()
