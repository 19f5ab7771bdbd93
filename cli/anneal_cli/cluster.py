"""The only Kubernetes client of the CLI: reads jobs and the logs of their pods, and writes nothing.

Every failure becomes one line that says what to do. The client library is an extra, imported when the first command
needs it. Not here: what is shown, and which pods are wanted.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from typer import Exit
from yaml import YAMLError

from anneal_api import exitcodes
from anneal_api.kinds import DESCRIBED
from anneal_api.meta import GROUP, VERSION
from anneal_cli.output import failed

INSTALL = "pip install '.[cluster]' in Anneal's checkout"
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
# Seconds to connect; and to read, where no stream is followed.
_TIMEOUT = (10, 30)
Query = Sequence[tuple[str, str]]


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
        try:
            self._api = config.new_client_from_config(target.kubeconfig, target.context, persist_config=False)
            self.namespace = target.namespace or _namespace(config, target)
        except (config.ConfigException, OSError) as error:
            raise failed(f"no cluster to talk to: {error}", code=exitcodes.CONFIG) from error
        except (ValueError, TypeError, AttributeError, LookupError, YAMLError) as error:
            # The client library takes a file's structure for granted.
            shown = target.kubeconfig or "the kubeconfig"
            raise failed(f"{shown} is not a kubeconfig file: {error}", code=exitcodes.CONFIG) from error
        self._host = self._api.configuration.host

    def jobs(self, *, everywhere: bool = False) -> list[dict[str, Any]]:
        """All jobs of the namespace, or of every one, of both kinds."""
        place = "" if everywhere else f"/namespaces/{self.namespace}"
        lists = [self._found(f"/apis/{GROUP}/{VERSION}{place}/{kind.PLURAL}") for kind, _ in DESCRIBED]
        if not any(lists):
            missing = f"the cluster has no {DESCRIBED[0][0].PLURAL}.{GROUP}: install the Helm chart first"
            raise failed(missing, code=exitcodes.NO_INPUT)
        return [_typed(item, found) for found in lists if found for item in found["items"]]

    def job(self, name: str) -> dict[str, Any]:
        """One job by `NAME`, or by `KIND/NAME` where the name stands for one of each kind."""
        wanted, _, plain = name.rpartition("/")
        kinds = [kind for kind, _ in DESCRIBED if wanted.lower() in ("", kind.SINGULAR, kind.PLURAL, *kind.SHORT_NAMES)]
        place = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}"
        found = [job for kind in kinds if (job := self._found(f"{place}/{kind.PLURAL}/{plain}"))]
        if len(found) > 1:
            both = " or ".join(f"{kind.SHORT_NAMES[0]}/{plain}" for kind in kinds)
            raise failed(f"there is a job {plain!r} of either kind: write {both}", code=exitcodes.USAGE)
        if not found:
            missing = f"no job {name!r} in namespace {self.namespace!r}; `anneal status -A` lists every job"
            raise failed(missing, code=exitcodes.NO_INPUT)
        return found[0]

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods with these labels."""
        path, missing = f"/api/v1/namespaces/{self.namespace}/pods", f"no namespace {self.namespace!r}"
        return list(self._json(path, missing, query=[("labelSelector", selector)])["items"])

    def log(self, pod: str, *, follow: bool, container: str | None = None) -> Iterator[str]:
        """A container's output line by line; when followed, until it ends."""
        path, missing = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log", f"the pod {pod} is gone"
        query = [("container", container)] if container else []
        query += [("follow", "true")] if follow else []
        # A followed log is silent for as long as the trainer is.
        with self._answer(path, missing, query=query, timeout=None if follow else _TIMEOUT) as response:
            for line in response:
                yield line.decode(errors="replace").rstrip("\n")

    def _found(self, path: str) -> dict[str, Any] | None:
        """What is there, or None; anything else ends the program with one line."""
        with self._answer(path, None) as response:
            found: dict[str, Any] | None = None if response.status == HTTPStatus.NOT_FOUND else response.json()
            return found

    def _json(self, path: str, missing: str, query: Query = ()) -> dict[str, Any]:
        with self._answer(path, missing, query=query) as response:
            found: dict[str, Any] = response.json()
            return found

    @contextmanager
    def _answer(self, path: str, missing: str | None, *, query: Query = (), timeout: Any = _TIMEOUT) -> Iterator[Any]:
        """The response to a GET; anything but success ends the program with one line, `missing` for what is not there.

        Without such a line the caller looks for itself.
        """
        from urllib3.exceptions import HTTPError

        try:
            # The generated classes for each kind take a second to import, and drop fields that they do not know.
            method, url, headers, *_ = self._api.param_serialize(
                "GET", path, query_params=list(query), auth_settings=["BearerToken"]
            )
            response = self._api.call_api(method, url, header_params=headers, _request_timeout=timeout).response
            may_miss = missing is None and response.status == HTTPStatus.NOT_FOUND
            if response.status != HTTPStatus.OK and not may_miss:
                raise self._refused(response, missing or "")
            yield response
        except HTTPError as error:
            text = f"no answer from {self._host}: {_root_cause(error)}"
            raise failed(text, code=exitcodes.TEMPORARY) from error

    def _refused(self, response: Any, missing: str) -> Exit:
        if response.status == HTTPStatus.NOT_FOUND:
            return failed(missing, code=exitcodes.NO_INPUT)
        code = exitcodes.CONFIG if response.status in _REFUSED else exitcodes.TEMPORARY
        return failed(f"{self._host} refused: {_reason(response)}", code=code)


def _typed(item: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """An item of a list with its type, which the API server writes once, for the list."""
    kind = str(found.get("kind", "")).removesuffix("List")
    return {"apiVersion": found.get("apiVersion"), "kind": kind, **item} if kind else item


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


def _reason(response: Any) -> str:
    """The API server's own sentence."""
    try:
        return str(json.loads(response.data)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{response.status} {response.reason}"


def _root_cause(error: Exception) -> str:
    """What went wrong, without the client's own wrapping."""
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, Exception) else error).rpartition(": ")[2]
