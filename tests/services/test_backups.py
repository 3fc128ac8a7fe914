"""Backups by the scripts of the CronJobs, and what comes back of them: databases and the signed registry."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.decide.signed import SignedRegistry
from serving.journal import JournalError
from serving.registry import Registry
from serving.signing import open_verifier
from training.execution.static_rule import write_bundle_zero

pytestmark = pytest.mark.services
SCRIPTS = Path(__file__).resolve().parents[2] / "k8s" / "overlays" / "production" / "scripts"
DATABASES = {"prefect": "PREFECT_URL", "mlflow": "MLFLOW_URL", "mlflow_auth": "MLFLOW_AUTH_URL", "feast": "FEAST_URL"}


def run(command, environment, expect=0):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, done.stderr
    return done


def store(backups, *words, expect=0):
    environment = {**os.environ, "BACKUPS": f"file://{backups}"}
    return run([sys.executable, SCRIPTS / "store.py", *words], environment, expect)


@pytest.fixture
def filled(postgres):
    """Four databases with a table of ten rows each, and the addresses that the servers' secrets would hold."""
    environment = postgres.environment()
    for name, variable in DATABASES.items():
        postgres.sql(f"create database backup_{name}")
        postgres.sql(
            "create table runs (id int primary key); insert into runs select generate_series(1, 10)", f"backup_{name}"
        )
        driver = {"prefect": "+asyncpg", "feast": "+psycopg"}.get(name, "+psycopg2")
        environment[variable] = (
            f"postgresql{driver}://postgres:{postgres.password}@127.0.0.1:{postgres.port}/backup_{name}"
        )
    yield postgres, environment
    for name in DATABASES:
        postgres.sql(f"drop database backup_{name}")


def rows(postgres):
    return [postgres.sql("select count(*), coalesce(sum(id), 0) from runs", f"backup_{name}") for name in DATABASES]


def test_databases_when_restored_from_the_store_then_hold_what_they_held_at_the_backup(filled, tmp_path):
    postgres, environment = filled
    dumps, backups, restored = tmp_path / "dumps", tmp_path / "backups", tmp_path / "restored"
    dumps.mkdir()
    said = run(["bash", SCRIPTS / "dump.sh", dumps], environment).stdout
    assert [line.partition(":")[0] for line in said.splitlines()] == list(DATABASES)
    store(backups, "put", str(dumps), "postgres")
    for name in DATABASES:  # what is lost, and what was written since
        postgres.sql("delete from runs where id < 6; insert into runs values (99)", f"backup_{name}")
    assert rows(postgres) != ["10|55"] * 4
    store(backups, "get", "postgres", "latest", str(restored))
    run(["bash", SCRIPTS / "restore.sh", restored], environment)
    assert rows(postgres) == ["10|55"] * 4


def test_restore_when_a_dump_is_damaged_then_that_database_stays_as_it_was(filled, tmp_path):
    postgres, environment = filled
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    run(["bash", SCRIPTS / "dump.sh", dumps], environment)
    raw = (dumps / "prefect.dump").read_bytes()
    (dumps / "prefect.dump").write_bytes(raw[: len(raw) // 2])
    postgres.sql("insert into runs values (99)", "backup_prefect")
    done = subprocess.run(["bash", SCRIPTS / "restore.sh", dumps], env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "prefect: restored" not in done.stdout
    assert rows(postgres)[0] == "11|154"


def test_dump_when_a_database_is_away_then_fails_and_stores_nothing(filled, tmp_path):
    _, environment = filled
    environment["FEAST_URL"] = environment["FEAST_URL"].replace("backup_feast", "nowhere")
    done = subprocess.run(["bash", SCRIPTS / "dump.sh", tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "nowhere" in done.stderr


def test_registry_when_restored_then_serves_the_same_champion_and_can_go_on(tmp_path):
    root, backups, restored = tmp_path / "registry", tmp_path / "backups", tmp_path / "restored"
    registry = Registry(root)
    registry.ensure_bundle_zero(write_bundle_zero)
    store(backups, "put", str(root), "registry")
    store(backups, "get", "registry", "latest", str(restored))
    assert not list(restored.rglob("*.pem"))  # the promoter's key is in a secret, never in an archive
    standing = SignedRegistry(restored, open_verifier(root / "keys" / "promoter.pub")).read()
    assert standing.champion is not None and standing.champion.version == 1
    shutil.copy(root / "keys" / "promoter.pem", restored / "keys" / "promoter.pem")
    again = Registry(restored)
    assert [(item.version, item.aliases) for item in again.list_versions()] == [(1, ("champion",))]
    assert again.ensure_bundle_zero(write_bundle_zero) == 1


def test_archive_when_changed_or_unfinished_then_is_not_restored(tmp_path):
    backups, folder = tmp_path / "backups", tmp_path / "folder"
    folder.mkdir()
    (folder / "journal.jsonl").write_text("{}\n")
    name = store(backups, "put", str(folder), "registry").stdout.strip()
    (backups / "registry" / "20991231T000000Z.tar.gz").write_bytes(b"cut off")  # without its digest it is none
    assert store(backups, "list", "registry").stdout.split() == [name]
    with (backups / name).open("r+b") as file:
        file.seek(20)
        file.write(b"x")
    refused = store(backups, "get", "registry", "latest", str(tmp_path / "restored"), expect=1)
    assert "SHA-256" in refused.stderr and not (tmp_path / "restored").exists()


def test_registry_when_its_journal_was_cut_in_the_archive_then_reading_says_so(tmp_path):
    root = tmp_path / "registry"
    Registry(root).ensure_bundle_zero(write_bundle_zero)
    lines = (root / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "journal.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(JournalError, match="chain broken"):
        SignedRegistry(root, open_verifier(root / "keys" / "promoter.pub")).read()
