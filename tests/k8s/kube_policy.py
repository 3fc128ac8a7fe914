"""What Pod Security `restricted` asks of a pod, as a list of what is wrong."""

from typing import Any

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def restricted_faults(spec: dict[str, Any]) -> list[str]:
    """Why the admission of a namespace with Pod Security `restricted` would refuse a pod of this spec."""
    faults = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    of_pod = spec.get("securityContext") or {}
    faults += [
        f"volume {volume['name']} is of a kind that is refused"
        for volume in spec.get("volumes", [])
        if not set(volume) - {"name"} <= _VOLUMES
    ]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container.get("securityContext") or {}
        name = container["name"]
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            faults.append(f"{name}: allowPrivilegeEscalation is not false")
        capabilities = context.get("capabilities") or {}
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
            faults.append(f"{name}: capabilities are not dropped")
        if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
            faults.append(f"{name}: runAsNonRoot is not true")
        if context.get("runAsUser", of_pod.get("runAsUser")) == 0:
            faults.append(f"{name}: runs as root")
        seccomp = context.get("seccompProfile", of_pod.get("seccompProfile")) or {}
        if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
            faults.append(f"{name}: no seccomp profile")
        if any("hostPort" in port for port in container.get("ports", [])):
            faults.append(f"{name}: hostPort")
        if context.get("readOnlyRootFilesystem") is not True:  # ours, not Pod Security's
            faults.append(f"{name}: the root file system is writable")
    return faults
