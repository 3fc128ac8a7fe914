"""`shortfall bench pipeline`: rows per second of the data stages, against Polars, over cores and over days."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from feature_repo.errors import InputError, ShortfallError
from feature_repo.progress import Progress, no_progress
from feature_repo.ticks.reader import IngestRequest
from flows.bench.machine import Row, result

STAGES = ("ingest", "clean", "features")
END_TO_END_TARGET = 150_000  # rows/s on 2 cores, Spark's session up
POLARS_TARGET = 0.15
DAYS_TARGET = 2.1
PEAK_TARGET_MIB = 6 * 1024


@dataclass(frozen=True)
class Work:
    """What a measuring process is asked: a fresh one a number of cores, since Spark fixes its own at its start."""

    data: str
    symbols: tuple[str, ...]
    cores: int
    repeats: int
    compare: bool  # also against Polars, and one day against two


def run(
    data: Path, symbols: tuple[str, ...] = ("AIG", "BAC"), repeats: int = 2, progress: Progress = no_progress
) -> dict[str, Any]:
    """Measure on the Lean symbol-days below `data`, on 1 and on 2 cores; rows as docs/benchmarks.md names them.

    Every stage reads what the one before wrote and persists its own output in a fresh folder; Spark's session is up and
    the kernels are compiled before the clock starts. Raises InputError where the data are absent.
    """
    if not (data / "equity").is_dir():
        raise InputError(f"{data}: no Lean folder; give --data the folder that holds equity/usa/tick")
    measured = {}
    for done, cores in enumerate((1, 2)):
        progress(done, 2, "core counts")
        measured[cores] = _in_process(Work(str(data), symbols, cores, repeats, compare=cores == 2))
    progress(2, 2, "core counts")
    return result(_rows(measured))


def _rows(measured: dict[int, dict[str, Any]]) -> list[Row]:
    both, one = measured[2], measured[1]
    rows = [Row("end to end rows/s", _rate(both), "rows/s", END_TO_END_TARGET, _rate(both) >= END_TO_END_TARGET)]
    for cores, found in measured.items():
        rows += [Row(f"{stage} rows/s, {cores} core(s)", _rate(found, stage), "rows/s") for stage in STAGES]
        rows.append(Row(f"end to end rows/s, {cores} core(s)", _rate(found), "rows/s"))
    rows.append(Row("ratio 2 cores to 1", _rate(both) / _rate(one), "ratio"))
    rows.append(Row("polars clean rows/s, 2 core(s)", both["rows"] / both["polars_s"], "rows/s"))
    to_polars = both["polars_s"] / both["seconds"]["clean"]
    rows.append(Row("ratio to polars", to_polars, "ratio", POLARS_TARGET, to_polars >= POLARS_TARGET))
    days = both["twice_the_days"]
    rows.append(Row("ratio 2x days", days, "ratio", DAYS_TARGET, days <= DAYS_TARGET))
    peak = max(found["peak_mib"] for found in measured.values())
    rows.append(Row("peak MiB", peak, "MiB", PEAK_TARGET_MIB, peak < PEAK_TARGET_MIB))
    return rows


def _rate(found: dict[str, Any], stage: str | None = None) -> float:
    seconds = found["seconds"][stage] if stage else sum(found["seconds"].values())
    return float(found["rows"] / seconds)


def _in_process(work: Work) -> dict[str, Any]:
    environment = {**os.environ, "POLARS_MAX_THREADS": str(work.cores), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.bench.pipeline", json.dumps(asdict(work))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ShortfallError(f"bench pipeline on {work.cores} core(s) failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(work: Work) -> dict[str, Any]:
    from feature_repo.pipeline.spark import spark_session

    spark = spark_session(cores=work.cores)
    with tempfile.TemporaryDirectory(prefix="shortfall-bench-") as scratch, _PeakMemory() as memory:
        folder = Path(scratch)
        _stages(IngestRequest("synthetic", options={"days": 2, "hours": 0.2, "seed": 1}), folder / "warm", spark)
        request = IngestRequest("lean", Path(work.data), work.symbols)
        runs = []
        polars: list[float] = []
        for number in range(work.repeats):
            seconds, rows = _stages(request, folder / f"run{number}", spark)
            runs.append(seconds)
            if work.compare:
                polars.append(_polars(folder / f"run{number}", folder / f"polars{number}"))
        found: dict[str, Any] = {
            "rows": rows,
            "seconds": {stage: statistics.median(item[stage] for item in runs) for stage in STAGES},
            "peak_mib": memory.peak_mib,
        }
        if work.compare:
            found["polars_s"] = statistics.median(polars)
            found["twice_the_days"] = _twice_the_days(request, folder, spark, work.repeats)
    spark.stop()
    return found


def _stages(request: IngestRequest, folder: Path, spark: Any) -> tuple[dict[str, float], int]:
    """Seconds of each stage, each in a fresh folder below `folder`, and the rows that went in."""
    from feature_repo.pipeline.build import build_features
    from feature_repo.pipeline.cleaning import clean
    from feature_repo.ticks.ingest import ingest

    outputs = {stage: folder / stage for stage in STAGES}
    for output in outputs.values():
        output.mkdir(parents=True)
    seconds, summary = {}, {}
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "ingest": lambda: ingest(request, outputs["ingest"]),
        "clean": lambda: clean(outputs["ingest"], outputs["clean"], spark),
        "features": lambda: build_features(outputs["clean"], outputs["features"], spark),
    }
    for stage, call in work.items():
        start = time.perf_counter()
        summary[stage] = call()
        seconds[stage] = time.perf_counter() - start
    return seconds, summary["ingest"]["rows"]


def _polars(ours: Path, out: Path) -> float:
    """Seconds that Polars takes for the same rules on the same bronze; refuses a comparison of unequal verdicts."""
    from flows.bench.polars_rules import clean_polars

    out.mkdir()
    start = time.perf_counter()
    theirs = {rule: rows for rule, rows in clean_polars(ours / "ingest", out).items() if rows}
    seconds = time.perf_counter() - start
    accounting = json.loads((ours / "clean" / "accounting.json").read_text())
    if theirs != accounting["by_rule"]:
        raise ShortfallError(f"Polars quarantined {theirs}, Spark {accounting['by_rule']}: nothing to compare")
    return seconds


def _twice_the_days(request: IngestRequest, folder: Path, spark: Any, repeats: int) -> float:
    """Time of two days over that of one, scaled to days of equal rows; in turn, the median of the repeats."""
    from feature_repo.ticks.registry import get_reader

    days = sorted({plan.partition.date for plan in get_reader("lean").plan(request)})
    ratios = []
    for number in range(repeats):
        found = []
        for count in (1, 2):
            part = IngestRequest("lean", request.data, request.symbols, days[0], days[count - 1])
            seconds, rows = _stages(part, folder / f"days{number}-{count}", spark)
            found.append((sum(seconds.values()), rows))
        (one_s, one_rows), (two_s, two_rows) = found
        ratios.append(two_s / one_s * 2 * one_rows / two_rows)
    return statistics.median(ratios)


class _PeakMemory:
    """Resident memory of this process and all below it (the JVM, Spark's Python workers), sampled all the while."""

    every_s = 0.1

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(self.every_s):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_mib = max(self.peak_mib, total / 2**20)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(_measure(Work(**{**asked, "symbols": tuple(asked["symbols"])}))))
