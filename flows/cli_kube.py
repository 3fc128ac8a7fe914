"""The commands that act on a cluster or look at one: `shortfall rollout` and `shortfall doctor`."""

import json
import os
from typing import Annotated

import typer

from flows.cli_options import AsJson

Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; the current one where absent")]


def rollout(
    image: Annotated[str, typer.Argument(help="New image with its tag or digest; replaces others of its repository")],
    only: Annotated[list[str] | None, typer.Option(help="Only this workload (repeatable)")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the workloads")] = "shortfall-serving",
    timeout: Annotated[float, typer.Option(help="Seconds that a workload may take to become ready")] = 600.0,
    context: Context = None,
) -> None:
    """Roll an image out to decide and parents, wait until it is ready, and take it back where it is not."""
    from feature_repo.errors import InputError
    from flows.kube.client import connect
    from flows.kube.rollout import Cluster, repository_of, roll_out

    if repository_of(image) == image:
        raise InputError(f"image {image!r} has no tag and no digest; what is rolled out must be exact")
    changed = roll_out(Cluster(connect(context), namespace), image, only or (), timeout_s=timeout, say=typer.echo)
    typer.echo(f"rolled out: {', '.join(changed)}" if changed else "nothing to roll out: all run it already")


def doctor(
    kube: Annotated[bool, typer.Option("--kube", help="Look at a Kubernetes cluster instead of this machine")] = False,
    context: Context = None,
    gpus: Annotated[bool, typer.Option(help="Whether training is to have GPUs there")] = True,
    as_json: AsJson = False,
) -> None:
    """Say what is missing and how to mend it. Exit code 0 nothing is, 1 something is, 2 there is no cluster to ask."""
    from feature_repo.errors import InputError

    if kube:
        from flows.kube.client import KubeError, connect
        from flows.kube.doctor import examine

        client = connect(context)
        where = f"{context or _current_context()} at {client.configuration.host}"
        try:
            findings = examine(client, where, gpus)
        except KubeError as error:
            raise InputError(f"{where}: {error}; is the cluster up, and does the kubeconfig point at it?") from error
    else:
        from flows.local_doctor import examine_machine

        findings = examine_machine()
    if as_json:
        print(json.dumps([item.__dict__ for item in findings]))
    else:
        for item in findings:
            typer.echo(f"{item.level:<8} {item.subject}: {item.what}")
            if item.mend and item.level != "ok":
                typer.echo(f"{'':<8}   {item.mend}")
    if any(item.level == "missing" for item in findings):
        raise typer.Exit(1)


def add_kube_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("rollout")(rollout)
    app.command("doctor")(doctor)


def _current_context() -> str:
    from kubernetes import config

    try:
        return str(config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))[1]["name"])
    except (config.ConfigException, TypeError, KeyError):
        return "this pod's account"
