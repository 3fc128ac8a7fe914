"""The policy network as an RLlib module: normaliser and action mask inside, so that what is exported is what acted."""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
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


class ExecutionModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """Masked categorical policy and separate value function over an execution environment's observations.

    Observation space: `Dict(observation=Box (D,) float32, action_mask=Box (A,))`; action space `Discrete(A)`.
    `model_config`: `hidden` (layer widths), `mean` and `scale` (D floats each, the normaliser's constants).
    """

    @override(TorchRLModule)
    def setup(self) -> None:
        """Build the networks (RLlib calls this once)."""
        width = self.observation_space["observation"].shape[0]
        hidden = list(self.model_config["hidden"])
        constants = [torch.tensor(self.model_config[name], dtype=torch.float32) for name in ("mean", "scale")]
        self.normaliser = Normaliser(*constants)
        self.policy = _network([width, *hidden, int(self.action_space.n)], output_gain=0.01)
        self.value = _network([width, *hidden, 1], output_gain=1.0)

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        """Parts that acting does not need."""
        return ["value"]

    def masked_logits(self, observation: Tensor, action_mask: Tensor) -> Tensor:
        """Logits (N, A) float32 for `observation` (N, D), with MASKED_LOGIT where `action_mask` (N, A) is 0."""
        logits = self.policy(self.normaliser(observation))
        return torch.where(action_mask > 0.5, logits, torch.full_like(logits, MASKED_LOGIT))

    @override(TorchRLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        observations = batch[Columns.OBS]
        logits = self.masked_logits(observations["observation"], observations["action_mask"])
        return {Columns.ACTION_DIST_INPUTS: logits}

    @override(ValueFunctionAPI)
    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """State values (N,) float32, in units of the reward."""
        return self.value(self.normaliser(batch[Columns.OBS]["observation"])).squeeze(-1)


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
