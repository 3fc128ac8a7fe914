"""Adversarial orders through real FIX sessions: the oracle reads what the venue's end of the socket received."""

import pytest
from gateway_fix_streams import FixStreams
from gateway_oracle import Breach, Oracle


def run(seed, orders, folder, monkeypatch):
    """Run until the venue has received that many new orders and replaces."""
    oracle = Oracle()
    with FixStreams(seed, oracle.read, folder, monkeypatch) as streams:
        while oracle.checked < orders:
            streams.run(4_096, day_orders=20_000)
        assert not streams.gateway.broken and not streams.gateway.state.halted
        return streams, oracle


def test_oracle_finds_no_breach_in_20_000_orders_through_fix(tmp_path, monkeypatch):
    streams, oracle = run(21, 20_000, tmp_path, monkeypatch)
    assert oracle.checked >= 20_000 and streams.denied > 10_000  # both ways are well travelled
    assert streams.through_fix > 40_000  # with cancels and reports


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_oracle_finds_no_breach_in_a_million_orders_through_fix(tmp_path, monkeypatch):
    for seed in range(10):
        _, oracle = run(2_000 + seed, 100_000, tmp_path / str(seed), monkeypatch)
        assert oracle.checked >= 100_000


def test_oracle_sees_through_fix_where_a_control_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.gateway.controls.collar.check", lambda *arguments: None)
    with pytest.raises(Breach):
        run(23, 4_000, tmp_path, monkeypatch)
