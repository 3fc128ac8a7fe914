"""kill -9 at random points: no acknowledged decision lost, none sent twice, the replay identical to the bit."""

import os
import select
import signal
import time

import numpy as np
import pytest
from gateway_victim import FileVenue, recover, request, trade
from gateway_world import Clock

from serving.contracts.decisions import Allowed, decode_decision
from serving.gateway import audit
from serving.gateway.disk import RealDisk
from serving.gateway.events import decode_event
from serving.gateway.journal import records
from serving.gateway.state import State


def victim(folder, first, lives_s, from_its_first_word):
    """Run a process that trades, kill it `lives_s` after its start or its first word, and return all that it said."""
    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reads)
            trade(folder, writes, first)
        finally:
            os._exit(77)  # it must never come to an end by itself
    os.close(writes)
    if from_its_first_word:
        select.select([reads], [], [], 60)
    said, until = [], time.monotonic() + lives_s
    while (left := until - time.monotonic()) > 0:
        if select.select([reads], [], [], left)[0]:
            chunk = os.read(reads, 1 << 16)
            if not chunk:
                break
            said.append(chunk)
    os.kill(process, signal.SIGKILL)
    while chunk := os.read(reads, 1 << 16):
        said.append(chunk)
    os.close(reads)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL, "the process ended before it was killed"
    return b"".join(said).split(b"\n")[:-1]


def run(folder, kills, seed):
    rng = np.random.default_rng(seed)
    acknowledged, hashes, last = {}, {}, 0
    for _ in range(kills):
        first = max(0, last - 16)  # what had no answer, and some that had, is sent again
        for line in victim(folder, first, float(rng.random()) * 0.05, bool(rng.random() < 0.7)):
            kind, name, rest = line.split(b" ", 2)
            if kind == b"A":
                key = name.decode()
                assert acknowledged.setdefault(key, rest) == rest, "the same request got another answer"
                last = max(last, int(key[1:]))
            elif kind == b"H":
                hashes[int(name)] = rest.decode()
    return acknowledged, hashes


def check(folder, acknowledged, hashes):
    state, told = State(), 0
    for _, record in records(RealDisk(folder / "journal")):
        state.apply(decode_event(record.payload))
        if record.sequence in hashes:
            told += 1
            assert state.hash() == hashes[record.sequence]
    assert told == len(hashes)
    for key, raw in acknowledged.items():
        asked, decision = state.keys["A1", "S1", key]
        assert decision == decode_decision(raw) and asked == request(int(key[1:]))
    venue = FileVenue(folder / "venue.log")
    keys = [key for _, key in venue.sent]
    numbers = [order_id for order_id, _ in venue.sent]
    assert len(set(keys)) == len(keys) and len(set(numbers)) == len(numbers), "an order was sent twice"
    for order_id, key in venue.sent:
        assert state.keys["A1", "S1", key][1] == Allowed(key=key, order_id=order_id, algorithm="twap", trader="ann")
    gateway = recover(folder, venue, Clock())  # and the book agrees with the venue's
    assert sum(fill.lots for fill in venue.fills) == gateway.state.all.traded_lots
    gateway.journal.close()
    audit.verify(RealDisk(folder / "journal"))


def test_gateway_killed_50_times_loses_and_repeats_nothing(tmp_path):
    acknowledged, hashes = run(tmp_path, 50, seed=5)
    assert sum(b'"allowed"' in raw for raw in acknowledged.values()) > 200 and hashes
    check(tmp_path, acknowledged, hashes)


@pytest.mark.slow
def test_gateway_killed_2000_times_loses_and_repeats_nothing(tmp_path):
    for part in range(40):
        folder = tmp_path / str(part)
        folder.mkdir()
        check(folder, *run(folder, 50, seed=100 + part))
