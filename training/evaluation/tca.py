"""Transaction cost analysis: from one row a parent order and policy to the figures that report and gate read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError, ShortfallError
from training.evaluation.statistics import (
    ClusterBootstrap,
    Comparison,
    Interval,
    NonFiniteError,
    UnpairedError,
    adjust_family,
    cluster_labels,
    compare,
    cvar,
    win_rate,
)

ORDER_DTYPE = np.dtype(
    [
        ("instrument_id", "U48"),
        ("date", "U10"),  # session date, ISO
        ("start_ns", np.int64),  # arrival of the parent, UTC
        ("side", np.int8),  # 1 buy, -1 sell
        ("quantity_lots", np.int64),
        ("is_bps", np.float64),  # implementation shortfall, fees included; above zero is a cost
        ("spread_bps", np.float64),  # the four parts sum to is_bps
        ("impact_bps", np.float64),
        ("timing_bps", np.float64),
        ("fees_bps", np.float64),
        ("passive_share", np.float64),  # of the filled quantity, filled while resting
        ("completion", np.float64),  # share of the quantity filled before the forced completion at the horizon
        ("extrapolated_share", np.float64),  # of the quantity, filled beyond the visible book
    ]
)
"""One parent order as one policy traded it. `Mapping[str, array of this]` is what the analysis reads."""

PARENT_FIELDS = ["instrument_id", "date", "start_ns", "side", "quantity_lots"]
COST_FIELDS = ("spread_bps", "impact_bps", "timing_bps", "fees_bps")
SHARE_FIELDS = ("passive_share", "completion", "extrapolated_share")
_TOLERANCE_BPS = 1e-6


class DecompositionError(ShortfallError):
    """The parts of a cost do not sum to it: the engine that made them is at fault, not the data."""


@dataclass(frozen=True)
class Family:
    """The comparisons declared before any test order is seen."""

    agent: str = "agent"  # compared with every other policy
    champion: str = "champion"  # agent against champion is the one primary comparison
    reference: str = "twap_market"  # win rates are against it; compared with the champion too


Orders = Mapping[str, NDArray[np.void]]


def check_orders(orders: Orders) -> None:
    """Refuse orders that no paired figure may be computed from.

    Raises UnpairedError unless every policy holds the same parents in the same order, NonFiniteError for a cost that is
    NaN or infinite, DecompositionError where parts do not sum to the cost, InputError where there is no order at all.
    """
    if not orders or not all(len(rows) for rows in orders.values()):
        empty = [name for name, rows in orders.items() if not len(rows)]
        raise InputError(f"no parent order to evaluate ({', '.join(empty) or 'no policy'}): take more test days")
    first_name, first = next(iter(orders.items()))
    for name, rows in orders.items():
        if rows.dtype != ORDER_DTYPE:
            raise InputError(f"{name}: orders have fields {rows.dtype.names}, wanted {ORDER_DTYPE.names}")
        if len(rows) != len(first):
            raise UnpairedError(f"{name} has {len(rows)} parents and {first_name} {len(first)}: give both the same")
        for field in PARENT_FIELDS:
            differs = np.flatnonzero(rows[field] != first[field])
            if len(differs):
                row = int(differs[0])
                raise UnpairedError(
                    f"parent {row}: {field} is {rows[field][row]} for {name} and {first[field][row]} for {first_name}"
                )
        _check_costs(name, rows)


def _check_costs(name: str, rows: NDArray[np.void]) -> None:
    for field in ("is_bps", *COST_FIELDS, *SHARE_FIELDS):
        bad = np.flatnonzero(~np.isfinite(rows[field]))
        if len(bad):
            row = int(bad[0])
            raise NonFiniteError(f"{name}: {field} of parent {row} is {rows[field][row]} ({_describe(rows[row])})")
    total = np.sum([rows[field] for field in COST_FIELDS], axis=0)
    off = np.abs(total - rows["is_bps"]) > _TOLERANCE_BPS * (1.0 + np.abs(rows["is_bps"]))
    if off.any():
        row = int(np.argmax(off))
        raise DecompositionError(
            f"{name}: parts of parent {row} sum to {total[row]:.6f} bps, its cost is {rows['is_bps'][row]:.6f} bps "
            f"({_describe(rows[row])})"
        )


def _describe(row: np.void) -> str:
    return f"{row['instrument_id']} {row['date']} start_ns {row['start_ns']} side {row['side']}"


def analyse(orders: Orders, family: Family, rng: np.random.Generator, draws: int, alpha: float) -> dict[str, Any]:
    """Every figure of the evaluation, JSON-able and free of clocks and paths; costs in bps, shares in 0 to 1.

    Keys: `clusters`, `n_clusters`, `n_parents`, `policies`, `comparisons`, `by_instrument`, `by_side`. A bound of an
    interval is None where there are too few clusters to have one. Errors as `check_orders`.
    """
    check_orders(orders)
    parents = next(iter(orders.values()))
    labels, kind = cluster_labels(parents["start_ns"], parents["date"])
    bootstrap = ClusterBootstrap(labels, rng, draws)
    comparisons = adjust_family(_declared(orders, family, bootstrap, alpha), alpha)
    beaten = {item.b: item.verdict == "lower cost" for item in comparisons if item.a == family.agent}
    reference = orders[family.reference]["is_bps"] if family.reference in orders else None
    policies = {}
    for name, rows in orders.items():
        figures = _figures(rows, bootstrap.interval(rows["is_bps"], alpha))
        figures["win_rate"] = None if reference is None else win_rate(rows["is_bps"], reference)
        figures["established"] = beaten.get(family.champion if name == family.agent else name, False)
        policies[name] = figures
    return {
        "clusters": kind,
        "n_clusters": bootstrap.n_clusters,
        "n_parents": len(parents),
        "policies": policies,
        "comparisons": [_comparison_row(item) for item in comparisons],
        "by_instrument": _by(orders, parents["instrument_id"], labels, rng, draws, alpha),
        "by_side": _by(orders, np.where(parents["side"] > 0, "buy", "sell"), labels, rng, draws, alpha),
    }


def _declared(orders: Orders, family: Family, bootstrap: ClusterBootstrap, alpha: float) -> list[Comparison]:
    """Agent against champion (primary), agent against every other policy, and champion against the reference."""
    pairs = [(family.agent, name) for name in orders if family.agent in orders and name != family.agent]
    if family.champion in orders and family.reference in orders:
        pairs.append((family.champion, family.reference))
    pairs.sort(key=lambda pair: pair != (family.agent, family.champion))
    return [
        compare(
            orders[a]["is_bps"],
            orders[b]["is_bps"],
            bootstrap,
            a=a,
            b=b,
            primary=(a, b) == (family.agent, family.champion),
            alpha=alpha,
        )
        for a, b in pairs
    ]


def _figures(rows: NDArray[np.void], interval: Interval) -> dict[str, Any]:
    costs = rows["is_bps"]
    return {
        "mean_is_bps": interval.mean,
        "ci_low": _bound(interval.low),
        "ci_high": _bound(interval.high),
        "n": len(rows),
        "median": float(np.median(costs)),
        "sd": float(costs.std(ddof=1)) if len(rows) > 1 else 0.0,
        "cvar95": cvar(costs),
        **{field: float(rows[field].mean()) for field in (*SHARE_FIELDS, *COST_FIELDS)},
    }


def _comparison_row(item: Comparison) -> dict[str, Any]:
    return {**asdict(item), "ci_low": _bound(item.ci_low), "ci_high": _bound(item.ci_high)}


def _bound(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _by(
    orders: Orders,
    keys: NDArray[np.str_],
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    draws: int,
    alpha: float,
) -> dict[str, dict[str, Any]]:
    """Mean cost and interval of each policy within each value of `keys` (N,); descriptive, no claims are made of it."""
    found: dict[str, dict[str, Any]] = {}
    for key in np.unique(keys):
        chosen = keys == key
        bootstrap = ClusterBootstrap(labels[chosen], rng, draws)
        found[str(key)] = {}
        for name, rows in orders.items():
            interval = bootstrap.interval(rows["is_bps"][chosen], alpha)
            found[str(key)][name] = {
                "mean_is_bps": interval.mean,
                "ci_low": _bound(interval.low),
                "ci_high": _bound(interval.high),
                "n": interval.n,
            }
    return found


def sentences(result: Mapping[str, Any], labels: Mapping[str, str], seeds: Sequence[int]) -> list[str]:
    """The verdicts in words, primary first: what is established with its figures, and what is not."""
    lines = []
    for item in result["comparisons"]:
        a, b = labels.get(item["a"], item["a"]), labels.get(item["b"], item["b"])
        mean, interval = item["mean_diff_bps"], interval_text(item["ci_low"], item["ci_high"])
        figures = f"mean difference {mean:+.3f} bps, 95% interval {interval}, {_p_text(item)}"
        if item["established"]:
            than = "less" if mean < 0 else "more"
            lines.append(f"Established: {a} costs {abs(mean):.3f} bps {than} than {b} ({figures}).")
        else:
            lines.append(f"Not established: that {a} and {b} differ in cost ({figures}; {item['why_not']}).")
    if result["clusters"] == "half hour":
        lines.append("Too few test days to resample: intervals are over half-hours and say nothing of other days.")
    if len(seeds) < 2:
        lines.append("One training seed was evaluated: nothing is claimed about other seeds.")
    return lines


def _p_text(item: Mapping[str, Any]) -> str:
    if item["primary"]:
        return f"p = {item['p']:.4f}, pre-registered primary comparison"
    return f"Holm-adjusted p = {item['p_adjusted']:.4f}"


def interval_text(low: float | None, high: float | None) -> str:
    """`[-0.12, 0.34]` in bps, or a dash where there is no interval."""
    return "–" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
