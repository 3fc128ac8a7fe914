"""Looks at this machine and says what the platform lacks here, and how to mend it."""

import os
import shutil
import sys
from pathlib import Path

from feature_repo.errors import ShortfallError
from flows.kube.doctor import Finding
from flows.settings import settings

LEAST_FREE_GIB = 10


def examine_machine() -> list[Finding]:
    """Python, Java, and the lake's folder."""
    return [_python(), _java(), *_lake(settings().lake.absolute())]


def _python() -> Finding:
    seen = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] == (3, 11):
        return Finding("Python", "ok", seen)
    return Finding("Python", "missing", seen, "Python 3.11 is needed: make setup PYTHON=/path/to/python3.11")


def _java() -> Finding:
    from feature_repo.pipeline.spark import find_java

    try:
        return Finding("Java", "ok", str(find_java()))
    except ShortfallError as error:
        return Finding("Java", "missing", str(error), ".ci/ensure-java installs it on Debian")


def _lake(folder: Path) -> list[Finding]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return [Finding("lake", "missing", f"{folder} cannot be written", "set SHORTFALL_LAKE to a folder of yours")]
    free = shutil.disk_usage(there).free / 2**30
    if free < LEAST_FREE_GIB:
        what = f"{folder}: {free:.1f} GiB free, {LEAST_FREE_GIB} GiB are wanted"
        return [Finding("lake", "warning", what, "free space, or set SHORTFALL_LAKE to another disk")]
    return [Finding("lake", "ok", f"{folder}: {free:.0f} GiB free")]
