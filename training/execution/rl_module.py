"""Policy networks as RLlib modules: normaliser and action mask inside, so that what is exported is what acted."""

from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.dqn.dqn_learner import QF_NEXT_PREDS, QF_PREDS, QF_TARGET_NEXT_PREDS
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor, nn

from training.execution.export import MASKED_LOGIT, NORMALISED_LIMIT


class Normaliser(nn.Module):
    """Affine normaliser with fixed constants: `clamp((observation - mean) / scale)`; (N, D) float32 in and out."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        """Store `mean` and `scale`, both (D,) float32, `scale` positive, as buffers: never trained, always exported."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, observation: Tensor) -> Tensor:
        """Normalise a batch of observations."""
        limit = NORMALISED_LIMIT
        return torch.clamp((observation - self.mean) / self.scale, -limit, limit)


class _ActorCritic(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """Separate policy and value networks behind one normaliser; what an action is, subclasses say.

    Observation space: `Dict(observation=Box (D,) float32, action_mask=Box (A,))`.
    `model_config`: `hidden` (layer widths), `mean` and `scale` (D floats each, the normaliser's constants).
    """

    outputs: int
    """Width of the policy network's last layer."""

    @override(TorchRLModule)
    def setup(self) -> None:
        """Build the networks (RLlib calls this once)."""
        width = self.observation_space["observation"].shape[0]
        hidden = list(self.model_config["hidden"])
        self.normaliser = _normaliser(self.model_config)
        self.policy = _network([width, *hidden, self.outputs], output_gain=0.01)
        self.value = _network([width, *hidden, 1], output_gain=1.0)

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        """Parts that acting does not need."""
        return ["value"]

    @override(ValueFunctionAPI)
    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """State values (N,) float32, in units of the reward."""
        return self.value(self.normaliser(batch[Columns.OBS]["observation"])).squeeze(-1)


class ExecutionModule(_ActorCritic):
    """Masked categorical policy and separate value function; action space `Discrete(A)`."""

    @override(_ActorCritic)
    def setup(self) -> None:
        """Build the networks (RLlib calls this once)."""
        self.outputs = int(self.action_space.n)
        super().setup()

    def masked_logits(self, observation: Tensor, action_mask: Tensor) -> Tensor:
        """Logits (N, A) float32 for `observation` (N, D), with MASKED_LOGIT where `action_mask` (N, A) is 0."""
        return _masked(self.policy(self.normaliser(observation)), action_mask)

    def act(
        self, observation: Tensor, action_mask: Tensor, explore: bool, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Tensor]:
        """Actions (N,) int64, drawn or the most likely allowed ones, and their log probabilities (N,)."""
        logits = self.masked_logits(observation, action_mask)
        # Gumbel-max: argmax of logits plus Gumbel noise is a draw from the softmax.
        actions = (logits + _gumbel(logits, generator) if explore else logits).argmax(dim=1)
        return actions, torch.log_softmax(logits, dim=1).gather(1, actions[:, None]).squeeze(1)

    def judge(self, inputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities of `actions` (N,) and entropies, both (N,), nats, under masked logits `inputs` (N, A)."""
        logp = torch.log_softmax(inputs, dim=1)
        return logp.gather(1, actions[:, None]).squeeze(1), -(logp.exp() * logp).sum(dim=1)

    @override(TorchRLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        observations = batch[Columns.OBS]
        logits = self.masked_logits(observations["observation"], observations["action_mask"])
        return {Columns.ACTION_DIST_INPUTS: logits}


class BoxExecutionModule(_ActorCritic):
    """Independent Beta policies over a bounded box (Chou, Maturana and Scherer 2017), and a value function.

    A Beta density ends where the box does, so that nothing is clipped or squashed and the log probability is that of
    the action played. Both parameters are 1 or more: one peak. Greedy is the mean. Action space `Box (K,)`; what the
    market does not allow the environment clamps.
    """

    @override(_ActorCritic)
    def setup(self) -> None:
        """Build the networks (RLlib calls this once)."""
        self.outputs = 2 * int(self.action_space.shape[0])
        super().setup()
        low, high = (torch.from_numpy(np.asarray(bound)) for bound in (self.action_space.low, self.action_space.high))
        self.register_buffer("action_low", low)
        self.register_buffer("action_span", high - low)

    def act(
        self, observation: Tensor, action_mask: Tensor, explore: bool, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Tensor]:
        """Actions (N, K) float32, drawn or the means, and their log densities (N,)."""
        inputs = self.policy(self.normaliser(observation))
        alpha, beta = _beta_parameters(inputs)
        if explore:
            first, second = (torch._standard_gamma(shape.cpu(), generator).to(shape.device) for shape in (alpha, beta))
            share = first / (first + second)
        else:
            share = alpha / (alpha + beta)
        actions = self.action_low + self.action_span * share
        return actions, self.judge(inputs, actions)[0]

    def judge(self, inputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities of `actions` (N, K) and entropies, both (N,), nats, under the network's `inputs` (N, 2K)."""
        alpha, beta = _beta_parameters(inputs)
        share = ((actions - self.action_low) / self.action_span).clamp(_EDGE, 1.0 - _EDGE)
        total = alpha + beta
        norm = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(total)
        logp = (alpha - 1.0) * share.log() + (beta - 1.0) * torch.log1p(-share) - norm
        entropy = (
            norm
            - (alpha - 1.0) * torch.digamma(alpha)
            - (beta - 1.0) * torch.digamma(beta)
            + (total - 2.0) * torch.digamma(total)
        )
        span = self.action_span.log().sum()
        return logp.sum(dim=1) - span, entropy.sum(dim=1) + span

    @override(TorchRLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(self.normaliser(batch[Columns.OBS]["observation"]))}


class QModule(TorchRLModule, InferenceOnlyAPI, QNetAPI, TargetNetworkAPI):
    """Masked action values for DQN: double by RLlib's learner, dueling (Wang et al. 2016) where `dueling` is set.

    Spaces and `model_config` as ExecutionModule's, and `dueling`, `epsilon` ([first, last]) and `epsilon_steps`: it
    explores with a probability that falls linearly over these environment steps, evenly over the allowed actions.
    """

    @override(TorchRLModule)
    def setup(self) -> None:
        """Build the networks (RLlib calls this once)."""
        self.normaliser = _normaliser(self.model_config)
        self.policy = self._value_network()

    def _value_network(self) -> nn.Module:
        width, actions = self.observation_space["observation"].shape[0], int(self.action_space.n)
        layers = [width, *self.model_config["hidden"]]
        return Dueling(layers, actions) if self.model_config["dueling"] else _network([*layers, actions], 0.01)

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        """Parts that acting does not need."""
        return ["target"]

    def masked_logits(self, observation: Tensor, action_mask: Tensor) -> Tensor:
        """Action values (N, A) float32, reward units, with MASKED_LOGIT where `action_mask` (N, A) is 0."""
        return _masked(self.policy(self.normaliser(observation)), action_mask)

    def epsilon(self, step: int) -> float:
        """Probability of an even draw after `step` environment steps."""
        first, last = self.model_config["epsilon"]
        return first + (last - first) * min(1.0, step / self.model_config["epsilon_steps"])

    def act(
        self, observation: Tensor, action_mask: Tensor, explore: bool, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Tensor]:
        """Actions (N,) int64 and their log probabilities (N,): 0, DQN does not ask for them."""
        values = self.masked_logits(observation, action_mask)
        actions = values.argmax(dim=1)
        if explore:
            anywhere = (_gumbel(values, generator) + torch.where(action_mask > 0.5, 0.0, MASKED_LOGIT)).argmax(dim=1)
            draws = torch.rand(len(actions), generator=generator).to(actions.device)
            actions = torch.where(draws < self.epsilon(step), anywhere, actions)
        return actions, torch.zeros(len(actions))

    @override(QNetAPI)
    def compute_q_values(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Masked action values of a batch's observations."""
        seen = batch[Columns.OBS]
        return {QF_PREDS: self.masked_logits(seen["observation"], seen["action_mask"])}

    @override(TargetNetworkAPI)
    def make_target_networks(self) -> None:
        """A second network that follows the first."""
        self.target = make_target_network(self.policy)

    @override(TargetNetworkAPI)
    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The network and the one that follows it."""
        return [(self.policy, self.target)]

    @override(TargetNetworkAPI)
    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Masked action values of the network that follows."""
        seen = batch[Columns.OBS]
        return {QF_PREDS: _masked(self.target(self.normaliser(seen["observation"])), seen["action_mask"])}

    @override(TorchRLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.compute_q_values(batch)[QF_PREDS]}

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        following = {Columns.OBS: batch[Columns.NEXT_OBS]}
        with torch.no_grad():  # the choice of the next action is no gradient's business
            chosen = self.compute_q_values(following)[QF_PREDS]
            judged = self.forward_target(following)[QF_PREDS]
        return {QF_PREDS: self.compute_q_values(batch)[QF_PREDS], QF_NEXT_PREDS: chosen, QF_TARGET_NEXT_PREDS: judged}


class Dueling(nn.Module):
    """State value plus centred advantages over a shared trunk; (N, D) to (N, A)."""

    def __init__(self, widths: list[int], actions: int) -> None:
        """Trunk of `widths` with tanh after each layer, then a value and an advantage for each action."""
        super().__init__()
        self.trunk = nn.Sequential(_network(widths, output_gain=2**0.5), nn.Tanh())
        self.advantage = _network([widths[-1], actions], output_gain=0.01)
        self.state = _network([widths[-1], 1], output_gain=1.0)

    def forward(self, seen: Tensor) -> Tensor:
        """Action values."""
        trunk = self.trunk(seen)
        advantage = self.advantage(trunk)
        return self.state(trunk) + advantage - advantage.mean(dim=1, keepdim=True)


_EDGE = 1e-6
"""Shares of the box are kept this far from its bounds, where the log density may be infinite."""


def _beta_parameters(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Both parameters (N, K), each above 1, from the network's output (N, 2K)."""
    alpha, beta = (1.0 + nn.functional.softplus(inputs)).chunk(2, dim=1)
    return alpha, beta


def _masked(values: Tensor, action_mask: Tensor) -> Tensor:
    return torch.where(action_mask > 0.5, values, torch.full_like(values, MASKED_LOGIT))


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise in the shape of `like`, never infinite."""
    return -torch.empty(like.shape).exponential_(generator=generator).clamp_min_(1e-30).log_().to(like.device)


def _normaliser(model_config: Any) -> Normaliser:
    return Normaliser(*(torch.tensor(model_config[name], dtype=torch.float32) for name in ("mean", "scale")))


def _network(widths: list[int], output_gain: float) -> nn.Sequential:
    """Tanh perceptron, orthogonal weights (Andrychowicz et al. 2021: a small last policy layer matters most)."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        is_last = index == len(widths) - 2
        layer = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(layer.weight, gain=output_gain if is_last else 2**0.5)
        nn.init.zeros_(layer.bias)
        layers.extend([layer] if is_last else [layer, nn.Tanh()])
    return nn.Sequential(*layers)
