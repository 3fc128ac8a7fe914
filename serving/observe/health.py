"""`python -m serving.observe.health`: whether the process of this container is live, for an image's health check.

The command line of the container's first process says which it is; its metrics port is asked for `/livez`. The paper
venue has no such port and is asked whether its feed takes a connection. Exit code 0 when it is live, 1 with one line
else. On Kubernetes the manifests' probes do this instead.
"""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

PORTS = {
    "serving.decide": ("SHORTFALL_DECIDE_METRICS_PORT", 9861),
    "serving.parents": ("SHORTFALL_PARENTS_METRICS_PORT", 9852),
    "serving.gateway": ("SHORTFALL_GATEWAY_METRICS_PORT", 9872),
}
VENUE = "training.market.venue"
VENUE_PORT = ("SHORTFALL_VENUE_FEED_PORT", 9881)
TIMEOUT_S = 2.0


def why_not_live(command_line: str, environment: Mapping[str, str]) -> str:
    """Why the process of this command line is not live, "" where it is, or where it has nothing to be asked at."""
    words = command_line.replace("\0", " ").split()
    try:
        if VENUE in words:
            with socket.create_connection(("127.0.0.1", _port(VENUE_PORT, environment)), TIMEOUT_S):
                return ""
        name = next((word for word in words if word in PORTS), None)
        if name is None:
            return ""
        address = f"http://127.0.0.1:{_port(PORTS[name], environment)}/livez"
        with urllib.request.urlopen(address, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        return error.read(500).decode("utf-8", "replace").strip()
    except (OSError, ValueError) as error:
        return str(error)


def _port(place: tuple[str, int], environment: Mapping[str, str]) -> int:
    name, otherwise = place
    return int(environment.get(name, otherwise))


def main() -> int:
    """Ask, and say what is wrong."""
    reason = why_not_live(Path("/proc/1/cmdline").read_text(), os.environ)
    if reason:
        print(f"error: {reason}", file=sys.stderr)
    return int(bool(reason))


if __name__ == "__main__":
    raise SystemExit(main())
