"""MLflow as its image holds it, with users, on PostgreSQL: what promote publishes, serving copies; nobody else may."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import free_port

from feature_repo.errors import ShortfallError
from serving.mirror import ArtifactProxy, copy, publish
from serving.registry import Registry
from serving.signing import open_verifier
from training.execution.static_rule import write_bundle_zero

pytestmark = pytest.mark.services
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "k8s" / "base" / "platform" / "scripts"
PROGRAMS = Path(os.environ.get("SHORTFALL_TEST_MLFLOW", ROOT / "build" / "mlflow-image" / "bin"))
"""Where the packages of k8s/images/requirements/mlflow.txt are installed: `make test-services` does it."""


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    """Address of a server with the users `flows` and `serving`, set up by the commands of the cluster's manifests."""
    if not (PROGRAMS / "mlflow").exists():
        pytest.skip(f"no MLflow server in {PROGRAMS}: `make test-services` installs what its image holds")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    for name in ("tracking", "users"):
        postgres.sql(f"create database {name}")
    url, users = (
        f"postgresql+psycopg2://postgres:{postgres.password}@127.0.0.1:{postgres.port}/{name}"
        for name in ("tracking", "users")
    )
    (folder / "basic_auth.ini").write_text(
        f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = {users}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        **os.environ,
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "MLFLOW_BACKEND_STORE_URI": url,
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "admin-password",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    upgrade = [PROGRAMS / "python", "-m", "mlflow.server.auth", "db", "upgrade", "--url", users]
    subprocess.run(upgrade, env=environment, check=True, capture_output=True, timeout=300)
    subprocess.run(
        [PROGRAMS / "mlflow", "db", "upgrade", url], env=environment, check=True, capture_output=True, timeout=300
    )
    command = [PROGRAMS / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [*command, "--app-name", "basic-auth", "--serve-artifacts"], env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/health", process, folder / "log")
        made = {**environment, "MLFLOW_URL": address, "ADMIN_USERNAME": "admin", "ADMIN_PASSWORD": "admin-password"}
        made |= {"FLOWS_PASSWORD": "flows-password", "SERVING_PASSWORD": "serving-password", "WAIT_S": "60"}
        for _ in range(2):  # may be run at any time
            script = [sys.executable, SCRIPTS / "mlflow_users.py", "flows", "serving"]
            subprocess.run(script, env=made, check=True, capture_output=True, timeout=120)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def _wait(url, process, log):
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                pytest.fail(f"MLflow ended with {process.returncode}: {log.read_text()[-2000:]}")
            time.sleep(0.5)
    pytest.fail(f"{url} does not answer: {log.read_text()[-2000:]}")


def _log_in(monkeypatch, user, password):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def test_registry_when_published_by_flows_then_serving_copies_it_and_a_stranger_does_not(server, tmp_path, monkeypatch):
    root = tmp_path / "registry"
    Registry(root).ensure_bundle_zero(write_bundle_zero)
    _log_in(monkeypatch, "flows", "flows-password")
    assert publish(root, ArtifactProxy(server, "synthetic")) == 3
    _log_in(monkeypatch, "serving", "serving-password")
    assert copy(ArtifactProxy(server, "synthetic"), tmp_path / "copy", open_verifier(root / "keys" / "promoter.pub"))
    assert (tmp_path / "copy" / "journal.jsonl").read_bytes() == (root / "journal.jsonl").read_bytes()
    _log_in(monkeypatch, "serving", "another")
    with pytest.raises(ShortfallError, match="artifact store"):
        copy(ArtifactProxy(server, "synthetic"), tmp_path / "none", open_verifier(root / "keys" / "promoter.pub"))


def test_training_when_it_logs_to_the_server_then_its_run_is_there(server, monkeypatch):
    from mlflow import MlflowClient

    from training.tracking import tracking_run

    _log_in(monkeypatch, "flows", "flows-password")
    with tracking_run(server, "agents", "night", {"seed": 7}) as run:
        run.log({"cost_bps": 0.1}, 1)
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("agents")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.metrics == {"cost_bps": 0.1} and found.data.params == {"seed": "7"}
