"""Shows how far a run is: a bar on a terminal, plain lines in a log, a progress artifact in the Prefect UI."""

import sys
import time
from types import TracebackType
from typing import Any, Protocol

from flows.lake import StageResult


class Reporter(Protocol):
    """Receives the life of each stage of a run."""

    def begin(self, stage: str) -> None:
        """A stage starts."""

    def update(self, done: int, total: int, unit: str) -> None:
        """The running stage has done `done` of `total` units (0: unknown)."""

    def end(self, result: StageResult) -> None:
        """The stage is published, or was there already."""


class SilentReporter:
    """Shows nothing: for programs, and for workers whose Prefect artifacts show it."""

    def begin(self, stage: str) -> None:
        """Show nothing."""

    def update(self, done: int, total: int, unit: str) -> None:
        """Show nothing."""

    def end(self, result: StageResult) -> None:
        """Show nothing."""


class LineReporter:
    """A line when a stage starts and ends and every ten seconds between, to standard error."""

    every_s = 10.0

    def __init__(self) -> None:
        self._stage = ""
        self._started = self._last = 0.0

    def begin(self, stage: str) -> None:
        """Print the stage's name."""
        self._stage, self._started = stage, time.monotonic()
        self._last = self._started
        self._print(f"{stage}: started")

    def update(self, done: int, total: int, unit: str) -> None:
        """Print a line unless one was printed just now."""
        now = time.monotonic()
        if now - self._last < self.every_s:
            return
        self._last = now
        left = f", {_clock((now - self._started) * (total - done) / done)} left" if 0 < done <= total else ""
        of_total = f" of {total:,}" if total else ""
        self._print(f"{self._stage}: {done:,}{of_total} {unit}{left}")

    def end(self, result: StageResult) -> None:
        """Print how the stage ended."""
        self._print(
            f"{result.stage}: " + ("already done, skipped" if result.skipped else f"done in {result.seconds:.1f} s")
        )

    @staticmethod
    def _print(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class BarReporter:
    """A progress bar a stage on a terminal: rows or steps done, elapsed and left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<13}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]:>28}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
        )
        self._task: Any = None

    def __enter__(self) -> "BarReporter":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, stage: str) -> None:
        """Open a bar for the stage."""
        self._task = self._progress.add_task(stage, total=None, count="")

    def update(self, done: int, total: int, unit: str) -> None:
        """Move the bar."""
        of_total = f"/{total:,}" if total else ""
        self._progress.update(self._task, completed=done, total=total or None, count=f"{done:,}{of_total} {unit}")

    def end(self, result: StageResult) -> None:
        """Fill the bar."""
        text = "already done" if result.skipped else f"{result.seconds:.1f} s"
        self._progress.update(self._task, completed=1, total=1, count=text)
        self._progress.stop_task(self._task)


_reporter: Reporter = SilentReporter()


def use_reporter(reporter: Reporter) -> None:
    """Make `reporter` the one that this process's stages report to."""
    global _reporter
    _reporter = reporter


def reporter() -> Reporter:
    """The reporter in use."""
    return _reporter


class ArtifactProgress:
    """A Progress callback that feeds the reporter and, at most every two seconds, a Prefect progress artifact."""

    every_s = 2.0

    def __init__(self, stage: str) -> None:
        from prefect.artifacts import create_progress_artifact

        self._artifact = create_progress_artifact(
            0.0, key=f"{stage.replace('_', '-')}-progress", description=f"Progress of {stage}"
        )
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Report `done` of `total`."""
        from prefect.artifacts import update_progress_artifact

        _reporter.update(done, total, unit)
        if total and time.monotonic() - self._last >= self.every_s:
            self._last = time.monotonic()
            update_progress_artifact(
                self._artifact, min(100.0, 100.0 * done / total), description=f"{done:,} of {total:,} {unit}"
            )  # type: ignore[arg-type]

    def finish(self) -> None:
        """Mark the artifact complete."""
        from prefect.artifacts import update_progress_artifact

        update_progress_artifact(self._artifact, 100.0)  # type: ignore[arg-type]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
