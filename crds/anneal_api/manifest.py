"""Reading manifests: YAML as kubectl reads it, then the models. Every problem at once, with its place.

PyYAML alone differs from kubectl: it reads `1e-5` as text, `12:30` as a number of seconds, `y` as text, dates as objects,
and keeps the last of two equal keys in silence. A wrong learning rate that way is a lost week; so the differences are
removed here, and a test compares the two readers. Not here: resolving defaults.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from anneal_api.base import DNS_1123_SUBDOMAIN
from anneal_api.job import Job
from anneal_api.kinds import KINDS
from anneal_api.meta import API_VERSION, GROUP, VERSION
from anneal_api.origin import address
from anneal_api.partial import broken_rules
from anneal_api.problems import ManifestError, Problem, problems_of

LONGEST_NAME = 253


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as Kubernetes reads it."""


# kubectl's reader (go-yaml) decides what a plain scalar is by these words and by its first character.
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(r"^[-+]?(?:0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_LARGEST_INTEGER = 2**63
_PLAIN = f"tag:{GROUP},{VERSION}:plain"


def _plain(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """A scalar without quotes, as kubectl sends it to the API server."""
    text = loader.construct_scalar(node)
    if text in _WORDS:
        return _WORDS[text]
    digits = text if text.startswith(".") else text.replace("_", "")
    if _INTEGER.match(digits):
        octal = re.fullmatch(r"([-+]?)0([0-7]+)", digits)
        return int(f"{octal[1]}0o{octal[2]}", 0) if octal else int(digits, 0)
    if not _FLOAT.match(digits):
        return text
    number = float(digits)
    # JSON knows no difference between 1e3 and 1000, so neither does the API server.
    return int(number) if number.is_integer() and abs(number) < _LARGEST_INTEGER else number


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping in which a key occurs once."""
    seen: set[str] = set()
    for key, _value in node.value:
        if key.value in seen:
            mark = key.start_mark
            raise ManifestError(
                [Problem(f"line {mark.line + 1}", f"the key {key.value!r} is written twice: remove one")]
            )
        if key.tag != "tag:yaml.org,2002:merge":
            seen.add(key.value)
    loader.flatten_mapping(node)
    return {_key(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


def _key(key: Any) -> Any:
    """JSON's keys are text: kubectl writes `on: x` as `"true": x`, and `8: x` as `"8": x`."""
    if isinstance(key, bool):
        return str(key).lower()
    return str(key) if isinstance(key, int | float) else key


_MERGE = ("tag:yaml.org,2002:merge", re.compile(r"^<<$"))
_Loader.yaml_implicit_resolvers = {"<": [_MERGE]}
for _first in ["", *"+-.0123456789~yYnNtTfFoO"]:
    _Loader.yaml_implicit_resolvers[_first] = [(_PLAIN, re.compile("", re.DOTALL))]
_Loader.add_constructor(_PLAIN, _plain)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def documents(text: str) -> list[Any]:
    """The documents of a YAML (or JSON) text, empty ones left out; ManifestError says where it breaks."""
    try:
        # The loader subclasses SafeLoader: no tag constructs anything but plain data.
        found = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ManifestError([Problem(place, f"not YAML: {error.problem or error.context}")]) from error
    except yaml.YAMLError as error:
        raise ManifestError([Problem("", f"not YAML: {error}")]) from error
    except RecursionError as error:
        raise ManifestError([Problem("", "lists or mappings are nested too deeply")]) from error
    if not found:
        raise ManifestError(
            [Problem("", f"the file is empty; write a {' or '.join(KINDS)}: apiVersion, kind, metadata.name and spec")]
        )
    return found


def parse_job(document: Any) -> Job:
    """One document as a job; ManifestError holds every problem."""
    if not isinstance(document, dict):
        raise ManifestError(
            [
                Problem(
                    "",
                    f"a manifest is a mapping with apiVersion, kind, metadata and spec, got {type(document).__name__}",
                )
            ]
        )
    problems = list(_identity_problems(document))
    if document.get("kind") not in KINDS or document.get("apiVersion") != API_VERSION:
        raise ManifestError(problems)
    model = KINDS[document["kind"]]
    try:
        job = model.model_validate(document)
    except ValidationError as error:
        raise ManifestError(sorted({*problems, *problems_of(error, model), *broken_rules(model, document)})) from error
    if problems:
        raise ManifestError(problems)
    return job


def _identity_problems(document: dict[str, Any]) -> Iterator[Problem]:
    version, kind, metadata = document.get("apiVersion"), document.get("kind"), document.get("metadata")
    if version != API_VERSION:
        yield Problem("apiVersion", f"{version!r} is not accepted; write {API_VERSION}")
    if kind not in KINDS:
        yield Problem("kind", f"{kind!r} is not accepted; write one of: {', '.join(KINDS)}")
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        yield Problem("metadata.name", "is required")
    elif "name" in metadata and not _is_name(metadata["name"]):
        yield Problem(
            "metadata.name",
            f"{metadata['name']!r} is not a Kubernetes name: lower-case letters, digits, '-' and '.', "
            f"{LONGEST_NAME} characters at most",
        )
    else:
        yield from _own_results(document.get("spec"), "spec", address(str(kind), str(metadata.get("name"))))


def _own_results(value: Any, path: str, mine: str) -> Iterator[Problem]:
    """Models, of whatever is right or wrong, that wait for the job itself."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _own_results(item, f"{path}[{index}]", mine)
    elif isinstance(value, dict):
        if value.get("source") == mine:
            words = f"{mine} is this job's own result: name another job, or give this one another metadata.name"
            yield Problem(f"{path}.source", words)
        for key in value.keys() - {"datasets", "evaluation"}:
            yield from _own_results(value[key], f"{path}.{key}", mine)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= LONGEST_NAME and re.fullmatch(DNS_1123_SUBDOMAIN, name) is not None


def load_jobs(path: Path) -> list[Job]:
    """The jobs of a file; ManifestError holds every problem of every document."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError([Problem("", f"not UTF-8 text (byte {error.start})")]) from error
    except OSError as error:
        raise ManifestError([Problem("", f"cannot be read: {error.strerror}")]) from error
    return jobs_in(text)


def jobs_in(text: str) -> list[Job]:
    """The jobs of a text; ManifestError holds every problem of every document."""
    jobs, problems = [], []
    found = documents(text)
    for index, document in enumerate(found):
        try:
            jobs.append(parse_job(document))
        except ManifestError as error:
            prefix = f"document {index + 1}: " if len(found) > 1 else ""
            problems += [Problem(f"{prefix}{problem.path}", problem.message) for problem in error.problems]
    if problems:
        raise ManifestError(problems)
    return jobs
