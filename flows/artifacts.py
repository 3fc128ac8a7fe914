"""What a stage shows in the Prefect UI: data quality, lineage, transaction cost analysis, links to reports."""

from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.lake import StageResult


def lineage(result: StageResult, inputs: dict[str, str]) -> None:
    """Which inputs gave this output, and whether it was there already."""
    key = result.stage.replace("_", "-")
    rows = "\n".join(f"| {name} | `{id_}` |" for name, id_ in inputs.items()) or "| (vendor files) | |"
    how = "already done" if result.skipped else f"done in {result.seconds:.1f} s"
    text = f"### {result.stage}: {how}\n\noutput `{result.id}`\n\n| input | id |\n| --- | --- |\n{rows}\n"
    create_markdown_artifact(text, key=f"{key}-lineage", description=f"Lineage of {result.stage}")


def table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """A table artifact; nested values are left out, since the UI cannot show them."""
    flat = [{name: value for name, value in row.items() if not isinstance(value, dict | list)} for row in rows]
    create_table_artifact(flat, key=key, description=description)


def markdown(key: str, text: str, description: str) -> None:
    """A markdown artifact."""
    create_markdown_artifact(text, key=key, description=description)


def link(key: str, path: Path, text: str) -> None:
    """A link to a file of the lake."""
    create_link_artifact(path.absolute().as_uri(), link_text=text, key=key)
