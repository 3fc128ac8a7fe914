"""How much of what the planted signal is worth an agent makes: its place between the opponent and a rule that sees it.

For the synthetic market only. The rule (`training.execution.clairvoyant`) is tuned on the validation days like a
baseline, never an opponent and in no family of comparisons.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.statistics import ClusterBootstrap, cluster_labels, compare
from training.evaluation.tca import interval_text
from training.execution.clairvoyant import NEVER, ORACLE, PlantedSignal, SignalRule

if TYPE_CHECKING:
    from training.evaluation.tca import Orders
    from training.evaluation.tuning import Params
    from training.execution.config import ExecutionConfig
    from training.market.day import MarketDay

HALF = 0.5
"""Share of the distance that an agent is asked to close."""
_PACES_S = (2.0, 1.0)  # the signal moves once a second
_AHEAD, _ASIDE, _MORE = (0, 1), (0.7, 0.9, NEVER), (2, 4)
"""Few, so that a validation day decides among them by more than its noise."""


@dataclass(frozen=True)
class Oracle:
    """The tuned rule of each instrument, what it was tuned to, and its mean cost on the validation days."""

    rules: dict[str, SignalRule]
    params: "dict[str, Params]"
    validation_bps: dict[str, float | None]


def tune_oracle(
    days_of_validation: "Sequence[MarketDay]",
    config: "ExecutionConfig",
    planted: Mapping[str, Any],
    instruments: Sequence[str] = (),
) -> Oracle:
    """The cheapest rule of each instrument on the validation days; where there is none, defaults for `instruments`.

    `planted` are the options of the synthetic market. Its paces are two and one second, whatever those of the agent.
    """
    from training.evaluation.tuning import try_policy
    from training.execution.parents import parent_grid

    signal = PlantedSignal(planted)
    pace = _paces(config)[0]
    found = Oracle(
        {key: SignalRule(signal, substeps=pace) for key in instruments},
        {key: {"substeps": pace} for key in instruments},
        dict.fromkeys(instruments, None),
    )
    by_instrument: dict[str, list[MarketDay]] = {}
    for day in days_of_validation:
        by_instrument.setdefault(day.partition.instrument_id, []).append(day)
    for key, days in by_instrument.items():
        parents = parent_grid(days, config)
        trials = [
            try_policy(ORACLE, params, SignalRule(signal, **params), days, parents, config)
            for params in _candidates(config)
        ]
        best, rule = min(trials, key=lambda trial: trial[0].mean_is_bps)
        found.rules[key], found.params[key], found.validation_bps[key] = rule, best.params, best.mean_is_bps
    return found


def _candidates(config: "ExecutionConfig") -> "Iterator[Params]":
    for substeps in _paces(config):
        for ahead in _AHEAD:
            for aside in _ASIDE:
                shared = {"aside": aside, "substeps": substeps, "ahead": ahead}
                yield {**shared, "chase": NEVER}
                yield from ({**shared, "more": more} for more in _MORE)


def _paces(config: "ExecutionConfig") -> list[int]:
    """Decisions a slice nearest to the paces wanted that cut it into whole nanoseconds."""
    found = []
    for pace_s in _PACES_S:
        wanted = max(1, round(config.interval_ns / 1e9 / pace_s))
        found.append(next(n for n in range(wanted, 0, -1) if config.interval_ns % n == 0))
    return list(dict.fromkeys(found))


def distance_closed(
    orders: "Orders",
    agent: str,
    opponents: Mapping[str, str],
    oracle: Oracle,
    rng: np.random.Generator,
    draws: int,
    alpha: float,
    seed_costs: NDArray[np.float64] | None = None,
) -> dict[str, dict[str, Any]]:
    """By instrument: how far the agent has come from its opponent to the rule that sees the signal, on equal parents.

    `share` is (opponent - agent) / (opponent - rule) of the mean costs, None where the rule does not cost less; its
    bounds are Fieller's (1954, "Some problems in interval estimation"), from the cluster bootstrap's errors and
    critical value, None where the distance is not established and so no share is bounded. `half` compares the agent
    with the midpoint of the two. With `seed_costs (S, N)` the agent is the mean of its seeds, as in the primary
    comparison.
    """
    found: dict[str, dict[str, Any]] = {}
    if agent not in orders or ORACLE not in orders:
        return found
    rows = orders[agent]
    costs = rows["is_bps"] if seed_costs is None or len(seed_costs) < 2 else seed_costs
    labels, _ = cluster_labels(rows["start_ns"], rows["date"])
    for key, opponent in opponents.items():
        here = rows["instrument_id"] == key
        if not here.any() or key not in oracle.rules:
            continue
        bootstrap = ClusterBootstrap(labels[here], rng, draws)
        a, b, c = costs[..., here], orders[opponent]["is_bps"][here], orders[ORACLE]["is_bps"][here]
        midpoint = (1 - HALF) * b + HALF * c
        half = compare(a, midpoint, bootstrap, a=agent, b="midpoint", alpha=alpha, instrument=key)
        gain = bootstrap.interval(b - c, alpha)
        share, low, high = _share(np.atleast_2d(a), b, c, bootstrap, alpha)
        found[key] = {
            "opponent": opponent,
            "rule": {**oracle.params[key], "validation_bps": oracle.validation_bps[key]},
            "agent_bps": float(a.mean()),
            "opponent_bps": float(b.mean()),
            "rule_bps": float(c.mean()),
            "distance_bps": gain.mean,
            "distance_low": _bound(gain.low),
            "distance_high": _bound(gain.high),
            "share": share,
            "share_low": low,
            "share_high": high,
            "half": half.verdict == "lower cost",
            "half_diff_bps": half.mean_diff_bps,
            "half_low": _bound(half.ci_low),
            "half_high": _bound(half.ci_high),
        }
    return found


def _share(
    agent: NDArray[np.float64],
    opponent: NDArray[np.float64],
    rule: NDArray[np.float64],
    bootstrap: ClusterBootstrap,
    alpha: float,
) -> tuple[float | None, float | None, float | None]:
    """The share closed and its bounds; `agent` (S, N), one row a training seed."""
    gain, distance = float(opponent.mean() - agent.mean()), float(opponent.mean() - rule.mean())
    if distance <= 0.0:
        return None, None, None
    share = gain / distance

    def beyond(theta: float) -> tuple[float, float]:
        """Squared error and critical value of the mean by which the share `theta` is exceeded."""
        item = bootstrap.interval_over_seeds((1 - theta) * opponent + theta * rule - agent, alpha)
        return item.error**2, (item.high - item.mean) / item.error if item.error > 0.0 else np.inf

    # The squared error is a quadratic in theta: three values give it.
    (at_0, _), (at_1, _), (at_2, _) = beyond(0.0), beyond(1.0), beyond(2.0)
    square = 0.5 * (at_2 - 2.0 * at_1 + at_0)
    cross = at_1 - at_0 - square
    critical = beyond(share)[1] ** 2
    p, q, r = distance**2 - critical * square, -2.0 * gain * distance - critical * cross, gain**2 - critical * at_0
    if not np.isfinite(critical) or p <= 0.0:
        return share, None, None
    root = float(np.sqrt(max(q * q - 4.0 * p * r, 0.0)))
    return share, (-q - root) / (2.0 * p), (-q + root) / (2.0 * p)


def distance_sentences(result: Mapping[str, Any]) -> list[str]:
    """What the shares say, one line an instrument."""
    lines = []
    for key, row in result.get("distance_closed", {}).items():
        low, high = row["distance_low"], row["distance_high"]
        gain = f"{row['distance_bps']:.3f} bps {interval_text(low, high)} below {row['opponent']}"
        if row["share"] is None or low is None or low <= 0.0:
            lines.append(f"On {key} the rule that sees the planted signal costs {gain}: no distance is established.")
            continue
        share = f"{row['share']:.2f} {interval_text(row['share_low'], row['share_high'])}"
        half = "at least half: established" if row["half"] else "at least half: not established"
        lines.append(
            f"On {key} the rule that sees the planted signal costs {gain}; the agent closes {share} of that distance "
            f"({half}, agent less midpoint {row['half_diff_bps']:+.3f} bps "
            f"{interval_text(row['half_low'], row['half_high'])})."
        )
    return lines


def _bound(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
