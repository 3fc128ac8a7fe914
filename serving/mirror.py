"""A registry's signed content in MLflow's artifact store, and a checked copy of it where policies are served.

The registry's folder lies on the flows' volume, which no serving pod can mount. `publish` puts journal and bundles into
the artifact store behind an MLflow server; `python -m serving.mirror` keeps a copy in a folder that is read like the
registry's own. The store is not trusted: a copy takes only a journal whose chain holds, which goes on where the copied
one ends and whose decisions bear the promoter's signature, and only bundles whose content has the signed hash. What was
copied before stays until all of the new is there.
"""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.errors import InputError, ShortfallError
from serving.contracts.bundle import MAX_FILE_BYTES, bundle_sha256, read_content
from serving.decide.signed import SIGNED, SignedRegistry
from serving.journal import Journal, JournalError, sync_folder
from serving.signing import Verifier, open_verifier

JOURNAL = "journal.jsonl"
MAX_JOURNAL_BYTES = 256 * 2**20

_log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where files lie under relative names."""

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, without it; empty where there is none."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Content of a file, None where absent. Raises ShortfallError above `limit` bytes or without an answer."""

    def write(self, name: str, content: bytes) -> None:
        """Put a file in its place. Raises ShortfallError where that fails."""


class ArtifactProxy:
    """The shelf `registry/<source>` behind an MLflow server; credentials as MLflow takes them, from the environment."""

    def __init__(self, tracking_uri: str, source: str) -> None:
        """Raises InputError where the address is not http or https."""
        if not tracking_uri.startswith(("http://", "https://")):
            raise InputError(f"tracking URI {tracking_uri!r}: an MLflow server's http or https address is needed")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

        self._repository = MlflowArtifactsRepository(f"mlflow-artifacts:/registry/{source}", tracking_uri)

    def names(self, folder: str) -> list[str]:
        """As `Shelf.names`."""
        with _answered(f"list {folder}"):
            found = self._repository.list_artifacts(folder)
        return [Path(item.path).name for item in found if not item.is_dir]

    def read(self, name: str, limit: int) -> bytes | None:
        """As `Shelf.read`."""
        folder, _, leaf = name.rpartition("/")
        if leaf not in self.names(folder):
            return None
        with tempfile.TemporaryDirectory() as scratch, _answered(f"read {name}"):
            path = Path(self._repository.download_artifacts(name, scratch))
            if path.stat().st_size > limit:
                raise ShortfallError(f"{name}: {path.stat().st_size} bytes, the limit is {limit}")
            return path.read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """As `Shelf.write`."""
        folder, _, leaf = name.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch, _answered(f"write {name}"):
            path = Path(scratch) / leaf
            path.write_bytes(content)
            self._repository.log_artifact(str(path), folder or None)


def publish(root: Path, shelf: Shelf) -> int:
    """Put the registry below `root` on the shelf, bundles first, the journal last; returns how many files it wrote.

    Raises JournalError where the journal is not sound or the published one is no beginning of it, ShortfallError where
    the shelf refuses.
    """
    content = Journal(root / JOURNAL).read()
    if not content.records:
        return 0
    raw = (root / JOURNAL).read_bytes().removesuffix(content.torn_tail)
    there = shelf.read(JOURNAL, MAX_JOURNAL_BYTES) or b""
    if not raw.startswith(there):
        raise JournalError(
            f"{root / JOURNAL}: {len(there)} bytes were published before and are no beginning of it; restore it"
        )
    written = 0
    for sha256 in dict.fromkeys(record["bundle_sha256"] for record in content.records if record["action"] in SIGNED):
        files = read_content(root / "bundles" / sha256)
        for name in sorted(set(files) - set(shelf.names(f"bundles/{sha256}"))):
            shelf.write(f"bundles/{sha256}/{name}", files[name])
            written += 1
    if there != raw:
        shelf.write(JOURNAL, raw)
        written += 1
    return written


def copy(shelf: Shelf, root: Path, verifier: Verifier) -> bool:
    """Bring the copy below `root` to what the shelf holds; True where something changed.

    Raises JournalError, SignatureError or ShortfallError where the shelf's content is not to be trusted or cannot be
    had; the copy is then as it was.
    """
    raw = shelf.read(JOURNAL, MAX_JOURNAL_BYTES) or b""
    path = root / JOURNAL
    mine = path.read_bytes() if path.exists() else b""
    if raw == mine:
        return False
    if not raw.startswith(mine):
        raise JournalError(
            f"the published journal ({len(raw)} bytes) does not go on where the copy ends ({len(mine)} bytes); refused"
        )
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".incoming-") as scratch:
        staged = Path(scratch) / JOURNAL
        staged.write_bytes(raw)
        if not raw.endswith(b"\n"):
            raise JournalError(
                f"the published journal ends in the middle of a line, at byte {len(raw)}; tried again later"
            )
        for sha256 in SignedRegistry(staged.parent, verifier).read().admitted:
            _copy_bundle(shelf, root, sha256)
        os.replace(staged, path)
        sync_folder(root)
    return True


def _copy_bundle(shelf: Shelf, root: Path, sha256: str) -> None:
    target = root / "bundles" / sha256
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as scratch:
        staged = Path(scratch) / sha256
        staged.mkdir()
        for name in shelf.names(f"bundles/{sha256}"):
            content = shelf.read(f"bundles/{sha256}/{name}", MAX_FILE_BYTES)
            if content is not None:
                (staged / name).write_bytes(content)
        actual = bundle_sha256(staged)
        if actual != sha256:
            raise ShortfallError(f"published bundle {sha256}: its content has sha256 {actual}; refused")
        os.rename(staged, target)


class _answered:
    """Tells what a request was for where MLflow or the network raises one of their many types."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ShortfallError):
            reason = (str(error).splitlines() or [""])[0][:300]
            raise ShortfallError(f"artifact store, {self._what}: {type(error).__name__}: {reason}") from error


class MirrorSettings(BaseSettings):
    """What is copied, whence and where to."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_MIRROR_", extra="forbid", cli_kebab_case=True)

    tracking_uri: str = Field(
        description="MLflow server; user and password from MLFLOW_TRACKING_USERNAME and _PASSWORD"
    )
    source: str = Field("synthetic", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Data source of the registry")
    folder: Path = Field(description="Of the copy")
    public_key: Path = Field(description="The promoter's public key, PEM")
    every_s: float = Field(5.0, gt=0, le=3600, description="Look for something new so often")
    once: bool = Field(False, description="Copy once and end")


def follow(settings: MirrorSettings, stop: threading.Event) -> None:
    """Copy until `stop` is set. A copy that fails is told and tried again; raises the first failure with `once`."""
    shelf = ArtifactProxy(settings.tracking_uri, settings.source)
    failing = ""
    while True:
        try:
            if copy(shelf, settings.folder, open_verifier(settings.public_key)):
                _log.info("copied the registry of %s to %s", settings.source, settings.folder)
            failing = ""
        except (ShortfallError, OSError) as error:
            if settings.once:
                raise
            if str(error) != failing:
                _log.error("the copy stays as it was: %s", error)
            failing = str(error)
        if settings.once or stop.wait(settings.every_s):
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when told to stop, 2 for bad settings, 1 for a single copy that failed."""
    from serving.observe.entry import run_process
    from serving.observe.logs import configure

    configure("mirror")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return run_process(
        MirrorSettings, arguments, lambda settings: follow(settings, stop), (InputError,), (ShortfallError, OSError)
    )


if __name__ == "__main__":
    raise SystemExit(main())
