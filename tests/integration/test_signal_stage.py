"""The train_signal stage on small days: what it writes, what it must not see, and what a killed run leaves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.pipeline.books import Book, load_book, write_book
from feature_repo.pipeline.kernels import FEATURES, SIGNAL_V1, compute_features
from feature_repo.ticks.instruments import NS, Instrument, SessionWindow, save_instruments
from training.signals.config import SignalConfig
from training.signals.export import Forecaster
from training.signals.train import train_signal

DATES = ("2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07")
WINDOWS = (SessionWindow("09:30:00", "09:55:00"), SessionWindow("10:00:00", "10:25:00"))
CONFIG = SignalConfig(
    horizons_s=(5, 10), hidden=8, blocks=3, max_epochs=4, batch_chunks=4, min_train_rows=100, bootstrap_draws=199
)
STRENGTH = 0.8


def instrument(symbol: str) -> Instrument:
    return Instrument("SIM", symbol, 0.01, 1, "USD", "UTC", WINDOWS, 1, False, 10_000_000, True)


def write_day(root: Path, symbol: str, date: str, seed: int, strength: float) -> None:
    """A book that changes each second; its size imbalance leads the price with `strength`."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    times, bids, sizes = [], [], []
    for opens, closes in instrument(symbol).session_ns(date):
        seconds = np.arange((closes - opens) // NS)
        lean = np.zeros(len(seconds))
        for at in range(1, len(seconds)):
            lean[at] = 0.9 * lean[at - 1] + rng.normal(0.0, 0.4)
        drive = np.r_[0.0, strength * lean[:-1]] + rng.normal(0.0, 1.0, len(seconds))
        times.append(opens + seconds * NS + NS // 2)
        bids.append(5_000 + np.rint(np.cumsum(drive)).astype(np.int32))
        sizes.append(np.clip(np.rint(500 * (1.0 + np.tanh(lean))), 1, 999).astype(np.int32))
    bid, size = np.concatenate(bids), np.concatenate(sizes)
    none = np.zeros(len(bid), np.int32)
    levels = (side.astype(np.int32)[:, None] for side in (bid, size, bid + 2, 1_000 - size))
    book = Book(np.concatenate(times), *levels, none, none, none.astype(np.int8))
    folder = Partition("SIM", symbol, date).folder(root)
    folder.mkdir(parents=True)
    write_book(book, folder / "book.parquet")
    ts_ns, features, valid = compute_features(book, instrument(symbol).session_ns(date))
    columns = {name: np.ascontiguousarray(features[:, at]) for at, name in enumerate(FEATURES)}
    pq.write_table(pa.table({"ts_ns": ts_ns, **columns, "book_valid": valid}), folder / "features.parquet")


def write_dataset(root: Path, symbols=("AAA",), dates=DATES, strength: float = STRENGTH) -> Path:
    root.mkdir()
    save_instruments([instrument(symbol) for symbol in symbols], root)
    for at, symbol in enumerate(symbols):
        for day, date in enumerate(dates):
            write_day(root, symbol, date, 100 * at + day, strength)
    return root


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("signal") / "features")


@pytest.fixture(scope="module")
def trained(features, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("trained")
    return out, train_signal(features, out, CONFIG)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def forecasts(folder: Path, date: str, symbol: str = "AAA"):
    return pq.read_table(Partition("SIM", symbol, date).folder(folder) / "forecasts.parquet", partitioning=None)


def copy_of(dataset: Path, target: Path) -> Path:
    shutil.copytree(dataset, target)
    return target


def test_stage_writes_one_forecast_row_per_feature_row_by_the_contract(features, trained):
    out, summary = trained

    assert (summary["folds"], summary["days_forecast"], summary["days_missing"]) == (3, 3, 1)
    for partition in list_partitions(features, "features.parquet"):
        table = forecasts(out, partition.date)
        rows = pq.read_table(partition.folder(features) / "features.parquet", partitioning=None)
        assert table.column_names == [
            "event_timestamp", "ts_ns", "instrument_id",
            "forecast_5s_bps", "forecast_10s_bps", "forecast_missing", "model_version",
        ]  # fmt: skip
        assert [str(table.schema.field(name).type) for name in table.column_names] == [
            "timestamp[us, tz=UTC]", "int64", "string", "float", "float", "int8", "string",
        ]  # fmt: skip
        assert table["ts_ns"].equals(rows["ts_ns"])
        missing = table["forecast_missing"].to_numpy() == 1
        values = table["forecast_5s_bps"].to_numpy()
        assert np.all(values[missing] == 0.0)
        if partition.date == DATES[0]:
            assert missing.all() and set(table["model_version"].to_pylist()) == {""}
        else:
            # Each of the two session windows starts without the L - 1 rows that a forecast needs.
            assert missing.sum() == 2 * (CONFIG.window - 1) and not missing[CONFIG.window - 1]
            assert len(set(table["model_version"].to_pylist())) == 1
            assert np.std(values[~missing]) > 0.0
    assert forecasts(out, DATES[-1])["model_version"][0].as_py() == summary["model_version"]


def test_stage_when_signal_is_planted_then_skill_is_established(trained):
    out, summary = trained

    assert all(skill["established"] and skill["r2"] > 0.02 for skill in summary["skill"].values())
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["skill_by_day"]) == set(DATES[1:]) and set(metrics["skill_test"]) == {"5", "10"}
    assert metrics["skill"]["5"]["verdict"] == "established"
    assert [fold["train_days"] for fold in metrics["folds"]] == [list(DATES[:n]) for n in (1, 2, 3)]


def test_stage_when_nothing_is_planted_then_claims_nothing(tmp_path):
    summary = train_signal(write_dataset(tmp_path / "features", strength=0.0), tmp_path / "out", CONFIG)

    assert not any(skill["established"] for skill in summary["skill"].values())
    assert all(abs(skill["r2"]) < 0.02 for skill in summary["skill"].values())


def test_signal_onnx_is_the_model_that_forecast_the_test_day_and_its_spec_says_how_to_call_it(features, trained):
    out, summary = trained
    spec = json.loads((out / "signal_spec.json").read_text())
    rows = pq.read_table(Partition("SIM", "AAA", DATES[-1]).folder(features) / "features.parquet", partitioning=None)
    values = np.column_stack([rows[name].to_numpy() for name in spec["features"]])
    window = spec["window"]

    found = Forecaster(out / "signal.onnx")(values[None, 500 - window + 1 : 501])

    table = forecasts(out, DATES[-1])
    assert found[0].tolist() == [table[f"forecast_{h}s_bps"][500].as_py() for h in spec["horizons_s"]]
    assert spec["model_version"] == summary["model_version"] and spec["train_days"] == list(DATES[:-1])


def test_stage_when_run_twice_then_every_byte_is_equal(features, trained, tmp_path):
    train_signal(features, tmp_path, CONFIG)

    assert content(tmp_path) == content(trained[0])


def test_forecasts_of_earlier_days_ignore_later_days(features, trained, tmp_path):
    changed = copy_of(features, tmp_path / "features")
    shutil.rmtree(Partition("SIM", "AAA", DATES[2]).folder(changed))
    write_day(changed, "AAA", DATES[2], seed=999, strength=-STRENGTH)

    train_signal(changed, tmp_path / "out", CONFIG)

    for date in DATES[:2]:
        assert forecasts(tmp_path / "out", date).equals(forecasts(trained[0], date))
    assert not forecasts(tmp_path / "out", DATES[3]).equals(forecasts(trained[0], DATES[3]))  # its model has changed


def test_forecast_at_a_moment_ignores_features_and_book_after_it(features, trained, tmp_path):
    changed = copy_of(features, tmp_path / "features")
    folder = Partition("SIM", "AAA", DATES[-1]).folder(changed)
    table = pq.read_table(folder / "features.parquet", partitioning=None)
    cut = 900
    for at, name in enumerate(table.column_names):
        if name in FEATURES:
            values = table[name].to_numpy().copy()
            values[cut + 1 :] = values[cut + 1 :] * -3.0 + 1.0
            table = table.set_column(at, name, [values])
    pq.write_table(table, folder / "features.parquet")
    book = load_book(changed, Partition("SIM", "AAA", DATES[-1]))
    later = book.ts_ns > table["ts_ns"][cut].as_py()
    shifted = np.where(later[:, None], book.bid_px + 50, book.bid_px).astype(np.int32)
    write_book(replace(book, bid_px=shifted, ask_px=shifted + 2), folder / "book.parquet")

    train_signal(changed, tmp_path / "out", CONFIG)

    one, two = forecasts(trained[0], DATES[-1]), forecasts(tmp_path / "out", DATES[-1])
    assert one.slice(0, cut + 1).equals(two.slice(0, cut + 1))
    assert not one.slice(cut + 1).equals(two.slice(cut + 1))


@pytest.mark.parametrize("killed_in_fold", [0, 1, 2])
def test_stage_when_killed_in_a_fold_then_rerun_skips_finished_folds_and_gives_the_same_content(
    features, trained, tmp_path, killed_in_fold
):
    class Killed(BaseException):
        pass

    def die(done: int, total: int, unit: str) -> None:
        if done > killed_in_fold * 100:
            raise Killed

    with pytest.raises(Killed):
        train_signal(features, tmp_path, CONFIG, die)
    (tmp_path / "checkpoints" / "fold-2024-03-07.onnx.partial").write_bytes(b"torn")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").glob("*.onnx")}
    assert len(kept) == killed_in_fold

    train_signal(features, tmp_path, CONFIG)

    assert content(tmp_path) == content(trained[0])
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())  # not trained again


def test_stage_when_a_kept_fold_is_torn_or_of_other_settings_then_it_is_trained_again(features, trained, tmp_path):
    out = copy_of(trained[0], tmp_path / "out")
    (out / "checkpoints" / "fold-2024-03-06.onnx").write_bytes(b"torn")
    record = out / "checkpoints" / "fold-2024-03-07.json"
    record.write_text(record.read_text().replace('"key": "', '"key": "0'))

    train_signal(features, out, CONFIG)

    assert content(out) == content(trained[0])


def test_stage_when_two_symbols_trade_then_one_model_serves_both(tmp_path):
    dataset = write_dataset(tmp_path / "features", symbols=("AAA", "BBB"), dates=DATES[:3])

    summary = train_signal(dataset, tmp_path / "out", replace(CONFIG, max_epochs=2))

    versions = {forecasts(tmp_path / "out", DATES[2], symbol)["model_version"][0].as_py() for symbol in ("AAA", "BBB")}
    assert versions == {summary["model_version"]}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(metrics["skill_by_instrument"]) == {"SIM:AAA", "SIM:BBB"}


def test_stage_logs_each_epoch_to_mlflow_and_writes_nothing_else_of_it(features, trained, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    train_signal(features, tmp_path / "out", replace(CONFIG, tracking_uri=uri))

    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("signals").experiment_id])
    history = client.get_metric_history(run.info.run_id, "fold-2024-03-05/val_loss")
    assert [point.step for point in history] == list(range(1, len(history) + 1)) and history
    assert run.data.metrics["r2_5s"] > 0.0
    assert content(tmp_path / "out") == content(trained[0])


def test_stage_when_there_is_one_day_then_says_how_to_get_another(tmp_path):
    with pytest.raises(InputError, match="one day 2024-03-04: no day left to test on"):
        train_signal(write_dataset(tmp_path / "features", dates=DATES[:1]), tmp_path / "out", CONFIG)


def test_stage_when_rows_are_too_few_then_names_the_limit(features, tmp_path):
    with pytest.raises(InputError, match="fewer than 100000 usable feature rows on 2024-03-04 to 2024-03-06"):
        train_signal(features, tmp_path, replace(CONFIG, min_train_rows=100_000))


def test_stage_when_a_feature_file_lacks_a_column_or_is_torn_then_names_it(features, tmp_path):
    changed = copy_of(features, tmp_path / "features")
    path = Partition("SIM", "AAA", DATES[1]).folder(changed) / "features.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns([SIGNAL_V1[3]]), path)
    with pytest.raises(InputError, match=f"date=2024-03-05/features.parquet: no column {SIGNAL_V1[3]}"):
        train_signal(changed, tmp_path / "out", CONFIG)

    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="features.parquet: not readable as Parquet"):
        train_signal(changed, tmp_path / "out", CONFIG)


def test_stage_when_features_are_nan_or_infinite_in_places_then_these_rows_have_no_forecast(features, tmp_path):
    changed = copy_of(features, tmp_path / "features")
    path = Partition("SIM", "AAA", DATES[-1]).folder(changed) / "features.parquet"
    table = pq.read_table(path, partitioning=None)
    values = table[SIGNAL_V1[0]].to_numpy().copy()
    values[300], values[600] = np.nan, np.inf
    index = table.column_names.index(SIGNAL_V1[0])
    pq.write_table(table.set_column(index, SIGNAL_V1[0], [values]), path)

    train_signal(changed, tmp_path / "out", CONFIG)

    missing = forecasts(tmp_path / "out", DATES[-1])["forecast_missing"].to_numpy()
    for row in (300, 600):
        assert missing[row - 1] == 0 and missing[row : row + CONFIG.window].all() and missing[row + CONFIG.window] == 0
