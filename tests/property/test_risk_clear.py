"""`clear` says yes only to orders that every control lets pass, over adversarial streams."""

import shutil
from pathlib import Path

import pytest
from gateway_oracle import Oracle
from gateway_streams import Streams
from gateway_world import World, limits_of

from serving.gateway import clear
from serving.gateway.controls import registry
from serving.gateway.live import NEVER

CONTROLS = Path(registry.__file__).parent


def ask_both(monkeypatch):
    """Ask every control about whatever is called clear. Returns how often it was and was not, and what was denied."""
    said, denied = {True: 0, False: 0}, []

    def is_clear(at, order, now):
        answer = clear.is_clear(at, order, now)
        said[answer] += 1
        if answer:
            denials = [control.check(at, at.limits, order, now) for control in registry.CONTROLS]
            denied.extend(filter(None, denials))
        return answer

    monkeypatch.setattr(registry, "is_clear", is_clear)
    return said, denied


def follow(seed, requests):
    streams = Streams(seed, Oracle().read)
    streams.run(requests)
    return streams.gateway, streams.denied


@pytest.mark.parametrize("seed", [11, 12])
def test_no_control_denies_what_is_clear(monkeypatch, seed):
    said, denied = ask_both(monkeypatch)
    follow(seed, 8_000)
    assert not denied
    assert said[True] > 500 and said[False] > 500


def test_journal_is_the_same_when_nothing_is_called_clear(monkeypatch):
    quick, denied = follow(13, 8_000)
    monkeypatch.setattr(registry, "is_clear", lambda at, order, now: False)
    slow, denied_slowly = follow(13, 8_000)
    assert (quick.journal._hash, quick.state.hash(), denied) == (slow.journal._hash, slow.state.hash(), denied_slowly)


def test_venue_whose_rejects_are_of_two_strategies_is_not_clear():
    world = World(limits_of(max_venue_rejects=2))
    for strategy in ("S1", "S2"):
        world.report(world.venue.reject(world.send(strategy=strategy).order_id))
    assert world.send(account="A2", strategy="S3").control == "venue_rejects"


def test_clock_that_was_never_measured_is_not_clear():
    world = World()
    world.gateway.live.clock.measured_ns = NEVER
    assert world.send().control == "clock"


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("seed", range(20, 25))
def test_no_control_denies_what_is_clear_in_millions_of_requests(monkeypatch, seed):
    said, denied = ask_both(monkeypatch)
    follow(seed, 1_000_000)
    assert not denied
    assert said[True] > 100_000


def test_clear_was_compared_with_the_controls_as_they_are_now():
    assert registry.CLEAR_MAY_ANSWER, (
        f"a control changed: bring `serving.gateway.clear` in line with it, run this file's slow tests, then let "
        f"COMPARED be {registry.digest(CONTROLS)}"
    )


@pytest.mark.parametrize("control", [control.NAME for control in registry.CONTROLS])
def test_digest_when_any_control_is_changed_or_gone_is_another(tmp_path, control):
    folder = Path(shutil.copytree(CONTROLS, tmp_path / "controls"))
    assert registry.digest(folder) == clear.COMPARED
    with open(folder / f"{control}.py", "a") as file:
        file.write("# changed")
    assert registry.digest(folder) not in ("", clear.COMPARED)
    (folder / f"{control}.py").unlink()
    assert registry.digest(folder) == ""
