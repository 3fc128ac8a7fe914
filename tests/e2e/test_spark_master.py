"""The data stages on a Spark master by URL give the same bytes as in the driver's own process."""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from night import content, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.slow]

SMALL = ["--synthetic-days", "2", "--synthetic-hours", "0.2", "--json"]


@contextmanager
def spark_class(name: str, *arguments: str, log: Path):
    """A Spark daemon of the pip package on loopback, stopped by its process id."""
    import pyspark

    from feature_repo.pipeline.spark import find_java

    home = Path(pyspark.__file__).parent
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "JAVA_HOME": str(find_java().resolve().parent.parent),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *arguments],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for_worker(ui_port: int) -> None:
    limit = time.monotonic() + 90
    while time.monotonic() < limit:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{ui_port}/json/", timeout=5) as answer:
            if '"aliveworkers" : 1' in answer.read().decode():
                return
        time.sleep(0.5)
    raise AssertionError("no worker joined the Spark master within 90 s")


def test_features_when_run_on_a_spark_master_then_every_byte_is_that_of_a_local_run(shell, tmp_path):
    port, ui = free_port(), free_port()
    master = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(ui)]
    worker = ["--host", "127.0.0.1", "--cores", "2", "--memory", "2g", "--work-dir", str(tmp_path / "work")]
    url = f"spark://127.0.0.1:{port}"
    with (
        spark_class("master.Master", *master, log=tmp_path / "master.log"),
        spark_class("worker.Worker", *worker, "--webui-port", str(free_port()), url, log=tmp_path / "worker.log"),
    ):
        wait_for_worker(ui)
        remote = replace(shell, command="features", environment={**shell.environment, "SHORTFALL_SPARK_MASTER": url})
        done = remote.run(tmp_path / "remote", *SMALL)
        assert done.returncode == 0, done.stderr[-3000:]
        assert any((tmp_path / "work").glob("app-*")), "no executor ran on the worker"
    done = replace(shell, command="features").run(tmp_path / "local", *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = content(tmp_path / "remote"), content(tmp_path / "local")
    assert ours.keys() == theirs.keys() and len(ours) > 20
    assert [name for name in ours if ours[name] != theirs[name]] == []
