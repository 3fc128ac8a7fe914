"""Transaction cost analysis: from one row a parent order and policy to the figures that report and gate read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from training.execution.clairvoyant import ORACLE

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
        # how far the parent's market left history (`training.execution.run`)
        ("taken_lots", np.int64),
        ("made_lots", np.int64),
        ("met_lots", np.int64),
        ("rerouted_lots", np.int64),
        ("refused", np.int64),
    ]
)
"""One parent order as one policy traded it. `Mapping[str, array of this]` is what the analysis reads."""

PARENT_FIELDS = ["instrument_id", "date", "start_ns", "side", "quantity_lots"]
COST_FIELDS = ("spread_bps", "impact_bps", "timing_bps", "fees_bps")
SHARE_FIELDS = ("passive_share", "completion", "extrapolated_share")
DIVERGENCE_FIELDS = ("taken_lots", "made_lots", "met_lots", "rerouted_lots", "refused")
LEAST_SEEDS = 5
"""Training seeds from which on a result speaks of the method and not of one policy."""
_TOLERANCE_BPS = 1e-6


class DecompositionError(ShortfallError):
    """The parts of a cost do not sum to it: the engine that made them is at fault, not the data."""


@dataclass(frozen=True)
class Family:
    """The comparisons declared before any test order is seen."""

    agent: str = "agent"  # compared with every other policy
    champion: str = "champion"  # compared with the reference too
    reference: str = "twap_market"  # win rates are against it
    opponents: Mapping[str, str] = field(default_factory=dict)
    """By instrument: the baseline that was best on the validation days. Agent against it is primary there."""
    oracle: str = ORACLE  # sees what no policy may: shown, and compared with nobody


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
        for column in PARENT_FIELDS:
            differs = np.flatnonzero(rows[column] != first[column])
            if len(differs):
                row = int(differs[0])
                own, other = rows[column][row], first[column][row]
                raise UnpairedError(f"parent {row}: {column} is {own} for {name} and {other} for {first_name}")
        _check_costs(name, rows)


def _check_costs(name: str, rows: NDArray[np.void]) -> None:
    for column in ("is_bps", *COST_FIELDS, *SHARE_FIELDS):
        bad = np.flatnonzero(~np.isfinite(rows[column]))
        if len(bad):
            row = int(bad[0])
            raise NonFiniteError(f"{name}: {column} of parent {row} is {rows[column][row]} ({_describe(rows[row])})")
    total = np.sum([rows[column] for column in COST_FIELDS], axis=0)
    off = np.abs(total - rows["is_bps"]) > _TOLERANCE_BPS * (1.0 + np.abs(rows["is_bps"]))
    if off.any():
        row = int(np.argmax(off))
        raise DecompositionError(
            f"{name}: parts of parent {row} sum to {total[row]:.6f} bps, its cost is {rows['is_bps'][row]:.6f} bps "
            f"({_describe(rows[row])})"
        )


def _describe(row: np.void) -> str:
    return f"{row['instrument_id']} {row['date']} start_ns {row['start_ns']} side {row['side']}"


def analyse(
    orders: Orders,
    family: Family,
    rng: np.random.Generator,
    draws: int,
    alpha: float,
    seed_costs: NDArray[np.float64] | None = None,
    others: Sequence[Comparison] = (),
) -> dict[str, Any]:
    """Every figure of the evaluation, JSON-able and free of clocks and paths; costs in bps, shares in 0 to 1.

    `seed_costs` (S, N): cost of each parent under the agent of each training seed; the primary comparisons are then of
    their mean. `others` are further secondary comparisons, adjusted with these and left out of `comparisons`.
    Keys: `clusters`, `n_clusters`, `n_parents`, `policies`, `comparisons` (primary ones first, then those over all
    instruments), `others`, `by_instrument`, `by_side`. A bound of an interval is None where there are too few clusters
    to have one. Errors as `check_orders`.
    """
    check_orders(orders)
    parents = next(iter(orders.values()))
    labels, kind = cluster_labels(parents["start_ns"], parents["date"])
    bootstrap = ClusterBootstrap(labels, rng, draws)
    declared = [
        *_primary(orders, family, labels, rng, draws, alpha, seed_costs),
        *_secondary(orders, family, bootstrap, alpha, 1 if seed_costs is None else len(seed_costs)),
    ]
    judged = adjust_family([*declared, *others], alpha)
    comparisons = judged[: len(declared)]
    beaten = {item.b: item.verdict == "lower cost" for item in comparisons if item.a == family.agent}
    reference = orders[family.reference]["is_bps"] if family.reference in orders else None
    policies = {}
    for name, rows in orders.items():
        figures = _figures(rows, bootstrap.interval(rows["is_bps"], alpha))
        figures["win_rate"] = None if reference is None else win_rate(rows["is_bps"], reference)
        figures["share_of_reference"] = _share(figures["mean_is_bps"], reference)
        figures["established"] = beaten.get(family.champion if name == family.agent else name, False)
        policies[name] = figures
    return {
        "clusters": kind,
        "n_clusters": bootstrap.n_clusters,
        "n_parents": len(parents),
        "policies": policies,
        "comparisons": [_comparison_row(item) for item in comparisons],
        "others": [_comparison_row(item) for item in judged[len(declared) :]],
        "by_instrument": _by(orders, parents["instrument_id"], labels, rng, draws, alpha),
        "by_side": _by(orders, np.where(parents["side"] > 0, "buy", "sell"), labels, rng, draws, alpha),
    }


def _primary(
    orders: Orders,
    family: Family,
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    draws: int,
    alpha: float,
    seed_costs: NDArray[np.float64] | None,
) -> list[Comparison]:
    """For each instrument the agent, or the mean of its training seeds, against the declared opponent."""
    if family.agent not in orders:
        return []
    agent = orders[family.agent]
    costs = agent["is_bps"] if seed_costs is None or len(seed_costs) < 2 else seed_costs
    found = []
    for instrument in np.unique(agent["instrument_id"]):
        opponent = family.opponents.get(str(instrument))
        if opponent is None:
            continue
        here = agent["instrument_id"] == instrument
        found.append(
            compare(
                costs[..., here],
                orders[opponent]["is_bps"][here],
                ClusterBootstrap(labels[here], rng, draws),
                a=family.agent,
                b=opponent,
                primary=True,
                alpha=alpha,
                instrument=str(instrument),
            )
        )
    return found


def _secondary(
    orders: Orders, family: Family, bootstrap: ClusterBootstrap, alpha: float, seeds: int
) -> list[Comparison]:
    """Agent against every other policy and champion against the reference, over all instruments together.

    What is the primary comparison already, with one instrument and one seed, is not made again.
    """
    rivals = [name for name in orders if name not in (family.agent, family.oracle)]
    pairs = [(family.agent, name) for name in rivals if family.agent in orders]
    if len(np.unique(next(iter(orders.values()))["instrument_id"])) == 1 and seeds < 2:
        pairs = [pair for pair in pairs if pair[1] not in family.opponents.values()]
    if family.champion in orders and family.reference in orders:
        pairs.append((family.champion, family.reference))
    pairs.sort(key=lambda pair: pair != (family.agent, family.champion))
    return [compare(orders[a]["is_bps"], orders[b]["is_bps"], bootstrap, a=a, b=b, alpha=alpha) for a, b in pairs]


def _share(mean: float, reference: NDArray[np.float64] | None) -> float | None:
    """Mean cost as a share of the reference's, which must be a cost."""
    if reference is None or float(reference.mean()) <= 0.0:
        return None
    return mean / float(reference.mean())


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
        "divergence": {field: int(rows[field].sum()) for field in DIVERGENCE_FIELDS},
    }


def _comparison_row(item: Comparison) -> dict[str, Any]:
    bounded = ("ci_low", "ci_high", "error_bps", "detectable_bps")
    return {**asdict(item), **{name: _bound(getattr(item, name)) for name in bounded}}


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
        where = "" if item["instrument"] == "all" else f" on {item['instrument']}"
        who = f"{a} (mean of {item['n_seeds']} training seeds)" if item["n_seeds"] > 1 else a
        figures = f"mean difference {mean:+.3f} bps, 95% interval {interval}, {_p_text(item)}"
        if item["primary"]:
            figures += f"; {power_text(item)}"
        if item["established"]:
            than = "less" if mean < 0 else "more"
            stands = result.get("survival", {}).get(item["instrument"], (None, ""))[0] is not False
            how = "Established" if stands or not item["primary"] else "Established in the headline's market alone"
            lines.append(f"{how}: {who} costs {abs(mean):.3f} bps {than} than {b}{where} ({figures}).")
            if item["primary"]:
                lines.append(_survival_sentence(item, result))
        else:
            lines.append(f"Not established: that {who} and {b} differ in cost{where} ({figures}; {item['why_not']}).")
    if sum(item["primary"] for item in result["comparisons"]) > 1:
        lines.append("One comparison was declared for each instrument; each stands alone at its level.")
    if not result.get("tuning", {"days": ["some"]})["days"]:
        lines.append("No day before the test days was there: baselines have default parameters, a fixed opponent.")
    if result["clusters"] == "half hour":
        lines.append("Too few test days to resample: intervals are over half-hours and say nothing of other days.")
    if len(seeds) < 2:
        lines.append("One training seed was evaluated: nothing is claimed about other seeds.")
    elif len(seeds) < LEAST_SEEDS:
        lines.append(
            f"{len(seeds)} training seeds were evaluated, fewer than {LEAST_SEEDS}: seeds hardly vary in them."
        )
    opened = {day: count for day, count in result.get("opened_before", {}).items() if count}
    lines += [f"{day} was opened before, by {_times(count)}: no fresh test." for day, count in sorted(opened.items())]
    return lines


def _times(count: int) -> str:
    return "one evaluation" if count == 1 else f"{count} evaluations"


def _survival_sentence(item: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Whether an established primary comparison is a ranking: only where it stands in every world and fill model."""
    stands, where = result.get("survival", {}).get(item["instrument"], (None, "no other market was played"))
    on = f"on {item['instrument']}"
    if stands is None:
        return f"The ranking {on} is of this world and fill model alone: {where}."
    if stands:
        return f"The ranking {on} stands in every world, fill model and strength of impact played."
    return f"No ranking is claimed {on}: it does not stand under {where}."


def power_text(item: Mapping[str, Any]) -> str:
    """What difference the test could have found, in words."""
    found = item.get("detectable_bps")
    return "no power to state" if found is None else f"80% power from a true difference of {found:.3f} bps"


def _p_text(item: Mapping[str, Any]) -> str:
    if item["primary"]:
        return f"p = {item['p']:.4f}, pre-registered primary comparison"
    return f"Holm-adjusted p = {item['p_adjusted']:.4f}"


def interval_text(low: float | None, high: float | None) -> str:
    """`[-0.12, 0.34]` in bps, or a dash where there is no interval."""
    return "–" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
