import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from training.signals.apply import apply_signal
from training.signals.dataset import SignalDay, feature_names

DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")
SPEC = {
    "features": list(feature_names()),
    "horizons_s": [10, 30, 60],
    "window": 4,
    "model_version": "abc",
    "train_days": [DAYS[0]],
}


def model():
    """The last row's first feature for every horizon."""
    from onnx import TensorProto, helper, numpy_helper

    width = len(feature_names())
    pick = np.zeros((width, 3), np.float32)
    pick[0] = 1.0
    nodes = [
        helper.make_node("Gather", ["features", "last"], ["row"], axis=1),
        helper.make_node("MatMul", ["row", "pick"], ["forecast_bps"]),
    ]
    graph = helper.make_graph(
        nodes,
        "signal",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4, width])],
        [helper.make_tensor_value_info("forecast_bps", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array(3), "last"), numpy_helper.from_array(pick, "pick")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made.SerializeToString()


@pytest.fixture
def features_dir(tmp_path, monkeypatch):
    from feature_repo.ticks.instruments import Instrument, SessionWindow

    windows = (SessionWindow("09:00:00", "11:00:00"),)
    instrument = Instrument("T", "A", 0.01, 1.0, "USD", "UTC", windows, 2, False, 10_000_000, True)
    partitions = [Partition("T", "A", date) for date in DAYS]
    monkeypatch.setattr("training.signals.apply.list_partitions", lambda *_: partitions)
    monkeypatch.setattr("training.signals.apply.load_instruments", lambda *_: {instrument.instrument_id: instrument})

    def load(folder, item, instrument, horizons_s, window):
        rows = 20
        features = np.random.default_rng(int(item.date[-2:])).normal(size=(rows, len(feature_names())))
        known = np.arange(rows) >= window - 1
        ts_ns = np.arange(rows, dtype=np.int64) * 1_000_000_000
        moves = np.zeros((rows, len(horizons_s)), np.float32)
        return SignalDay(item, ts_ns, features.astype(np.float32), moves, known)

    monkeypatch.setattr("training.signals.apply.load_day", load)
    return tmp_path / "features", load


def test_signal_when_applied_then_known_days_are_missing_and_later_ones_are_its_forecasts(features_dir, tmp_path):
    folder, load = features_dir
    out = tmp_path / "out"
    assert apply_signal(folder, out, model(), SPEC) == {"days": 3, "model_version": "abc", "last_seen": DAYS[0]}
    for date in DAYS:
        item = Partition("T", "A", date)
        table = pq.read_table(item.folder(out) / "forecasts.parquet").to_pydict()
        day = load(None, item, None, SPEC["horizons_s"], SPEC["window"])
        fresh = date > DAYS[0]
        missing = ~(day.forecastable & fresh)
        np.testing.assert_array_equal(np.array(table["forecast_missing"], bool), missing)
        assert set(table["model_version"]) == ({"abc"} if fresh else {""})
        for horizon in SPEC["horizons_s"]:
            wanted = np.where(missing, 0.0, day.features[:, 0]).astype(np.float32)
            np.testing.assert_array_equal(np.array(table[f"forecast_{horizon}s_bps"], np.float32), wanted)


def test_signal_when_its_spec_is_not_whole_or_for_other_features_then_refuses(features_dir, tmp_path):
    folder, _ = features_dir
    with pytest.raises(InputError, match="without window"):
        apply_signal(folder, tmp_path / "out", model(), {k: v for k, v in SPEC.items() if k != "window"})
    with pytest.raises(InputError, match="reads 1 features, these are others"):
        apply_signal(folder, tmp_path / "out", model(), {**SPEC, "features": ["spread"]})
