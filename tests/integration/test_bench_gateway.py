"""The benchmark of the gateway's process, made small: its figures are figures, and its kill switch is one."""

from flows.bench.gateway import fix, port
from flows.bench.gateway.venue import received


def test_bench_gateway_when_run_through_fix_then_nothing_reaches_the_venue_after_a_kill(tmp_path, monkeypatch):
    for name, value in (("LATENCIES", 10), ("SUSTAINED", 300), ("KILLS", 4)):
        monkeypatch.setattr(fix, name, value)
    found = fix.through_fix(tmp_path, None)
    assert found.after_kill == 0
    assert found.to_venue_us > found.sync_us > 0 and found.orders_s > 0
    assert 0 < found.kill_p50_ms <= found.kill_p99_ms
    numbers = [number for number, _ in received(tmp_path)]
    assert len(numbers) == len(set(numbers)) >= 310  # none twice


def test_bench_gateway_when_run_through_the_order_port_then_every_order_is_answered(monkeypatch):
    for name, value in (("ORDERS", 4_000), ("AT_RATE", 1_000), ("WARM", 1_000)):
        monkeypatch.setattr(port, name, value)
    found = port.pipelined(None)
    assert found.rate_cpu > 0 and found.rate_wall > 0 and found.half_p99_ms > 0
