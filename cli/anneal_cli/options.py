"""Options that several commands share, spelled as kubectl spells them."""

from typing import Annotated

import typer

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The namespace. Default: that of the kubeconfig's context.")
]
Context = Annotated[str | None, typer.Option("--context", help="The kubeconfig context. Default: the current one.")]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", help="The kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config.")
]
