"""`shortfall bench linear`: how near an agent comes to the closed-form optimum of the linear-impact world."""

from typing import Any

from flows.bench.machine import Row, result

SEEDS = (7, 11, 13, 17, 19)
TARGET_GAP = 0.02


def run(seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """Train PPO with continuous actions from a random network at each kappa x horizon, once a seed.

    `gap at kappa T K` is the worst seed's mean-variance objective over the optimum of Almgren and Chriss (2000),
    less 1; `even schedule at kappa T K` is the same of the even one, which knows neither impact nor risk.
    """
    from training.execution.linear_agent import KAPPAS, train_linear
    from training.execution.local_ray import local_ray

    rows = []
    with local_ray(1):
        for kappa in KAPPAS:
            found = [train_linear(kappa, seed) for seed in seeds]
            worst = max(item.gap for item in found)
            mean = sum(item.gap for item in found) / len(found)
            rows += [
                Row(f"gap at kappa T {kappa:g}", worst, "share", TARGET_GAP, worst <= TARGET_GAP),
                Row(f"mean gap at kappa T {kappa:g}", mean, "share"),
                Row(f"even schedule at kappa T {kappa:g}", found[0].twap_bps / found[0].optimum_bps - 1.0, "share"),
            ]
    return result(rows)
