import re
from dataclasses import fields, replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from market_fixtures import NS, make_day, open_ns, random_rows

from feature_repo.errors import InputError
from serving.contracts.actions import (
    ACTION_SETS,
    BEHIND_TICKS,
    CONTINUOUS_HIGH,
    CONTINUOUS_LOW,
    CONTINUOUS_NAMES,
    CROSS_FROM,
)
from serving.contracts.observation import ACTION_NAMES, MARKET_NAMES, OBSERVATION_NAMES, observation_bounds
from training.execution.config import WORLDS, ExecutionConfig
from training.execution.env import ExecutionEnv, env_creator
from training.execution.parents import ParentOrder, parent_grid
from training.execution.stepping import episode_infos
from training.execution.vector_env import ExecutionVectorEnv
from training.market.orders import EPISODE_DTYPE

CONFIG = ExecutionConfig(lots=60)
INFOS = tuple(episode_infos(np.zeros(1, EPISODE_DTYPE)))
MODES = [
    replace(CONFIG, actions=actions, decision_every_events=events) for actions in ACTION_SETS for events in (None, 25)
]


@pytest.fixture(scope="module")
def day():
    return make_day(random_rows(np.random.default_rng(2)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("config", MODES, ids=lambda config: f"{config.actions}-{config.decision_every_events}")
def test_environment_passes_gymnasiums_checker(day, config):
    check_env(ExecutionEnv([day], config), skip_render_check=True)


def tables():
    """The tables of the class docstring, each a list of rows of cells, by their first heading."""
    found, rows = {}, None
    for line in (ExecutionEnv.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.strip().startswith("|"):
            rows = None
        elif rows is None:
            rows = found.setdefault(" | ".join(cells), [])
        elif set(line) - set(" |-"):
            rows.append(cells)
    return found


def test_docstring_lists_every_observation_with_its_bounds_in_order():
    names, low, high = [], [], []
    for element, unit, bounds in tables()["element | unit | bounds"]:
        group = MARKET_NAMES if element == "market features" else element.split(", ")
        limits = [float(value) for value in bounds.split(",")]
        names += group
        low += [limits[0]] * len(group)
        high += [limits[1]] * len(group)
        assert unit
    assert tuple(names) == OBSERVATION_NAMES
    np.testing.assert_array_equal(observation_bounds(), np.array([low, high], np.float32))


def test_docstring_lists_every_action_setting_and_info():
    found = tables()
    assert [row[0] for row in found["action | message"]] == [f"{i} {name}" for i, name in enumerate(ACTION_NAMES)]
    spans = {name: [] for name in CONTINUOUS_NAMES}
    for element, value, _ in found["element | value | message"]:
        spans[element].append([float(bound) for bound in value.split(" to ")])
    bounds = [CONTINUOUS_LOW, CONTINUOUS_HIGH]
    assert spans == {"share": [bounds], "aggressiveness": [[bounds[0], 0], [0, CROSS_FROM], [CROSS_FROM, bounds[1]]]}
    behind = next(row[2] for row in found["element | value | message"] if "behind" in row[2])
    assert f"{BEHIND_TICKS} to 0 ticks behind" in behind
    assert tuple(row[0] for row in found["info | unit"]) == INFOS
    settings = {row[0] for row in found["setting | the next decision"]}
    assert settings == {name.name for name in fields(ExecutionConfig) if name.name.startswith("decision_")}


def test_docstring_names_only_settings_and_constants_that_exist():
    words = set(re.findall(r"`([a-z]+_[a-z_]+)`", ExecutionEnv.__doc__ or ""))
    known = {item.name for item in fields(ExecutionConfig)} | {"action_mask"} | set(INFOS)
    assert words <= known


@pytest.mark.parametrize("config", MODES, ids=lambda config: f"{config.actions}-{config.decision_every_events}")
def test_observations_of_every_mode_lie_within_the_space(day, config):
    env = ExecutionVectorEnv([day], config, 16, seed=3)
    env.action_space.seed(3)
    observation, _ = env.reset(seed=3)
    for _ in range(80):
        assert env.observation_space.contains(observation)
        observation, *_ = env.step(env.action_space.sample())


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


def test_decisions_by_events_come_with_every_so_many_book_rows_until_the_horizon(day):
    rows = [(open_ns() + k * NS // 2, [(100, 50)], [(101, 50)], None) for k in range(7200)]
    even = make_day(rows + [(open_ns() + 7100 * NS, [(100, 50)], [(101, 50)], (100, 500, 0))])
    config = replace(CONFIG, decision_every_events=80)  # two rows a second: a decision every 40 s
    env = ExecutionEnv([even], config)
    observation, _ = env.reset(options={"parent": ParentOrder(0, 1, 60, open_ns() + 60 * NS, 600 * NS)})
    left, done = [observation["observation"][1]], False
    while not done:
        observation, _, done, _, _ = env.step(0)
        left.append(observation["observation"][1])
    np.testing.assert_allclose(left, [max(0.0, 1 - 40 * k / 600) for k in range(16)], atol=1e-6)


def test_decisions_by_events_take_all_rows_of_one_stamp_together():
    rows = [(open_ns() + (k // 3) * NS, [(100, 50)], [(101, 50)], None) for k in range(21000)]
    threes = make_day(rows + [(open_ns() + 7100 * NS, [(100, 50)], [(101, 50)], (100, 500, 0))])
    env = ExecutionEnv([threes], replace(CONFIG, decision_every_events=1))
    env.reset(options={"parent": ParentOrder(0, 1, 60, open_ns() + 60 * NS, 600 * NS)})
    observation, *_ = env.step(0)
    assert observation["observation"][1] == pytest.approx(1 - 1 / 600)


def test_decision_interval_may_be_a_part_of_a_second(day):
    config = ExecutionConfig(lots=60, horizon_s=9, decision_interval_s=0.45)
    assert (config.interval_ns, config.slices) == (450_000_000, 20)
    env = ExecutionEnv([day], config)
    observation, _ = env.reset(seed=1)
    observation, *_ = env.step(0)
    assert observation["observation"][1] == pytest.approx(0.95)


def test_decisions_within_a_slice_are_even_and_leave_the_schedule_alone(day):
    often = replace(CONFIG, decisions_per_slice=3)
    assert (often.pause_ns, often.slices) == (10 * NS, CONFIG.slices)
    env = ExecutionEnv([day], often)
    observation, _ = env.reset(options={"parent": ParentOrder(0, 1, 60, open_ns() + 60 * NS, 600 * NS)})
    left, due = [], []
    for _ in range(7):
        left.append(observation["observation"][1])
        due.append(observation["observation"][2])
        observation, *_ = env.step(0)
    np.testing.assert_allclose(left, 1 - np.arange(7) / 60, atol=1e-6)
    np.testing.assert_allclose(due, [1, 1, 1, 2, 2, 2, 3], atol=1e-6)


@pytest.mark.parametrize(("wait_keeps", "rests"), [(True, 1.0), (False, 0.0)])
def test_wait_keeps_what_rests_only_where_the_settings_say_so(day, wait_keeps, rests):
    env = ExecutionEnv([day], replace(CONFIG, decision_interval_s=1, ahead_slices=600, wait_keeps=wait_keeps))
    env.reset(options={"parent": ParentOrder(0, 1, 60, open_ns() + 60 * NS, 600 * NS)})
    placed, *_ = env.step(1)
    waited, *_ = env.step(0)
    assert (placed["observation"][3], waited["observation"][3]) == (1.0, rests)


def test_continuous_place_wait_and_cross_earn_what_the_discrete_ones_do(day):
    twins = {0: (-1.0, 0.0), 1: (1.0, 0.0), 3: (1.0, 1.0)}
    parent = ParentOrder(0, -1, 60, open_ns() + 900 * NS, 600 * NS)
    discrete, continuous = ExecutionEnv([day], CONFIG), ExecutionEnv([day], replace(CONFIG, actions="continuous"))
    for env in (discrete, continuous):
        env.reset(options={"parent": parent})
    done, rng = False, np.random.default_rng(4)
    while not done:
        action = int(rng.choice(list(twins)))
        one, other = discrete.step(action), continuous.step(np.array(twins[action], np.float32))
        assert one[1:4] == other[1:4]
        np.testing.assert_array_equal(one[0]["observation"], other[0]["observation"])
        done = one[2]


def test_clamped_continuous_actions_are_counted(day):
    env = ExecutionEnv([day], replace(CONFIG, actions="continuous"))
    env.reset(options={"parent": ParentOrder(0, 1, 60, open_ns() + 900 * NS, 600 * NS)})
    done, steps = False, 0
    while not done:
        _, _, done, _, info = env.step(np.array([-5.0, np.nan if steps else 0.0]))
        steps += 1
    assert info["masked"] == steps == CONFIG.slices


def test_orders_that_meet_a_halt_are_refused_and_counted(day):
    halted = replace(day, halts=np.array([[open_ns() + 900 * NS, open_ns() + 1200 * NS]]))
    env = ExecutionEnv([halted], CONFIG)
    env.reset(options={"parent": ParentOrder(0, 1, 60, open_ns() + 900 * NS, 600 * NS)})
    done = False
    while not done:
        observation, _, done, _, info = env.step(3)  # half of the decisions fall into the halt
        if observation["observation"][1] >= 0.5:
            assert observation["observation"][0] == 1.0
    assert info["refused"] == 10 and info["completion"] == 1.0


def test_forced_completion_walks_the_book_and_counts_what_lay_beyond_it():
    # Three visible asks of 10 lots: 100 lots meet 30 there, and 70 at levels of 10 one tick apart behind.
    rows = [(open_ns() + k * NS, [(100 - i, 10) for i in range(3)], [(102 + i, 10) for i in range(3)], None)
            for k in range(7000)]  # fmt: skip
    thin = make_day(rows + [(open_ns() + 7100 * NS, *rows[0][1:3], (102, 500, 1))])
    env = ExecutionEnv([thin], replace(CONFIG, lots=100))
    env.reset(options={"parent": ParentOrder(0, 1, 100, open_ns() + 60 * NS, 600 * NS)})
    done, total = False, 0.0
    while not done:
        _, reward, done, _, info = env.step(0)
        total += reward
    average = sum(10 * price for price in range(102, 112)) / 100
    assert (info["extrapolated_share"], info["completion"], info["passive_share"]) == (0.7, 0, 0)
    assert info["is_bps"] == pytest.approx(1e4 * (average - 101) / 101)
    assert total == pytest.approx(-info["is_bps"])


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


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ({"day": 0, "side": 1, "lots": 60}, "give a ParentOrder"),
        (ParentOrder(1, 1, 60, open_ns() + 300 * NS, 600 * NS), "day index 1; there are 1 days"),
        (ParentOrder(-1, 1, 60, open_ns() + 300 * NS, 600 * NS), "day index -1"),
    ],
)
def test_environment_when_the_parent_asked_for_is_none_of_its_own_then_draws_no_other(day, parent, message):
    with pytest.raises(InputError, match=message):
        ExecutionEnv([day], CONFIG).reset(options={"parent": parent})


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
    "values",
    [
        {"horizon_s": 100, "decision_interval_s": 33},
        {"decision_interval_s": 0.0001},
        {"decision_every_events": 0},
        {"decisions_per_slice": 0},
        {"decision_interval_s": 1, "decisions_per_slice": 7},
        {"lots": 0},
        {"adv_fraction": 2.0},
        {"actions": "neither"},
        {"world": "elsewhere"},
        {"nonsense": 1},
    ],
)
def test_config_when_values_contradict_then_names_them(values):
    with pytest.raises(InputError, match=list(values)[-1]):
        ExecutionConfig.from_dict(values)


def test_config_when_the_world_is_unknown_then_names_the_known_ones():
    with pytest.raises(InputError, match=f"world 'elsewhere' is not one of {', '.join(WORLDS)}"):
        ExecutionConfig(world="elsewhere")
    assert ExecutionConfig.from_dict(ExecutionConfig(actions="continuous").to_dict()).actions == "continuous"


@pytest.mark.parametrize(("actions", "given"), [("discrete", np.zeros((3, 2))), ("continuous", np.zeros(3))])
def test_vector_environment_when_actions_have_the_wrong_shape_then_says_which(day, actions, given):
    env = ExecutionVectorEnv([day], replace(CONFIG, actions=actions), 3, seed=1)
    env.reset(seed=1)
    with pytest.raises(InputError, match=f"{actions} actions have shape"):
        env.step(given)


@pytest.mark.parametrize("action", [0.5, [0.5], np.zeros((1, 2)), np.zeros(3)])
def test_single_environment_when_a_continuous_action_has_the_wrong_shape_then_says_which(day, action):
    env = ExecutionEnv([day], replace(CONFIG, actions="continuous"))
    env.reset(seed=1)
    with pytest.raises(InputError, match=r"has shape .*, wanted \(2,\)"):
        env.step(action)
    env.step([0.5, -1.0])


def test_environment_by_name_is_single_or_vector_as_asked(day, monkeypatch):
    monkeypatch.setattr("training.execution.env.load_market_days", lambda *_: [day])
    values = {"features_dir": "x", "partitions": [("TEST", "T", "2024-01-02")], "execution": {"lots": 60}, "seed": 4}
    single, vector = env_creator(values), env_creator({**values, "num_envs": 2})
    assert isinstance(single, ExecutionEnv) and isinstance(vector, ExecutionVectorEnv) and vector.num_envs == 2
