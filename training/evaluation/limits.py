"""What holds an agent back where nothing is established: one finding a cause, each with the figures it rests on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Finding = dict[str, Any]


def limits(
    result: Mapping[str, Any],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    skill: Sequence[Mapping[str, Any]],
) -> list[Finding]:
    """Findings `{cause, instrument, text, figures}` for every primary comparison that does not claim a lower cost.

    Causes: power, data, fill model, features, training. Nothing is said where the figures for it are not there.
    """
    found: list[Finding] = []
    for item in result["comparisons"]:
        if not item["primary"] or item["verdict"] == "lower cost":
            continue
        found += [finding for finding in (_power(item), _data(item, result)) if finding]
        found += [finding for finding in (_fill_model(item, result), _cost(item, result)) if finding]
    if found:
        found += [
            finding for finding in (_features(skill), _training(curves), _opponent_on_validation(result)) if finding
        ]
    return found


def _finding(cause: str, instrument: str, text: str, **figures: Any) -> Finding:
    return {"cause": cause, "instrument": instrument, "text": text, "figures": figures}


def _power(item: Mapping[str, Any]) -> Finding | None:
    detectable, mean = item["detectable_bps"], item["mean_diff_bps"]
    if detectable is None:
        text = f"{item['n_clusters']} clusters give no interval: no difference of any size could be established."
        return _finding("power", item["instrument"], text, clusters=item["n_clusters"])
    if abs(mean) >= detectable:
        return None
    text = (
        f"the test finds a true difference of {detectable:.3f} bps in four of five repetitions; "
        f"the observed one is {mean:+.3f} bps."
    )
    return _finding("power", item["instrument"], text, detectable_bps=detectable, mean_diff_bps=mean)


def _data(item: Mapping[str, Any], result: Mapping[str, Any]) -> Finding | None:
    """How many such test samples would establish a difference of the observed size: the error falls with their root."""
    detectable, mean = item["detectable_bps"], item["mean_diff_bps"]
    if detectable is None or mean >= 0.0 or -mean >= detectable:
        return None
    times = (detectable / mean) ** 2
    days = len(result["splits"]["test_days"])
    text = (
        f"a difference of the observed size would need about {math.ceil(times * days)} test days instead of {days} "
        "to be found in four of five repetitions."
    )
    return _finding("data", item["instrument"], text, test_days=days, needed_days=math.ceil(times * days))


def _fill_model(item: Mapping[str, Any], result: Mapping[str, Any]) -> Finding | None:
    key = item["instrument"]
    means = {
        row["name"]: row["by_instrument"][key]["mean_diff_bps"]
        for row in result.get("sensitivities", ())
        if row["available"] and key in row["by_instrument"]
    }
    if not means:
        return None
    low, high = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    text = (
        f"the difference lies between {means[low]:+.3f} bps ({low}) and {means[high]:+.3f} bps ({high}) "
        f"in the other markets; in the headline's it is {item['mean_diff_bps']:+.3f} bps."
    )
    return _finding("fill model", key, text, **means)


def _cost(item: Mapping[str, Any], result: Mapping[str, Any]) -> Finding | None:
    """Which part of the cost the agent loses to the opponent, over all instruments."""
    a, b = result["policies"].get(item["a"]), result["policies"].get(item["b"])
    if a is None or b is None:
        return None
    parts = {part: a[f"{part}_bps"] - b[f"{part}_bps"] for part in ("spread", "impact", "timing", "fees")}
    worst = max(parts, key=lambda part: parts[part])
    if parts[worst] <= 0.0:
        return None
    shares = (
        f"{100 * a['passive_share']:.0f}% of its lots fill at rest, {100 * b['passive_share']:.0f}% of the opponent's"
    )
    text = f"the agent pays {parts[worst]:+.3f} bps more {worst} cost than {item['b']}, its largest loss; {shares}."
    return _finding("behaviour", item["instrument"], text, **parts)


def _features(skill: Sequence[Mapping[str, Any]]) -> Finding | None:
    tested = [row for row in skill if row["days"] == "test days"] or list(skill)
    if not tested:
        return None
    best = max(tested, key=lambda row: row["r2"])
    text = f"the forecasts explain {100 * best['r2']:.2f}% of the mid's moves at best, at {best['horizon_s']} s."
    return _finding("features", "all", text, **{f"r2_{row['horizon_s']}s": row["r2"] for row in tested})


def _training(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Finding | None:
    """Whether the validation cost was still falling in the last third of the training, over its seeds."""
    slopes = []
    for _, values in curves.values():
        third = max(1, len(values) // 3)
        if len(values) >= 4:
            slopes.append(sum(values[-third:]) / third - sum(values[-2 * third : -third]) / third)
    if not slopes:
        return None
    change = sum(slopes) / len(slopes)
    how = "was still falling" if change < -0.005 else "had stopped falling"
    text = f"the validation cost {how}: its mean over the last third of the training changed by {change:+.3f} bps."
    return _finding("training", "all", text, change_bps=change, seeds=len(slopes))


def _opponent_on_validation(result: Mapping[str, Any]) -> Finding | None:
    """How far the opponents' validation costs lay from their test costs: what choosing on so few days is worth."""
    chosen = result.get("tuning", {}).get("by_instrument", {})
    moves = {
        key: result["by_instrument"][key][entry["opponent"]]["mean_is_bps"]
        - entry["chosen"][entry["opponent"]]["mean_is_bps"]
        for key, entry in chosen.items()
        if key in result["by_instrument"]
    }
    if not moves:
        return None
    said = ", ".join(f"{key} {move:+.3f} bps" for key, move in moves.items())
    text = f"the opponents cost more or less on the test days than on the validation days they were chosen on: {said}."
    return _finding("data", "all", text, **moves)
