"""The policies of a service: which are loaded, which is champion, what is asked of them."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import ShortfallError
from serving.contracts.bundle import Bundle, BundleError, BundleInputError
from serving.contracts.observation import ACTION_NAMES
from serving.decide.protocol import DecideError, Policies, Policy, PolicyDecision
from serving.decide.signed import Admission, SignedRegistry

log = logging.getLogger(__name__)
MOST_LOADED = 16


def policy_of(version: int, bundle: Bundle) -> Policy:
    """What others must know of a bundle."""
    return Policy(
        version=version,
        sha256=bundle.sha256,
        kind=bundle.kind,
        action_set=bundle.action_set,
        stack=bundle.stack,
        execution=dict(bundle.metadata["execution"]),
        feature_names=tuple(bundle.metadata["feature_names"]),
        signal_window=bundle.signal_window,
        horizons_s=tuple(bundle.metadata["horizons_s"]),
    )


@dataclass
class Loaded:
    """A bundle that may be asked."""

    policy: Policy
    bundle: Bundle
    asked_s: float  # monotonic; when it was asked last

    def decide(self, observation: NDArray[np.float32], action_mask: NDArray[Any] | None) -> PolicyDecision:
        """Raises DecideError `refused` for an input that must not be acted on, or an answer against mask or bounds."""
        continuous = self.policy.action_set == "continuous"
        if action_mask is None:
            if not continuous:
                raise DecideError("refused", "action_mask is missing: a discrete policy needs it, 1 where allowed")
            action_mask = np.ones(len(ACTION_NAMES), np.float32)
        mask = np.asarray(action_mask)
        try:
            action, raw = self.bundle.act(observation[None], mask[None])
        except (BundleError, BundleInputError) as error:
            raise DecideError("refused", str(error)) from error
        if continuous:
            return PolicyDecision(
                self.policy.sha256, self.policy.version, tuple(action[0].tolist()), _beta_shapes(raw[0])
            )
        return PolicyDecision(self.policy.sha256, self.policy.version, int(action[0]), _softmax(raw[0], mask))

    def forecast(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Forecasts `(H,)` in bps; raises DecideError for another shape, a value not finite, or without signals."""
        window, width = self.policy.signal_window, len(self.policy.feature_names)
        if not window:
            raise DecideError("refused", f"policy {self.policy.sha256} has no signal model, so it gives no forecast")
        if features.shape != (window, width):
            raise DecideError(
                "refused", f"features have shape {features.shape}, the signal model takes {window, width}"
            )
        if not np.isfinite(features).all():
            row, column = (int(i) for i in np.argwhere(~np.isfinite(features))[0])
            name = self.policy.feature_names[column]
            raise DecideError("refused", f"feature {name} of row {row} is {features[row, column]}; not finite")
        found = self.bundle.forecast_bps(features[None])[0]
        if not np.isfinite(found).all():
            raise DecideError("refused", f"the signal model answered {found.tolist()}; not finite")
        return found


@dataclass(frozen=True)
class Refusal:
    """A bundle or a journal that was refused; trading goes on with what was sound before."""

    what: str  # journal, or the sha256 of a bundle
    reason: str


@dataclass
class Catalogue:
    """Loads what a signed registry admits, and keeps it while somebody asks for it."""

    registry: SignedRegistry | None = None
    keep_s: float = 86_400.0
    on_refusal: Callable[[Refusal], None] = lambda refusal: None
    champion: Policy | None = None
    challenger: Policy | None = None
    refusals: tuple[Refusal, ...] = ()  # in force
    _loaded: dict[str, Loaded] = field(default_factory=dict)
    _admitted: Mapping[str, Admission] = field(default_factory=dict)
    _loading: dict[str, asyncio.Task[Loaded]] = field(default_factory=dict)

    @classmethod
    def of(cls, champion: Bundle, challenger: Bundle | None = None) -> "Catalogue":
        """Policies given as they are, versions 1 and 2: for tests and for runs within one process."""
        self = cls()
        self.champion = self._put(1, champion).policy
        if challenger is not None:
            self.challenger = self._put(2, challenger).policy
        return self

    def policies(self) -> Policies:
        """What may be asked now."""
        loaded = sorted((item.policy for item in self._loaded.values()), key=lambda policy: policy.version)
        return Policies(self.champion, self.challenger, tuple(loaded))

    def loaded(self, sha256: str) -> Loaded:
        """A loaded policy. Raises DecideError `unknown`."""
        found = self._loaded.get(sha256)
        if found is None:
            raise DecideError("unknown", f"policy {sha256[:64]!r} is not loaded; there are {sorted(self._loaded)}")
        found.asked_s = time.monotonic()
        return found

    async def ask(self, sha256: str) -> Loaded:
        """As `loaded`; an admitted bundle that is not loaded, a parent's from before a restart, is loaded first."""
        if sha256 in self._loaded or sha256 not in self._admitted:
            return self.loaded(sha256)
        task = self._loading.get(sha256)
        if task is None:
            task = self._loading[sha256] = asyncio.create_task(asyncio.to_thread(self._load, self._admitted[sha256]))
            task.add_done_callback(lambda _: self._loading.pop(sha256, None))
        try:
            return await asyncio.shield(task)
        except (ShortfallError, OSError) as error:
            self._refuse([Refusal(sha256, str(error))], keep=True)
            raise DecideError("unknown", f"policy {sha256} was refused: {error}") from error

    def refresh(self) -> None:
        """Read the journal again, load what it names, announce what passed, let go of what nobody asks for.

        Never raises for what is unsound: it is refused and told, and what was announced before stays.
        """
        assert self.registry is not None, "a catalogue of given bundles has nothing to refresh"
        try:
            standing = self.registry.read()
        except (ShortfallError, OSError) as error:
            self._refuse([Refusal("journal", str(error))])
            return
        self._admitted = standing.admitted
        refused: list[Refusal] = []
        champion = self._announce(standing.champion, self.champion, refused)
        challenger = self._announce(standing.challenger, None, refused)
        if champion != self.champion:
            log.info("champion is version %s", champion.version if champion else None, extra=_extra(champion))
        self.champion, self.challenger = champion, challenger
        self._refuse(refused)
        self._let_go()

    def check(self) -> None:
        """Compare the folders of champion and challenger with what was signed; what was loaded stays as it is."""
        from serving.contracts.bundle import bundle_sha256

        assert self.registry is not None
        refused = []
        for policy in (self.champion, self.challenger):
            if policy is None:
                continue
            folder = self.registry.root / "bundles" / policy.sha256
            try:
                found = bundle_sha256(folder)
                reason = "" if found == policy.sha256 else f"{folder}: content has sha256 {found} now, changed since"
            except (ShortfallError, OSError) as error:
                reason = str(error)
            if reason:
                refused.append(Refusal(policy.sha256, reason))
        self._refuse(refused, keep=True)

    def _announce(self, admission: Admission | None, before: Policy | None, refused: list[Refusal]) -> Policy | None:
        """The admitted policy, loaded; `before` where it is refused."""
        if admission is None:
            return None
        try:
            return (self._loaded.get(admission.sha256) or self._load(admission)).policy
        except (ShortfallError, OSError) as error:
            refused.append(Refusal(admission.sha256, str(error)))
            return before

    def _load(self, admission: Admission) -> Loaded:
        assert self.registry is not None
        bundle = self.registry.load(admission)
        log.info("loaded version %d", admission.version, extra={"sha256": bundle.sha256, "action": admission.action})
        return self._put(admission.version, bundle)

    def _put(self, version: int, bundle: Bundle) -> Loaded:
        self._loaded[bundle.sha256] = found = Loaded(policy_of(version, bundle), bundle, time.monotonic())
        return found

    def _let_go(self) -> None:
        """Drop what was not asked for in the last `keep_s`, and the longest unasked beyond MOST_LOADED."""
        live = {policy.sha256 for policy in (self.champion, self.challenger) if policy}
        idle = sorted((item for key, item in self._loaded.items() if key not in live), key=lambda item: item.asked_s)
        now, over = time.monotonic(), len(self._loaded) - MOST_LOADED
        for place, item in enumerate(idle):
            if now - item.asked_s > self.keep_s or place < over:
                self._loaded.pop(item.policy.sha256, None)
                log.info("let go of version %d", item.policy.version, extra=_extra(item.policy))

    def _refuse(self, refused: list[Refusal], keep: bool = False) -> None:
        """Tell of what is newly refused; `keep` what was refused before."""
        known = set(self.refusals)
        for refusal in refused:
            if refusal not in known:
                self.on_refusal(refusal)
        self.refusals = tuple(dict.fromkeys((*self.refusals, *refused))) if keep else tuple(refused)


def _softmax(logits: NDArray[np.float32], mask: NDArray[Any]) -> tuple[float, ...]:
    """Probabilities `(A,)`, exactly 0 where forbidden; plain numbers are quicker than arrays of four."""
    raw = [value if allowed else -math.inf for value, allowed in zip(logits.tolist(), mask.tolist(), strict=True)]
    highest = max(raw)
    weights = [math.exp(value - highest) for value in raw]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def _beta_shapes(parameters: NDArray[np.float32]) -> tuple[float, ...]:
    """Alphas then betas of the Beta densities: 1 + softplus, as the graph has it (Chou, Maturana and Scherer 2017)."""
    return tuple((1.0 + np.logaddexp(0.0, parameters.astype(np.float64))).tolist())


def _extra(policy: Policy | None) -> dict[str, Any]:
    return {} if policy is None else {"sha256": policy.sha256, "version": policy.version, "kind": policy.kind}
