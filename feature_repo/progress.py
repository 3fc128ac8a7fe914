"""How a long library function tells its caller how far it is, without knowing about screens or Prefect."""

from typing import Protocol


class Progress(Protocol):
    """Called with units done, units in all (0 when unknown) and what one unit is, e.g. `(3, 10, "days")`."""

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Report."""


def no_progress(done: int, total: int, unit: str) -> None:
    """Ignore every report."""
