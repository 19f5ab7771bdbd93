"""The only Kubernetes client of the CLI: reads jobs and the logs of their pods, and writes nothing.

Every failure becomes one line that says what to do. The client library is an extra, imported when the first command
needs it. Not here: what is shown, and which pods are wanted.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from anneal_api import exitcodes
from anneal_api.finetunejob import PLURAL
from anneal_api.meta import GROUP, VERSION
from anneal_cli.output import failed

INSTALL = "pip install 'anneal[cluster]'"
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
# Seconds to connect; and to read, where no stream is followed.
_TIMEOUT = (10, 30)


@dataclass(frozen=True)
class Target:
    """Which cluster and namespace, as the options say; absent ones are kubeconfig's own, as for kubectl."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None


class Cluster:
    """Reads from one namespace of one cluster."""

    def __init__(self, target: Target) -> None:
        config = _kubernetes_config()
        from kubernetes import client

        try:
            api = config.new_client_from_config(target.kubeconfig, target.context, persist_config=False)
            self.namespace = target.namespace or _namespace(config, target)
        except (config.ConfigException, OSError) as error:
            raise failed(f"no cluster to talk to: {error}", code=exitcodes.CONFIG) from error
        self._host = api.configuration.host
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    def jobs(self, *, everywhere: bool = False) -> list[dict[str, Any]]:
        """All jobs of the namespace, or of every one."""
        kind = {"group": GROUP, "version": VERSION, "plural": PLURAL}
        with self._plainly(missing=f"the cluster has no {PLURAL}.{GROUP}: install the Helm chart first"):
            answer = (
                self._objects.list_cluster_custom_object(**kind, **_RAW)
                if everywhere
                else self._objects.list_namespaced_custom_object(**kind, namespace=self.namespace, **_RAW)
            )
            return _items(answer)

    def job(self, name: str) -> dict[str, Any]:
        """One job."""
        missing = f"no job {name!r} in namespace {self.namespace!r}; `anneal status -A` lists every job"
        with self._plainly(missing=missing):
            answer = self._objects.get_namespaced_custom_object(
                group=GROUP, version=VERSION, namespace=self.namespace, plural=PLURAL, name=name, **_RAW
            )
            found: dict[str, Any] = answer.json()
            return found

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods with these labels."""
        with self._plainly(missing=f"no namespace {self.namespace!r}"):
            return _items(self._core.list_namespaced_pod(self.namespace, label_selector=selector, **_RAW))

    def log(self, pod: str, *, follow: bool) -> Iterator[str]:
        """A container's output line by line; when followed, until it ends."""
        with self._plainly(missing=f"the pod {pod} is gone"):
            response = self._core.read_namespaced_pod_log(
                pod, self.namespace, follow=follow, **{**_RAW, "_request_timeout": (10, None if follow else 30)}
            )
            for line in response:
                yield line.decode(errors="replace").rstrip("\n")

    @contextmanager
    def _plainly(self, *, missing: str) -> Iterator[None]:
        """Errors of the client as one line each."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise failed(missing, code=exitcodes.NO_INPUT) from error
            code = exitcodes.CONFIG if error.status in _REFUSED else exitcodes.TEMPORARY
            raise failed(f"{self._host} refused: {_reason(error)}", code=code) from error
        except HTTPError as error:
            raise failed(f"no answer from {self._host}: {_root_cause(error)}", code=exitcodes.TEMPORARY) from error


# The raw JSON: the client's classes would drop what they do not know, and cost a second to build.
_RAW: dict[str, Any] = {"_preload_content": False, "_request_timeout": _TIMEOUT}


def _kubernetes_config() -> Any:
    try:
        from kubernetes import config
    except ImportError:
        raise failed(f"this command needs the Kubernetes client: {INSTALL}", code=exitcodes.CONFIG) from None
    return config


def _namespace(config: Any, target: Target) -> str:
    """The namespace of the context that is used."""
    contexts, current = config.list_kube_config_contexts(target.kubeconfig)
    chosen = next((c for c in contexts if c["name"] == target.context), current)
    return str(chosen["context"].get("namespace") or "default")


def _items(response: Any) -> list[dict[str, Any]]:
    return list(response.json()["items"])


def _reason(error: Any) -> str:
    """The API server's own sentence."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _root_cause(error: Exception) -> str:
    """What went wrong, without the client's own wrapping."""
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, Exception) else error).rpartition(": ")[2]
