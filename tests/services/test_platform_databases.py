"""What the cluster's Jobs and ConfigMaps do to PostgreSQL and Redis, done to real ones."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import yaml

pytestmark = pytest.mark.services
ROOT = Path(__file__).resolve().parents[2]
PASSWORDS = {"prefect": "prefect-password", "mlflow": "mlflow-password", "feast": "feast-password"}


@pytest.fixture(scope="module")
def databases(postgres):
    """The server after the init script of the cluster's ConfigMap."""
    environment = postgres.environment() | {"POSTGRES_PASSWORD": postgres.password}
    environment |= {f"{user.upper()}_PASSWORD": password for user, password in PASSWORDS.items()}
    script = ROOT / "k8s" / "base" / "platform" / "scripts" / "databases.sh"
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True, text=True)
    return postgres


def test_databases_when_made_then_each_user_owns_its_own_and_reads_no_other(databases):
    owners = databases.sql("select datname || ' ' || pg_get_userbyid(datdba) from pg_database where not datistemplate")
    assert set(owners.splitlines()) == {
        "postgres postgres", "prefect prefect", "mlflow mlflow", "mlflow_auth mlflow", "feast feast",
    }  # fmt: skip
    for user, password in PASSWORDS.items():
        assert databases.sql("select 1", user, user, password) == "1"
        for other in set(PASSWORDS) - {user}:
            with pytest.raises(subprocess.CalledProcessError) as refused:
                databases.sql("select 1", other, user, password)
            assert "permission denied for database" in refused.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as refused:
        databases.sql("select 1", "prefect", "prefect", "another")
    assert "password authentication failed" in refused.value.stderr


def test_prefect_when_its_database_is_migrated_twice_then_the_second_changes_nothing(databases, tmp_path):
    url = f"postgresql+asyncpg://prefect:{PASSWORDS['prefect']}@127.0.0.1:{databases.port}/prefect"
    environment = {
        **os.environ, "PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_DATABASE_CONNECTION_URL": url,
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    versions = []
    for _ in range(2):
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
        versions.append(databases.sql("select version_num from alembic_version", "prefect"))
    assert versions[0] and versions[0] == versions[1]
    assert int(databases.sql("select count(*) from pg_tables where tablename = 'flow_run'", "prefect")) == 1
    script = ROOT / "k8s" / "base" / "platform" / "scripts" / "wait_for_schema.py"
    done = subprocess.run(
        [sys.executable, script, "prefect"], capture_output=True, text=True, timeout=120,
        env={**environment, "DATABASE_URL": url, "WAIT_S": "5"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_feast_when_applied_to_sql_then_another_process_reads_the_same_definitions(databases, tmp_path):
    environment = {
        **os.environ,
        "SHORTFALL_FEAST_REGISTRY_URL": (
            f"postgresql+psycopg://feast:{PASSWORDS['feast']}@127.0.0.1:{databases.port}/feast"
        ),
        "SHORTFALL_REDIS": "127.0.0.1:6379",
    }
    feast = [
        str(Path(sys.executable).parent / "feast"),
        "-c",
        "feature_repo",
        "-f",
        "feature_repo/feature_store.k8s.yaml",
    ]
    jobs = yaml.safe_load_all((ROOT / "k8s" / "base" / "platform" / "jobs.yaml").read_text())
    job = next(item for item in jobs if item and item["metadata"]["name"] == "feast-apply")
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:5] == ["feast", *feast[1:]]  # what the pod runs is what runs here
    variables = {item["name"] for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables == {"SHORTFALL_FEAST_REGISTRY_URL", "SHORTFALL_REDIS"}
    for _ in range(2):
        subprocess.run(
            [feast[0], *command[1:]], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=300
        )
    listed = subprocess.run(
        [*feast, "feature-views", "list"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True,
        timeout=300,
    ).stdout  # fmt: skip
    assert "microstructure" in listed and "forecasts" in listed


def test_redis_when_users_are_those_of_the_secret_then_each_may_do_its_work_alone(redis_server, tmp_path):
    port, folder = redis_server
    spec = importlib.util.spec_from_file_location("make_secrets", ROOT / "k8s" / "make_secrets.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main(["local", "--out", str(tmp_path)]) == 0
    secrets = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item["stringData"]
        for item in yaml.safe_load_all((tmp_path / "secrets.yaml").read_text())
    }
    made = secrets["shortfall-platform", "redis"]
    (folder / "users.acl").write_text(made["users.acl"])
    admin = redis.Redis(port=port, username="admin", password="admin-password")
    admin.execute_command("ACL", "LOAD")
    admin.close()

    flows = redis.Redis(port=port, username="flows", password=made["flows-password"])
    features = redis.Redis(port=port, username="features", password=made["features-password"])
    pipe = flows.pipeline(transaction=True)
    pipe.hset("entity", mapping={"a": "1"})
    pipe.expire("entity", 60)
    pipe.execute()
    assert features.hgetall("entity") == {b"a": b"1"}
    for client, command in (
        (features, ("HSET", "entity", "a", "2")),
        (features, ("KEYS", "*")),
        (flows, ("FLUSHALL",)),
        (flows, ("CONFIG", "GET", "*")),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(port=port).ping()
    assert secrets["shortfall-flows", "redis"]["password"] == made["flows-password"]
    assert shutil.which("redis-server")
