"""The journal on disks that lose, tear, fill up and lie; one writer; nothing starts from what was changed."""

import errno

import numpy as np
import pytest
from gateway_world import ANN, VENUE, BadDisk, Clock, Venue, World, limits_of

from serving.contracts.decisions import Allowed, Denied
from serving.gateway import audit
from serving.gateway.day import DayError, end_day, start_day
from serving.gateway.disk import LockedError, RealDisk
from serving.gateway.events import Halted, Instrument, encode_event
from serving.gateway.journal import EPOCH, Journal, JournalError, file_name
from serving.gateway.live import SECOND_NS
from serving.gateway.records import HEADER_BYTES, MAGIC, CorruptError
from serving.gateway.recovery import open_gateway

FIRST = file_name(1)


def filled_disk(groups=6, a_group=3):
    """A disk with some groups of small events; returns it and where each group ends."""
    disk = BadDisk()
    journal, _ = Journal.open(disk, 1)
    ends = [journal.durable]
    for group in range(groups):
        for place in range(a_group):
            journal.append(Halted(utc_ns=1, reason=f"reason {group} {place} " + "x" * 400))
        journal.commit()
        ends.append(journal.durable)
    journal.close()
    disk.crash()
    return disk, ends


def test_replay_gives_the_same_state_to_the_bit():
    world = World()
    world.hold(100)
    world.work("sell", 30, 10_050, key="b")
    world.submit(world.replace("b", 10_060, 40))
    world.send(lots=10**9)
    before = world.state.encoded()
    world.disk.crash()
    state, _ = audit.replay(world.disk)
    assert state.encoded() == before
    assert audit.verify(world.disk)["state_hash"] == world.state.hash()


def test_nothing_is_sent_before_it_is_durable():
    world = World()
    synced = []
    send = world.venue.send

    def spy(message):
        synced.append(
            world.disk.durable[FIRST] == world.disk.written[FIRST] and b'"key":"mine"' in world.disk.durable[FIRST]
        )
        send(message)

    world.venue.send = spy
    world.send(key="mine")
    assert synced == [True]


def test_group_is_one_sync():
    world = World()
    syncs = world.disk.syncs
    for _ in range(50):
        world.gateway.decide(world.order(), world.clock())
    world.gateway.commit(world.clock())
    assert world.disk.syncs == syncs + 1 and len(world.venue.log) == 50


def test_unsynced_bytes_are_lost_and_nothing_else():
    world = World()
    kept = world.send()
    world.gateway.decide(world.order(key="lost"), world.clock())
    world.disk.crash()
    world.restart()
    assert ("A1", "S1", kept.key) in world.state.keys and ("A1", "S1", "lost") not in world.state.keys


def seeds(count):
    """So many in the default run, and ten times as many behind `slow`."""
    return [*range(count), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(count, 10 * count))]


@pytest.mark.parametrize("seed", seeds(40))
def test_torn_tail_is_set_aside_and_no_durable_record_is_lost(seed):
    rng = np.random.default_rng(seed)
    disk, _ = filled_disk()
    journal, _ = Journal.open(disk, 1)
    durable = disk.durable[FIRST]
    for place in range(int(rng.integers(1, 9))):
        journal.append(Halted(utc_ns=1, reason=f"torn {place} " + "y" * int(rng.integers(0, 1_500))))
    content, _ = journal._group()
    journal._file.write(content)
    disk.crash(rng)
    survived = disk.durable[FIRST] == durable + content
    reopened, _ = Journal.open(disk, 1)
    assert disk.written[FIRST].startswith(durable + content if survived else durable)
    assert survived or b"torn" not in disk.written[FIRST]
    reopened.append(Halted(utc_ns=1, reason="goes on"))
    reopened.commit()
    audit.verify(disk)


def test_torn_tail_is_kept_in_a_file_of_its_own():
    disk, ends = filled_disk()
    disk.written[FIRST] = disk.durable[FIRST] = disk.durable[FIRST][:-5]
    journal, _ = Journal.open(disk, 1)
    assert journal.torn in disk.names()
    assert len(disk.read(journal.torn)) == ends[-1] - 5 - ends[-2]


@pytest.mark.parametrize("seed", seeds(60))
def test_flipped_bit_in_any_durable_record_refuses_to_start(seed):
    rng = np.random.default_rng(seed)
    disk, _ = filled_disk()
    content = bytearray(disk.durable[FIRST])
    place = int(rng.integers(0, len(content))) if seed % 2 else len(content) - 1 - int(rng.integers(0, 3 * 500))
    content[place] ^= 1 << int(rng.integers(0, 8))
    disk.written[FIRST] = disk.durable[FIRST] = bytes(content)
    with pytest.raises(CorruptError):
        Journal.open(disk, 1)
    assert not disk.locked  # and it can be opened once the copy is restored
    with pytest.raises(CorruptError):
        audit.verify(disk)


def cut(content, ends, place):
    return content[: ends[place]] + content[ends[place + 1] :]


@pytest.mark.parametrize(
    "harm",
    [
        lambda content, ends: cut(content, ends, 2),
        lambda content, ends: (
            content[: ends[2]] + content[ends[3] : ends[4]] + content[ends[2] : ends[3]] + content[ends[4] :]
        ),
        lambda content, ends: content[: ends[3]] + content[ends[2] : ends[3]] + content[ends[3] :],
        lambda content, ends: content[: ends[2]] + bytes(ends[3] - ends[2]) + content[ends[3] :],
        lambda content, ends: content[: ends[2] + 40] + content[ends[2] + 41 :],
        lambda content, ends: content + b"garbage that nobody wrote" * 9,
        lambda content, ends: b"X" + content[1:],
        lambda content, ends: content[3:],
    ],
    ids=[
        "a group cut out",
        "groups swapped",
        "a group twice",
        "a group of zeros",
        "a byte out",
        "garbage",
        "magic",
        "head",
    ],
)
def test_any_other_harm_refuses_to_start(harm):
    disk, ends = filled_disk()
    disk.written[FIRST] = disk.durable[FIRST] = harm(disk.durable[FIRST], ends)
    with pytest.raises(CorruptError):
        Journal.open(disk, 1)


def test_event_that_cannot_follow_refuses_to_start():
    disk = BadDisk()
    journal, _ = Journal.open(disk, 1)
    from serving.gateway.events import Armed

    journal.append(Armed(utc_ns=1, by="nobody"))
    journal.commit()
    journal.close()
    with pytest.raises(CorruptError, match="reconciled"):
        Journal.open(disk, 1)


def test_payload_that_is_no_event_refuses_to_start():
    disk = BadDisk()
    journal, _ = Journal.open(disk, 1)
    journal._pending.append(encode_event(Halted(utc_ns=1, reason="x"))[:-1] + b',"more":1}')
    journal.commit()
    journal.close()
    with pytest.raises(CorruptError, match="no event"):
        Journal.open(disk, 1)


def test_disk_full_refuses_says_so_and_cancels():
    world = World()
    resting = world.work(price=9_900)
    world.disk.space = 100
    decision = world.send()
    assert decision.control == "journal" and "No space left" in decision.message
    assert len(world.venue.news()) == 1
    assert [message.order_id for message in world.venue.cancels()] == [resting]
    assert world.send().control == "journal"
    world.disk.space = 2**40
    assert world.send().control == "journal"  # not before a restart has read what is there
    world.disk.crash()
    gateway = world.restart()
    assert ("A1", "S1", decision.key) not in gateway.state.keys


def test_disk_almost_full_denies_new_orders_and_lets_cancels_through():
    world = World()
    world.work(key="a", price=9_900)
    world.disk.space = 2**20
    world.watch.tick(world.clock())
    assert "full" in world.send().message
    assert type(world.submit(world.cancel("a"))) is Allowed
    world.disk.space = 2**40
    world.watch.tick(world.clock())
    assert type(world.send()) is Allowed


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_failed_sync_is_never_tried_again(error):
    world = World()
    world.disk.sync_fails = OSError(error, "bad")
    assert world.send().control == "journal"
    world.disk.sync_fails = None
    assert world.send().control == "journal"
    assert world.venue.news() == []


def test_failed_group_acknowledges_none_of_it():
    world = World()
    world.gateway.decide(world.order(), world.clock())
    world.gateway.decide(world.order(), world.clock())
    world.disk.fails = OSError(errno.EIO, "bad")
    with pytest.raises(JournalError):
        world.gateway.commit(world.clock())
    assert world.venue.log == []


def test_second_writer_is_locked_out(tmp_path):
    disk = RealDisk(tmp_path)
    journal, _ = Journal.open(disk, 1)
    with pytest.raises(LockedError):
        Journal.open(RealDisk(tmp_path), 1)
    journal.close()
    Journal.open(RealDisk(tmp_path), 1)[0].close()


def test_writer_that_lost_its_lock_is_fenced():
    disk = BadDisk()
    old, state = Journal.open(disk, 1)
    disk.locked = False  # a lock that did not hold, as on a network disk
    new, _ = Journal.open(disk, 1)
    old.append(Halted(utc_ns=1, reason="late"))
    with pytest.raises(JournalError, match="took the journal over"):
        old.commit()
    new.append(Halted(utc_ns=1, reason="mine"))
    new.commit()
    assert audit.verify(disk)["events"]["Halted"] == 1


def test_bad_epoch_refuses_to_start():
    disk, _ = filled_disk()
    disk.put(EPOCH, b"soon")
    with pytest.raises(CorruptError, match="epoch"):
        Journal.open(disk, 1)


def test_real_disk_gives_back_what_was_written(tmp_path):
    world = World(disk=RealDisk(tmp_path))
    world.hold(100)
    before = world.state.encoded()
    world.gateway.journal.close()
    assert audit.replay(RealDisk(tmp_path))[0].encoded() == before
    assert audit.main(["verify", str(tmp_path)]) == 0


def next_day(world, day="2026-03-03", **changes):
    opens = world.state.closes_ns + 4 * 3600 * SECOND_NS
    instruments = (Instrument(symbol="AIG", tick_value=10, mark_ticks=10_000, adv_lots=10**6),)
    world.clock.utc_ns = max(world.clock.utc_ns, opens)
    return start_day(world.gateway, day, opens, opens + 3600 * SECOND_NS, instruments, world.clock(), **changes)


def test_day_rolls_to_a_new_file_that_begins_with_the_state():
    world = World()
    world.hold(100)
    world.send(lots=10**9)
    name = end_day(world.gateway, world.clock())
    assert name == file_name(2)
    differences = next_day(world)
    assert differences == ["A1/S1/AIG: 100 lots at the end of the day before, 0 now"]
    before = world.state.encoded()
    world.disk.crash()
    assert audit.replay(world.disk)[0].encoded() == before
    found = audit.verify(world.disk)
    assert found["files"] == [file_name(1), file_name(2)] and found["state_hash"] == world.state.hash()
    world.restart()
    assert world.state.date == "2026-03-03" and world.state.leg("A1", "S1", "AIG").position == 0


def test_day_does_not_start_twice_nor_earlier_nor_over():
    world = World()
    world.work()
    with pytest.raises(DayError, match="still open"):
        next_day(world)
    with pytest.raises(DayError, match="1 orders are still open"):
        end_day(world.gateway, world.clock())
    world.report(world.venue.cancelled(1))
    end_day(world.gateway, world.clock())
    for day in ("2026-03-02", "2026-03-01", "tomorrow"):
        with pytest.raises(DayError):
            next_day(world, day)
    world.clock.utc_ns += 100 * 3600 * SECOND_NS
    world.gateway.read_clock(world.clock())
    world.clock.utc_ns -= 100 * 3600 * SECOND_NS
    with pytest.raises(DayError, match="over"):
        next_day(world)  # the clock went ahead and came back: what was over stays over


def test_missing_file_between_two_is_noticed():
    world = World()
    end_day(world.gateway, world.clock())
    next_day(world)
    end_day(world.gateway, world.clock())
    del world.disk.written[file_name(2)]
    with pytest.raises(CorruptError, match="missing"):
        audit.verify(world.disk)
    world.disk.locked = False
    with pytest.raises(CorruptError, match="missing"):
        Journal.open(world.disk, 1)


def test_closed_file_with_a_torn_end_refuses():
    world = World()
    end_day(world.gateway, world.clock())
    world.disk.written[FIRST] = world.disk.written[FIRST][:-3]
    with pytest.raises(CorruptError, match="closed"):
        audit.verify(world.disk)


def test_same_key_and_payload_gets_the_first_decision_even_after_a_restart():
    world = World(limits_of(max_order_lots=100))
    order, large = world.order(), world.order(lots=101)
    allowed, denied = world.submit(order), world.submit(large)
    assert world.submit(order) == allowed and world.submit(large) == denied
    other = world.submit(world.order(key=order.key, lots=5))
    assert type(other) is Denied and other.control == "idempotency"
    world.disk.crash()
    world.restart()
    assert world.submit(order) == allowed and world.submit(large) == denied
    assert world.submit(world.order(key=order.key, lots=5)).control == "idempotency"
    assert len(world.venue.news()) == 1


def test_export_gives_a_line_a_record():
    import json

    world = World()
    world.send()
    lines = [json.loads(line) for line in audit.export(world.disk)]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["event"]["event"] == "accepted"


def test_header_is_as_long_as_documented():
    assert HEADER_BYTES == 56 and len(MAGIC) == 8


def test_open_on_a_disk_that_refuses_says_so():
    disk = BadDisk()
    disk.fails = OSError(errno.EROFS, "read-only")
    with pytest.raises(JournalError, match="read-only"):
        open_gateway(disk, Venue(), Clock()())
    assert not disk.locked


def test_kill_holds_when_the_disk_refuses_it():
    from serving.gateway.kill import kill

    world = World()
    resting = world.work(price=9_900)
    world.disk.fails = OSError(errno.EIO, "bad")
    answer = kill(world.watch, "venue", VENUE, ANN, "test", world.clock())
    assert not answer.persisted and "not persisted" in answer.message
    assert type(world.send()) is Denied
    assert resting in [message.order_id for message in world.venue.cancels()]
