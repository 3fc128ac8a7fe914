"""The accounting of input rows, as an object for programs and as tables for people."""

from typing import Any


def rows_report(ingest: dict[str, Any], clean: dict[str, Any] | None) -> dict[str, Any]:
    """Vendor rows, events in, kept and quarantined by rule, in all and by symbol and day, from the stages' summaries.

    Without `clean` the counts end at the events read.
    """
    report: dict[str, Any] = {"vendor": ingest["vendor_rows"], "in": ingest["rows"]}
    if clean is not None:
        report |= {"in": clean["rows_in"], "kept": clean["rows_kept"], "quarantined": clean["by_rule"]}
    return report | {"by_symbol_and_day": _by_day(ingest, clean)}


def _by_day(ingest: dict[str, Any], clean: dict[str, Any] | None) -> list[dict[str, Any]]:
    cleaned = {_key(part): part for part in clean["partitions"]} if clean is not None else {}
    rows = []
    for part in ingest["partitions"]:
        row = {name: part[name] for name in ("venue", "symbol", "date")}
        row |= {"vendor": part["vendor_rows"], "skipped": part["skipped_rows"], "carried": part["carried_rows"]}
        row |= {"in": part["rows"]}
        if clean is not None:
            found = cleaned[_key(part)]
            row |= {"in": found["rows_in"], "kept": found["rows_kept"], "quarantined": found["by_rule"]}
        rows.append(row)
    return rows


def _key(part: dict[str, Any]) -> tuple[str, str, str]:
    return part["venue"], part["symbol"], part["date"]


def accounting_rows(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of each symbol and day as a table with its sums; `rows` as `rows_report` gives it."""
    table = []
    for part in rows["by_symbol_and_day"]:
        row = {"venue": part["venue"], "symbol": part["symbol"], "date": part["date"], "vendor rows": part["vendor"]}
        row |= {"no event": part["skipped"], "carried": part["carried"], "events in": part["in"]}
        if "kept" in part:
            row |= {"kept": part["kept"], "quarantined": sum(part["quarantined"].values())}
        table.append(row)
    total = {name: sum(row[name] for row in table) for name in list(table[0])[3:]}
    return [*table, {"venue": "all", "symbol": "", "date": "", **total}]


def print_accounting(rows: dict[str, Any], console: Any) -> None:
    """Print every input row by symbol and day, and the quarantined ones by rule."""
    console.print(count_table("Every input row", ("venue", "symbol", "date"), accounting_rows(rows)))
    if "quarantined" in rows:
        rules = [{"rule": rule, "rows": count} for rule, count in rows["quarantined"].items() if count]
        console.print(count_table("Quarantined by rule", ("rule",), rules or [{"rule": "none", "rows": 0}]))


def count_table(title: str, names: tuple[str, ...], rows: list[dict[str, Any]]) -> Any:
    """A table whose `names` columns are text and whose others are counts."""
    from rich.table import Table

    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in names else "right")
    for row in rows:
        table.add_row(*(str(value) if name in names else f"{value:,}" for name, value in row.items()))
    return table


def wide_console() -> Any:
    """A console; a log, which has no width of its own, gets 120 columns."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 120
    return console
