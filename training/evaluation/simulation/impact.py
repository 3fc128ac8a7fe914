"""World impact: calibrated parameters with their confidence, what they were fitted to, and what parents cost."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.simulation import figures
from training.evaluation.simulation.config import SimulationConfig
from training.evaluation.simulation.parents import HORIZON_S, SCALES, SHARES, SLICE_S, ParentCost, played_costs
from training.evaluation.simulation.parts import Findings, Section, Table, figure_of, interval_of, json_numbers
from training.evaluation.simulation.replay import data_section
from training.market.impact_calibration import calibrate_impact

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.market.day import MarketDay
    from training.market.impact import ImpactParameters
    from training.market.impact_calibration import ImpactCalibration

LIMITS = (
    "The response to the market's own anonymous trades is taken for that to ours. A trader who is recognised, or whose "
    "orders are unlike the market's, meets another.",
    "The propagator is linear in signed lots and does not know the state of the book: the same lot moves a thin and a "
    "deep market alike. The square root is in the temporary part alone.",
    "Permanent is what has not decayed within the longest lag fitted. A few days cannot tell it from a slow decay, and "
    "flow that follows a common cause counts as impact.",
)


def impact_findings(days: "Sequence[MarketDay]", config: SimulationConfig, step: "Callable[[], None]") -> Findings:
    """Everything that the world impact says of the days of one instrument."""
    found = calibrate_impact(days, config.seed)
    step()
    key = "".join(letter if letter.isalnum() else "-" for letter in found.instrument_id)
    formula = formula_costs(found.parameters)
    played = played_costs(days, found, config.seed, config.draws)
    step()
    sections = [
        data_section(days),
        _parameter_section(found),
        Section(
            "Propagator",
            "Displacement of the mid by a trade of the mean daily volume, in bps, at a lag after it: solved from the "
            "responses without a form, and the permanent part plus exponentials that are fitted to it. A trade of a "
            "thousandth of the volume displaces it by a thousandth of that.",
            ((f"{key}-kernel", _kernel_figure(found)),),
        ),
        Section(
            "Response in trade time",
            "Mean signed move of the mid up to so many trades after one, bps, and the part of it that a trade moves by "
            "itself (propagator in trade time); the difference is what the persistence of signs adds.",
            ((f"{key}-response", _response_figure(found)),),
        ),
        Section(
            "Memory of signs",
            "Autocorrelation of trade signs, lag in trades: what the propagator takes out of the response.",
            ((f"{key}-signs", _signs_figure(found)),),
        ),
        Section(
            "Temporary cost",
            f"Mean cost of a sweep above the best price by size, from the {found.temporary_from}, and the fitted "
            "Y sigma sqrt(q / V).",
            ((f"{key}-temporary", _temporary_figure(found)),),
        ),
        *_cost_sections(played, formula, found.parameters, key),
        Section("What this world cannot say", points=LIMITS),
    ]
    everything = json.loads(found.to_json())
    kept = ("parameters", "intervals", "trades", "unsigned", "blocks", "explained", "temporary_from")
    values: dict[str, Any] = {"impact": {name: everything[name] for name in kept}, "parent_costs_bps": formula}
    values["played_costs"] = [_played_json(item) for item in played]
    return Findings(sections, values, {f"impact-{key}.json": found.to_json()})


def formula_costs(parameters: "ImpactParameters") -> dict[str, dict[str, float]]:
    """Expected impact cost in bps of a parent by size (share of the daily volume) and scale of impact.

    The parent is bought over HORIZON_S in equal slices each SLICE_S: the mean over slices of what earlier ones still
    displace, plus what the slice itself pays (`ImpactParameters.concession_bps`). The half spread and the book's own
    depth are not in it.
    """
    slices = HORIZON_S // SLICE_S
    lags = SLICE_S * np.arange(1, slices)
    weights = (slices - np.arange(1, slices)) / slices  # the mean slice has so many before it at each lag
    table: dict[str, dict[str, float]] = {}
    for share in SHARES:
        child = share / slices
        table[f"{share:g}"] = {}
        for name, scale in SCALES:
            scaled = parameters.scaled(scale)
            earlier = child * float(weights @ scaled.kernel_bps(lags))
            own = float(scaled.concession_bps(child * scaled.adv_lots))
            table[f"{share:g}"][name] = earlier + own
    return table


def _parameter_section(found: "ImpactCalibration") -> Section:
    values = found.parameters
    rows = [
        _row("G(0), displacement at once", "bps per daily volume", float(values.kernel_bps(0.0)), found, "start_bps"),
        _row("permanent part", "bps per daily volume", values.permanent_bps, found, "permanent_bps"),
    ]
    for k, (weight, decay) in enumerate(zip(values.transient_bps, values.decay_s, strict=True)):
        rows.append(
            _row(f"part that decays over {decay:g} s", "bps per daily volume", weight, found, f"transient_bps_{k}")
        )
    rows.append(_row("Y, temporary", "of sigma sqrt(q / V)", values.temporary, found, "temporary"))
    rows += [
        ("sigma, daily volatility", "bps", figure_of(values.volatility_bps), "held"),
        ("V, mean daily volume", "lots", f"{values.adv_lots:,.0f}", "held"),
        ("displacement by a resting fill", "of a taking one's", figure_of(values.passive_share), "assumed"),
    ]
    text = (
        f"{found.trades:,} trades of {len(found.dates)} day(s), {found.rows:,} book rows; {found.unsigned:,} prints "
        f"without a side are left out. Intervals are 95%, over {found.blocks} half hours resampled. The fitted kernel "
        f"explains {100 * found.explained:.2f}% of the variance of the mid's moves on the grid of the fit."
    )
    head = (("parameter", ""), ("unit", ""), ("value", ""), ("95% interval", ""))
    return Section("Calibrated impact", text, tables=(Table(head, tuple(rows), text=(1,)),))


def _row(label: str, unit: str, value: float, found: "ImpactCalibration", key: str) -> tuple[str, str, str, str]:
    low, high = found.intervals[key]
    return label, unit, figure_of(value), interval_of(low, high)


def _kernel_figure(found: "ImpactCalibration") -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    lag = np.maximum(found.lag_s, 0.5)  # lag 0 has no place on a logarithmic axis
    low, high = found.kernel_interval
    figures.line(figure, lag, found.kernel_bps, "without a form", figures.SOURCE, low, high, markers=False)
    for (name, scale), dash in zip(SCALES[1:], ("dot", "solid", "dot"), strict=True):
        figures.line(
            figure, lag, scale * found.fitted_bps, f"fitted, {name}", figures.SIMULATED, dash=dash, markers=False
        )
    return figures.finished(figure, "lag, s", "bps per daily volume", log_x=True)


def _response_figure(found: "ImpactCalibration") -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    lag = np.arange(len(found.response_bps), dtype=np.float64)
    low, high = found.response_interval
    figures.line(figure, lag, found.response_bps, "response", figures.SOURCE, low, high, markers=False)
    own = found.event_kernel_bps[: len(lag)]
    figures.line(figure, lag[: len(own)], own, "propagator", figures.SIMULATED, markers=False)
    return figures.finished(figure, "lag, trades", "bps")


def _signs_figure(found: "ImpactCalibration") -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    lag = np.arange(1, len(found.sign_correlation), dtype=np.float64)
    low, high = found.sign_interval
    figures.line(figure, lag, found.sign_correlation[1:], "signs", figures.SOURCE, low[1:], high[1:], markers=False)
    return figures.finished(figure, "lag, trades", "autocorrelation", log_x=True, legend=False)


def _temporary_figure(found: "ImpactCalibration") -> Any:
    import plotly.graph_objects as go

    figure, values = go.Figure(), found.parameters
    figures.line(figure, found.sweep_lots, found.sweep_bps, "measured", figures.SOURCE)
    root = np.sqrt(found.sweep_lots / values.adv_lots)
    figures.line(figure, found.sweep_lots, values.temporary * values.volatility_bps * root, "fitted", figures.SIMULATED)
    return figures.finished(figure, "lots", "bps above the best price", log_x=True)


def _played_json(item: ParentCost) -> dict[str, Any]:
    value, low, high = json_numbers((item.cost.value, item.cost.low, item.cost.high))
    return {
        "share": item.share,
        "scale": item.scale,
        "mean_is_bps": value,
        "ci_low": low,
        "ci_high": high,
        "impact_bps": item.beyond,
        "extrapolated_share": item.extrapolated_share,
        "n": item.parents,
    }


def _cost_sections(
    played: list[ParentCost], formula: dict[str, dict[str, float]], parameters: "ImpactParameters", key: str
) -> list[Section]:
    import plotly.graph_objects as go

    figure, shares = go.Figure(), np.array([100 * float(share) for share in formula])
    for (name, _), shade in zip(SCALES[1:], figures.SHADES, strict=False):
        expected = np.array([row[name] for row in formula.values()])
        figures.line(figure, shares, expected, f"{name}, formula", shade, dash="dot", markers=False)
        mine = [item for item in played if item.scale == name]
        if mine:
            at, beyond = (np.array([getattr(item, field) for item in mine]) for field in ("share", "beyond"))
            figures.line(figure, 100 * at, beyond, f"{name}, played", shade)
    figure = figures.finished(figure, "parent, % of the daily volume", "impact cost, bps", log_x=True, log_y=True)
    text = (
        f"A parent bought or sold over {HORIZON_S // 60} minutes in equal market orders each {SLICE_S} s. By the "
        "formulas: what the earlier slices still displace, and what the slice itself pays. Played: a buy and a sell "
        "every ten minutes of the source's days; its impact cost is the difference to the same parents with impact off."
    )
    names = tuple((name, "bps") for name, _ in SCALES)
    head = (("parent", "% of daily volume"), ("parent", "lots"), *names)
    rows = tuple(
        (f"{100 * float(key):g}", f"{float(key) * parameters.adv_lots:,.0f}", *(figure_of(v) for v in row.values()))
        for key, row in formula.items()
    )
    tables = [Table(head, rows, caption="Impact cost by the formulas; half spread and the book's own depth not in it.")]
    if played:
        tables.append(_played_table(played))
    return [Section("What a parent costs", text, ((f"{key}-parents", figure),), tuple(tables))]


def _played_table(played: list[ParentCost]) -> Table:
    rows = []
    for share in sorted({item.share for item in played}):
        mine = [item for item in played if item.share == share]
        cells = (f"{figure_of(item.cost.value)} {interval_of(item.cost.low, item.cost.high)}" for item in mine)
        rows.append((f"{100 * share:g}", *cells, f"{100 * mine[0].extrapolated_share:.1f}%"))
    head = (("parent", "% of daily volume"), *((name, "bps, 95% interval") for name, _ in SCALES),
            ("beyond book", "of lots"))  # fmt: skip
    caption = (
        f"Implementation shortfall as played, {played[0].parents} parents of each size, spread and depth included. "
        "Lots beyond the visible book are priced by extrapolation: where they are many, the cost is one."
    )
    return Table(head, tuple(rows), caption=caption)
