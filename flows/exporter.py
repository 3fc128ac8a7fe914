"""`python -m flows.exporter`: what nights did, as metrics: runs from Prefect's server, results from the lake.

| metric `shortfall_...` | labels | from |
| --- | --- | --- |
| `flow_success_timestamp_seconds` | deployment | end of its newest completed run; absent before the first |
| `flow_failed` | deployment | 1 where its newest finished run did not complete |
| `flow_seconds` | deployment | how long its newest completed run took |
| `flow_running` | deployment | runs under way |
| `gate_passed`, `gate_excluded` | | newest validation: whether it let pass, symbol-days set aside |
| `drift` | instrument, what | of its newest validated day, against the days before it |
| `signal_r2` | horizon | newest signal model, out of fold |
| `agent_validation_bps` | | newest agent, on its validation days |
| `policy_is_bps`, `policy_is_bps_low`, `policy_is_bps_high` | policy | newest evaluation: mean and its interval |
| `stage_timestamp_seconds` | stage | when its newest output was published |

A source that does not answer keeps its last values and shows in `shortfall_exporter_source_up`.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from feature_repo.errors import InputError
from flows.lake import MARKER
from flows.settings import settings
from serving.observe.logs import configure
from serving.observe.metrics import MetricsServer, Probes, Pulse, new_registry

PREFIX = "shortfall_"
STAGES = (
    "ingest",
    "clean",
    "validate",
    "features",
    "materialize",
    "train_signal",
    "train_agent",
    "evaluate",
    "promote",
)
DRIFT = (
    "rows_to_trailing_median",
    "price_to_trailing_median",
    "size_distance",
    "trade_size_distance",
    "step_distance",
    "spread_distance",
)
NEWEST_RUNS = 200
"""How many of the newest runs are looked at: more than two weeks of nights with all their stages."""


class ExporterSettings(BaseSettings):
    """Where metrics are served, and how often their sources are asked."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_EXPORTER_", extra="forbid", cli_kebab_case=True)

    host: str = Field("127.0.0.1", description="Address of metrics and probes")
    port: int = Field(9840, ge=0, le=65535, description="Port of metrics and probes; 0 takes any")
    every_s: float = Field(30.0, gt=0, le=3600, description="Ask so often")


def of_runs(runs: Sequence[Any], names: dict[Any, str]) -> Iterator[Metric]:
    """Metrics of flow runs as Prefect's client gives them, newest first; `names` are deployments by id."""
    success = _gauge("flow_success_timestamp_seconds", "End of the newest completed run", "deployment")
    failed = _gauge("flow_failed", "1 where the newest finished run did not complete", "deployment")
    seconds = _gauge("flow_seconds", "How long the newest completed run took", "deployment")
    running = _gauge("flow_running", "Runs under way", "deployment")
    for id_, name in sorted(names.items(), key=lambda item: item[1]):
        own = [run for run in runs if run.deployment_id == id_ and run.state is not None]
        ended = sorted((run for run in own if run.state.is_final()), key=lambda run: run.state.timestamp)
        completed = [run for run in ended if run.state.is_completed()]
        if ended:
            failed.add_metric([name], not ended[-1].state.is_completed())
        if completed:
            success.add_metric([name], completed[-1].state.timestamp.timestamp())
            seconds.add_metric([name], completed[-1].total_run_time.total_seconds())
        running.add_metric([name], sum(run.state.is_running() for run in own))
    yield from (success, failed, seconds, running)


def of_lake(root: Path) -> Iterator[Metric]:
    """Metrics of the newest output of each stage. Raises OSError or ValueError where one cannot be read."""
    stamps = _gauge("stage_timestamp_seconds", "When the newest output was published", "stage")
    for stage in STAGES:
        folder = _newest(root / stage)
        if folder is None:
            continue
        stamps.add_metric([stage], (folder / MARKER).stat().st_mtime)
        if stage in _READ:
            yield from _READ[stage](json.loads((folder / MARKER).read_text())["summary"])
    # a gate that stopped the run left its findings among what failed
    found = [*root.glob("validate/*/validation.json"), *root.glob("failed/validate-*/validation.json")]
    if found:
        yield from _gate(json.loads(max(found, key=lambda path: path.stat().st_mtime).read_text()))
    yield stamps


def _gate(report: dict[str, Any]) -> Iterator[Metric]:
    yield _single("gate_passed", "1 where the newest validation let pass", bool(report["success"]))
    yield _single("gate_excluded", "Symbol-days that it set aside", len(report["excluded"]))
    drift = _gauge("drift", "Newest day of an instrument against the days before it", "instrument", "what")
    newest: dict[str, dict[str, Any]] = {}
    for row in report["partitions"]:
        instrument, _, day = row["partition"].rpartition(" ")
        if day >= newest.get(instrument, {}).get("day", ""):
            newest[instrument] = {"day": day, **row}
    for instrument, row in sorted(newest.items()):
        for what in DRIFT:
            if row.get(what) is not None:
                drift.add_metric([instrument, what], row[what])
    yield drift


def _signal(summary: dict[str, Any]) -> Iterator[Metric]:
    skill = _gauge("signal_r2", "Out-of-fold skill of the newest signal model", "horizon")
    for horizon, row in summary["skill"].items():
        skill.add_metric([str(horizon)], row["r2"])
    yield skill


def _agent(summary: dict[str, Any]) -> Iterator[Metric]:
    yield _single("agent_validation_bps", "Mean cost of the newest agent on validation", summary["validation_bps"])


def _evaluation(summary: dict[str, Any]) -> Iterator[Metric]:
    parts = {"": "mean_is_bps", "_low": "ci_low", "_high": "ci_high"}
    for suffix, key in parts.items():
        cost = _gauge(f"policy_is_bps{suffix}", f"Implementation shortfall on held-out days: {key}", "policy")
        for name, row in summary["policies"].items():
            if row.get(key) is not None:
                cost.add_metric([name], row[key])
        yield cost


_READ: dict[str, Callable[[dict[str, Any]], Iterator[Metric]]] = {
    "train_signal": _signal,
    "train_agent": _agent,
    "evaluate": _evaluation,
}


def _newest(stage: Path) -> Path | None:
    """The folder of the stage's output that was published last."""
    markers = list(stage.glob(f"*/{MARKER}"))
    return max(markers, key=lambda path: path.stat().st_mtime).parent if markers else None


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _single(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


async def read_runs() -> list[Metric]:
    """Ask Prefect's server. Raises what its client does."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    async with get_client() as client:
        names = {item.id: item.name for item in await client.read_deployments(limit=NEWEST_RUNS)}
        runs = await client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=NEWEST_RUNS)
    return list(of_runs(runs, names))


class Sources(Collector):
    """The last metrics of each source."""

    def __init__(self, sources: dict[str, Callable[[], list[Metric]]]) -> None:
        self._sources, self._metrics = sources, dict[str, list[Metric]]()
        self.faults: dict[str, str] = {}

    def refresh(self, say: Callable[[str], None]) -> None:
        """Ask each source; one that fails keeps what it last gave, and its fault is said once."""
        for name, read in self._sources.items():
            try:
                self._metrics[name] = read()
                self.faults.pop(name, None)
            except Exception as error:  # a server that is away, a file that is half there: whatever it is, go on
                fault = f"{type(error).__name__}: {error}"
                if self.faults.get(name) != fault:
                    say(f"{name} cannot be read: {fault}")
                self.faults[name] = fault

    def describe(self) -> list[Metric]:
        """Nothing beforehand: names come with the values."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        up = _gauge("exporter_source_up", "1 where the source answered last time", "source")
        for name in self._sources:
            up.add_metric([name], name not in self.faults and name in self._metrics)
            yield from self._metrics.get(name, [])
        yield up


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a signal, 2 for bad settings, 1 where the port cannot be had."""
    import logging
    import signal

    configure("exporter")
    log, stop = logging.getLogger(__name__), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        config = CliApp.run(ExporterSettings, given, cli_exit_on_error=False)
        root = settings().lake.absolute()
    except (ValidationError, InputError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sources = Sources({"prefect": lambda: asyncio.run(read_runs()), "lake": lambda: list(of_lake(root))})
    registry, pulse = new_registry(), Pulse("the exporter", 10 * config.every_s + 60)
    registry.register(sources)
    try:
        server = MetricsServer(registry, Probes(pulse.why_not, pulse.why_not), config.host, config.port)
    except OSError as error:
        print(f"error: port {config.port} on {config.host}: {error.strerror}", file=sys.stderr)
        return 1
    server.start()
    try:
        while not stop.is_set():
            started = time.monotonic()
            sources.refresh(log.warning)
            pulse.beat()
            stop.wait(max(0.0, config.every_s - (time.monotonic() - started)))
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
