"""Finished partitions of a stage, kept by the hash of all that went into them, so that a new day costs one day."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from feature_repo.errors import InputError
from feature_repo.lake import Partition

SUMMARY_FILE = "part.json"
INDEX_FILE = "parts.json"
"""In a dataset: the key of each partition, by `venue/symbol/date`; the next stage's keys build on it."""


@dataclass(frozen=True)
class Part:
    """One partition's finished output: its key, its folder, and what the stage said of it."""

    key: str
    folder: Path
    summary: dict[str, Any]

    def link(self, name: str, target: Path) -> None:
        """Let `target` be this part's file `name`: a hard link, or a copy where the file system has none."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.folder / name, target)
        except OSError:
            shutil.copyfile(self.folder / name, target)


@dataclass(frozen=True)
class Parts:
    """A store of parts below `root`; `code` is a digest of the sources that the stage runs."""

    root: Path
    code: str = ""
    force: bool = False  # do every part again, replacing what is there

    def key(self, **content: Any) -> str:
        """24 hex digits over the code and `content` (JSON; whatever else as its text)."""
        canonical = json.dumps({"code": self.code, **content}, sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()[:24]

    def find(self, key: str) -> Part | None:
        """The finished part of this key, None where there is none (or it is to be done again)."""
        path = self.root / key / SUMMARY_FILE
        if self.force or not path.is_file():
            return None
        return Part(key, path.parent, json.loads(path.read_text()))

    def build(self, key: str, work: Callable[[Path], dict[str, Any]]) -> Part:
        """The part of this key: found, or made by `work`, which fills an empty folder and returns a summary (JSON).

        A part appears whole or not at all: the folder is synced and renamed once `work` is done, and removed where
        `work` fails. Of two that make the same part at once one wins; they are equal.
        """
        found = self.find(key)
        if found is not None:
            return found
        self.root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=self.root))
        try:
            summary = work(folder)
            (folder / SUMMARY_FILE).write_text(json.dumps(summary, sort_keys=True))
            for path in folder.rglob("*"):
                if path.is_file():
                    _sync(path)
            target = self.root / key
            if self.force and target.exists():
                shutil.rmtree(target)
            try:
                folder.rename(target)
            except OSError:
                if not (target / SUMMARY_FILE).is_file():
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        # Read back: a caller sees the same whether the part was found or made (JSON has no tuples).
        return Part(key, target, json.loads((target / SUMMARY_FILE).read_text()))


@contextmanager
def parts_or_scratch(parts: Parts | None, out_dir: Path) -> Iterator[Parts]:
    """`parts`, or for a caller who keeps none a store that lives inside `out_dir` until the stage is done."""
    if parts is not None:
        yield parts
        return
    scratch = out_dir / ".parts"
    try:
        yield Parts(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_index(keys: Mapping[Partition, str], out_dir: Path) -> None:
    """Leave the parts' keys in the dataset that is made of them."""
    rows = {"/".join((item.venue, item.symbol, item.date)): key for item, key in sorted(keys.items())}
    (out_dir / INDEX_FILE).write_text(json.dumps(rows, indent=1) + "\n")


def read_index(folder: Path, file: str, partitions: list[Partition]) -> dict[Partition, str]:
    """Key of each partition of a dataset; for one that no index names, the sha256 of its `file`.

    Raises InputError where the index is not readable.
    """
    path = folder / INDEX_FILE
    try:
        rows = json.loads(path.read_text()) if path.is_file() else {}
        known = {Partition(*name.split("/")): str(key) for name, key in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable index of parts ({error}); run the stage again") from error
    return {item: known.get(item) or file_sha256(item.folder(folder) / file) for item in partitions}


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file, read once a process for as long as its size and time of change stay."""
    stat = path.stat()
    return _sha256(path.absolute(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
