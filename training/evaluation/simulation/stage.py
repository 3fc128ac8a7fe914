"""The simulate stage: a world on the days of a features dataset, and its report."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import InputError
from feature_repo.lake import Partition, list_partitions
from feature_repo.progress import Progress
from training.evaluation import page
from training.evaluation.simulation.config import SimulationConfig
from training.evaluation.simulation.parts import Findings, Section, section_html

if TYPE_CHECKING:
    from training.market.day import MarketDay

STEPS = {"replay": 3, "impact": 2, "reactive": 4}
"""Steps that a world reports for each instrument."""

BASICS = {
    "replay": "The recorded market plays on and own orders join it.",
    "impact": "The recorded market plays on; a propagator displaces its prices by what own orders did.",
    "reactive": "A queue-reactive market fitted to the data; own orders change its queues and thereby what follows.",
}


def simulate(
    features_dir: Path, silver_dir: Path, out_dir: Path, config: SimulationConfig, progress: Progress
) -> dict[str, Any]:
    """Examine a world on every day of `features_dir`, an instrument after the other.

    Leaves `report.html`, one file that needs no network, and `simulation.json`, whose content it returns. Raises
    InputError where there is no day, or one does not carry the world (too few trades to calibrate on, say).
    """
    known = list_partitions(features_dir, "features.parquet")
    if not known:
        raise InputError(f"{features_dir}: no day with features; run the features stage again")
    by_instrument: dict[str, list[Partition]] = {}
    for item in known:
        by_instrument.setdefault(item.instrument_id, []).append(item)
    total, done = STEPS[config.world] * len(by_instrument), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total, "parts")

    found: dict[str, Findings] = {}
    synthetic, dates = False, []
    for name, partitions in by_instrument.items():
        days = _load(features_dir, partitions)
        synthetic |= days[0].instrument.synthetic
        dates += [day.partition.date for day in days]
        found[name] = _findings(days, silver_dir, config, step)
        for file, text in found[name].files.items():
            (out_dir / file).write_text(text + "\n")
    title = f"Market simulator, world {config.world}" + (" – SYNTHETIC market" if synthetic else "")
    subtitle = f"{', '.join(found)} · {min(dates)} to {max(dates)} · {BASICS[config.world]}"
    sections = [section for name, item in found.items() for section in _named(name, item.sections, len(found) > 1)]
    html = page.page(title, subtitle, "SYNTHETIC DATA" if synthetic else "", [section_html(s) for s in sections])
    (out_dir / "report.html").write_text(html)
    content = {
        "world": config.world,
        "synthetic": synthetic,
        "settings": config.to_dict(),
        "instruments": {name: {"days": len(by_instrument[name]), **item.values} for name, item in found.items()},
    }
    (out_dir / "simulation.json").write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return {**content, "report": "report.html"}


def _findings(
    days: "list[MarketDay]", silver_dir: Path, config: SimulationConfig, step: Callable[[], None]
) -> Findings:
    if config.world == "replay":
        from training.evaluation.simulation.replay import replay_findings

        return replay_findings(days, silver_dir, config, step)
    if config.world == "impact":
        from training.evaluation.simulation.impact import impact_findings

        return impact_findings(days, config, step)
    from training.evaluation.simulation.reactive import reactive_findings

    return reactive_findings(days, config, step)


def _load(features_dir: Path, partitions: list[Partition]) -> "list[MarketDay]":
    from training.market.day import load_market_days

    return load_market_days(features_dir, None, partitions)


def _named(name: str, sections: list[Section], several: bool) -> list[Section]:
    """Sections that name their instrument where there are several."""
    return [replace(item, title=f"{name}: {item.title}") if several else item for item in sections]
