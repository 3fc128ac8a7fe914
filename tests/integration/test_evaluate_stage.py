"""The evaluate stage on a small market of a random walk: real books, real bundles, the one fill engine."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from feature_repo.ticks.instruments import Instrument, SessionWindow, save_instruments
from training.evaluation.config import EvaluationConfig
from training.evaluation.evaluate import evaluate

DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")
NS = 1_000_000_000
LISTED: dict[str, Any] = {
    "venue": "X", "symbol": "A", "tick_size": 0.01, "lot_size": 1.0, "currency": "USD", "timezone": "America/New_York",
    "windows": (SessionWindow("09:30:00", "11:00:00"),), "depth": 3, "snapshot_data": False, "latency_ns": 1_000_000,
    "synthetic": True,
}  # fmt: skip
CONFIG = EvaluationConfig(draws=499, execution={"horizon_s": 300, "lots": 40, "start_every_s": 300})
BASELINES = {
    "immediate", "random", "twap_market", "twap_passive", "submit_and_leave", "carry", "imbalance_rule", "vwap_market",
    "pov", "almgren_chriss", "ac_matched",
}  # fmt: skip
PARTS = ("spread_bps", "impact_bps", "timing_bps", "fees_bps")


def write_day(root: Path, instrument: Instrument, date: str, rng: np.random.Generator) -> None:
    from feature_repo.pipeline.books import Book, write_book
    from feature_repo.pipeline.kernels import SIGNAL_V1

    ((opens, closes),) = instrument.session_ns(date)
    ts = np.arange(opens + NS, closes, NS // 2, dtype=np.int64)
    count, levels = len(ts), np.arange(3)
    bid = 10_000 + np.cumsum(rng.choice([-1, 0, 0, 0, 1], count))
    ask = bid + rng.choice([1, 2], count)
    sizes = rng.integers(5, 60, (2, count, 3)).astype(np.int32)
    traded = rng.random(count) < 0.3
    aggressor = np.where(traded, rng.choice([-1, 1], count), 0).astype(np.int8)
    price = np.where(aggressor > 0, ask, bid)
    book = Book(
        ts_ns=ts,
        bid_px=(bid[:, None] - levels).astype(np.int32), bid_sz=sizes[0],
        ask_px=(ask[:, None] + levels).astype(np.int32), ask_sz=sizes[1],
        trade_px=np.where(traded, price, 0).astype(np.int32),
        trade_sz=np.where(traded, rng.integers(1, 40, count), 0).astype(np.int32),
        trade_side=aggressor,
    )  # fmt: skip
    folder = Partition(instrument.venue, instrument.symbol, date).folder(root)
    folder.mkdir(parents=True)
    write_book(book, folder / "book.parquet")
    seconds = np.arange(opens, closes, NS, dtype=np.int64)
    columns = {"ts_ns": pa.array(seconds), "book_valid": pa.array(np.ones(len(seconds), np.int8))}
    columns |= {name: pa.array(rng.normal(size=len(seconds)).astype(np.float32)) for name in SIGNAL_V1}
    pq.write_table(pa.table(columns), folder / "features.parquet")


def market(root: Path, synthetic: bool = True, days: tuple[str, ...] = DAYS, close: str = "11:00:00") -> Path:
    window = SessionWindow("09:30:00", close)
    instrument = Instrument(**{**LISTED, "windows": (window,), "synthetic": synthetic})
    rng = np.random.default_rng(5)
    for date in days:
        write_day(root, instrument, date, rng)
    save_instruments([instrument], root)
    return root


def crossing_bundle(folder: Path, training_days: list[str]) -> Path:
    """A bundle that crosses whenever it may: plainly dearer than resting in a market of no drift."""
    from onnx import helper

    from serving.contracts.bundle import write_bundle
    from serving.contracts.observation import ACTION_NAMES, OBSERVATION_NAMES
    from training.execution.config import ExecutionConfig
    from training.execution.export import masked_policy_model

    weights = np.zeros((len(OBSERVATION_NAMES), len(ACTION_NAMES)), np.float32)
    bias = np.array([0.0, 1.0, 0.5, 2.0], np.float32)
    nodes = [helper.make_node("Gemm", ["observation", "w", "b"], ["raw_logits"])]
    model = masked_policy_model(
        nodes, {"w": weights, "b": bias}, "raw_logits", len(OBSERVATION_NAMES), len(ACTION_NAMES)
    )
    metadata = {
        "kind": "ppo", "execution": ExecutionConfig(**CONFIG.execution).to_dict(),
        "feature_names": [], "horizons_s": [], "seed": 3, "training_days": training_days,
        "data_fingerprint": None, "versions": {},
    }  # fmt: skip
    write_bundle(folder, model, None, metadata)
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from training.execution.static_rule import write_bundle_zero

    root = tmp_path_factory.mktemp("bundles")
    write_bundle_zero(root / "zero")
    return {"agent": crossing_bundle(root / "agent", [DAYS[0]]), "champion": root / "zero"}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def evaluated(features: Path, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("out")
    seen: list[tuple[int, int, str]] = []
    summary = evaluate(features, None, bundles, out, CONFIG, lambda *step: seen.append(step))
    return {"out": out, "summary": summary, "result": json.loads((out / "evaluation.json").read_text()), "seen": seen}


def test_evaluate_when_run_then_every_policy_meets_every_parent(evaluated: dict[str, Any]) -> None:
    orders = pq.read_table(evaluated["out"] / "orders.parquet").to_pandas()
    assert set(orders["policy"]) == BASELINES | {"agent", "champion"}
    parents = ["instrument_id", "date", "start_ns", "side", "quantity_lots"]
    first = orders[orders["policy"] == "agent"][parents].reset_index(drop=True)
    for name in set(orders["policy"]):
        assert first.equals(orders[orders["policy"] == name][parents].reset_index(drop=True))
    assert set(orders["date"]) == {DAYS[-1]}  # held-out days only
    assert (first["side"] == 1).sum() == (first["side"] == -1).sum() > 10


def test_evaluate_when_run_then_parts_of_every_order_sum_to_its_cost(evaluated: dict[str, Any]) -> None:
    orders = pq.read_table(evaluated["out"] / "orders.parquet").to_pandas()
    assert np.allclose(orders[list(PARTS)].sum(axis=1), orders["is_bps"], atol=1e-9)
    assert orders["completion"].between(0, 1).all() and orders["passive_share"].between(0, 1).all()
    for row in evaluated["result"]["policies"].values():
        assert sum(row[part] for part in PARTS) == pytest.approx(row["mean_is_bps"])


def test_evaluate_when_agent_is_worse_then_established_as_dearer_never_as_better(evaluated: dict[str, Any]) -> None:
    primary = evaluated["result"]["comparisons"][0]
    assert (primary["a"], primary["instrument"], primary["primary"]) == ("agent", "X:A", True)
    assert primary["mean_diff_bps"] > 0
    assert primary["verdict"] != "lower cost"
    assert not evaluated["result"]["policies"]["agent"]["established"]
    assert {row["cause"] for row in evaluated["result"]["limits"]} >= {"behaviour"}


def test_evaluate_when_run_then_the_opponent_is_the_best_baseline_of_the_validation_day(
    evaluated: dict[str, Any],
) -> None:
    result = evaluated["result"]
    tuned = result["tuning"]["by_instrument"]["X:A"]
    assert result["tuning"]["days"] == result["splits"]["validation_days"] == [DAYS[1]]
    assert set(tuned["chosen"]) == BASELINES
    best = min(tuned["chosen"], key=lambda name: tuned["chosen"][name]["mean_is_bps"])
    assert result["opponents"] == {"X:A": best} and result["comparisons"][0]["b"] == best
    for trial in tuned["trials"]:
        assert trial["mean_is_bps"] >= tuned["chosen"][trial["policy"]]["mean_is_bps"]
    assert [item["primary"] for item in result["comparisons"]].count(True) == 1
    pairs = [(item["a"], item["b"]) for item in result["comparisons"]]
    assert ("agent", "champion") in pairs and len(pairs) == len(set(pairs))  # what promotion reads


def test_evaluate_when_the_test_day_is_another_then_baselines_and_opponent_are_the_same(
    evaluated: dict[str, Any], bundles: dict[str, Path], tmp_path: Path
) -> None:
    root = market(tmp_path / "features")
    instrument = Instrument(**LISTED)
    for file in Partition("X", "A", DAYS[-1]).folder(root).iterdir():
        file.unlink()
    Partition("X", "A", DAYS[-1]).folder(root).rmdir()
    write_day(root, instrument, DAYS[-1], np.random.default_rng(99))
    evaluate(root, None, bundles, tmp_path, CONFIG)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["tuning"] == evaluated["result"]["tuning"] and found["opponents"] == evaluated["result"]["opponents"]
    assert found["policies"] != evaluated["result"]["policies"]


def test_evaluate_when_run_then_embargo_latency_and_calibration_are_stated(evaluated: dict[str, Any]) -> None:
    result = evaluated["result"]
    splits = result["splits"]
    assert splits["test_days"] == [DAYS[-1]] and splits["train_days"] == list(DAYS[:-1])
    assert splits["embargo_held"] and splits["gap_ns"] > splits["embargo_ns"] > 300 * NS
    assert splits["parents_left_out"] == 0
    assert result["latency"] == {"X:A": "1 ms"}
    assert result["calibration"]["X:A"]["sigma_bps"] > 0 and result["calibration"]["X:A"]["eta_bps"] > 0
    assert result["fill_model"] == "conservative" and result["clusters"] == "half hour"


def test_evaluate_when_run_then_report_says_synthetic_and_progress_reaches_the_end(evaluated: dict[str, Any]) -> None:
    page = (evaluated["out"] / "report.html").read_text()
    assert "SYNTHETIC" in page.split("</title>")[0][-80:]
    assert "One order, worked" in page and "One training seed was evaluated" in page
    assert evaluated["summary"]["report"] == "report.html"
    assert evaluated["seen"][-1] == (13, 13, "policies")
    assert set(evaluated["summary"]["policies"]) == BASELINES | {"agent", "champion"}


def test_evaluate_when_run_again_then_bytes_are_the_same(
    evaluated: dict[str, Any], features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    evaluate(features, None, bundles, tmp_path, CONFIG)
    for path in sorted(evaluated["out"].iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_evaluate_when_two_names_hold_one_bundle_then_no_difference_is_claimed(
    features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    twins = {"agent": bundles["champion"], "champion": bundles["champion"]}
    summary = evaluate(features, None, twins, tmp_path, CONFIG)
    (twin,) = [item for item in summary["comparisons"] if item["b"] == "champion"]
    assert twin["mean_diff_bps"] == 0.0 and twin["p"] == 1.0 and not twin["established"]


def test_evaluate_when_market_is_real_then_nothing_says_synthetic(bundles: dict[str, Path], tmp_path: Path) -> None:
    root = market(tmp_path / "features", synthetic=False, days=DAYS[1:], close="10:00:00")
    (tmp_path / "out").mkdir()
    evaluate(root, None, bundles, tmp_path / "out", CONFIG)
    assert "SYNTHETIC" not in (tmp_path / "out" / "report.html").read_text().split("</title>")[0][-80:]
    assert "SYNTHETIC" not in (tmp_path / "out" / "tca_table.md").read_text()


def test_evaluate_when_bundle_was_trained_on_a_test_day_then_refused(features: Path, tmp_path: Path) -> None:
    seen = crossing_bundle(tmp_path / "agent", list(DAYS))
    with pytest.raises(InputError, match=f"trained on test day {DAYS[-1]}"):
        evaluate(features, None, {"agent": seen}, tmp_path, CONFIG)


def test_evaluate_when_bundle_takes_a_baselines_name_then_refused(
    features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="twap_market is the name of a baseline"):
        evaluate(features, None, {"agent": bundles["agent"], "twap_market": bundles["champion"]}, tmp_path, CONFIG)


def test_evaluate_when_no_day_is_before_the_test_then_default_baselines_meet_a_fixed_opponent(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    root = market(tmp_path / "features", days=DAYS[-1:], close="10:30:00")
    agent = {"agent": bundles["agent"]}
    summary = evaluate(root, None, agent, tmp_path, replace(CONFIG, untuned=True))
    primary = summary["comparisons"][0]
    assert (primary["b"], primary["primary"], summary["opponents"]) == (
        "imbalance_rule",
        True,
        {"X:A": "imbalance_rule"},
    )
    assert any(line.startswith("No day before the test days was there") for line in summary["verdicts"])
    assert "Baselines, tuned on validation days" not in (tmp_path / "report.html").read_text()


def continuous_bundle(folder: Path) -> Path:
    """A continuous policy that answers the same all day: rest most of what is due, cross none."""
    from onnx import TensorProto, helper, numpy_helper

    from serving.contracts.actions import CONTINUOUS_NAMES
    from serving.contracts.bundle import write_bundle
    from serving.contracts.observation import ACTION_NAMES, OBSERVATION_NAMES
    from training.execution.config import ExecutionConfig

    width, actions, answers = len(OBSERVATION_NAMES), len(ACTION_NAMES), len(CONTINUOUS_NAMES)
    nodes = [
        helper.make_node("MatMul", ["observation", "w"], ["zero"]),
        helper.make_node("Add", ["zero", "bias"], ["action"]),
        helper.make_node("MatMul", ["action_mask", "m"], ["parameters"]),
    ]
    constants = {
        "w": np.zeros((width, answers), np.float32), "bias": np.full((1, answers), 0.5, np.float32),
        "m": np.zeros((actions, 2 * answers), np.float32),
    }  # fmt: skip
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in sizes.items()]
        for sizes in (
            {"observation": width, "action_mask": actions},
            {"parameters": 2 * answers, "action": answers},
        )
    ]
    graph = helper.make_graph(
        nodes, "policy", *ports, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = {
        "kind": "ppo", "execution": ExecutionConfig(actions="continuous", **CONFIG.execution).to_dict(),
        "feature_names": [], "horizons_s": [], "seed": 3, "training_days": [DAYS[0]],
        "data_fingerprint": None, "versions": {},
    }  # fmt: skip
    write_bundle(folder, model.SerializeToString(), None, metadata)
    return folder


def test_evaluate_when_the_agent_answers_with_continuous_actions_then_it_meets_the_same_parents_as_all(
    features: Path, bundles: dict[str, Path], evaluated: dict[str, Any], tmp_path: Path
) -> None:
    agent = continuous_bundle(tmp_path / "agent")
    (tmp_path / "out").mkdir()
    found = evaluate(features, None, {"agent": agent, "champion": bundles["champion"]}, tmp_path / "out", CONFIG)
    others = evaluated["summary"]["policies"]
    for name in ("champion", "random", "twap_market", "carry"):
        assert found["policies"][name]["mean_is_bps"] == others[name]["mean_is_bps"]
    assert found["policies"]["agent"]["mean_is_bps"] not in {row["mean_is_bps"] for row in others.values()}


def test_evaluate_when_zero_latency_is_to_be_the_headline_then_refused(
    features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    config = replace(CONFIG, execution={**CONFIG.execution, "latency_ns": 0})
    with pytest.raises(InputError, match="zero latency is a sensitivity"):
        evaluate(features, None, bundles, tmp_path, config)


def test_evaluate_when_there_is_one_day_then_says_to_widen(bundles: dict[str, Path], tmp_path: Path) -> None:
    root = market(tmp_path / "features", days=DAYS[:1], close="09:50:00")
    with pytest.raises(InputError, match="no day left to test on"):
        evaluate(root, None, bundles, tmp_path, CONFIG)


def test_evaluate_when_all_is_played_then_strata_and_markets_say_what_counts(
    features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    config = replace(CONFIG, sizes_adv=(0.001, 0.05), horizons_s=(300, 600), sensitivities=True)
    evaluate(features, None, bundles, tmp_path, config)
    result = json.loads((tmp_path / "evaluation.json").read_text())
    small = [row for row in result["strata"] if row["size_adv"] == 0.001]
    assert [row["horizon_s"] for row in small] == [300, 600] and all(row["counted"] for row in small)
    for row in small:
        assert row["n"] > 0 and {"agent", "champion", "twap_market"} <= set(row["policies"])
        assert [item["instrument"] for item in row["comparisons"]] == ["X:A"]
        assert not row["comparisons"][0]["primary"]
    (large,) = [row for row in result["strata"] if row["size_adv"] == 0.05]
    assert not large["counted"] or large["world"] != "replay"  # never without impact
    names = {row["name"] for row in result["sensitivities"] if row["available"]}
    assert {"fill model expected", "fill model optimistic", "zero latency"} <= names
    assert [row["name"] for row in result["sensitivities"] if not row["decides"]] == ["zero latency"]
    assert set(result["survival"]) == {"X:A"}
    page = (tmp_path / "report.html").read_text()
    assert "Sizes and horizons" in page and "Other worlds and fill models" in page
    assert all(row["p_adjusted"] >= row["p"] for row in result["comparisons"] if not row["primary"])


def test_evaluate_when_several_seeds_are_given_then_the_primary_is_of_their_mean(
    features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    seeds = [bundles["agent"], bundles["champion"]]
    summary = evaluate(features, None, bundles, tmp_path, CONFIG, seed_bundles=seeds)
    primary = summary["comparisons"][0]
    assert primary["primary"] and primary["n_seeds"] == 2
    means = [summary["policies"][name]["mean_is_bps"] for name in ("agent", "champion", primary["b"])]
    assert primary["mean_diff_bps"] == pytest.approx((means[0] + means[1]) / 2 - means[2])
    assert any("mean of 2 training seeds" in line for line in summary["verdicts"])
    told = json.loads((tmp_path / "evaluation.json").read_text())["seeds"]
    assert [row["mean_is_bps"] for row in told] == pytest.approx(means[:2])


def test_evaluate_when_a_test_day_was_opened_before_then_the_report_says_how_often(
    features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    summary = evaluate(features, None, bundles, tmp_path, CONFIG, opened_before={DAYS[-1]: 2})
    assert f"{DAYS[-1]} was opened before, by 2 evaluations: no fresh test." in summary["verdicts"]
    assert json.loads((tmp_path / "evaluation.json").read_text())["opened_before"] == {DAYS[-1]: 2}


def test_evaluate_when_the_planted_signal_is_known_then_the_share_of_its_worth_is_reported_and_nobody_competes_with_it(
    tmp_path: Path,
) -> None:
    from market_folders import synthetic_folders

    _, features = synthetic_folders(tmp_path, days=3, hours=1.5)
    agent = crossing_bundle(tmp_path / "agent", ["2025-01-06"])
    planted = {"days": 3, "hours": 1.5, "dirt": 0.0}
    out = tmp_path / "out"
    out.mkdir()
    summary = evaluate(features, None, {"agent": agent}, out, CONFIG, planted=planted)
    result = json.loads((out / "evaluation.json").read_text())
    row = result["distance_closed"]["SYN:SYN1"]
    means = {name: figures["mean_is_bps"] for name, figures in result["policies"].items()}
    assert row["opponent"] == result["opponents"]["SYN:SYN1"] != "planted_signal"
    for name, key in (("agent", "agent_bps"), (row["opponent"], "opponent_bps"), ("planted_signal", "rule_bps")):
        assert row[key] == pytest.approx(means[name])
    assert row["share"] == pytest.approx((row["opponent_bps"] - row["agent_bps"]) / row["distance_bps"])
    assert not row["half"] and "planted signal" in summary["verdicts"][-1]
    assert "planted_signal" not in {item[side] for item in result["comparisons"] for side in ("a", "b")}
    trials = result["tuning"]["by_instrument"]["SYN:SYN1"]["trials"]
    assert "planted_signal" not in {trial["policy"] for trial in trials}


def test_evaluate_when_no_planted_signal_is_known_then_no_policy_sees_one(evaluated: dict[str, Any]) -> None:
    assert evaluated["result"]["distance_closed"] == {}
    assert "planted_signal" not in evaluated["result"]["policies"]


def test_evaluate_when_the_market_is_no_synthetic_one_then_its_options_are_refused(
    features: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing was planted there"):
        evaluate(features, None, bundles, tmp_path, CONFIG, planted={})
