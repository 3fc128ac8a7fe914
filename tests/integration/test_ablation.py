"""What signals are worth: pairs of bundles of one seed on the same parents, the blind ones without forecasts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from market_folders import synthetic_folders

from feature_repo.errors import InputError
from feature_repo.lake import list_partitions
from feature_repo.ticks.synthetic import latent_signal
from serving.contracts.bundle import write_bundle
from serving.contracts.observation import ACTION_NAMES, CROSS, OBSERVATION_NAMES, PLACE
from training.evaluation.ablation import ablate_signals
from training.evaluation.config import EvaluationConfig
from training.execution.config import ExecutionConfig
from training.execution.export import masked_policy_model

PARENTS = {"horizon_s": 300, "lots": 40, "start_every_s": 300}
CONFIG = EvaluationConfig(draws=499, execution=PARENTS)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Features of two synthetic days, and forecasts that are the planted signal itself."""
    root = tmp_path_factory.mktemp("market")
    _, features = synthetic_folders(root, days=2, hours=1.5, strength=1.0)
    forecasts = root / "forecasts"
    for item in list_partitions(features, "features.parquet"):
        stamps = pq.read_table(item.folder(features) / "features.parquet", columns=["ts_ns"])["ts_ns"].to_numpy()
        seconds, signal = latent_signal({"hours": 1.5, "days": 2, "strength": 1.0}, item)
        value = signal[np.clip(np.searchsorted(seconds, stamps, side="right") - 1, 0, None)].astype(np.float32)
        columns = {"ts_ns": stamps, **{f"forecast_{h}s_bps": value for h in (10, 30, 60)}}
        columns["forecast_missing"] = np.zeros(len(stamps), np.int8)
        item.folder(forecasts).mkdir(parents=True)
        pq.write_table(pa.table(columns), item.folder(forecasts) / "forecasts.parquet")
    return features, forecasts


def bundle(folder: Path, seed: int, trust: float) -> Path:
    """Rests, and crosses where `trust` times the side-signed forecast of 10 s exceeds a half."""
    from onnx import helper

    weights = np.zeros((len(OBSERVATION_NAMES), len(ACTION_NAMES)), np.float32)
    weights[OBSERVATION_NAMES.index("forecast_10s_bps"), CROSS] = trust
    bias = np.full(len(ACTION_NAMES), -9.0, np.float32)
    bias[PLACE], bias[CROSS] = 1.0, 0.5
    nodes = [helper.make_node("Gemm", ["observation", "w", "b"], ["raw_logits"])]
    model = masked_policy_model(
        nodes, {"w": weights, "b": bias}, "raw_logits", len(OBSERVATION_NAMES), len(ACTION_NAMES)
    )
    metadata = {
        "kind": "ppo", "execution": ExecutionConfig(**PARENTS).to_dict(), "feature_names": [], "horizons_s": [],
        "seed": seed, "training_days": ["2025-01-06"], "data_fingerprint": None, "versions": {},
    }  # fmt: skip
    write_bundle(folder, model, None, metadata)
    return folder


def test_ablation_when_bundles_are_equal_then_only_taking_the_forecasts_away_tells_them_apart(market, tmp_path):
    trusting = [bundle(tmp_path / f"trusting{seed}", seed, 1.0) for seed in (7, 11)]
    deaf = [bundle(tmp_path / f"deaf{seed}", seed, 0.0) for seed in (7, 11)]
    none = ablate_signals(*market, deaf, deaf, CONFIG)
    assert none["all"]["diff_bps"] == 0.0 and none["all"]["verdict"] == "not established"
    some = ablate_signals(*market, trusting, trusting, CONFIG)
    against = ablate_signals(*market, trusting, deaf, CONFIG)
    assert some["all"]["diff_bps"] == against["all"]["diff_bps"] != 0.0  # without forecasts the trusting one is deaf
    assert some["all"]["without_bps"] == none["all"]["with_bps"]


def test_ablation_when_done_then_pairs_seeds_and_says_how_sure_it_is(market, tmp_path):
    seeing = [bundle(tmp_path / f"s{seed}", seed, trust) for seed, trust in ((7, 1.0), (11, 0.6))]
    blind = [bundle(tmp_path / f"b{seed}", seed, 0.0) for seed in (7, 11)]
    found = ablate_signals(*market, seeing, blind, CONFIG)
    row = found["all"]
    assert found["test_days"] == ["2025-01-07"] and [item["seed"] for item in found["seeds"]] == [7, 11]
    gains = [item["with signals_bps"] - item["without signals_bps"] for item in found["seeds"]]
    assert row["diff_bps"] == pytest.approx(np.mean(gains)) and gains[0] != gains[1]
    assert row["ci_low"] is None or row["ci_low"] < row["diff_bps"] < row["ci_high"]
    assert row["n_seeds"] == 2 and row["n"] == found["parents"]
    assert found["by_instrument"]["SYN:SYN1"]["diff_bps"] == row["diff_bps"]


def test_ablation_when_seeds_differ_then_refuses(market, tmp_path):
    seeing, blind = [bundle(tmp_path / "s", 7, 1.0)], [bundle(tmp_path / "b", 11, 0.0)]
    with pytest.raises(InputError, match=r"\[7\] with signals, \[11\] without"):
        ablate_signals(*market, seeing, blind, replace(CONFIG, draws=99))
