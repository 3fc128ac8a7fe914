"""A policy bundle: a folder that holds all that acts, checked in one place for training, evaluation and serving."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from serving.contracts.actions import ACTION_SETS, CONTINUOUS_HIGH, CONTINUOUS_LOW, CONTINUOUS_NAMES
from serving.contracts.observation import ACTION_NAMES, OBSERVATION_NAMES
from serving.contracts.smoke import SECTION, record_smoke
from serving.contracts.stacking import MAX_STACK, ObservationStack

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT_VERSION = 1
POLICY_FILE, SIGNAL_FILE, METADATA_FILE = _FILES = ("policy.onnx", "signal.onnx", "metadata.json")
MAX_FILE_BYTES = 256 * 2**20

_REQUIRED_KEYS: dict[str, type | tuple[type, ...]] = {
    "format_version": int,
    "kind": str,  # "static", "ppo" or "dqn"
    "observation_names": list,
    "action_names": list,
    "execution": dict,  # the parent orders that it was made for and how they are worked: ExecutionConfig
    "feature_names": list,  # order of the signal model's inputs; empty without signal.onnx
    "horizons_s": list,  # horizons of the signal model's outputs; empty without signal.onnx
    "seed": (int, type(None)),
    "training_days": list,  # ISO session dates; empty for a policy that was not trained
    "data_fingerprint": (str, type(None)),
    "versions": dict,  # library name -> version that made it
}


Decide = Callable[[NDArray[np.float32], NDArray[Any]], NDArray[Any]]
"""`(observation, action_mask) -> actions`, as `Bundle.decide`."""


class BundleError(InputError):
    """A bundle that cannot be trusted or used: the message names the file and the value."""


class BundleInputError(InputError):
    """An observation or mask that the policy must not act on."""


@dataclass(frozen=True)
class Bundle:
    """A checked policy bundle; `load_bundle` is the way to get one."""

    folder: Path
    metadata: Mapping[str, Any]
    sha256: str  # of the folder's content, see `bundle_sha256`
    policy_onnx: bytes
    signal_onnx: bytes | None

    @property
    def kind(self) -> str:
        """What made the policy: "static", "ppo" or "dqn"."""
        return str(self.metadata["kind"])

    @property
    def action_set(self) -> str:
        """One of `serving.contracts.actions.ACTION_SETS`."""
        return _action_set(self.metadata)

    @property
    def stack(self) -> int:
        """How many of a parent's last observations the policy sees, newest last; 1: the present alone."""
        return _stack(self.metadata)

    @cached_property
    def signal_window(self) -> int:
        """Rows of features that the signal model looks back on; 0 without one, 1 where it takes any number."""
        if self._signal is None:
            return 0
        rows = self._signal.get_inputs()[0].shape[1]
        return rows if isinstance(rows, int) else 1

    def decide(self, observation: NDArray[np.float32], action_mask: NDArray[Any]) -> NDArray[Any]:
        """Greedy actions for `observation (N, stack x D) float32` and `action_mask (N, A)`, 1 where allowed.

        `(N,) int64`, or `(N, 2) float32` of the continuous set, whose impossible parts the order kernel clamps. Raises
        BundleInputError on another shape, a value that is not finite, or a row without an allowed action, and
        BundleError if the policy answers with an action that its mask or its bounds forbid: refused, never repaired.
        """
        return self.act(observation, action_mask)[0]

    def act(
        self, observation: NDArray[np.float32], action_mask: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Actions as `decide`, and what they were taken from: masked logits `(N, A)`, or raw parameters `(N, 4)`."""
        mask = self._check_inputs(observation, action_mask)
        raw, action = self._policy.run(None, {"observation": observation, "action_mask": mask})
        return self._check_action(np.asarray(action), mask), np.asarray(raw)

    def decider(self) -> "Decide":
        """`decide` from single observations `(N, D)` of the same N parents in lockstep: it keeps their history."""
        if self.stack == 1:
            return self.decide
        history = ObservationStack(self.stack)
        return lambda observation, action_mask: self.decide(history.push(observation), action_mask)

    def logits(self, observation: NDArray[np.float32], action_mask: NDArray[Any]) -> NDArray[np.float32]:
        """Masked logits `(N, A) float32`; forbidden actions hold the most negative values. Errors as `decide`.

        Those of a dqn are values of actions; a continuous policy has none (BundleError).
        """
        if self.action_set != "discrete":
            raise BundleError(f"{self.folder}: a {self.action_set} policy has no logits")
        mask = self._check_inputs(observation, action_mask)
        return np.asarray(self._policy.run(["logits"], {"observation": observation, "action_mask": mask})[0])

    def forecast_bps(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mid-price forecasts `(N, H) float32, bps` from `features (N, L, F) float32`, unnormalised.

        Raises BundleError when the bundle has no signal model.
        """
        if self._signal is None:
            raise BundleError(f"{self.folder}: has no {SIGNAL_FILE}, so it gives no forecast")
        return np.asarray(self._signal.run(["forecast_bps"], {"features": features})[0])

    @cached_property
    def _policy(self) -> "InferenceSession":
        return open_session(self.policy_onnx, self.folder / POLICY_FILE)

    @cached_property
    def _signal(self) -> "InferenceSession | None":
        return None if self.signal_onnx is None else open_session(self.signal_onnx, self.folder / SIGNAL_FILE)

    def _check_inputs(self, observation: NDArray[np.float32], action_mask: NDArray[Any]) -> NDArray[np.float32]:
        rows = observation.shape[0] if observation.ndim == 2 else -1
        width = self.stack * len(OBSERVATION_NAMES)
        if observation.shape != (rows, width) or observation.dtype != np.float32:
            raise BundleInputError(f"observation {observation.shape} {observation.dtype}, wanted (N, {width}) float32")
        if action_mask.shape != (rows, len(ACTION_NAMES)):
            raise BundleInputError(f"action mask {action_mask.shape}, wanted ({rows}, {len(ACTION_NAMES)})")
        if not np.isfinite(observation).all():
            row, column = np.argwhere(~np.isfinite(observation))[0]
            name = OBSERVATION_NAMES[column % len(OBSERVATION_NAMES)]
            raise BundleInputError(f"observation {name} of row {row} is {observation[row, column]}; not finite")
        mask = action_mask.astype(np.float32)
        if not ((mask == 0) | (mask == 1)).all():
            raise BundleInputError("action mask holds values other than 0 and 1")
        if not mask.any(axis=1).all():
            raise BundleInputError(f"action mask of row {int(np.argmin(mask.any(axis=1)))} allows no action")
        return mask

    def _check_action(self, action: NDArray[Any], mask: NDArray[np.float32]) -> NDArray[Any]:
        if self.action_set == "continuous":
            inside = action.shape == (len(mask), len(CONTINUOUS_NAMES))
            if not inside or not ((action >= CONTINUOUS_LOW) & (action <= CONTINUOUS_HIGH)).all():
                raise BundleError(f"{self.folder / POLICY_FILE}: answered {action[:5]} beyond its bounds")
            return action
        rows = np.arange(len(mask))
        inside = action.shape == (len(mask),) and bool(((action >= 0) & (action < mask.shape[1])).all())
        if not inside or not (mask[rows, action] == 1).all():
            raise BundleError(f"{self.folder / POLICY_FILE}: answered {action[:5]} against its mask; do not use it")
        return action


def write_bundle(folder: Path, policy_onnx: bytes, signal_onnx: bytes | None, metadata: Mapping[str, Any]) -> Bundle:
    """Write a bundle into the new or empty `folder` and return it loaded, so that nothing unreadable is left behind.

    `format_version`, `observation_names`, `action_names` and the recorded `smoke` inputs and answers are filled in
    here; equal arguments give equal bytes.
    Raises BundleError as `load_bundle` does, or where `folder` holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BundleError(f"{folder}: not empty, a bundle is never changed; write to a new folder")
    whole = {
        **metadata,
        "format_version": FORMAT_VERSION,
        "observation_names": list(OBSERVATION_NAMES),
        "action_names": list(_action_names(metadata)),
    }
    whole.pop(SECTION, None)
    path = folder / METADATA_FILE
    draft = Bundle(folder, _parse_metadata(path, _encode(path, whole).encode()), "", policy_onnx, signal_onnx)
    _check_policy(draft)
    _check_signal(draft)
    text = _encode(path, {**whole, SECTION: record_smoke(draft)})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POLICY_FILE).write_bytes(policy_onnx)
    if signal_onnx is not None:
        (folder / SIGNAL_FILE).write_bytes(signal_onnx)
    path.write_text(text)
    return load_bundle(folder)


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle: its files, its specs against this program's, the models' names, types and shapes.

    A probe of one observation must be answered within its mask. Nothing in a bundle is ever unpickled or imported.
    Raises BundleError naming the file and the value that is wrong.
    """
    content = read_content(folder)
    for name in (POLICY_FILE, METADATA_FILE):
        if name not in content:
            raise BundleError(f"{folder / name}: absent, so this is no policy bundle; export it again")
    metadata = _parse_metadata(folder / METADATA_FILE, content[METADATA_FILE])
    bundle = Bundle(folder, metadata, _hash(content), content[POLICY_FILE], content.get(SIGNAL_FILE))
    _check_policy(bundle)
    _check_signal(bundle)
    return bundle


def bundle_sha256(folder: Path) -> str:
    """sha256 (hex) of a bundle: over each file in order of name, the lengths and bytes of its name and its content."""
    return _hash(read_content(folder))


def read_content(folder: Path) -> dict[str, bytes]:
    """A bundle's files by name; raises BundleError on anything that does not belong in a bundle, links included."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such bundle folder")
    content = {}
    for path in sorted(folder.iterdir()):
        if path.name not in _FILES or path.is_symlink() or not path.is_file():
            raise BundleError(f"{path}: does not belong in a bundle, which holds plain files named {', '.join(_FILES)}")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BundleError(f"{path}: {size} bytes, the limit is {MAX_FILE_BYTES}")
        content[path.name] = path.read_bytes()
    return content


def open_session(model: bytes, path: Path) -> "InferenceSession":
    """ONNX Runtime session of a self-contained model, one thread; `path` names it in errors (BundleError)."""
    import onnxruntime as ort

    # A tensor stored in another file would escape the bundle's hash: field `location` of StringStringEntryProto.
    if b"\n\x08location" in model:
        raise BundleError(f"{path}: keeps tensors in another file; export it with the weights inside")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types for a model that it cannot use
        raise BundleError(f"{path}: not a model that ONNX Runtime can load ({str(error)[:200]})") from error


def _hash(content: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(content):
        for part in (os.fsencode(name), content[name]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def _encode(path: Path, metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(metadata, sort_keys=True, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path}: not plain JSON ({error})") from error


def _parse_metadata(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(raw)
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error}); export the bundle again") from error
    if not isinstance(metadata, dict):
        raise BundleError(f"{path}: holds a {type(metadata).__name__}, wanted an object")
    for key, kind in _REQUIRED_KEYS.items():
        if key not in metadata or not isinstance(metadata[key], kind):
            raise BundleError(f"{path}: {key} is {metadata.get(key)!r}, wanted {_name(kind)}; export the bundle again")
    if metadata["format_version"] != FORMAT_VERSION:
        raise BundleError(f"{path}: format_version {metadata['format_version']}, this program reads {FORMAT_VERSION}")
    if _action_set(metadata) not in ACTION_SETS:
        raise BundleError(f"{path}: actions {_action_set(metadata)!r} are not one of {', '.join(ACTION_SETS)}")
    if not isinstance(metadata.get("stack", 1), int) or not 1 <= _stack(metadata) <= MAX_STACK:
        raise BundleError(f"{path}: stack is {metadata['stack']!r}, wanted 1 to {MAX_STACK}")
    for key, known in (("observation_names", OBSERVATION_NAMES), ("action_names", _action_names(metadata))):
        _check_names(path, key, metadata[key], known)
    return metadata


def _action_set(metadata: Mapping[str, Any]) -> str:
    return str(metadata["execution"].get("actions", ACTION_SETS[0]))


def _action_names(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    return CONTINUOUS_NAMES if _action_set(metadata) == "continuous" else ACTION_NAMES


def _stack(metadata: Mapping[str, Any]) -> int:
    return int(metadata.get("stack", 1))


def _name(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join("null" if item is type(None) else item.__name__ for item in kinds)


def _check_names(path: Path, key: str, found: Sequence[object], known: Sequence[str]) -> None:
    if list(found) == list(known):
        return
    for index in range(max(len(found), len(known))):
        theirs = found[index] if index < len(found) else "nothing"
        ours = known[index] if index < len(known) else "nothing"
        if theirs != ours:
            raise BundleError(
                f"{path}: {key}[{index}] is {theirs!r}, this program's is {ours!r}; it was made for another version"
            )


def _check_policy(bundle: Bundle) -> None:
    path = bundle.folder / POLICY_FILE
    width, actions = bundle.stack * len(OBSERVATION_NAMES), len(ACTION_NAMES)
    outputs: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "logits": ("tensor(float)", (None, actions)),
        "action": ("tensor(int64)", (None,)),
    }
    if bundle.action_set == "continuous":
        count = len(CONTINUOUS_NAMES)
        outputs = {"parameters": ("tensor(float)", (None, 2 * count)), "action": ("tensor(float)", (None, count))}
    _check_ports(
        path,
        "inputs",
        bundle._policy.get_inputs(),
        {
            "observation": ("tensor(float)", (None, width)),
            "action_mask": ("tensor(float)", (None, actions)),
        },
    )
    _check_ports(
        path,
        "outputs",
        bundle._policy.get_outputs(),
        outputs,
    )
    probe = np.zeros((actions, width), dtype=np.float32)
    try:
        bundle.decide(probe, np.eye(actions, dtype=np.float32))
    except BundleError:
        raise
    except Exception as error:  # a model that loads may still fail when it runs, with any of ONNX Runtime's types
        raise BundleError(f"{path}: fails on an observation of zeros ({str(error)[:200]})") from error


def _check_signal(bundle: Bundle) -> None:
    if bundle._signal is None:
        return
    path = bundle.folder / SIGNAL_FILE
    features, horizons = len(bundle.metadata["feature_names"]), len(bundle.metadata["horizons_s"])
    _check_ports(path, "inputs", bundle._signal.get_inputs(), {"features": ("tensor(float)", (None, None, features))})
    _check_ports(path, "outputs", bundle._signal.get_outputs(), {"forecast_bps": ("tensor(float)", (None, horizons))})


def _check_ports(
    path: Path, what: str, found: Sequence[Any], wanted: Mapping[str, tuple[str, tuple[int | None, ...]]]
) -> None:
    """Compare a session's inputs or outputs with `{name: (type, shape)}`; None in a shape matches any length."""
    if [port.name for port in found] != list(wanted):
        raise BundleError(f"{path}: {what} {[port.name for port in found]}, wanted {list(wanted)}")
    for port in found:
        kind, shape = wanted[port.name]
        fits = len(port.shape) == len(shape) and all(
            want is None or have == want for have, want in zip(port.shape, shape, strict=True)
        )
        if port.type != kind or not fits:
            raise BundleError(f"{path}: {port.name} is {port.type} {port.shape}, wanted {kind} {list(shape)}")
