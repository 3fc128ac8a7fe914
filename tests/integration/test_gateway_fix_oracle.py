"""Adversarial orders through real FIX sessions: the oracle on the venue's log finds no breach, nothing comes twice."""

import pytest
from fix_streams import FixStreams
from gateway_oracle import Breach, Oracle


def run(seed, requests, folder):
    oracle = Oracle()
    with FixStreams(seed, oracle.read, folder) as streams:
        streams.run(requests, day_orders=12_000)
        assert not streams.gateway.broken
    return streams, oracle


def test_oracle_finds_no_breach_in_twenty_thousand_requests_through_fix(tmp_path):
    streams, oracle = run(21, 20_000, tmp_path)
    assert streams.requests >= 20_000 and streams.days == 2
    assert oracle.checked > 5_000 and streams.denied > 5_000 and streams.messages > 15_000


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_oracle_finds_no_breach_in_a_million_requests_through_fix(tmp_path):
    streams, oracle = run(22, 1_000_000, tmp_path)
    assert streams.requests >= 1_000_000 and oracle.checked > 300_000


def test_oracle_sees_through_fix_where_a_control_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.gateway.controls.collar.check", lambda *arguments: None)
    with pytest.raises(Breach):
        run(23, 4_000, tmp_path)
