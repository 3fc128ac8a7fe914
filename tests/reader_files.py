"""Vendor files made for tests: Lean zips from CSV lines, SHFE Parquet from a few snapshots."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

OPEN_MS = 34_200_000  # 09:30 New York
QUOTES = (f"{OPEN_MS},500000,300,0,0,P,1,0", f"{OPEN_MS},0,0,500100,200,Q,1,0", f"{OPEN_MS + 5},500000,200,0,0,P,1,0")
TRADES = (f"{OPEN_MS + 5},500000,100,P,00000001,0",)


def write_zip(path: Path, lines: Sequence[str], end: str = "\n") -> Path:
    """A zip with one CSV of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(path.stem + ".csv"), "".join(line + end for line in lines))
    return path


def lean_day(
    data: Path,
    symbol: str = "aig",
    day: str = "20131007",
    quotes: Sequence[str] | None = QUOTES,
    trades: Sequence[str] | None = TRADES,
) -> Path:
    """Quote and trade zip of one day below the lean folder `data` (None: no such file); gives `data`."""
    folder = data / "equity" / "usa" / "tick" / symbol
    for name, lines in (("quote", quotes), ("trade", trades)):
        if lines is not None:
            write_zip(folder / f"{day}_{name}.zip", lines)
    return data


def shfe_columns(
    volume: Sequence[float],
    amount: Sequence[float],
    bid: Sequence[float] | float = 3000.0,
    start: str = "2025-06-05T09:00:00.5",
    contract: str = "rb2510",
) -> dict[str, pa.Array]:
    """Columns of snapshots every 500 ms with five levels a side one tick apart, the ask one tick above the bid."""
    rows = len(volume)
    best = np.broadcast_to(np.asarray(bid, float), rows)
    times = np.datetime64(start, "ns") + np.arange(rows) * np.timedelta64(500, "ms")
    columns = {
        "timestamp": pa.array(times, pa.timestamp("ns")),
        "instrumentID": pa.array([contract] * rows, pa.string()),
        "volume": pa.array(volume, pa.float64()),
        "amount": pa.array(amount, pa.float64()),
    }
    for k in range(1, 6):
        columns |= {f"bid{k}": pa.array(best - (k - 1)), f"ask{k}": pa.array(best + k)}
        columns |= {f"bidSize{k}": pa.array(np.full(rows, 10.0 * k)), f"askSize{k}": pa.array(np.full(rows, 20.0 * k))}
    return columns


def shfe_file(data: Path, columns: dict[str, pa.Array], day: str = "20250605", product: str = "rb") -> Path:
    """Write the columns as `rb_YYYYMMDD.parquet` below `data`; gives the file."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / f"{product}_{day}.parquet"
    pq.write_table(pa.table(columns), path)
    return path
