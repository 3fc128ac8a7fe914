"""Binance websocket dumps made for tests: messages as the exchange writes them, and files of received lines."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MIDNIGHT_US = 1_680_652_800_000_000  # 2023-04-05 UTC
SENT_MS = MIDNIGHT_US // 1_000
USDM, SPOT = "usdm_btcusdt_20230405.gz", "spot_btcusdt_20230405.gz"
Levels = Sequence[tuple[str, str]]


def stream(name: str, data: dict[str, Any], symbol: str = "BTCUSDT") -> dict[str, Any]:
    """A message of a combined stream."""
    return {"stream": f"{symbol.lower()}@{name}", "data": {"s": symbol, **data}}


def trade(price: str = "100.1", size: str = "0.002", maker: bool = True, **more: Any) -> dict[str, Any]:
    """A trade; `maker`: the buyer is."""
    return stream(
        "trade", {"e": "trade", "T": SENT_MS, "t": 1, "p": price, "q": size, "X": "MARKET", "m": maker, **more}
    )


def quote(
    number: int, bid: tuple[str, str] = ("100.0", "1"), ask: tuple[str, str] = ("100.1", "2"), **more: Any
) -> dict[str, Any]:
    """A best quote after update `number`."""
    sides = {"b": bid[0], "B": bid[1], "a": ask[0], "A": ask[1]}
    return stream("bookTicker", {"e": "bookTicker", "u": number, "T": SENT_MS, **sides, **more})


def diff(before: int, number: int, bids: Levels = (), asks: Levels = (), **more: Any) -> dict[str, Any]:
    """A depth diff of USD-M with the updates after `before` up to `number`."""
    return stream("depth@0ms", {"T": SENT_MS, "pu": before, **_diff(before, number, bids, asks), **more})


def spot_diff(before: int, number: int, bids: Levels = (), asks: Levels = (), **more: Any) -> dict[str, Any]:
    """The same of spot, which has neither T nor pu."""
    return stream("depth@100ms", {**_diff(before, number, bids, asks), **more})


def _diff(before: int, number: int, bids: Levels, asks: Levels) -> dict[str, Any]:
    return {"E": SENT_MS, "U": before + 1, "u": number, "b": [*bids], "a": [*asks]}


def snapshot(number: int, bids: Levels, asks: Levels, **more: Any) -> dict[str, Any]:
    """An order book as REST gives it."""
    return {"lastUpdateId": number, "E": SENT_MS, "T": SENT_MS, "bids": [*bids], "asks": [*asks], **more}


def lines(messages: Sequence[dict[str, Any] | str], first_us: int = MIDNIGHT_US, step_us: int = 1_000) -> bytes:
    """Lines received every `step_us`; text goes in as it is."""
    texts = [
        item if isinstance(item, str) else f"{first_us + step_us * at} {json.dumps(item)}"
        for at, item in enumerate(messages)
    ]
    return "".join(f"{text}\n" for text in texts).encode()


def dump(data: Path, *messages: dict[str, Any] | str, name: str = USDM, first_us: int = MIDNIGHT_US) -> Path:
    """Write a file of these messages below `data`."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / name
    path.write_bytes(gzip.compress(lines(messages, first_us), mtime=0))
    return path
