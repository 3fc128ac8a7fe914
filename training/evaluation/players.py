"""How a policy is run: a bundle as a policy, and the settings that go with the actions it takes."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from training.execution.policies import ModelPolicy

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle
    from training.execution.config import ExecutionConfig


class BundlePolicy(ModelPolicy):
    """A bundle's policy, with the history that it looks back on and the set of actions that it answers with."""

    def __init__(self, name: str, bundle: "Bundle") -> None:
        """Run `bundle` under `name`."""
        super().__init__(name, bundle.decider())
        self.action_set = bundle.action_set
        self.ahead_slices = bundle.metadata["execution"].get("ahead_slices")


def settings_for(policy: Any, execution: "ExecutionConfig") -> "ExecutionConfig":
    """`execution` with the policy's own set of actions and how far it may be ahead; parents and market stay the same.

    What is no bundle's answers with discrete actions, or with messages, to which neither is anything.
    """
    ahead = getattr(policy, "ahead_slices", None)
    return replace(
        execution,
        actions=getattr(policy, "action_set", "discrete"),
        ahead_slices=execution.ahead_slices if ahead is None else int(ahead),
    )
