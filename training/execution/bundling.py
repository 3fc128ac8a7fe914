"""Puts a trained policy, the signal model beside it and where both come from into a bundle."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import InputError
from serving.contracts.bundle import SIGNAL_FILE, Bundle, write_bundle
from training.execution.agent_config import AgentConfig
from training.execution.config import ExecutionConfig
from training.execution.export import export_policy

if TYPE_CHECKING:
    from training.execution.ppo import Weights

_LIBRARIES = ("gymnasium", "numba", "numpy", "onnx", "ray", "torch")


@dataclass(frozen=True)
class Provenance:
    """What a bundle says of its making."""

    config: AgentConfig
    seed: int
    data_fingerprint: str
    feature_names: tuple[str, ...]
    forecasts_dir: Path | None  # output of train_signal, whose model goes into the bundle


def write_agent_bundle(folder: Path, weights: "Weights", provenance: Provenance, env_steps: int) -> Bundle:
    """Write the bundle of an agent that trained for `env_steps` (0: as initialised); equal arguments, equal bytes."""
    signal, spec = _signal(provenance)
    metadata: dict[str, Any] = {
        "kind": provenance.config.algorithm,
        "stack": provenance.config.stack,
        "execution": ExecutionConfig.from_dict(provenance.config.execution).to_dict(),
        "feature_names": spec.get("features", []),
        "horizons_s": spec.get("horizons_s", []),
        "signal_spec": spec or None,
        "seed": provenance.seed,
        "env_steps": env_steps,
        "agent": provenance.config.as_content(),
        "training_days": sorted(provenance.config.train_days),
        "data_fingerprint": provenance.data_fingerprint,
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    return write_bundle(folder, export_policy(weights), signal, metadata)


def _signal(provenance: Provenance) -> tuple[bytes | None, dict[str, Any]]:
    """Signal model and its spec, (None, {}) where no forecasts were used or no model was trained."""
    folder = provenance.forecasts_dir
    if folder is None or not (folder / SIGNAL_FILE).exists():
        return None, {}
    path = folder / "signal_spec.json"
    try:
        spec = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable signal spec ({error}); train the signal again") from error
    return (folder / SIGNAL_FILE).read_bytes(), spec
