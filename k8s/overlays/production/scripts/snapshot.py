"""`snapshot.py CLAIM...`: a snapshot of each claim's volume, and those older than KEEP_DAYS gone, the newest ever kept.

SNAPSHOT_CLASS is the storage's class of snapshots. A snapshot is what a power cut would leave; the journals recover
from that. Runs in a pod whose service account may create, list and delete volumesnapshots in its own namespace.
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

GROUP, VERSION, PLURAL = "snapshot.storage.k8s.io", "v1", "volumesnapshots"
CLAIM = "shortfall.io/claim"


def snapshot(api: Any, namespace: str, claim: str, kind: str, now: datetime) -> str:
    """Ask for a snapshot of a claim; its name."""
    name = f"{claim}-{now:%Y%m%d%H%M%S}"
    body = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace, "labels": {CLAIM: claim}},
        "spec": {"volumeSnapshotClassName": kind, "source": {"persistentVolumeClaimName": claim}},
    }
    api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body)
    return name


def expire(api: Any, namespace: str, claim: str, before: datetime) -> list[str]:
    """Delete snapshots of a claim from before a moment; their names. The newest that is ready stays, however old."""
    found = api.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, label_selector=f"{CLAIM}={claim}")
    items = sorted(found["items"], key=lambda item: item["metadata"]["creationTimestamp"])
    ready = [item["metadata"]["name"] for item in items if item.get("status", {}).get("readyToUse")]
    gone = []
    for item in items:
        name = item["metadata"]["name"]
        made = datetime.fromisoformat(item["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
        if made < before and name not in ready[-1:]:
            api.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
            gone.append(name)
    return gone


def main(claims: list[str]) -> int:
    """0 when every claim has its snapshot, 1 else; one that fails does not keep the others from theirs."""
    from kubernetes import client, config

    config.load_incluster_config()
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
        namespace = file.read().strip()
    api, now, failed = client.CustomObjectsApi(), datetime.now(UTC), False
    for claim in claims:
        try:
            print(f"made {snapshot(api, namespace, claim, os.environ['SNAPSHOT_CLASS'], now)}")
            for name in expire(api, namespace, claim, now - timedelta(days=float(os.environ["KEEP_DAYS"]))):
                print(f"deleted {name}")
        except client.ApiException as error:
            print(f"error: {claim}: {error.status} {error.reason}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
