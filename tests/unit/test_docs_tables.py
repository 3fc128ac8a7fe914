"""The tables of the documentation name what the code has."""

from pathlib import Path

from feature_repo.pipeline.definitions import DEFINITIONS
from feature_repo.pipeline.rules import RULES
from feature_repo.ticks.registry import reader_names

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
