"""A million adversarial requests over eight streams.

An oracle on the venue's log finds no breach, and would find one.
"""

import os

import pytest
from gateway_oracle import Breach, Oracle
from gateway_streams import SinkDisk, Streams

from serving.gateway import audit


def run(seed, requests, disk=None, **options):
    oracle = Oracle()
    streams = Streams(seed, oracle.read, disk)
    streams.run(requests, **options)
    assert not streams.gateway.broken and not streams.gateway.state.halted
    return streams, oracle


def test_oracle_finds_no_breach_in_a_million_adversarial_requests():
    streams, oracle = run(11, 1_000_000)
    assert streams.requests >= 1_000_000 and streams.days == 10
    assert oracle.checked > 300_000 and streams.denied > 300_000  # both ways are well travelled


@pytest.mark.slow
@pytest.mark.timeout(48 * 3600)
def test_oracle_finds_no_breach_in_a_hundred_million_adversarial_requests():
    """`SHORTFALL_ADVERSARIAL_MILLIONS=FIRST-LAST` takes a part of them, so that they can be run in turns."""
    first, _, last = os.environ.get("SHORTFALL_ADVERSARIAL_MILLIONS", "1-100").partition("-")
    for million in range(int(first), int(last) + 1):
        _, oracle = run(999 + million, 1_000_000)
        print(f"million {million}: {oracle.checked} orders and replaces reached the venue, no breach", flush=True)


def test_replay_of_adversarial_streams_is_identical_to_the_bit():
    disk = SinkDisk(keep=True)
    streams, _ = run(12, 30_000, disk, day_orders=12_000)
    assert audit.replay(disk)[0].encoded() == streams.gateway.state.encoded()
    found = audit.verify(disk)
    assert len(found["files"]) == streams.days == 3 and found["state_hash"] == streams.gateway.state.hash()


@pytest.mark.parametrize(
    "control",
    [
        "collar", "day_turnover", "kill_switch", "locate", "message_rate", "open_orders", "order_lots", "order_value",
        "position", "reduce_only", "self_match", "session", "gross_net", "false_fills",
    ],
)  # fmt: skip
def test_oracle_finds_a_breach_where_a_control_is_missing(control, monkeypatch):
    monkeypatch.setattr(f"serving.gateway.controls.{control}.check", lambda *arguments: None)
    if control == "kill_switch":  # the last line would hold it back
        monkeypatch.setattr("serving.gateway.engine.Gateway.veto", lambda *arguments: None)
    with pytest.raises(Breach):
        for seed in range(8):
            run(seed, 20_000)
