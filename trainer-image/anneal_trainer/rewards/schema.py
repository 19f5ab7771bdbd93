"""JSON of a schema: 1 where the schema accepts the answer, 0.5 where it is other JSON, else 0.

Schemas are of draft 2020-12 unless they name another one. They are checked in a process of their own: a schema can hold
regular expressions, which may take for ever. Not here: fetching what a schema refers to; nothing is fetched.
"""

import json
from functools import lru_cache
from typing import Any

from anneal_api.online import SchemaReward
from anneal_trainer.errors import ConfigError
from anneal_trainer.rewards.keeper import Child, each
from anneal_trainer.rewards.scoring import Batch, Fit, Score, Scorer

_SECONDS = 5.0
_OTHER_JSON = 0.5
_MAY_BE_NULL = ("const", "default")
COLUMN = Fit((str, dict, bool), "a schema, as JSON or as it stands,")


def check(reward: SchemaReward, at: str) -> None:
    """ConfigError if what the manifest has is not a schema."""
    if reward.json_schema is None:
        return
    from jsonschema.exceptions import SchemaError

    try:
        _validator(reward.json_schema)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{at}.schema.jsonSchema is not JSON: {error}") from error
    except SchemaError as error:
        raise ConfigError(f"{at}.schema.jsonSchema is not a JSON schema: {error.message}") from error


def scorer(reward: SchemaReward, at: str, *, seconds: float = _SECONDS) -> tuple[Scorer, Child]:
    """Of one schema or of each row's, and the process that it is checked in. A row whose column is null has none."""
    check(reward, at)
    field = "jsonSchema" if reward.column is None else "column"
    child = Child(__name__, "accepts", limit=f"the most for one answer: simplify {at}.schema.{field}")

    def score(batch: Batch) -> list[Score]:
        schemas = [_text(value) for value in _schemas(reward, batch)]
        pairs = zip(schemas, batch.completions, strict=True)
        return each(child, [None if schema is None else (schema, text) for schema, text in pairs], seconds=seconds)

    return score, child


def _schemas(reward: SchemaReward, batch: Batch) -> list[Any]:
    return [reward.json_schema] * len(batch) if reward.column is None else list(batch.column(reward.column))


def _text(schema: Any) -> str | None:
    return schema if schema is None or isinstance(schema, str) else json.dumps(_without_nulls(schema))


def _without_nulls(schema: Any) -> Any:
    """Parquet has the keys of all rows in each of them: what a row does not say is null there."""
    if isinstance(schema, list):
        return [_without_nulls(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_nulls(each) for key, each in schema.items() if each is not None or key in _MAY_BE_NULL}


def accepts(schema: str, answer: str) -> list[float]:
    """The score of one answer."""
    validator = _validator(schema)
    try:
        value = json.loads(answer, parse_constant=_refused)
    except (ValueError, RecursionError):
        return [0.0]
    return [1.0 if validator.is_valid(value) else _OTHER_JSON]


def _refused(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    document = json.loads(schema)
    kind = validator_for(document, default=Draft202012Validator)
    kind.check_schema(document)
    # With a registry of its own it asks no server for what `$ref` names.
    return kind(document, registry=Registry())
