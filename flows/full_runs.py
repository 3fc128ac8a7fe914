"""`make train-full`: the full runs behind docs/results.md, one night an instrument, and the tables made from them.

Each run is a `shortfall nightly` in a lake of its own, so that no run's champion is another instrument's agent. What is
done is skipped, a run that was killed goes on from its checkpoints, and each run's tables are written as soon as it is
done.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.errors import InputError
from flows.results_tables import replace_section, section

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"


@dataclass(frozen=True)
class FullRun:
    """One instrument: the night's arguments, and how far below the opponent its agent is asked to be, bps."""

    name: str
    arguments: tuple[str, ...]
    profile: str
    folder: str = ""  # of the vendor's files, below the folder of samples
    target_bps: float | None = None
    planted: bool = True  # whether there is a signal to find on the synthetic market

    def command(self, samples: Path) -> list[str]:
        """What `shortfall` is called with."""
        data = ("--data", str(samples / self.folder)) if self.folder else ()
        return ["nightly", *self.arguments, *data, "--profile", self.profile]


RUNS = (
    FullRun("rb", ("--source", "shfe", "--symbols", "rb2510"), "table-rb", "shfe", 0.10),
    FullRun("aig", ("--source", "lean", "--symbols", "AIG"), "table-aig", "lean", 0.10),
    FullRun("bac", ("--source", "lean", "--symbols", "BAC"), "table-bac", "lean", 0.20),
    FullRun("synthetic", (), "table-synthetic"),
    FullRun("synthetic-0", ("--synthetic-strength", "0"), "table-synthetic", planted=False),
)


def run(samples: Path, lakes: Path, only: list[str], page: Path = PAGE) -> None:
    """Play the runs named in `only` (all where empty) and write their sections of `page`.

    Runs whose data are not below `samples` are left out, and said so. Raises InputError for a name that is none, and
    CalledProcessError where a night fails.
    """
    known = {item.name: item for item in RUNS}
    for name in only:
        if name not in known:
            raise InputError(f"run {name!r} is none of {', '.join(known)}")
    chosen = [known[name] for name in only] or list(RUNS)
    for number, item in enumerate(chosen, 1):
        head = f"run {number} of {len(chosen)}, {item.name}"
        if item.folder and not (samples / item.folder).is_dir():
            _say(f"{head}: left out, there is no folder {samples / item.folder}")
            continue
        lake = lakes / item.name
        command = item.command(samples)
        _say(f"{head}: SHORTFALL_LAKE={lake} shortfall {shlex.join(command)}")
        begun = time.monotonic()
        report = _night(command, lake)
        replace_section(page, item.name, _section(item, report, lake, samples))
        skipped = all(stage["skipped"] for stage in report["stages"])
        took = "was done before" if skipped else f"took {time.monotonic() - begun:.0f} s"
        _say(f"{head}: {took}; its tables are in {page}, its report is {report['report']}")


def _night(command: list[str], lake: Path) -> dict[str, Any]:
    """The closing report of one night, played in a process of its own; its progress goes to standard error."""
    told = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command, "--json"],
        cwd=ROOT,
        env={**os.environ, "SHORTFALL_LAKE": str(lake)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    report: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return report


def _section(item: FullRun, report: dict[str, Any], lake: Path, samples: Path) -> str:
    ids = {stage["name"]: stage["id"] for stage in report["stages"]}
    found = json.loads((Path(report["report"]).parent / "evaluation.json").read_text())
    curves = json.loads((lake / "train_agent" / ids["train_agent"] / "curves.json").read_text())
    command = f"shortfall {shlex.join(item.command(Path(os.path.relpath(samples, ROOT))))}"
    return section(command, item.target_bps, found, curves, report["signal"], item.planted)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """The command line: `python -m flows.full_runs [--data FOLDER] [--lakes FOLDER] [NAME ...]`."""
    parser = argparse.ArgumentParser(description="The full runs of docs/results.md, and its tables")
    parser.add_argument("names", nargs="*", help=f"runs: {', '.join(item.name for item in RUNS)}; all where absent")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of samples: shfe/, lean/")
    parser.add_argument("--lakes", type=Path, default=Path("lake/full"), help="a lake for each run lies in it")
    given = parser.parse_args()
    try:
        run(given.data.expanduser().absolute(), given.lakes.expanduser().absolute(), given.names)
    except InputError as error:
        raise SystemExit(f"train-full: {error}") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"train-full: the night ended with {error.returncode}; run the same command to go on"
        ) from error


if __name__ == "__main__":
    main()
