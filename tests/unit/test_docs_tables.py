"""The tables of the documentation name what the code has."""

from dataclasses import fields
from pathlib import Path

from feature_repo.pipeline.definitions import DEFINITIONS
from feature_repo.pipeline.rules import RULES
from feature_repo.ticks.registry import reader_names
from training.evaluation.simulation.config import WORLDS
from training.market.order_replay import Divergence
from training.market.tape import FILL_MODELS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def first_cells(text: str) -> set[str]:
    rows = (line for line in text.splitlines() if line.startswith("| `"))
    return {cell.strip(" `") for row in rows for cell in row.split("|")[1].split(",")}


def test_data_page_when_read_then_every_rule_has_the_meaning_that_the_code_states_and_every_reader_a_row():
    text = (DOCS / "data.md").read_text()
    for name, meaning in RULES.items():
        assert f"| `{name}` | {meaning} |" in text
    assert set(reader_names()) <= first_cells(text)


def test_features_page_when_read_then_every_feature_has_a_row():
    assert {item.name for item in DEFINITIONS} <= first_cells((DOCS / "features.md").read_text())


def test_simulator_page_when_read_then_names_every_world_fill_model_and_counter_of_divergence():
    text = (DOCS / "simulator.md").read_text()
    assert all(f"| {model} |" in text or f"`{model}`" in text for model in FILL_MODELS)
    assert all(f". {world} |" in text for world in WORLDS)
    for field in fields(Divergence):
        assert f"`{field.name}`" in text or field.name == "book_lots"
