"""Publishes a stage's output whole or not at all, and knows what is already there.

A stage's output lives in `<lake>/<stage>/<fingerprint>/` and is never changed once published. Work is done in
`<lake>/.work/<stage>-<fingerprint>.<attempt>/` under a lock, then renamed; a kill leaves only the work folder, which
the next attempt clears (or goes on in, for a stage that keeps its own finished parts).

The lock is not trusted alone: the file server of a shared volume gives the lock of a node that it lost to the next who
asks, and the node may still live. So each attempt works under a name of its own and takes an earlier one's folder by
renaming it. The attempt that was overtaken finds its folder gone: it can neither write there nor publish.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from feature_repo.errors import DiskFullError, GateFailedError, InputError, ShortfallError

MARKER = "_stage.json"


class SupersededError(ShortfallError):
    """This attempt lost its lock and its work to another, which publishes in its stead."""


@dataclass(frozen=True)
class StageResult:
    """Outcome of one stage: its dataset id, whether it was already there, seconds spent and the summary."""

    stage: str
    id: str
    skipped: bool
    seconds: float
    summary: dict[str, Any]


def fingerprint(stage: str, **content: Any) -> str:
    """16 hex digits over the stage's name, parameters, inputs and code; equal content gives equal folders."""
    canonical = json.dumps({"stage": stage, **content}, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Lake:
    """The folder of all datasets."""

    root: Path

    def folder(self, stage: str, id_: str) -> Path:
        """Where the output of `stage` with this id stands once published."""
        return self.root / stage / id_

    def summary(self, stage: str, id_: str) -> dict[str, Any] | None:
        """Summary of a published output; None where it is not (wholly) there."""
        marker = self.folder(stage, id_) / MARKER
        if not marker.is_file():
            return None
        return json.loads(marker.read_text())["summary"]

    def run(
        self,
        stage: str,
        id_: str,
        work: Callable[[Path], dict[str, Any]],
        *,
        force: bool = False,
        keeps_parts: bool = False,
    ) -> StageResult:
        """Do `work` in a fresh folder and publish it as (stage, id_), unless it is there already.

        `keeps_parts`: the stage recognises its own finished parts, so an interrupted work folder is kept.
        Raises DiskFullError where the disk fills, SupersededError where another attempt took over meanwhile; on
        GateFailedError the folder is kept under `<lake>/failed/`.
        """
        start = time.monotonic()
        with self._locked(stage, id_):
            found = None if force else self.summary(stage, id_)
            if found is not None:
                return StageResult(stage, id_, True, 0.0, found)
            folder = self._claim(stage, id_, keeps_parts and not force)
            try:
                summary = work(folder)
                (folder / MARKER).write_text(
                    json.dumps({"stage": stage, "id": id_, "summary": summary}, sort_keys=True)
                )
                _sync_tree(folder)
            except GateFailedError:
                self._replace(folder, self.root / "failed" / f"{stage}-{id_}")
                raise
            except OSError as error:
                if not folder.exists():
                    raise SupersededError(f"stage {stage} {id_}: another attempt took over its work") from error
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                shutil.rmtree(folder, ignore_errors=True)
                free = shutil.disk_usage(self.root).free
                raise DiskFullError(
                    f"{self.root.absolute()}: disk full while writing stage {stage} ({free:,} bytes free now); earlier "
                    "outputs are untouched: free space there or set SHORTFALL_LAKE to another disk, then run the same "
                    "command again"
                ) from error
            if not self._publish(folder, stage, id_, force):
                return StageResult(stage, id_, True, 0.0, self.summary(stage, id_) or summary)
        return StageResult(stage, id_, False, time.monotonic() - start, summary)

    def note_run(self, flow_run_id: str, result: StageResult) -> None:
        """Leave the result of a flow run where the run that waits for it, in another process, finds it."""
        path = self.root / ".runs" / f"{flow_run_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(result)))
        os.replace(partial, path)

    def result_of_run(self, flow_run_id: str) -> StageResult:
        """The result that `note_run` left; raises ShortfallError where it is not there."""
        path = self.root / ".runs" / f"{flow_run_id}.json"
        if not path.is_file():
            raise ShortfallError(f"{path}: no result of this flow run: do the parent and its stages share one lake?")
        return StageResult(**json.loads(path.read_text()))

    def _replace(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # forced: the old one steps aside whole before the new one takes its name
            aside = self.root / ".work" / f"old-{target.parent.name}-{target.name}-{os.getpid()}"
            os.rename(target, aside)
            try:
                os.rename(source, target)
            except OSError:
                os.rename(aside, target)
                raise
            shutil.rmtree(aside)
        else:
            os.rename(source, target)
        _sync(target.parent)

    def _claim(self, stage: str, id_: str, keep: bool) -> Path:
        """A work folder under a name that no other attempt has; what an earlier attempt left is in it, or cleared."""
        work = self.root / ".work"
        mine = work / f"{stage}-{id_}.{secrets.token_hex(4)}"
        pattern = re.compile(rf"{re.escape(f'{stage}-{id_}')}(\.[0-9a-f]{{8}})?")
        left = [path for path in work.glob(f"{stage}-{id_}*") if path.is_dir() and pattern.fullmatch(path.name)]
        for number, path in enumerate(sorted(left, key=lambda path: path.stat().st_mtime_ns, reverse=True)):
            taken = mine if number == 0 else mine.with_name(f"{mine.name}-{number}")
            with suppress(FileNotFoundError):  # a third attempt was quicker
                os.rename(path, taken)  # from here on whoever works there still works nowhere
                if number or not keep:
                    shutil.rmtree(taken)
        mine.mkdir(parents=True, exist_ok=True)
        return mine

    def _publish(self, folder: Path, stage: str, id_: str, force: bool) -> bool:
        """Give the work folder its final name; False where another attempt's output has it already.

        Raises SupersededError where another attempt took the folder.
        """
        target = self.folder(stage, id_)
        if not force and target.exists():
            shutil.rmtree(folder, ignore_errors=True)
            return False
        try:
            self._replace(folder, target)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise SupersededError(
                    f"stage {stage} {id_}: another attempt took over, this one publishes nothing"
                ) from error
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return False
        return True

    @contextmanager
    def _locked(self, stage: str, id_: str) -> Iterator[None]:
        """Hold this output's lock: of two live attempts, one works and the other then finds it done."""
        locks = self.root / ".work"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{stage}-{id_}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                raise InputError(
                    f"{locks}: cannot be locked ({error}); put the lake on a volume with file locks"
                ) from error
            yield


def _sync_tree(folder: Path) -> None:
    """Force every file to disk before the rename makes it official."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def code_digest(*packages: str) -> str:
    """Digest of the Python and YAML sources below these folders of the project; changed code is a changed input.

    Read once a process, which goes on running the code that it started with.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in packages:
        base = root / package
        files = [base] if base.is_file() else sorted(base.rglob("*.py")) + sorted(base.rglob("*.yaml"))
        for path in files:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
