"""`python3 -m cluster`: the real one-node Kubernetes cluster by hand.

Steps and their times go to standard error; what a script may want to read goes to standard output.
"""

from __future__ import annotations

import argparse
import sys

from cluster import images, lifecycle
from cluster.shell import ClusterError, PrerequisiteError

MISSING = 2
FAILED = 1


def main(arguments: list[str] | None = None) -> int:
    try:
        return _run(_parser().parse_args(arguments))
    except PrerequisiteError as error:
        print("This machine cannot run the cluster yet; nothing was started.", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        return MISSING
    except (ClusterError, ValueError) as error:
        print(error, file=sys.stderr)
        return FAILED


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "up":
            cluster = lifecycle.up(options.name, images=options.images)
            print(f"export KUBECONFIG={cluster.kubeconfig}")
        case "down":
            lifecycle.down(options.name)
        case "images":
            lifecycle.prepare_machine(images=True, cluster=False)
            names = images.ensure_images()
            print(f"{names.operator}\n{names.trainer}")
        case "kubeconfig":
            return _kubeconfig(options.name)
        case "status":
            return _status()
        case "recycle":
            print(f"{lifecycle.recycle_volumes(options.name)} volumes made available again")
        case "clean-cache":
            lifecycle.clean_cache()
    return 0


def _kubeconfig(name: str) -> int:
    cluster = lifecycle.find(name)
    if cluster is None:
        print(f"cluster {name!r} is not running; start it with `up --name {name}`", file=sys.stderr)
        return FAILED
    print(cluster.kubeconfig)
    return 0


def _status() -> int:
    for name in lifecycle.names():
        cluster = lifecycle.find(name)
        state = f"running, KUBECONFIG={cluster.kubeconfig}" if cluster else f"broken; `up` or `down --name {name}`"
        print(f"{name}: {state}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m cluster", description="A real one-node Kubernetes cluster.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, *, named: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        if named:
            added.add_argument("--name", default=lifecycle.DEFAULT_NAME, help="the cluster's name (%(default)s)")
        return added

    up = command("up", "Start the cluster, or return the running one; build what it needs.")
    up.add_argument("--no-images", dest="images", action="store_false", help="without the operator and trainer images")
    command("down", "Remove the cluster; the caches stay.")
    command("kubeconfig", "Print the path of the running cluster's kubeconfig.")
    command("recycle", "Empty the volumes whose claims are deleted and offer them again.")
    command("images", "Build and push the operator and trainer images.", named=False)
    command("status", "List the clusters of this machine.", named=False)
    command("clean-cache", "Remove built programs and images; refused while a cluster runs.", named=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
