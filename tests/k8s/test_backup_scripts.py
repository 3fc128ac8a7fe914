"""What the backup CronJobs run: archives whole or refused, the order of a registry's files, snapshots that expire."""

import hashlib
import importlib.util
import json
import sqlite3
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta

import pytest
from manifests import K8S
from sqlalchemy.exc import OperationalError

SCRIPTS = K8S / "overlays" / "production" / "scripts"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def script(name):
    spec = importlib.util.spec_from_file_location(f"backup_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


store, snapshots = script("store"), script("snapshot")


@pytest.fixture
def registry(tmp_path):
    folder = tmp_path / "registry" / "synthetic"
    (folder / "bundles" / "ab").mkdir(parents=True)
    (folder / "keys").mkdir()
    (folder / "journal.jsonl").write_text('{"sequence": 1}\n')
    (folder / "bundles" / "ab" / "policy.onnx").write_bytes(b"weights")
    (folder / "keys" / "promoter.pem").write_text("private")
    (folder / "keys" / "promoter.pub").write_text("public")
    (folder / ".lock").write_text("")
    with sqlite3.connect(folder / "registry.db") as database:
        database.execute("create table t (x)")
        database.execute("insert into t values (7)")
    return tmp_path / "registry"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKUPS", f"file://{tmp_path / 'shelf'}")
    return lambda *words: store.main(list(map(str, words)))


def test_registry_when_put_and_brought_back_then_the_same_without_private_key_and_lock(registry, run, tmp_path, capsys):
    assert run("put", registry, "registry") == 0
    assert run("get", "registry", "latest", tmp_path / "back") == 0
    name = capsys.readouterr().out.split()[0]
    assert name.startswith("registry/2")
    back = tmp_path / "back" / "synthetic"
    files = {path.relative_to(back).as_posix() for path in back.rglob("*") if path.is_file()}
    assert files == {"journal.jsonl", "bundles/ab/policy.onnx", "keys/promoter.pub", "registry.db"}
    assert (back / "bundles" / "ab" / "policy.onnx").read_bytes() == b"weights"
    with sqlite3.connect(back / "registry.db") as database:
        assert database.execute("select x from t").fetchall() == [(7,)]


def test_journal_is_read_before_the_bundles_that_it_names(registry, run, tmp_path):
    run("put", registry, "registry")
    archive = next((tmp_path / "shelf" / "registry").glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        assert tar.getnames()[0] == "synthetic/journal.jsonl"


def test_archive_when_a_byte_changed_then_nothing_is_restored(registry, run, tmp_path, capsys):
    run("put", registry, "registry")
    archive = next((tmp_path / "shelf" / "registry").glob("*.tar.gz"))
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 1
    archive.write_bytes(raw)
    assert run("get", "registry", "latest", tmp_path / "back") == 1
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "back").exists()


def test_archive_without_its_digest_is_not_whole_and_not_the_latest(registry, run, tmp_path, capsys):
    run("put", registry, "registry")
    whole = capsys.readouterr().out.strip()
    (tmp_path / "shelf" / "registry" / "99990101T000000Z.tar.gz").write_bytes(b"half")
    run("list", "registry")
    assert capsys.readouterr().out.split() == [whole]
    assert run("get", "registry", "latest", tmp_path / "back") == 0


def test_restore_into_a_folder_that_holds_something_is_refused(registry, run, capsys):
    run("put", registry, "registry")
    assert run("get", "registry", "latest", registry) == 1
    assert "not empty" in capsys.readouterr().err


def test_restore_of_an_archive_that_climbs_out_of_its_folder_is_refused(run, tmp_path):
    (tmp_path / "evil").write_text("x")
    shelf = tmp_path / "shelf" / "registry"
    shelf.mkdir(parents=True)
    archive = shelf / "20260101T000000Z.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "evil", "../outside")
    archive.with_name(f"{archive.name}.sha256").write_text(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert run("get", "registry", "latest", tmp_path / "inside" / "back") == 1
    assert not (tmp_path / "inside" / "outside").exists()


def test_empty_folder_and_strange_words_are_told(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    assert run("put", tmp_path / "empty", "registry") == 1
    assert run("fetch") == 2
    monkeypatch.setenv("BACKUPS", "ftp://x")
    assert run("list", "registry") == 1
    assert "s3://" in capsys.readouterr().err


class Snapshots:
    """The custom-object calls of the kubernetes client, on a list."""

    def __init__(self, *items):
        self.items, self.calls = list(items), []

    def create_namespaced_custom_object(self, group, version, namespace, plural, body):
        self.calls.append((group, version, namespace, plural, body))

    def list_namespaced_custom_object(self, group, version, namespace, plural, label_selector):
        key, _, value = label_selector.partition("=")
        return {"items": [item for item in self.items if item["metadata"]["labels"][key] == value]}

    def delete_namespaced_custom_object(self, group, version, namespace, plural, name):
        self.items = [item for item in self.items if item["metadata"]["name"] != name]


def taken(name, days, ready=True, claim="journal-gateway-0"):
    made = (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": name, "creationTimestamp": made, "labels": {snapshots.CLAIM: claim}}
    return {"metadata": metadata, "status": {"readyToUse": ready}}


def test_snapshot_names_the_claim_the_class_and_the_time():
    api = Snapshots()
    name = snapshots.snapshot(api, "shortfall-serving", "journal-gateway-0", "fast", NOW)
    group, version, namespace, plural, body = api.calls[0]
    assert (group, version, plural) == ("snapshot.storage.k8s.io", "v1", "volumesnapshots")
    assert body["metadata"]["name"] == name == "journal-gateway-0-20261124120000"
    assert body["spec"] == {
        "volumeSnapshotClassName": "fast", "source": {"persistentVolumeClaimName": "journal-gateway-0"},
    }  # fmt: skip
    assert json.dumps(body)


def test_snapshots_when_old_then_they_go_but_the_newest_that_is_ready_stays():
    api = Snapshots(
        taken("old", 30), taken("older", 40), taken("half", 20, ready=False), taken("theirs", 90, claim="other")
    )
    gone = snapshots.expire(api, "shortfall-serving", "journal-gateway-0", NOW - timedelta(days=14))
    assert gone == ["older", "half"]
    assert {item["metadata"]["name"] for item in api.items} == {"old", "theirs"}


def test_snapshots_when_young_then_all_stay():
    api = Snapshots(taken("a", 1), taken("b", 13))
    assert snapshots.expire(api, "shortfall-serving", "journal-gateway-0", NOW - timedelta(days=14)) == []


def test_dump_and_restore_name_the_same_databases():
    def named(path):
        return [line.split()[1:3] for line in path.read_text().splitlines() if line.startswith(("dump ", "restore "))]

    assert named(SCRIPTS / "dump.sh") == named(SCRIPTS / "restore.sh")
    assert len(named(SCRIPTS / "dump.sh")) == 4


@pytest.mark.parametrize("name", ["dump", "restore"])
def test_database_scripts_when_an_address_asks_for_tls_in_asyncpgs_words_then_ask_in_libpqs(name, tmp_path):
    for program in ("pg_dump", "pg_restore"):
        script = 'echo "$@" >>"$LOG"\nfor a in "$@"; do case $a in --file=*) : >"${a#*=}";; esac; done\n'
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / program).chmod(0o755)
    address = "postgresql+asyncpg://u:p@host:5432/d?ssl=verify-full"
    variables = {key: address for key in ("PREFECT_URL", "MLFLOW_URL", "MLFLOW_AUTH_URL", "FEAST_URL")}
    environment = {**variables, "PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(tmp_path / "log")}
    subprocess.run(["bash", SCRIPTS / f"{name}.sh", tmp_path], env=environment, check=True, capture_output=True)
    asked = (tmp_path / "log").read_text()
    assert asked.count("--dbname=postgresql://u:p@host:5432/d?sslmode=verify-full") == 4


def test_schema_when_its_address_asks_for_tls_in_asyncpgs_words_then_libpq_understands_it():
    path = K8S / "base" / "platform" / "scripts" / "wait_for_schema.py"
    spec = importlib.util.spec_from_file_location("wait_for_schema", path)
    waiting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(waiting)
    with pytest.raises(OperationalError):  # nobody is there; an unknown option would be a ProgrammingError
        waiting.revisions("postgresql+asyncpg://u:p@127.0.0.1:1/d?ssl=verify-full")
