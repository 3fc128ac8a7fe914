"""The report's tables of how the test was made: comparisons, tuned baselines, strata, other markets, what limits."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.page import section, table
from training.evaluation.plots import label
from training.evaluation.tca import interval_text

DECLARED = (
    "The primary comparison of each instrument, the agent against the baseline that was best on the validation days, "
    "was declared before the test days were opened. All others are secondary and adjusted together (Holm). "
    "Power: the smallest true difference that such a test establishes in four of five repetitions."
)


def comparison_table(result: Mapping[str, Any]) -> str:
    """Every comparison with its interval, p-values and power."""
    head = [
        ("a – b", ""), ("instrument", ""), ("mean difference", "bps"), ("95% interval", "bps"), ("p", ""),
        ("p adjusted", "Holm"), ("80% power from", "bps"), ("verdict for a", ""),
    ]  # fmt: skip
    rows = [
        [
            f"{label(item['a'])} – {label(item['b'])}" + (" (primary)" if item["primary"] else ""),
            item["instrument"] + (f", {item['n_seeds']} seeds" if item["n_seeds"] > 1 else ""),
            f"{item['mean_diff_bps']:+.3f}",
            interval_text(item["ci_low"], item["ci_high"]),
            f"{item['p']:.4f}",
            "–" if item["primary"] else f"{item['p_adjusted']:.4f}",
            _number(item["detectable_bps"], "{:.3f}"),
            item["verdict"],
        ]
        for item in result["comparisons"]
    ]
    return table(head, rows, [i for i, row in enumerate(result["comparisons"]) if row["primary"]])


def protocol_sections(result: Mapping[str, Any]) -> list[str]:
    """Tuning, strata and other markets; each is left out where there is nothing to show."""
    parts = []
    if result.get("tuning", {}).get("by_instrument"):
        days = ", ".join(result["tuning"]["days"])
        note = f"Parameters that were cheapest on the validation days ({days}); the opponent is the cheapest of all."
        parts.append(section("Baselines, tuned on validation days", _tuning_table(result["tuning"]), note))
    if result.get("strata"):
        note = (
            "Sizes as shares of the mean daily volume of earlier days, at horizons that keep the expected "
            "participation at 10% or less. Sizes of 1% and more count only where own orders move the market. "
            "Mean cost in bps."
        )
        parts.append(section("Sizes and horizons", _strata_table(result["strata"]), note))
    if result.get("sensitivities"):
        note = (
            "The declared comparisons with one thing changed at a time, intervals not adjusted. A ranking is claimed "
            "only where it stands in all of them; zero latency is shown and decides nothing."
        )
        parts.append(section("Other worlds and fill models", _sensitivity_table(result["sensitivities"]), note))
    return parts


def _tuning_table(tuning: Mapping[str, Any]) -> str:
    rows: list[list[str]] = []
    strong: list[int] = []
    for key, entry in tuning["by_instrument"].items():
        tried: dict[str, int] = {}
        for trial in entry["trials"]:
            tried[trial["policy"]] = tried.get(trial["policy"], 0) + 1
        for name, chosen in sorted(entry["chosen"].items(), key=lambda item: item[1]["mean_is_bps"]):
            params = ", ".join(f"{k} {_plain(v)}" for k, v in chosen.items() if k not in ("mean_is_bps", "seed"))
            if name == entry["opponent"]:
                strong.append(len(rows))
            opponent = "opponent" if name == entry["opponent"] else ""
            rows.append([label(name), key, f"{chosen['mean_is_bps']:.3f}", params or "–", str(tried[name]), opponent])
    head = [("policy", ""), ("instrument", ""), ("mean on validation", "bps"), ("chosen", ""), ("tried", ""), ("", "")]
    return table(head, rows, strong)


def _strata_table(strata: Sequence[Mapping[str, Any]]) -> str:
    names: list[str] = []
    for row in strata:
        names += [name for name in row["policies"] if name not in names]
    head = [("size", "% of ADV"), ("horizon", "s"), ("world", ""), ("orders", ""), *((label(n), "bps") for n in names)]
    rows = []
    for row in strata:
        cells = [f"{100 * row['size_adv']:g}", str(row["horizon_s"])]
        if not row["counted"]:
            rows.append([*cells, f"not counted: {row['why_not']}", "–", *["–"] * len(names), "–"])
            continue
        means = [_number(row["policies"].get(name, {}).get("is_bps"), "{:.3f}") for name in names]
        said = "; ".join(
            f"{item['instrument']}: {item['mean_diff_bps']:+.3f} {interval_text(item['ci_low'], item['ci_high'])} "
            f"against {label(item['b'])}, {item['verdict']}"
            for item in row["comparisons"]
        )
        rows.append([*cells, row["world"], str(row["n"]), *means, said or "–"])
    return table([*head, ("agent against the opponent", "Holm-adjusted verdict")], rows, text=[2, len(head)])


def _sensitivity_table(sensitivities: Sequence[Mapping[str, Any]]) -> str:
    head = [("market", ""), ("instrument", ""), ("agent", "bps"), ("opponent", "bps"), ("difference", "bps"),
            ("95% interval", "bps"), ("verdict", "")]  # fmt: skip
    rows = []
    for row in sensitivities:
        name = row["name"] + ("" if row["decides"] else " (decides nothing)")
        if not row["available"]:
            rows.append([name, f"not played: {row['why_not']}", *["–"] * 5])
        for key, item in row["by_instrument"].items():
            interval = interval_text(item["ci_low"], item["ci_high"])
            figures = [f"{item[f'{part}_bps']:.3f}" for part in ("agent_mean", "opponent_mean")]
            rows.append([name, key, *figures, f"{item['mean_diff_bps']:+.3f}", interval, item["verdict"]])
    return table(head, rows, text=[1])


def findings_list(findings: Sequence[Mapping[str, Any]]) -> str:
    """The findings of `limits`, grouped as they come."""
    items = []
    for item in findings:
        where = "" if item["instrument"] == "all" else f" on {item['instrument']}"
        items.append(f"<li><strong>{html.escape(item['cause'] + where)}</strong>: {html.escape(item['text'])}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
