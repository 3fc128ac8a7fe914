"""RLlib learners that take whole rollouts: advantages, minibatches and losses without an object an episode."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner.learner_connector_pipeline import LearnerConnectorPipeline
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY, Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.annotations import override
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

from training.execution.replay import ReplayBatch
from training.execution.rollout import Rollout

OBSERVATION, ACTION_MASK = "observation", "action_mask"


class AdvantagesOfRollouts(ConnectorV2):
    """Learner connector: rollouts to one batch of tensors, with advantages from one pass of the value function.

    Advantages are standardised over the batch's steps. RLlib's own pipeline gives the same value targets; it puts an
    artificial step behind each episode and lets those into the mean and the deviation, which this one does not.
    """

    def __init__(self, gamma: float, lambda_: float, device: Any) -> None:
        """Discount, lambda of the estimate, and the device that the batch goes to."""
        super().__init__()
        self.gamma, self.lambda_, self.device = gamma, lambda_, device

    @override(ConnectorV2)
    def __call__(self, *, rl_module: Any, batch: Any, episodes: Sequence[Rollout], **_: Any) -> Any:
        """The batch of these rollouts."""
        parts = [self._columns(rl_module[DEFAULT_MODULE_ID].unwrapped(), rollout) for rollout in episodes]
        whole = {
            name: parts[0][name] if len(parts) == 1 else np.concatenate([p[name] for p in parts]) for name in parts[0]
        }
        advantages = whole[Postprocessing.ADVANTAGES]
        spread = max(1e-4, float(advantages.std()))
        whole[Postprocessing.ADVANTAGES] = ((advantages - advantages.mean()) / spread).astype(np.float32)
        tensors: dict[str, Any] = {name: torch.from_numpy(value).to(self.device) for name, value in whole.items()}
        tensors[Columns.OBS] = {name: tensors.pop(name) for name in (OBSERVATION, ACTION_MASK)}
        return {DEFAULT_MODULE_ID: tensors}

    def _columns(self, module: Any, rollout: Rollout) -> dict[str, Any]:
        rows, n, width = rollout.observation.shape
        values = self._values(module, rollout.observation.reshape(rows * n, width)).reshape(rows, n)
        last = np.stack([seen for _, _, seen, _ in rollout.last_seen]) if rollout.last_seen else None
        last_values = np.zeros(0, np.float32) if last is None else self._values(module, last)
        found = rollout.gae(values, last_values, self.gamma, self.lambda_)
        keep = rollout.chosen
        return {
            OBSERVATION: rollout.observation[:-1][keep],
            ACTION_MASK: rollout.action_mask[:-1][keep],
            Columns.ACTIONS: rollout.actions[keep],
            Columns.ACTION_LOGP: rollout.logp[keep],
            Postprocessing.ADVANTAGES: found.advantages[keep],
            Postprocessing.VALUE_TARGETS: found.targets[keep].astype(np.float32),
        }

    def _values(self, module: Any, observation: Any) -> Any:
        with torch.no_grad():
            seen = {Columns.OBS: {OBSERVATION: torch.from_numpy(observation).to(self.device)}}
            return module.compute_values(seen).cpu().numpy()


class Minibatches:
    """Every step once an epoch, in a new order each time, in parts of equal size near `size`."""

    def __init__(self, batch: MultiAgentBatch, size: int, epochs: int, total: int, generator: torch.Generator) -> None:
        """`total` minibatches where that is not 0: learners that average gradients must all make as many steps."""
        self._columns = batch.policy_batches[DEFAULT_MODULE_ID]
        self._count = len(self._columns[Columns.ACTIONS])
        self._parts = max(1, round(self._count / size))
        self.total = total or epochs * self._parts
        self._generator = generator

    def __iter__(self) -> Iterator[MultiAgentBatch]:
        """Minibatches as RLlib's learner takes them."""
        parts: list[Tensor] = []
        for _ in range(self.total):
            if not parts:
                order = torch.randperm(self._count, generator=self._generator)
                parts = list(order.tensor_split(self._parts))
            chosen = parts.pop()
            yield MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(_rows(self._columns, chosen))}, len(chosen))


def _rows(columns: Any, chosen: Tensor) -> dict[str, Any]:
    """The chosen rows of nested columns."""
    return {
        name: _rows(value, chosen) if isinstance(value, dict) else value.index_select(0, chosen.to(value.device))
        for name, value in columns.items()
    }


class _RolloutLearner(TorchLearner):
    """What both learners share: a connector of ours alone, Adam in one fused call, nothing logged but what is read."""

    @override(TorchLearner)
    def build(self) -> None:
        """Build as RLlib does, on one thread."""
        torch.set_num_threads(1)
        super().build()
        seed = self.config.seed or 0
        self._generator = torch.Generator().manual_seed(seed * 1_000_003 + 0xBA7C)

    def _use(self, connector: ConnectorV2) -> None:
        self._learner_connector = LearnerConnectorPipeline(connectors=[connector])

    @override(TorchLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        params = self.get_parameters(self._module[module_id])
        optimiser = torch.optim.Adam(params, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimiser, params=params, lr_or_lr_schedule=config.lr)

    @override(TorchLearner)
    def _compute_off_policyness(self, batch: Any) -> None:
        """Rollouts are sampled with the weights that they teach."""

    @override(Learner)
    def get_state(self, *args: Any, **kwargs: Any) -> Any:
        return {**super().get_state(*args, **kwargs), "shuffle": self._generator.get_state().numpy()}

    @override(Learner)
    def set_state(self, state: Any) -> None:
        super().set_state(state)
        if "shuffle" in state:
            self._generator.set_state(torch.from_numpy(np.asarray(state["shuffle"])))


class RolloutPPOLearner(_RolloutLearner, PPOTorchLearner):
    """RLlib's PPO learner on rollouts; clipped surrogate, value and entropy as its own loss has them."""

    @override(PPOTorchLearner)
    def build(self) -> None:
        """Build as RLlib does, with the connector of ours."""
        super().build()
        self._use(AdvantagesOfRollouts(self.config.gamma, self.config.lambda_, self._device))

    @override(Learner)
    def _create_iterator_if_necessary(
        self,
        *,
        training_data: Any,
        num_total_minibatches: int = 0,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **_: Any,
    ) -> Minibatches:
        batch = self._make_batch_if_necessary(training_data=training_data)
        size = minibatch_size or len(batch.policy_batches[DEFAULT_MODULE_ID])
        minibatches = Minibatches(batch, size, num_epochs, num_total_minibatches, self._generator)
        self._left = minibatches.total
        return minibatches

    @override(PPOTorchLearner)
    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
        """Clipped surrogate (Schulman et al. 2017, eq. 7), squared error of the values, entropy bonus."""
        module = self.module[module_id].unwrapped()
        logp, entropy = module.judge(fwd_out[Columns.ACTION_DIST_INPUTS], batch[Columns.ACTIONS])
        advantages, targets = batch[Postprocessing.ADVANTAGES], batch[Postprocessing.VALUE_TARGETS]
        ratio = torch.exp(logp - batch[Columns.ACTION_LOGP])
        clipped = torch.clamp(ratio, 1.0 - config.clip_param, 1.0 + config.clip_param)
        gain = torch.min(advantages * ratio, advantages * clipped).mean()
        values = module.compute_values(batch)
        value_loss = torch.clamp((values - targets).square(), 0.0, config.vf_clip_param).mean()
        bonus = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        mean_entropy = entropy.mean()
        self._left -= 1
        if self._left == 0:  # RLlib keeps the last value of an update and drops the others
            figures = {
                POLICY_LOSS_KEY: -gain.detach(),
                VF_LOSS_KEY: value_loss.detach(),
                ENTROPY_KEY: mean_entropy.detach(),
                "vf_explained_var": explained_variance(targets, values.detach()),
                "mean_kl_loss": (batch[Columns.ACTION_LOGP] - logp).mean().detach(),
            }
            self.metrics.log_dict(figures, key=module_id, window=1)
        return -gain + config.vf_loss_coeff * value_loss - bonus * mean_entropy


class BatchOfReplay(ConnectorV2):
    """Learner connector: a sample of the replay buffer to tensors."""

    def __init__(self, device: Any) -> None:
        """The device that the batch goes to."""
        super().__init__()
        self.device = device

    @override(ConnectorV2)
    def __call__(self, *, rl_module: Any, batch: Any, episodes: Sequence[ReplayBatch], **_: Any) -> Any:
        """The batch of this sample."""
        (sample,) = episodes

        def tensor(value: Any) -> Tensor:
            return torch.from_numpy(value).to(self.device)

        return {
            DEFAULT_MODULE_ID: {
                Columns.OBS: {OBSERVATION: tensor(sample.observation), ACTION_MASK: tensor(sample.action_mask)},
                Columns.NEXT_OBS: {OBSERVATION: tensor(sample.next_observation), ACTION_MASK: tensor(sample.next_mask)},
                Columns.ACTIONS: tensor(sample.actions),
                Columns.REWARDS: tensor(sample.rewards),
                Columns.TERMINATEDS: tensor(sample.terminated),
                "n_step": tensor(sample.steps),
                "weights": tensor(sample.weights),
            }
        }


class ReplayDQNLearner(_RolloutLearner, DQNTorchLearner):
    """RLlib's DQN learner, loss and target network, on samples of `ColumnReplayBuffer`."""

    @override(DQNTorchLearner)
    def build(self) -> None:
        """Build as RLlib does, with the connector of ours."""
        super().build()
        self._use(BatchOfReplay(self._device))
