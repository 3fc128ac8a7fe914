"""How a policy is run: a bundle as a policy, and the settings that go with the actions it takes."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from training.execution.policies import ModelPolicy

if TYPE_CHECKING:
    from serving.contracts.bundle import Bundle
    from training.execution.config import ExecutionConfig


PACE = ("ahead_slices", "decisions_per_slice", "wait_keeps")
"""Settings that belong to a bundle's actions: how far ahead it may be, how often it decides, what waiting means."""


class BundlePolicy(ModelPolicy):
    """A bundle's policy, with the history that it looks back on and the set of actions that it answers with."""

    def __init__(self, name: str, bundle: "Bundle") -> None:
        """Run `bundle` under `name`."""
        super().__init__(name, bundle.decider())
        self.action_set = bundle.action_set
        made_for = bundle.metadata["execution"]
        self.pace = {name: made_for[name] for name in PACE if name in made_for}


def settings_for(policy: Any, execution: "ExecutionConfig") -> "ExecutionConfig":
    """`execution` with the policy's own set of actions and its own pace; parents and market stay the same for all.

    What is no bundle's answers with discrete actions, or with messages, to which neither is anything.
    """
    return replace(execution, actions=getattr(policy, "action_set", "discrete"), **getattr(policy, "pace", {}))
