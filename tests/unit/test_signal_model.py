import numpy as np
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from training.signals.chunks import ChunkBatches, Scales, lay_out, measure_scales
from training.signals.config import NS, SignalConfig
from training.signals.dataset import SignalDay
from training.signals.export import Forecaster, onnx_bytes

FEATURES = 6
CONFIG = SignalConfig(hidden=8, blocks=3, chunk_rows=16, batch_chunks=4)  # L = 8


def signal_day(rows: int, symbol: str = "AAA", scale: float = 1.0, seed: int = 0) -> SignalDay:
    rng = np.random.default_rng(seed)
    forecastable = np.arange(rows) >= CONFIG.window - 1
    moves = rng.normal(0.0, scale, (rows, 3))
    features = rng.normal(2.0, 3.0, (rows, FEATURES))
    ts_ns = np.arange(rows, dtype=np.int64) * NS
    partition = Partition("SIM", symbol, "2024-03-04")
    return SignalDay(partition, ts_ns, features.astype(np.float32), moves.astype(np.float32), forecastable)


def random_net(seed: int = 0):
    import torch

    from training.signals.module import SignalNet

    torch.manual_seed(seed)
    mean, scale = np.linspace(-1.0, 1.0, FEATURES), np.linspace(0.5, 2.0, FEATURES)
    net = SignalNet(mean, scale, np.array([1.0, 2.0, 3.0]), CONFIG)
    with torch.no_grad():
        for parameter in (*net.head.parameters(), *net.linear.parameters()):
            parameter.normal_(0.0, 0.3)
        net.gain.copy_(torch.tensor([1.0, 0.5, 0.0]))
    return net.eval()


def test_new_model_forecasts_no_move():
    import torch

    from training.signals.module import SignalNet

    net = SignalNet(np.zeros(FEATURES), np.ones(FEATURES), np.ones(3), CONFIG)

    assert torch.equal(net(torch.randn(5, CONFIG.window, FEATURES)), torch.zeros(5, 3))


def test_model_over_a_stretch_gives_what_it_gives_window_by_window():
    import torch

    net = random_net()
    stretch = torch.randn(1, 40, FEATURES)

    with torch.no_grad():
        whole = net.standardised(stretch)[0] * (net.target_scale * net.gain)
        single = torch.stack([net(stretch[:, at : at + CONFIG.window])[0] for at in range(40 - CONFIG.window + 1)])

    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-6)


def test_model_sees_each_of_its_rows_and_none_after():
    import torch

    net = random_net()
    stretch = torch.randn(1, 20, FEATURES)
    with torch.no_grad():
        before = net.standardised(stretch)[0]
        for row in range(20):
            changed = stretch.clone()
            changed[0, row] += 1.0
            moved = (net.standardised(changed)[0] != before).any(dim=1).numpy()
            outputs = np.arange(len(moved)) + CONFIG.window - 1  # the row after which each forecast is made
            assert not moved[outputs < row].any()
            assert moved[(outputs >= row) & (outputs < row + CONFIG.window)].all()
            assert not moved[outputs >= row + CONFIG.window].any()


@pytest.mark.parametrize("count", [1, 7, 300])
def test_exported_model_agrees_with_torch_at_every_batch_size(count):
    import torch

    net = random_net()
    rng = np.random.default_rng(count)
    windows = rng.normal(0.0, 5.0, (count, CONFIG.window, FEATURES)).astype(np.float32)

    found = Forecaster(onnx_bytes(net, CONFIG.window))(windows)

    with torch.no_grad():
        expected = net(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected).max() > 0.1 and np.all(found[:, 2] == 0.0)  # the third gain is 0


def test_exported_model_when_exported_twice_then_bytes_are_equal():
    assert onnx_bytes(random_net(), CONFIG.window) == onnx_bytes(random_net(), CONFIG.window)
    assert onnx_bytes(random_net(), CONFIG.window) != onnx_bytes(random_net(1), CONFIG.window)


def test_exported_model_when_row_is_alone_or_in_a_batch_then_forecast_is_bit_identical():
    forecaster = Forecaster(onnx_bytes(random_net(), CONFIG.window))
    features = np.random.default_rng(0).normal(size=(500, FEATURES)).astype(np.float32)
    rows = np.arange(CONFIG.window - 1, 500)

    together = forecaster.forecast_rows(features, rows)
    alone = np.concatenate([forecaster(features[None, row - CONFIG.window + 1 : row + 1]) for row in rows])
    in_odd_batches = forecaster.forecast_rows(features, rows, batch=37)

    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, in_odd_batches)


def test_forecaster_when_file_is_no_model_then_names_it(tmp_path):
    (tmp_path / "signal.onnx").write_bytes(b"not a model")

    with pytest.raises(InputError, match="signal.onnx: not a readable signal model"):
        Forecaster(tmp_path / "signal.onnx")
    with pytest.raises(InputError, match="absent.onnx: not a readable signal model"):
        Forecaster(tmp_path / "absent.onnx")


def test_forecaster_when_windows_have_another_shape_then_is_refused():
    forecaster = Forecaster(onnx_bytes(random_net(), CONFIG.window))

    with pytest.raises(InputError, match=r"takes \(N, 8, 6\)"):
        forecaster(np.zeros((1, 9, FEATURES), np.float32))


def test_batches_hold_every_row_that_counts_once_with_the_rows_before_it():
    days = [signal_day(100), signal_day(61, "BBB", scale=10.0, seed=1)]
    rows = lay_out(days, last_decision_ns=90 * NS)
    scales = measure_scales(rows, rows.usable)

    seen = []
    for inputs, targets, ratios in ChunkBatches(rows, rows.usable, scales, CONFIG, shuffle_seed=3):
        assert inputs.shape[1:] == (CONFIG.window - 1 + CONFIG.chunk_rows, FEATURES)
        assert targets.shape == ratios.shape == (len(inputs), CONFIG.chunk_rows, 3)
        for chunk, output in np.argwhere(np.isfinite(targets.numpy()).any(axis=2)):
            last = inputs[chunk, output + CONFIG.window - 1].numpy()
            (row,) = np.flatnonzero((rows.features == last).all(axis=1))
            window = inputs[chunk, output : output + CONFIG.window].numpy()
            np.testing.assert_array_equal(window, rows.features[row - CONFIG.window + 1 : row + 1])
            own = scales.instrument_bps[rows.instrument[row]]
            np.testing.assert_allclose(targets[chunk, output].numpy() * own, rows.moves_bps[row], rtol=1e-5)
            np.testing.assert_allclose(ratios[chunk, output].numpy() * own, scales.target_bps, rtol=1e-5)
            seen.append(int(row))

    assert sorted(seen) == np.flatnonzero(rows.usable).tolist()
    assert rows.ts_ns[seen].max() == 90 * NS


def test_batches_when_shuffled_then_order_follows_seed_and_epoch_alone():
    rows = lay_out([signal_day(400)], last_decision_ns=10**18)
    scales = measure_scales(rows, rows.usable)

    def order(batches: ChunkBatches) -> list[float]:
        return [float(value) for inputs, _, _ in batches for value in inputs[:, 0, 0]]

    one, two = (ChunkBatches(rows, rows.usable, scales, CONFIG, shuffle_seed=3) for _ in range(2))
    first, second = order(one), order(one)
    assert order(two) == first and order(two) == second
    assert first != second and sorted(first) == sorted(second)
    in_time = order(ChunkBatches(rows, rows.usable, scales, CONFIG, shuffle_seed=None))
    assert in_time == [float(rows.features[start, 0]) for start in range(0, 393, 16)]


def test_batches_when_chunks_are_limited_then_only_training_passes_are():
    rows = lay_out([signal_day(400)], last_decision_ns=10**18)
    scales = measure_scales(rows, rows.usable)
    few = SignalConfig(hidden=8, blocks=3, chunk_rows=16, batch_chunks=4, max_train_chunks=6)

    assert len(ChunkBatches(rows, rows.usable, scales, few, shuffle_seed=0)) == 2
    assert len(ChunkBatches(rows, rows.usable, scales, few, shuffle_seed=None)) == 7


def test_scales_when_instruments_differ_in_length_then_weigh_the_same():
    days = [signal_day(1_000), signal_day(100, "BBB", scale=9.0, seed=1)]
    days[1].features[:] += 10.0
    rows = lay_out(days, last_decision_ns=10**18)

    found = measure_scales(rows, rows.usable)

    one, two = (rows.features[rows.usable & (rows.instrument == i)].mean(axis=0) for i in (0, 1))
    np.testing.assert_allclose(found.mean, (one + two) / 2.0, rtol=1e-4)
    assert found.instrument_bps[1].min() > 5.0 * found.instrument_bps[0].max()
    np.testing.assert_allclose(found.target_bps, found.instrument_bps.mean(axis=0))


def test_scales_when_a_feature_never_varies_or_a_price_never_moves_then_stay_finite():
    day = signal_day(100)
    day.features[:, 2], day.moves_bps[:] = 7.0, 0.0
    rows = lay_out([day], last_decision_ns=10**18)

    found = measure_scales(rows, rows.usable)

    assert isinstance(found, Scales)
    assert found.scale[2] == 1.0 and found.target_bps.min() > 0.0 and found.instrument_bps.min() > 0.0


def test_gain_when_tail_confirms_the_forecast_then_keeps_it_and_else_draws_it_to_zero():
    from training.signals.module import shrunk_gain

    rng = np.random.default_rng(0)
    forecast = rng.normal(size=(200, 64, 3))
    move = np.stack([forecast[..., 0], forecast[..., 1] * 5.0, -forecast[..., 2]], axis=2) + rng.normal(
        size=(200, 64, 3)
    )
    gain = shrunk_gain((forecast * move).sum(axis=1), (forecast**2).sum(axis=1), 4)

    assert gain[0] == pytest.approx(1.0, abs=0.05)
    assert gain[1] == pytest.approx(1.0, abs=0.01)  # held to the largest gain
    assert gain[2] == 0.0
    noise = rng.normal(size=(200, 64, 200))
    drawn = shrunk_gain((rng.normal(size=noise.shape) * noise).sum(axis=1), (noise**2).sum(axis=1), 4)
    assert np.mean(drawn == 0.0) > 0.7 and drawn.max() < 0.05
    assert shrunk_gain(np.ones((8, 1)), np.ones((8, 1)), 4).tolist() == [0.0]  # two blocks say nothing


def test_export_when_torch_threads_were_set_then_training_puts_them_back():
    import torch

    from training.signals.walkforward import single_threaded_torch

    before = torch.get_num_threads()
    with single_threaded_torch(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
