"""Prefect's server and Kubernetes worker as they are on a cluster: pools applied twice, runs lost, late and cancelled.

The API server is the fake one; its Jobs' pods run as processes here. Everything of Prefect is real.
"""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from fake_api import FakeApi, fake_api
from fake_jobs import Jobs
from fake_kubelet import Kubelet, kubelet

pytestmark = [pytest.mark.e2e]

REPO = Path(__file__).resolve().parents[2]
SPACE = "shortfall-flows"
AUTH = "admin:a-password-of-the-test"
IMAGE = "shortfall/data:1.0"


class Patient(httpx.Client):
    """Asks again while the server says that its database is busy, as Prefect's own client does."""

    def request(self, *arguments, **options) -> httpx.Response:
        for _ in range(20):
            answer = super().request(*arguments, **options)
            if answer.status_code != 503:
                break
            time.sleep(0.5)
        return answer


@dataclass
class World:
    """Server, fake cluster, and where things are."""

    api: FakeApi
    jobs: Jobs
    node: Kubelet
    folder: Path
    environment: dict[str, str]
    http: httpx.Client
    hold: set[str]  # flow runs whose pods stay pending, as for want of a GPU

    def run(self, id_: str, **more) -> str:
        """Schedule a run of the lost flow."""
        body = {"parameters": {"id_": id_}, **more}
        answer = self.http.post(f"/deployments/{self.deployment('lost/lost')['id']}/create_flow_run", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def deployment(self, name: str) -> dict:
        return self.http.get(f"/deployments/name/{name}").json()

    def state(self, run: str) -> dict:
        return self.http.get(f"/flow_runs/{run}").json()["state"]

    def job(self, run: str) -> dict | None:
        found = self.api.store.select(self.api.kind("jobs"), SPACE, f"prefect.io/flow-run-id={run}")
        return found[0] if found else None

    def part(self, id_: str) -> bool:
        return any(self.folder.glob(f"lake/.work/train_signal-{id_}.*/part"))


def until(what: str, holds: Callable[[], object], world: World | None = None, seconds: float = 120) -> object:
    limit = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < limit, (
            f"{what}: not within {seconds} s\n{world.node.output()[-3000:] if world else ''}"
        )
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SHORTFALL_"))},
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "SHORTFALL_IMAGE_DATA": IMAGE,
        "SHORTFALL_IMAGE_TRAIN": "shortfall/train:1.0",
        "SHORTFALL_TIMEZONE": "UTC",
        "SHORTFALL_HOME": str(REPO),
    }
    log = (folder / "server.log").open("wb")
    arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = _start(arguments, environment, log)
    try:
        with (
            Patient(base_url=f"http://127.0.0.1:{port}/api", auth=tuple(AUTH.split(":")), timeout=30) as http,
            fake_api() as api,
        ):
            until("the server answers", lambda: _healthy(http), seconds=180)
            hold: set[str] = set()
            with kubelet(api, _command(hold), {}, folder) as node:
                made = World(api, Jobs(api), node, folder, environment, http, hold)
                _secrets(api, folder)
                yield made
    finally:
        _stop(server)
        log.close()


def _start(arguments: list[str], environment: dict[str, str], log) -> subprocess.Popen:
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=REPO, start_new_session=True)


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def _command(hold: set[str]):
    def command(pod: dict, container: dict) -> list[str] | None:
        if pod["metadata"]["labels"].get("prefect.io/flow-run-id") in hold:
            return None
        assert container["command"] == ["/usr/bin/tini", "--", "python", "-m"]
        return [sys.executable, "-m", *container["args"]]

    return command


def _secrets(api: FakeApi, folder: Path) -> None:
    """What the templates name: settings as on a cluster, but for where the lake is."""
    data = {"SHORTFALL_LAKE": str(folder / "lake"), "SHORTFALL_EXECUTION": "deployments", "OMP_NUM_THREADS": "1"}
    where = {"namespace": SPACE}
    api.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flow-settings", **where}, "data": data})
    for name, keys in {
        "mlflow": {"username": "flows", "password": "x"}, "redis": {"password": "x"},
        "prefect-api": {"auth-string": AUTH},
    }.items():  # fmt: skip
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
        api.add({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **where}, "data": encoded})


@pytest.fixture(scope="module")
def applied(world: World) -> list[str]:
    """What the setup Job said, the first and the second time."""
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "flows.kube.setup"],
            env=world.environment, cwd=REPO, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    return said


@pytest.fixture(scope="module")
def worker(world: World, applied: list[str]) -> Iterator[World]:
    """A worker of the pool cpu with the rights of its Role and no others, and a deployment of the lost flow."""
    environment = {
        **{name: value for name, value in world.environment.items() if "SERVER" not in name},
        "KUBECONFIG": str(world.folder / "kubeconfig"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": SPACE,
        "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME": "prefect-api",
        "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY": "auth-string",
    }
    (world.folder / "kubeconfig").write_text(json.dumps(world.api.kubeconfig()))
    world.api.rules = role("worker")
    flow = world.http.post("/flows/", json={"name": "lost"}).json()
    body = {
        "name": "lost", "flow_id": flow["id"], "path": str(REPO), "entrypoint": "tests/k8s/lost_flow.py:lost_flow",
        "work_pool_name": "cpu", "job_variables": {"image": IMAGE, "cpu": "1", "memory": "1Gi"},
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(REPO)}}],
    }  # fmt: skip
    assert world.http.post("/deployments/", json=body).status_code == 201
    with (world.folder / "worker.txt").open("wb") as log:
        process = _start(["worker", "start", "--pool", "cpu", "--type", "kubernetes"], environment, log)
        try:
            yield world
        finally:
            _stop(process)


def role(name: str) -> list[dict]:
    """Rules of a Role of the base."""
    documents = yaml.safe_load_all((REPO / "k8s" / "base" / "flows" / "accounts.yaml").read_text())
    return next(item["rules"] for item in documents if item["kind"] == "Role" and item["metadata"]["name"] == name)


def test_setup_when_run_twice_then_both_exit_0_and_pools_and_deployments_are_there_once(world, applied):
    assert applied[0].count("created") == 3 and applied[1].count("brought up to date") == 3
    pools = {pool["name"]: pool for pool in world.http.post("/work_pools/filter", json={}).json()}
    assert {"cpu", "gpu", "promote"} <= set(pools) and pools["gpu"]["type"] == "kubernetes"
    assert pools["cpu"]["base_job_template"]["variables"]["properties"]["image"]["enum"][0] == IMAGE
    found = {item["name"]: item for item in world.http.post("/deployments/filter", json={}).json()}
    assert {"nightly", "train-agent", "promote", "rollback", "opponent"} <= set(found)
    assert found["promote"]["work_pool_name"] == "promote" and found["train-agent"]["work_pool_name"] == "gpu"
    assert len(found["nightly"]["schedules"]) == 1


@pytest.mark.parametrize(
    "variables",
    [{"service_account_name": "flow-promote"}, {"namespace": "default"}, {"command": "env"}, {"image": "evil/x:1"},
     {"env": {"A": "b"}}, {"vendor_data": {"name": "vendor-data", "secret": {"secretName": "promoter-key"}}}],
)  # fmt: skip
def test_run_when_started_in_the_ui_with_another_identity_then_the_server_refuses_it(world, applied, variables):
    nightly = world.deployment("nightly/nightly")
    answer = world.http.post(f"/deployments/{nightly['id']}/create_flow_run", json={"job_variables": variables})
    assert answer.status_code == 422, answer.text
    body = {"name": "mine", "flow_id": nightly["flow_id"], "work_pool_name": "cpu", "job_variables": variables}
    answer = world.http.post("/deployments/", json=body)
    assert answer.status_code == 422, answer.text


def test_nightly_when_its_schedule_is_on_then_the_server_plans_its_next_runs(world, applied):
    id_ = world.deployment("nightly/nightly")["id"]
    wanted = {"deployments": {"id": {"any_": [id_]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    planned = until("runs are planned", lambda: world.http.post("/flow_runs/filter", json=wanted).json())
    assert {run["expected_start_time"][11:19] for run in planned} == {"02:00:00"}


def test_run_when_its_pod_is_lost_then_the_job_starts_another_which_goes_on_where_the_first_one_was(worker):
    run = worker.run("a1")
    until("the first attempt is at work", lambda: worker.part("a1"), worker)
    job = worker.job(run)
    (pod,) = worker.jobs.pods(job)
    worker.node.lose(pod["metadata"]["name"])
    until("the run ends", lambda: worker.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED"), worker)
    assert worker.state(run)["type"] == "COMPLETED", worker.node.output()[-3000:]
    marker = json.loads((worker.folder / "lake" / "train_signal" / "a1" / "_stage.json").read_text())
    assert marker["summary"] == {"found": "of the first attempt"}
    assert [pod["status"]["phase"] for pod in worker.jobs.pods(job)].count("Failed") == 1


@pytest.mark.slow
def test_run_when_its_pod_is_evicted_then_it_is_relinquished_and_goes_on_in_another(worker):
    run = worker.run("a2")
    until("the first attempt is at work", lambda: worker.part("a2"), worker)
    (pod,) = worker.jobs.pods(worker.job(run))
    os.kill(worker.node.processes[pod["metadata"]["name"]].pid, signal.SIGTERM)  # as the kubelet tells it
    until("the run ends", lambda: worker.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED"), worker)
    assert worker.state(run)["type"] == "COMPLETED", worker.node.output()[-3000:]


def test_run_when_the_jobs_deadline_passes_with_retries_left_then_the_sweeper_reports_it_as_that(worker, monkeypatch):
    run = worker.run("a3")
    until("the attempt is at work", lambda: worker.part("a3"), worker)
    job = worker.job(run)
    worker.jobs.pass_deadline(job)
    until("its process ends", lambda: not _living(worker, job))
    assert worker.state(run)["type"] == "RUNNING", "Prefect alone does not notice"
    assert sweep(worker, monkeypatch) == []
    state = worker.state(run)
    assert (state["type"], state["name"]) == ("FAILED", "TimedOut")
    assert "the deadline of 86400 s for all attempts passed" in state["message"]


@pytest.mark.slow
def test_run_when_cancelled_while_its_pod_is_pending_then_it_leaves_no_job_and_no_pod(worker, monkeypatch):
    """Prefect's worker forgets a run as soon as its Job is made, and no pod is there to hear of it."""
    run = worker.run("a4", state={"type": "SCHEDULED", "state_details": {"scheduled_time": _later()}})
    worker.hold.add(run)
    until("its Job is made", lambda: worker.job(run), worker)
    until("the worker has noted it", lambda: worker.http.get(f"/flow_runs/{run}").json()["infrastructure_pid"], worker)
    worker.http.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}})
    assert sweep(worker, monkeypatch, later=timedelta(seconds=200)) == []
    assert worker.state(run)["type"] == "CANCELLED" and worker.job(run) is None
    assert not worker.api.store.select(worker.api.kind("pods"), SPACE, f"prefect.io/flow-run-id={run}")


def test_run_when_it_hangs_in_cancelling_then_the_sweeper_ends_it_and_takes_its_job(world, applied, monkeypatch):
    """Whoever should have answered is gone: nobody works the pool promote here."""
    id_ = world.deployment("rollback/rollback")["id"]
    body = {"parameters": {"params": {"reason": "x"}}}
    run = world.http.post(f"/deployments/{id_}/create_flow_run", json=body).json()["id"]
    job = {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "hangs", "namespace": SPACE, "labels": {"prefect.io/flow-run-id": run}},
        "spec": {"template": {"metadata": {"labels": {"prefect.io/flow-run-id": run}}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": IMAGE}]}}},
    }  # fmt: skip
    world.hold.add(run)
    world.api.add(job)
    world.http.patch(f"/flow_runs/{run}", json={"infrastructure_pid": f"{SPACE}:hangs"})
    for type_ in ("PENDING", "CANCELLING"):
        world.http.post(f"/flow_runs/{run}/set_state", json={"state": {"type": type_}, "force": True})
    assert sweep(world, monkeypatch, later=timedelta(seconds=60)) == []
    assert world.state(run)["type"] == "CANCELLING" and world.job(run)
    assert sweep(world, monkeypatch, later=timedelta(seconds=200)) == []
    assert world.state(run)["type"] == "CANCELLED" and "swept" in world.state(run)["message"]
    assert world.job(run) is None
    assert not world.api.store.select(world.api.kind("pods"), SPACE, f"prefect.io/flow-run-id={run}")


def sweep(world: World, monkeypatch, later: timedelta = timedelta()) -> list[str]:
    """What the CronJob does, with the rights of its Role, `later` than now."""
    from kubernetes import config
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from flows.kube.sweep import sweep as look

    before, world.api.rules = world.api.rules, role("sweeper")
    try:
        with temporary_settings({
            PREFECT_API_URL: world.environment["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: AUTH,
        }), config.new_client_from_config_dict(world.api.kubeconfig()) as client:  # fmt: skip
            return asyncio.run(look(client, SPACE, datetime.now(UTC) + later))
    finally:
        world.api.rules = before


def _living(world: World, job: dict) -> bool:
    prefix = f"{job['metadata']['name']}-"
    return any(name.startswith(prefix) and p.poll() is None for name, p in world.node.processes.items())


def _later() -> str:
    return (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
