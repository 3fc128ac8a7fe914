"""Settings of the execution agent's training, one frozen dataclass; budgets are steps, never seconds."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from feature_repo.errors import InputError
from serving.contracts.stacking import MAX_STACK
from training.execution.config import ExecutionConfig

ALGORITHMS = ("ppo", "dqn")


@dataclass(frozen=True)
class AgentConfig:
    """How `train_agent` trains; `quick()` is a short night on two cores, `full()` a long one."""

    train_days: tuple[str, ...] = ()
    """ISO session dates that may be learned from; the last `validation_days` of them choose, the others teach."""

    validation_days: int = 1
    """Days at the end of `train_days` kept for choosing checkpoint and seed. With one day in all it serves for both."""

    algorithm: str = "ppo"
    """What learns: ppo, for both action sets, or dqn, for the discrete one."""

    seeds: tuple[int, ...] = (7,)
    """One training a seed; the one that is best on the validation days becomes the bundle."""

    env_steps: int = 400_000
    """Environment steps of one training (one seed), rounded up to whole batches."""

    num_envs: int = 128
    """Parents worked side by side in the vector environment."""

    batch_steps: int = 16_384
    """Environment steps between two updates of the policy."""

    minibatch_steps: int = 2_048
    """Steps in one gradient step."""

    epochs: int = 4
    """Passes over a batch."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers, of policy and value function alike (they share nothing)."""

    stack: int = 1
    """Observations that the policy sees at once, the present and the last ones before it."""

    learning_rate: float = 5e-4
    """Adam's step size at the start; falls linearly to a tenth over the training."""

    gamma: float = 1.0
    """Discount per decision; 1 because a parent's horizon is finite and its cost is counted whole."""

    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2016)."""

    clip: float = 0.2
    """PPO's clip of the probability ratio (Schulman et al. 2017)."""

    entropy_start: float = 0.02
    """Weight of the entropy bonus at the start; falls linearly to `entropy_end`."""

    entropy_end: float = 0.001
    """Weight of the entropy bonus at the end."""

    grad_clip: float = 0.5
    """Largest norm of a gradient."""

    mark_after_s: float | None = None
    """Rewards of training in replay mark each fill at the mid so long after its step, and what is open not at all, see
    `training.execution.drift`; None: rewards sum to minus the shortfall. Validation counts whole shortfalls always."""

    cvar_weight: float = 0.0
    """Share of the objective that goes to the conditional value at risk of a parent's cost; 0: the mean alone."""

    cvar_tail: float = 0.05
    """Share of the worst parents that it looks at; needs `gamma` 1."""

    dqn_batch: int = 256
    """Transitions in one gradient step of DQN."""

    dqn_training_intensity: float = 1.0
    """Transitions that DQN learns from for each one that it samples."""

    dqn_fragment: int = 1
    """Steps of each environment between two gradient steps; at least `dqn_n_step`."""

    dqn_n_step: int = 3
    """Steps whose rewards a DQN target sums before it trusts a value."""

    dqn_double: bool = True
    """Let one network choose and the other judge the next action (van Hasselt et al. 2016)."""

    dqn_dueling: bool = True
    """Split state value and advantages (Wang et al. 2016)."""

    dqn_capacity: int = 200_000
    """Transitions that the replay buffer holds."""

    dqn_alpha: float = 0.6
    """How much the TD error counts in drawing (Schaul et al. 2016); 0 draws evenly."""

    dqn_beta: float = 0.4
    """Share of the bias of such drawing that importance weights take back."""

    dqn_epsilon: tuple[float, float] = (0.5, 0.02)
    """Probability of an even draw at the start, and after `dqn_epsilon_share` of the steps."""

    dqn_epsilon_share: float = 0.3
    """Share of `env_steps` over which that probability falls."""

    dqn_target_every: int = 8_192
    """Environment steps between two copies of the network to the one that judges."""

    dqn_learning_starts: int = 8_192
    """Environment steps before the first gradient step."""

    warm_start: bool = True
    """Imitate the static rule whose threshold validates best before training starts; the untrained bundle stays the
    randomly initialised policy."""

    warm_start_steps: int = 16_384
    """Environment steps of the rule that are imitated."""

    warm_start_epochs: int = 8
    """Passes of imitation."""

    warm_start_confidence: float = 0.8
    """Probability that imitation gives the rule's action; the rest is spread over the other allowed actions."""

    normaliser_steps: int = 8_192
    """Environment steps, half under a random policy and half under the static rule, that fit the normaliser."""

    validation_every: int = 4
    """Updates between two greedy evaluations on the validation days."""

    validation_parents: int = 512
    """Parent orders in a validation; the same ones each time."""

    ray_cpus: int = 1
    """Cores that a Ray started for the training may schedule on; runner and learner work in the calling process."""

    num_env_runners: int = 0
    """Ray actors that sample; 0: the calling process does."""

    num_learners: int = 0
    """Ray actors that learn; 0: the calling process does."""

    num_gpus_per_learner: float = 0
    """GPUs of each learner; with `num_learners` 0, of the calling process."""

    ray_address: str | None = None
    """Address of a Ray cluster to join, as `ray.init` takes it; None starts one on this machine."""

    tracking_uri: str | None = None
    """Where MLflow keeps the metrics, e.g. `sqlite:///mlflow.db`; None logs nothing."""

    experiment: str = "agents"
    """MLflow experiment."""

    ahead_candidates: tuple[int, ...] = ()
    """Values of `execution`'s `ahead_slices` that compete: the one whose static rule is best on the validation days is
    trained with, since a rule is judged in seconds; empty: that of `execution` alone."""

    pace_candidates: tuple[int, ...] = ()
    """Values of `execution`'s `decisions_per_slice` that compete in the same way, with each of `ahead_candidates`;
    empty: that of `execution` alone."""

    checkpoint_every: int = 0
    """Updates between two checkpoints from which a killed training goes on; 0: it starts again from its seed."""

    fine_tune_from: str | None = None
    """Bundle folder whose policy and normaliser the training starts from, e.g. one of many symbols for one of them."""

    signals: bool = True
    """Show the policy the stored forecasts; without, they are flagged missing. The difference is their worth."""

    symbols: tuple[str, ...] = ()
    """Symbols to train on; empty: all that the features hold."""

    variants: tuple[dict[str, Any], ...] = ()
    """Kinds of parents and markets that training mixes, each as what differs from `execution`; empty: that alone.
    Environments are shared out evenly. Validation is on `execution`."""

    curriculum: tuple[float, ...] = ()
    """Share of the training after which each variant joins, in their order, the first 0; empty: all from the start."""

    execution: dict[str, Any] = field(default_factory=dict)
    """Fields of `training.execution.config.ExecutionConfig` that differ from its defaults: the parent orders."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot train, naming field, value and limit."""
        for name in ("env_steps", "num_envs", "batch_steps", "minibatch_steps", "epochs", "validation_every"):
            if getattr(self, name) < 1:
                raise InputError(f"agent {name} is {getattr(self, name)}, the limit is 1 or more")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"agent seeds {list(self.seeds)}: give one or more, each once")
        if self.minibatch_steps > self.batch_steps:
            raise InputError(f"agent minibatch_steps {self.minibatch_steps} exceeds batch_steps {self.batch_steps}")
        if self.num_envs > self.batch_steps:
            raise InputError(f"agent num_envs {self.num_envs} exceeds batch_steps {self.batch_steps}")
        if not 0 < self.warm_start_confidence < 1:
            raise InputError(f"agent warm_start_confidence {self.warm_start_confidence}: give a value between 0 and 1")
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"agent algorithm {self.algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        if not 1 <= self.stack <= MAX_STACK:
            raise InputError(f"agent stack is {self.stack}, the limits are 1 and {MAX_STACK}")
        if not 0 <= self.cvar_weight <= 1 or not 0 < self.cvar_tail < 1:
            raise InputError(
                f"agent cvar_weight {self.cvar_weight}, cvar_tail {self.cvar_tail}: give a weight from 0 to 1 and a "
                "tail between 0 and 1"
            )
        if self.cvar_weight and self.gamma != 1:
            raise InputError(f"agent cvar_weight {self.cvar_weight} needs gamma 1, got {self.gamma}")
        if self.mark_after_s is not None and (self.mark_after_s < 0 or self.cvar_weight):
            raise InputError(
                f"agent mark_after_s {self.mark_after_s} must be 0 or more, and None with a cvar_weight, here "
                f"{self.cvar_weight}: the tail is one of whole costs"
            )
        execution = ExecutionConfig.from_dict(self.execution)
        for ahead, pace in self.candidates:
            ExecutionConfig.from_dict({**self.execution, "ahead_slices": ahead, "decisions_per_slice": pace})
        kinds = {ExecutionConfig.from_dict({**self.execution, **item}).actions for item in self.variants}
        if kinds - {execution.actions}:
            raise InputError(f"agent variants have actions {sorted(kinds)}, execution has {execution.actions}")
        steps = self.curriculum
        if steps and (len(steps) != len(self.variants) or steps[0] != 0 or not 0 <= min(steps) <= max(steps) < 1):
            raise InputError(
                f"agent curriculum {list(steps)}: give one share from 0 to below 1 for each of the "
                f"{len(self.variants)} variants, the first 0"
            )
        if self.algorithm == "dqn" and execution.actions != "discrete":
            raise InputError(f"agent algorithm dqn chooses among discrete actions, got {execution.actions!r}")

    @classmethod
    def quick(cls, train_days: tuple[str, ...] = ()) -> Self:
        """A short night: one seed, about a minute on two cores; claims nothing across seeds."""
        return cls(train_days=train_days)

    @classmethod
    def full(cls, train_days: tuple[str, ...] = ()) -> Self:
        """A long night: five seeds and ten times the steps."""
        return cls(
            train_days=train_days,
            seeds=(7, 11, 13, 17, 19),
            env_steps=4_000_000,
            validation_parents=2_048,
            checkpoint_every=20,
        )

    @property
    def candidates(self) -> list[tuple[int, int]]:
        """Every pair of `ahead_slices` and `decisions_per_slice` that competes; that of `execution` where none does."""
        execution = ExecutionConfig.from_dict(self.execution)
        aheads = self.ahead_candidates or (execution.ahead_slices,)
        return [(a, p) for p in self.pace_candidates or (execution.decisions_per_slice,) for a in aheads]

    def with_candidate(self, ahead: int, pace: int) -> Self:
        """The same with one candidate alone."""
        execution = {**self.execution, "ahead_slices": ahead, "decisions_per_slice": pace}
        return replace(self, execution=execution, ahead_candidates=(), pace_candidates=())

    @property
    def updates(self) -> int:
        """Batches in one training."""
        return -(-self.env_steps // self.batch_steps)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def as_content(self) -> dict[str, Any]:
        """The settings that decide the result: no path, and not where it runs or where metrics are logged."""
        elsewhere = ("tracking_uri", "experiment", "ray_cpus", "ray_address", "num_gpus_per_learner", "fine_tune_from")
        return {name: value for name, value in self.to_json().items() if name not in elsewhere}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`; raises InputError naming a field that does not exist."""
        known = {item.name for item in fields(cls)}
        for name in values:
            if name not in known:
                raise InputError(f"agent {name} is no setting; known: {', '.join(sorted(known))}")
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)
