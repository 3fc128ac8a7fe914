"""RLlib's settings for DQN: double, dueling, prioritised replay and n steps, with masks in the values."""

from typing import TYPE_CHECKING

from training.execution.agent_config import AgentConfig
from training.execution.ppo import shared_settings

if TYPE_CHECKING:
    from ray.rllib.algorithms.dqn import DQNConfig

    from training.execution.env_runner import EnvFactory
    from training.execution.ppo import ActingModule


def dqn_config(make_env: "EnvFactory", module: "ActingModule", config: AgentConfig, seed: int) -> "DQNConfig":
    """RLlib's settings for DQN (Mnih et al. 2015; van Hasselt et al. 2016; Wang et al. 2016; Schaul et al. 2016)."""
    from ray.rllib.algorithms.dqn import DQNConfig

    from training.execution.learners import ReplayDQNLearner
    from training.execution.replay import ColumnReplayBuffer

    made = shared_settings(DQNConfig(), make_env, module, config, seed).env_runners(
        rollout_fragment_length=max(config.dqn_fragment, config.dqn_n_step)
    )
    return made.reporting(min_sample_timesteps_per_iteration=config.batch_steps).training(
        learner_class=ReplayDQNLearner,
        train_batch_size_per_learner=config.dqn_batch,
        gamma=config.gamma,
        lr=[[0, config.learning_rate], [config.updates * config.batch_steps, config.learning_rate / 10]],
        grad_clip=config.grad_clip,
        grad_clip_by="global_norm",
        double_q=config.dqn_double,
        dueling=config.dqn_dueling,
        num_atoms=1,
        n_step=config.dqn_n_step,
        td_error_loss_fn="huber",
        target_network_update_freq=config.dqn_target_every,
        tau=1.0,
        training_intensity=config.dqn_training_intensity,
        num_steps_sampled_before_learning_starts=config.dqn_learning_starts,
        replay_buffer_config={
            "type": f"{ColumnReplayBuffer.__module__}.{ColumnReplayBuffer.__name__}",  # RLlib looks for words in it
            "capacity": config.dqn_capacity,
            "alpha": config.dqn_alpha,
            "beta": config.dqn_beta,
            "n_step": config.dqn_n_step,
            "gamma": config.gamma,
            "seed": seed,
        },
    )
