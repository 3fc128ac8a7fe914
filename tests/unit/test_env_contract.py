from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from market_fixtures import NS, make_day, open_ns, random_rows

from feature_repo.errors import InputError
from training.execution.config import ExecutionConfig
from training.execution.env import ExecutionEnv
from training.execution.parents import ParentOrder, parent_grid
from training.execution.vector_env import ExecutionVectorEnv

CONFIG = ExecutionConfig(lots=60)


@pytest.fixture(scope="module")
def day():
    return make_day(random_rows(np.random.default_rng(2)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_environment_passes_gymnasiums_checker(day):
    check_env(ExecutionEnv([day], CONFIG))


def test_masked_action_is_played_as_wait_and_counted(day):
    rows = [(open_ns() + k * NS, [(100, 50)], [(101, 50)], None) for k in range(7000)]
    narrow = make_day(rows + [(open_ns() + 7200 * NS, [(100, 50)], [(101, 50)], (100, 500, 0))])
    outcomes = []
    for action in (0, 2):  # wait, and improve in a spread of one tick
        env = ExecutionEnv([narrow], CONFIG)
        observation, _ = env.reset(options={"parent": ParentOrder(0, 1, 60, open_ns() + 60 * NS, 600 * NS)})
        assert observation["action_mask"].tolist() == [1, 1, 0, 1]
        rewards = [env.step(action) for _ in range(20)]
        assert rewards[-1][2]
        outcomes.append(([step[1] for step in rewards], rewards[-1][4]["masked"]))
    assert outcomes[0][0] == outcomes[1][0]
    assert (outcomes[0][1], outcomes[1][1]) == (0, 20)


def test_vector_environment_resets_in_the_step_after_the_end(day):
    env = ExecutionVectorEnv([day], CONFIG, 3, seed=1)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    env.reset(seed=1)
    ended = np.zeros(3, bool)
    seen = 0
    for _ in range(60):
        observation, rewards, terminated, truncated, infos = env.step(np.full(3, 1))
        assert not truncated.any()
        np.testing.assert_array_equal(observation["observation"][ended, 0], 1.0)  # all lots are open again
        np.testing.assert_array_equal(rewards[ended], 0.0)
        if terminated.any():
            np.testing.assert_array_equal(infos["_is_bps"], terminated)
        assert not (terminated & ended).any()
        ended, seen = terminated, seen + int(terminated.sum())
    assert seen >= 6


def test_risk_aversion_only_subtracts_the_reported_risk(day):
    parent = ParentOrder(0, 1, 60, open_ns() + 300 * NS, 600 * NS)
    env = ExecutionEnv([day], replace(CONFIG, risk_aversion=0.5))
    env.reset(options={"parent": parent})
    total, done = 0.0, False
    while not done:
        _, reward, done, _, info = env.step(0)
        total += reward
    assert total == pytest.approx(-info["is_bps"] - 0.5 * info["risk"], abs=1e-8)
    assert info["risk"] > 0


@pytest.mark.parametrize(
    ("lots", "start", "message"),
    [(10**9, 300, "exceeds the day's volume"), (60, 6800, "window closes"), (0, 300, "0 lots"), (60, -5, "window")],
)
def test_environment_when_the_day_cannot_hold_the_parent_then_names_the_values(day, lots, start, message):
    with pytest.raises(InputError, match=message):
        ExecutionEnv([day], CONFIG).reset(options={"parent": ParentOrder(0, 1, lots, open_ns() + start * NS, 600 * NS)})


def test_environment_when_a_feature_is_nan_then_refuses(day):
    broken = replace(day, features=np.full_like(day.features, np.nan))
    with pytest.raises(InputError, match="not finite"):
        ExecutionEnv([broken], CONFIG).reset(seed=0)


def test_grid_has_both_sides_at_every_start_and_room_for_the_horizon(day):
    parents = parent_grid([day], CONFIG)
    np.testing.assert_array_equal(parents["side"][0::2], 1)
    np.testing.assert_array_equal(parents["side"][1::2], -1)
    np.testing.assert_array_equal(parents["start_ns"][0::2], parents["start_ns"][1::2])
    assert (parents["start_ns"] + parents["horizon_ns"] < day.windows[0][1]).all()


@pytest.mark.parametrize(
    "values", [{"horizon_s": 100, "decision_interval_s": 33}, {"lots": 0}, {"adv_fraction": 2.0}, {"nonsense": 1}]
)
def test_config_when_values_contradict_then_names_them(values):
    with pytest.raises(InputError, match=next(iter(values))):
        ExecutionConfig.from_dict(values)
