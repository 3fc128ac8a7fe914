"""Make MLflow's users, or give them the passwords of the secret: `mlflow_users.py NAME...`, with each <NAME>_PASSWORD.

Talks to the REST API of MLflow's basic-auth app as its administrator. May be run at any time; waits for the server,
WAIT_S seconds (600) in all. So a password is rotated by a new secret and another run of the Job.
"""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request


def call(method: str, path: str, body: dict[str, str] | None = None) -> int:
    """Status of a request as the administrator. Raises OSError where the server does not answer."""
    login = base64.b64encode(f"{os.environ['ADMIN_USERNAME']}:{os.environ['ADMIN_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(
        f"{os.environ['MLFLOW_URL']}/api/2.0/mlflow/users/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def ensure(name: str, password: str) -> str:
    """Make a user, or set the password of one that is there; says which. Raises RuntimeError where neither works."""
    found = call("GET", f"get?username={name}")
    if found == 404:
        status, done = call("POST", "create", {"username": name, "password": password}), "made"
    elif found == 200:
        status, done = call("PATCH", "update-password", {"username": name, "password": password}), "has its password"
    else:
        status, done = found, ""
    if status != 200:
        raise RuntimeError(f"user {name}: MLflow answered {status}")
    return done


def main(names: list[str]) -> int:
    """Every user in turn; 1 where the server did not answer in time or refused."""
    deadline = time.monotonic() + float(os.environ.get("WAIT_S", "600"))
    for name in names:
        while True:
            try:
                print(f"user {name}: {ensure(name, os.environ[f'{name.upper()}_PASSWORD'])}", flush=True)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    print(f"{os.environ['MLFLOW_URL']} does not answer: {error}", file=sys.stderr)
                    return 1
                time.sleep(3)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
