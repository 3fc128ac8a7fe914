"""Write the digests of pushed images into an overlay: `REGISTRY=... TAG=... python k8s/images/pin.py OVERLAY`.

A tag can be moved, a digest cannot: what was tried is what runs. The block `images:` of the overlay's
kustomization.yaml is replaced, everything else stays as it is.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("data", "train", "serve", "gateway", "mlflow")
DIGEST = re.compile(r"^(?P<name>\S+)@(?P<digest>sha256:[0-9a-f]{64})$")
BLOCK = re.compile(r"^images:[ \t]*(?:\[\])?\n(?:^(?:[ \t]+|- ).*\n)*", re.MULTILINE)


def pinned(kustomization: str, digests: Mapping[str, str]) -> str:
    """The kustomization with each image replaced by its `name@sha256:...`.

    Raises ValueError for what is no such reference, and where the file has no block `images:` or several.
    """
    lines = ["images:"]
    for image, reference in sorted(digests.items()):
        found = DIGEST.match(reference)
        if found is None:
            raise ValueError(f"{image}: {reference!r} is no image with a digest")
        lines += [f"  - name: shortfall/{image}", f"    newName: {found['name']}", f"    digest: {found['digest']}"]
    blocks = BLOCK.findall(kustomization)
    if len(blocks) != 1:
        raise ValueError(f"{len(blocks)} blocks `images:` in the kustomization, wanted one")
    return BLOCK.sub("\n".join(lines) + "\n", kustomization)


def main() -> int:
    """Exit code 0 when the overlay names digests, 2 for bad usage, 1 where an image was not pushed."""
    if len(sys.argv) != 2:
        print("usage: pin.py OVERLAY, with REGISTRY and TAG in the environment", file=sys.stderr)
        return 2
    path = ROOT / "k8s" / "overlays" / sys.argv[1] / "kustomization.yaml"
    if not path.is_file():
        known = sorted(item.parent.name for item in path.parents[1].glob("*/kustomization.yaml"))
        print(f"no overlay {sys.argv[1]}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    digests = {}
    for image in IMAGES:
        done = subprocess.run(
            [ROOT / "k8s" / "images" / "build", "digest", image], capture_output=True, text=True, env=os.environ
        )
        digests[image] = done.stdout.strip()
        if done.returncode or not digests[image]:
            print(f"{image}: no digest; push it first (make push). {done.stderr.strip()}", file=sys.stderr)
            return 1
    path.write_text(pinned(path.read_text(), digests))
    print(f"{path.relative_to(ROOT)} names {len(digests)} digests")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
