"""Agent training in a RayJob: the flow leaves a request on the shared lake, the head leaves an answer.

`python -m flows.kube.ray_train FOLDER` runs on the head. Progress goes through its log, which the flow follows.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo import errors
from feature_repo.errors import ShortfallError
from feature_repo.progress import Progress

if TYPE_CHECKING:
    from training.execution.agent_config import AgentConfig

MARK = "shortfall-progress "
"""Starts a line of the log that is progress and not talk."""

EVERY_S = 2.0
REQUEST, ANSWER = "request.json", "answer.json"


def write_request(folder: Path, features: Path, forecasts: Path | None, out: Path, config: "AgentConfig") -> None:
    """Leave a request in `folder`; an answer of an earlier attempt is taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ANSWER).unlink(missing_ok=True)
    content = {
        "features": str(features),
        "forecasts": str(forecasts) if forecasts else None,
        "out": str(out),
        "config": config.to_json(),
    }
    _write(folder / REQUEST, content)


def read_answer(folder: Path) -> dict[str, Any]:
    """The training's summary. Raises the error that it ended with, or ShortfallError where there is no answer."""
    path = folder / ANSWER
    if not path.is_file():
        raise ShortfallError(f"{path}: the RayJob succeeded but left no answer; do its pods mount the flow's lake?")
    answer = json.loads(path.read_text())
    if "error" in answer:
        kind = getattr(errors, answer["error"], ShortfallError)
        raise kind(answer["message"])
    return answer["summary"]


def told(line: str, progress: Progress, say: Callable[[str], None]) -> None:
    """Hand on a line of the log: as progress where it is progress, else as talk."""
    if not line.startswith(MARK):
        say(line)
        return
    try:
        done, total, unit = json.loads(line.removeprefix(MARK))
    except ValueError:
        say(line)
        return
    progress(int(done), int(total), str(unit))


def carry_out(folder: Path) -> int:
    """Train as the request says and leave the answer; the exit code is the training's."""
    from training.execution.agent_config import AgentConfig
    from training.execution.train import train_agent

    request = json.loads((folder / REQUEST).read_text())
    last = 0.0

    def progress(done: int, total: int, unit: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_S or done == total:
            last = now
            print(MARK + json.dumps([done, total, unit]), flush=True)

    out = Path(request["out"])
    if not out.is_dir():
        # the folder is another attempt's now: see flows.lake
        print(f"error: {out} is gone: another attempt took over", file=sys.stderr, flush=True)
        return 1
    try:
        summary = train_agent(
            Path(request["features"]),
            Path(request["forecasts"]) if request["forecasts"] else None,
            out,
            AgentConfig.from_json(request["config"]),
            progress,
        )
    except ShortfallError as error:
        _write(folder / ANSWER, {"error": type(error).__name__, "message": str(error)})
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    _write(folder / ANSWER, {"summary": summary})
    return 0


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(f".part{os.getpid()}")
    partial.write_text(json.dumps(content))
    os.replace(partial, path)


if __name__ == "__main__":
    raise SystemExit(carry_out(Path(sys.argv[1])))
