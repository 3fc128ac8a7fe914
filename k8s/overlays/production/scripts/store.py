"""Folders into object storage and back, whole and checked.

    store.py put FOLDER KIND          one archive of the folder, named by the time, with its SHA-256 beside it
    store.py list KIND                the archives of this kind, oldest first
    store.py get KIND NAME FOLDER     an archive, or `latest`, into an empty folder

BACKUPS is where archives go: s3://BUCKET/PREFIX (boto3's usual variables are its access) or file:///FOLDER. The journal
of a registry is read before the bundles that it names, since a bundle is there before the journal says so; a database
of SQLite is copied by its own means. How long archives are kept is the bucket's life cycle.
"""

import hashlib
import os
import sqlite3
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

SUFFIX = ".tar.gz"


class Shelf(Protocol):
    """Where archives lie under names with slashes."""

    def put(self, path: Path, name: str) -> None:
        """Copy a file there."""

    def get(self, name: str, path: Path) -> None:
        """Copy a file from there. Raises FileNotFoundError where there is none."""

    def names(self, prefix: str) -> list[str]:
        """Names that start with the prefix, in order."""


class Folder:
    """A shelf in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: Path, name: str) -> None:
        """As `Shelf.put`."""
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name}.part")
        staged.write_bytes(path.read_bytes())
        os.replace(staged, target)

    def get(self, name: str, path: Path) -> None:
        """As `Shelf.get`."""
        path.write_bytes((self._root / name).read_bytes())

    def names(self, prefix: str) -> list[str]:
        """As `Shelf.names`."""
        found = (item.relative_to(self._root).as_posix() for item in self._root.rglob("*") if item.is_file())
        return sorted(name for name in found if name.startswith(prefix))


class Bucket:
    """A shelf in S3, or in what speaks like it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3

        self._client, self._bucket, self._prefix = boto3.client("s3"), bucket, prefix.strip("/")

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def put(self, path: Path, name: str) -> None:
        """As `Shelf.put`."""
        self._client.upload_file(str(path), self._bucket, self._key(name))

    def get(self, name: str, path: Path) -> None:
        """As `Shelf.get`."""
        try:
            self._client.download_file(self._bucket, self._key(name), str(path))
        except self._client.exceptions.ClientError as error:
            raise FileNotFoundError(f"s3://{self._bucket}/{self._key(name)}: {error}") from error

    def names(self, prefix: str) -> list[str]:
        """As `Shelf.names`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._key(prefix))
        keys = (item["Key"] for page in pages for item in page.get("Contents", []))
        return sorted(key.removeprefix(f"{self._prefix}/") for key in keys)


def open_shelf(url: str) -> Shelf:
    """The shelf at an address. Raises ValueError for one of another kind."""
    parsed = urlparse(url)
    if parsed.scheme == "s3":
        return Bucket(parsed.netloc, parsed.path)
    if parsed.scheme == "file":
        return Folder(Path(parsed.path))
    raise ValueError(f"BACKUPS {url!r}: s3://BUCKET/PREFIX or file:///FOLDER is needed")


def put(shelf: Shelf, folder: Path, kind: str, scratch: Path) -> str:
    """Archive a folder and put it on the shelf; the name. Raises FileNotFoundError where the folder holds nothing."""
    name = f"{kind}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}{SUFFIX}"
    archive = scratch / "archive"
    count = 0
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path in _in_order(folder):
            source = _copied(path, scratch) if path.suffix == ".db" else path
            try:
                tar.add(source, path.relative_to(folder).as_posix(), recursive=False)
                count += 1
            except FileNotFoundError:
                continue  # a partial file that was renamed meanwhile
    if not count:
        raise FileNotFoundError(f"{folder}: nothing to back up")
    digest = scratch / "digest"
    digest.write_text(f"{_sha256(archive)}\n")
    shelf.put(archive, name)
    shelf.put(digest, f"{name}.sha256")  # last: an archive without it is not whole
    return name


def get(shelf: Shelf, kind: str, name: str, folder: Path, scratch: Path) -> str:
    """Bring an archive back into an empty folder; its name. Raises ValueError where it is not what was put there."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: nothing is restored over what stands there")
    if name == "latest":
        found = whole(shelf, kind)
        if not found:
            raise FileNotFoundError(f"no whole archive of {kind}")
        name = found[-1]
    archive, digest = scratch / "archive", scratch / "digest"
    shelf.get(name, archive)
    shelf.get(f"{name}.sha256", digest)
    if (actual := _sha256(archive)) != digest.read_text().strip():
        raise ValueError(f"{name}: its SHA-256 is {actual}, not {digest.read_text().strip()}; nothing was restored")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return name


def whole(shelf: Shelf, kind: str) -> list[str]:
    """The archives of a kind that are whole, oldest first."""
    names = shelf.names(f"{kind}/")
    return [name for name in names if name.endswith(SUFFIX) and f"{name}.sha256" in names]


def _in_order(folder: Path) -> list[Path]:
    # private keys are in secrets, not in archives; locks and unfinished files are nobody's
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    kept = [path for path in files if not path.name.startswith(".") and path.suffix != ".pem"]
    return sorted(kept, key=lambda path: (not path.name.endswith("journal.jsonl"), path.as_posix()))


def _copied(path: Path, scratch: Path) -> Path:
    target = scratch / "database"
    target.unlink(missing_ok=True)
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(words: list[str]) -> int:
    """0 when done, 1 for what failed, 2 for words that it does not understand."""
    try:
        shelf = open_shelf(os.environ["BACKUPS"])
        with tempfile.TemporaryDirectory() as scratch:
            match words:
                case ["put", folder, kind]:
                    print(put(shelf, Path(folder), kind, Path(scratch)))
                case ["list", kind]:
                    print("\n".join(whole(shelf, kind)))
                case ["get", kind, name, folder]:
                    print(get(shelf, kind, name, Path(folder), Path(scratch)))
                case _:
                    print(__doc__, file=sys.stderr)
                    return 2
    except (OSError, ValueError, KeyError, tarfile.TarError, sqlite3.Error) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
