"""The state as plain values: what a snapshot holds, and what the state hash is taken of.

Not compiled with the state: mypyc drops the options of these types, and what they forbid and leave out is their point.
"""

from typing import Any

import msgspec

from serving.contracts.decisions import Decision
from serving.contracts.orders import ChildOrder, Request
from serving.gateway.events import Instrument
from serving.gateway.order_table import Execution


class Proposal(msgspec.Struct, omit_defaults=True):
    """What waits for two people. A dump from before there were other kinds than limits names none."""

    document: str
    by: str
    expires_ns: int
    approvals: list[str]
    kind: str = "limits"


class Posture(msgspec.Struct, frozen=True):
    """A scope's limits shrunk to `factor_bps` of themselves until `expires_ns` UTC, and for `lasts_ns` at least."""

    factor_bps: int
    expires_ns: int
    lasts_ns: int


class Dump(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The whole state as plain values, sorted: what a snapshot holds and what the state hash is taken of.

    A field that came later has a default, which is not written: older snapshots keep their hash.
    """

    scalars: list[Any]
    limits: str
    nodes: list[tuple[str, str, list[Any]]]
    symbols: list[tuple[Instrument, list[Any], bool]]
    exposures: list[tuple[str, str, str, list[Any]]]
    legs: list[tuple[str, str, str, list[Any]]]
    orders: list[tuple[int, ChildOrder, list[Any]]]
    own: list[tuple[str, str, dict[int, int], dict[int, int]]]
    keys: list[tuple[Request, Decision]]
    executions: list[tuple[str, str, Execution]]
    postures: list[tuple[str, str, Posture]]
    proposals: list[tuple[str, Proposal]]
    liquidations: list[tuple[str, str, dict[str, int]]]
    access: str = ""


def encode_dump(dump: Dump) -> bytes:
    """Equal dumps give equal bytes."""
    return _ENCODER.encode(dump)


def decode_dump(raw: bytes | msgspec.Raw) -> Dump:
    """What `encode_dump` gave. Raises ValueError where it is something else."""
    return _DECODER.decode(raw)


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Dump] = msgspec.json.Decoder(Dump)
