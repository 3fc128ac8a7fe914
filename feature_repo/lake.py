"""Where a dataset keeps its partitions: `<root>/venue=V/symbol=S/date=YYYY-MM-DD/<file>`."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Partition:
    """One venue, symbol and session date (ISO)."""

    venue: str
    symbol: str
    date: str

    @property
    def instrument_id(self) -> str:
        """Join key in the feature store, `VENUE:SYMBOL`."""
        return f"{self.venue}:{self.symbol}"

    def folder(self, root: Path) -> Path:
        """Folder of this partition below `root`."""
        return root / f"venue={self.venue}" / f"symbol={self.symbol}" / f"date={self.date}"


_PATTERN = re.compile(r"venue=([^/]+)/symbol=([^/]+)/date=(\d{4}-\d{2}-\d{2})$")


def list_partitions(root: Path, file: str) -> list[Partition]:
    """Partitions below `root` that hold `file`, sorted by venue, symbol and date; empty where `root` is absent."""
    found = []
    for path in root.glob(f"venue=*/symbol=*/date=*/{file}"):
        match = _PATTERN.search(path.parent.as_posix())
        if match:
            found.append(Partition(*match.groups()))
    return sorted(found)
