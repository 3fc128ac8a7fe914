"""PostgreSQL and Redis of one test session, on loopback, in a folder that goes with it; stopped by process id."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

START_S = 60.0


@dataclass(frozen=True)
class Postgres:
    """A running server: where its programs are, its port, and the password of `postgres`."""

    programs: Path
    port: int
    password: str

    def environment(self, user: str = "postgres", password: str | None = None) -> dict[str, str]:
        """What libpq's programs need to reach it."""
        return {
            **os.environ,
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": user,
            "PGPASSWORD": self.password if password is None else password,
        }

    def sql(
        self, statement: str, database: str = "postgres", user: str = "postgres", password: str | None = None
    ) -> str:
        """What a statement answers, without headings. Raises CalledProcessError with the server's words."""
        command = ["psql", "-v", "ON_ERROR_STOP=1", "-At", "-d", database, "-c", statement]
        environment = self.environment(user, password)
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the port answers; fail the test where the process ends or does not come."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {log.read_text()[-2000:]}")
        time.sleep(0.1)
    pytest.fail(f"port {port} does not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> Iterator[Postgres]:
    """An empty PostgreSQL, passwords by SCRAM as on the cluster."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    programs = found[-1].parent if found else Path(shutil.which("postgres") or "/nowhere/postgres").parent
    if not (programs / "initdb").exists():
        pytest.skip("no PostgreSQL here: `make test-services` installs it")
    folder = tmp_path_factory.mktemp("postgres")
    data, log, password = folder / "data", folder / "log", "admin-password"
    (folder / "password").write_text(password)
    as_user: dict[str, int] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        account = pwd.getpwnam("postgres")
        as_user = {"user": account.pw_uid, "group": account.pw_gid}
        for path in (folder, folder / "password"):
            os.chown(path, account.pw_uid, account.pw_gid)
        for parent in [folder, *folder.parents][: len(folder.relative_to("/").parts)]:
            parent.chmod(parent.stat().st_mode | 0o111)
    initdb = [programs / "initdb", "-D", data, "-U", "postgres", "--pwfile", folder / "password"]
    subprocess.run(
        [*initdb, "--auth-host=scram-sha-256", "--auth-local=scram-sha-256"],
        check=True, capture_output=True, cwd=folder, **as_user,
    )  # fmt: skip
    port = free_port()
    command = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "-c", "fsync=off"], stdout=output, stderr=output, cwd=folder, **as_user)
    try:
        wait_for(port, process, log)
        server = Postgres(programs, port, password)
        for _ in range(100):  # it listens before it answers
            if subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0:
                break
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[tuple[int, Path]]:
    """Port and folder of a Redis that reads its users from a file as on the cluster; the folder has `users.acl`."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on PATH: `make test-services` installs it")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    (folder / "users.acl").write_text("user default off\nuser admin on >admin-password ~* &* +@all\n")
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", folder / "users.acl"]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen([*command, "--dir", folder], stdout=output, stderr=output)
    try:
        wait_for(port, process, folder / "log")
        yield port, folder
    finally:
        process.terminate()
        process.wait(timeout=20)
