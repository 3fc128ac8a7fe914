"""Training in a RayJob: what flow and head tell each other, and a real Ray head that only a token opens."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from feature_repo.errors import DiskFullError, InputError, ShortfallError
from flows.kube.ray_agent import describe, owner_of
from flows.kube.ray_train import ANSWER, MARK, carry_out, read_answer, told, write_request
from flows.settings import Settings
from training.execution.agent_config import AgentConfig

REPO = Path(__file__).resolve().parents[2]


def test_request_when_read_by_the_head_then_the_configuration_is_the_same(tmp_path):
    config = AgentConfig(train_days=("2024-01-02",), seeds=(3, 4), variants=({"world": "replay"},), curriculum=(0.0,))
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ANSWER).write_text('{"summary": {"of": "an earlier attempt"}}')
    write_request(tmp_path / "r", tmp_path / "features", None, tmp_path / "out", config)
    request = json.loads((tmp_path / "r" / "request.json").read_text())
    assert AgentConfig.from_json(request["config"]) == config and request["forecasts"] is None
    with pytest.raises(ShortfallError, match="left no answer"):
        read_answer(tmp_path / "r")


@pytest.mark.parametrize("kind", [InputError, DiskFullError, ShortfallError])
def test_answer_when_the_training_failed_then_its_own_error_comes_up_in_the_flow(tmp_path, kind):
    (tmp_path / ANSWER).write_text(json.dumps({"error": kind.__name__, "message": "agent epochs is 0"}))
    with pytest.raises(kind, match="agent epochs is 0") as caught:
        read_answer(tmp_path)
    assert type(caught.value) is kind


def test_log_when_a_line_is_progress_then_it_is_reported_and_not_told():
    seen, said = [], []
    for line in ("hello", f'{MARK}[3, 10, "env steps"]', f"{MARK}broken", "bye"):
        told(line, lambda *report: seen.append(report), said.append)
    assert seen == [(3, 10, "env steps")] and said == ["hello", f"{MARK}broken", "bye"]


def test_head_when_another_attempt_took_the_folder_then_it_writes_nothing(tmp_path, capsys):
    write_request(tmp_path / "r", tmp_path / "features", None, tmp_path / "gone", AgentConfig())
    assert carry_out(tmp_path / "r") == 1
    assert "another attempt took over" in capsys.readouterr().err
    assert not (tmp_path / "gone").exists() and not (tmp_path / "r" / ANSWER).exists()


def test_rayjob_when_described_then_one_output_has_one_name_and_its_owner_is_the_flows_job(tmp_path):
    where = Settings(
        lake=tmp_path, pod_namespace="shortfall-flows", ray_image="shortfall/train:1", job_name="j", job_uid="u",
        pod_name="p", pod_uid="q", ray_head_gpus=0, ray_workers=3,
    )  # fmt: skip
    first, second = (
        describe(tmp_path / ".work" / f"train_agent-0123.{attempt}.ray", where, "r")
        for attempt in ("aaaa1111", "bbbb2222")
    )
    assert first.name == second.name and first.entrypoint != second.entrypoint
    other = describe(tmp_path / ".work" / "train_agent-4567.aaaa1111.ray", where, "r")
    assert other.name != first.name
    manifest = first.manifest()
    assert manifest["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u"}
    ]
    assert manifest["metadata"]["labels"]["prefect.io/flow-run-id"] == "r"
    assert manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 3
    assert owner_of(where.model_copy(update={"job_uid": None})) == {
        "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "q"
    }  # fmt: skip
    with pytest.raises(InputError, match="needs a cluster"):
        describe(tmp_path, Settings(lake=tmp_path), "r")


SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, "tests/integration")
    import agents
    import pytest
    from flows.kube.ray_train import carry_out, write_request
    from dataclasses import replace

    root, mode = Path(sys.argv[1]), sys.argv[2]
    with pytest.MonkeyPatch.context() as patch:
        features = agents.features_dir._get_wrapped_function()(root, patch)
        (root / mode).mkdir()
        write_request(root / f"{mode}.ray", features, None, root / mode, replace(agents.TINY, ray_address="auto"))
        sys.exit(carry_out(root / f"{mode}.ray"))
    """
)


@pytest.mark.ray
@pytest.mark.slow
def test_training_when_its_ray_head_asks_for_a_token_then_it_trains_with_it_and_fails_without(tmp_path):
    """`ray start --head` as KubeRay runs it, and the head's program against it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sf-ray-", dir="/tmp") as scratch:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
        common = {
            **os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO),
            "RAY_ADDRESS": "127.0.0.1:6394", "HOME": scratch,
        }  # fmt: skip
        ray = [str(Path(sys.executable).parent / "ray")]
        where = ["--port=6394", "--node-ip-address=127.0.0.1", f"--temp-dir={scratch}"]
        size = ["--num-cpus=1", "--object-store-memory=134217728", "--include-dashboard=false"]
        start = [*ray, "start", "--head", *where, *size, "--block"]
        head = subprocess.Popen(start, env={**common, **token}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:

            def train(mode: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
                command = [sys.executable, "-c", SCRIPT, str(tmp_path / mode), mode]
                (tmp_path / mode).mkdir()
                return subprocess.run(
                    command, env=environment, cwd=REPO, capture_output=True, text=True, timeout=240, check=False
                )

            for _ in range(30):
                done = subprocess.run([*ray, "health-check"], env={**common, **token}, capture_output=True)
                if done.returncode == 0:
                    break
            done = train("with", {**common, **token})
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
            assert MARK in done.stdout
            assert read_answer(tmp_path / "with" / "with.ray")["env_steps"] == 2_048
            wrong = train(
                "without", {**common, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another-token-entirely-0123456789"}
            )
            assert wrong.returncode != 0
        finally:
            head.terminate()
            try:
                head.wait(30)
            except subprocess.TimeoutExpired:
                head.kill()
