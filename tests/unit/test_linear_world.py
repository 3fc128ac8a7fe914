import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from feature_repo.errors import InputError
from training.execution.baselines import AlmgrenChriss
from training.market.linear_world import LinearImpactEnv, LinearImpactVectorEnv, LinearMarket

KAPPAS = (0.5, 2.0, 5.0)


def baseline(market):
    """Open shares x_0 .. x_N of the baseline's closed form."""
    policy = AlmgrenChriss(market.risk_aversion, market.eta_bps, market.gamma_bps, market.sigma_bps)
    return np.array([policy.open_share(k / market.slices, market.slices) for k in range(market.slices + 1)])


@pytest.mark.parametrize("kappa", KAPPAS)
def test_closed_form_schedule_costs_what_the_formula_says_to_two_per_cent(kappa):
    market = LinearMarket.with_kappa(kappa)
    paths = 200_000
    cost = market.simulate(baseline(market), np.random.default_rng(1), paths)
    mean, variance = market.optimum_bps()
    objective = cost.mean() + market.risk_aversion * cost.var()
    pairs = 0.5 * (cost[: paths // 2] + cost[paths // 2 :])
    # of the mean over antithetic pairs, and of the variance of half as many independent normal costs
    standard_error = pairs.std() / np.sqrt(len(pairs)) + market.risk_aversion * variance * np.sqrt(4.0 / paths)
    assert objective == pytest.approx(market.objective_bps(), rel=0.02)
    assert standard_error < 0.005 * market.objective_bps()
    assert cost.mean() == pytest.approx(mean, rel=0.02) and cost.var() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("kappa", [0.0, *KAPPAS])
def test_baseline_is_the_optimum_and_the_closed_form_its_moments(kappa):
    market = LinearMarket.with_kappa(kappa, slices=20)
    assert market.kappa == pytest.approx(kappa, abs=1e-6)
    np.testing.assert_allclose(baseline(market), market.optimal_open_shares(), atol=1e-9)
    np.testing.assert_allclose(market.moments_bps(market.optimal_open_shares()), market.optimum_bps(), rtol=1e-9)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_no_other_schedule_is_better(kappa):
    market, rng = LinearMarket.with_kappa(kappa), np.random.default_rng(2)
    for _ in range(200):
        other = market.optimal_open_shares()
        other[1:-1] += rng.normal(0, 0.05, market.slices - 1)
        mean, variance = market.moments_bps(other)
        assert mean + market.risk_aversion * variance > market.objective_bps()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_environment_passes_gymnasiums_checker():
    check_env(LinearImpactEnv())


def follow(shares, observed):
    """The action that goes on with the schedule `shares` from what is observed."""
    step = np.round((1.0 - observed[..., 1]) * (len(shares) - 1)).astype(int)
    following = shares[np.minimum(step + 1, len(shares) - 1)]
    traded = 1.0 - following / np.maximum(shares[np.minimum(step, len(shares) - 1)], 1e-12)
    return (2 * traded - 1)[..., None].astype(np.float32)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_mean_reward_of_the_optimum_is_minus_its_objective(kappa):
    market = LinearMarket.with_kappa(kappa)
    env = LinearImpactVectorEnv(market, 50_000, seed=4)
    observed, _ = env.reset(seed=4)
    total = np.zeros(env.num_envs)
    for _ in range(market.slices):
        actions = follow(market.optimal_open_shares(), observed["observation"])
        observed, rewards, ended, truncated, infos = env.step(actions)
        total += rewards
    assert ended.all() and not truncated.any()
    np.testing.assert_allclose(total, -infos["is_bps"] - market.risk_aversion * infos["risk"], atol=1e-9)
    standard_error = total.std() / np.sqrt(len(total))
    assert abs(total.mean() + market.objective_bps()) < 4 * standard_error
    assert standard_error < 0.02 * market.objective_bps()


def test_reward_telescopes_to_cost_and_risk_whatever_the_actions():
    market = LinearMarket(risk_aversion=0.3)
    env, rng = LinearImpactEnv(market), np.random.default_rng(0)
    env.reset(seed=1)
    total, done, steps = 0.0, False, 0
    while not done:
        observed, reward, done, truncated, info = env.step(rng.uniform(-1, 1, 1).astype(np.float32))
        assert env.observation_space.contains(observed) and not truncated
        total, steps = total + reward, steps + 1
    assert steps == market.slices
    assert total == pytest.approx(-info["is_bps"] - 0.3 * info["risk"])


def test_vector_environment_agrees_with_the_single_one_and_resets_in_the_step_after_the_end():
    single, vector = LinearImpactEnv(seed=9), LinearImpactVectorEnv(num_envs=1, seed=9)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    first, _ = single.reset(seed=9)
    batch, _ = vector.reset(seed=9)
    rng = np.random.default_rng(3)
    for _ in range(single.market.slices):
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        first, reward, done, _, _ = single.step(action)
        batch, rewards, ended, _, _ = vector.step(action[None])
        assert reward == rewards[0] and done == ended[0]
        np.testing.assert_array_equal(first["observation"], batch["observation"][0])
    assert done
    batch, rewards, ended, _, _ = vector.step(np.ones((1, 1), np.float32))
    assert batch["observation"][0].tolist() == [1, 1, 0] and rewards[0] == 0 and not ended[0]


@pytest.mark.parametrize(("action", "left"), [(1.0, 0.0), (-1.0, 1.0), (0.0, 0.5), (9.0, 0.0), (np.nan, 1.0)])
def test_action_is_the_share_of_what_is_open_and_clipped(action, left):
    env = LinearImpactEnv()
    env.reset(seed=0)
    observed, *_ = env.step(np.array([action], np.float32))
    assert observed["observation"][0] == pytest.approx(left)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eta_bps": 0.01, "gamma_bps": 1.0}, "eta_bps 0.01 must exceed"),
        ({"sigma_bps": -1.0}, "from 0 up"),
        ({"slices": 0}, "slices 0"),
    ],
)
def test_market_without_an_optimum_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        LinearMarket(**values)
    with pytest.raises(InputError, match="kappa"):
        LinearMarket.with_kappa(-1.0)
    with pytest.raises(InputError, match="num_envs 0"):
        LinearImpactVectorEnv(num_envs=0)
