"""What shows of a reward's texts before a pod is made: in `anneal validate`, in the `Accepted` condition."""

import time
from typing import Any

import pytest

from anneal_api import ManifestError, parse_job
from anneal_api.rewardtexts import LANGUAGES, regex_fault, schema_faults


def problems(*rewards: dict[str, Any]) -> list[str]:
    """Of a job with these rewards, each as it is printed."""
    spec = {
        "model": {"source": "hf://org/model"},
        "method": "grpo",
        "datasets": [{"source": "volume://runs/asked.jsonl"}],
        "rewards": [{"name": f"r{index}", **reward} for index, reward in enumerate(rewards)],
    }
    document = {"apiVersion": "anneal.dev/v1alpha1", "kind": "RLHFJob", "metadata": {"name": "a"}, "spec": spec}
    try:
        parse_job(document)
    except ManifestError as error:
        return list(map(str, error.problems))
    return []


def test_all_mistakes_are_told_at_once() -> None:
    """Each with its field, the value, and what is wrong with it."""
    unended = '{"type": "object"'
    wrong = '{"properties": {"n": {"type": "int"}}, "minItems": -1}'
    told = problems(
        {"pattern": {"pattern": "(a"}},
        {"schema": {"jsonSchema": unended}},
        {"schema": {"jsonSchema": wrong}},
        {"language": {"code": "German"}},
        {"language": {"column": "to", "among": ["de", "xx"]}},
    )
    known = f"is not the code of a language that is known: {', '.join(LANGUAGES)}"
    types = "array, boolean, integer, null, number, object, string"
    assert told == [
        "spec.rewards[0].pattern.pattern: '(a' is not a regular expression of Python: missing ), unterminated subpattern at position 0",
        f"spec.rewards[1].schema.jsonSchema: '{unended}' is not a JSON schema: not JSON: Expecting ',' delimiter: line 1 column 18 (char 17)",
        f"spec.rewards[2].schema.jsonSchema: '{wrong}' is not a JSON schema: properties.n.type: 'int' is none of {types}; minItems: -1 is no count",
        f"spec.rewards[3].language.code: 'German' {known}",
        f"spec.rewards[4].language.among[1]: 'xx' {known}",
    ]


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("a{99999999999999999999}", "the repetition number is too large"),
        ("(" * 1300 + ")" * 1300, "nested too deeply"),
        ("a(?i)b", "global flags not at the start"),
        (r"\p{L}", r"bad escape \p"),
        ("(?<=a+)b", "look-behind requires fixed-width"),
        (r"[[a]", ""),
        (r"(?s)<think>.*?</think>\s*(?P<answer>\d++)", ""),
    ],
    ids=["overflow", "deep", "flags", "escape", "look-behind", "nested-set", "right"],
)
def test_patterns_are_those_of_python(pattern: str, fault: str) -> None:
    """Whatever its compiler raises is told; what it only warns of is taken."""
    assert fault in regex_fault(pattern)
    assert bool(regex_fault(pattern)) == bool(fault)


@pytest.mark.parametrize("wide", ["[\u0000-\U0010ffff]", r"[\x00-\U0010ffff]"], ids=["characters", "escapes"])
def test_a_pattern_that_takes_long_to_compile_holds_nobody_up(wide: str) -> None:
    """It is left to the prepare pod: with all that a manifest has room for it takes seconds."""
    begun = time.monotonic()
    assert regex_fault("(?i)" + wide * 200 + "(") == ""
    assert time.monotonic() - begun < 0.2


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ("name: text", "not JSON: Expecting value: line 1 column 1"),
        ("", "not JSON: Expecting value"),
        ("[]", "[] is no schema, which is an object"),
        ('{"minimum": NaN}', "not JSON: NaN is no number in JSON"),
        ('{"not":' * 1500, "nested too deeply"),
        ('{"items": [{}]}', "items: [{}] is no schema"),
        ('{"type": ["text", "null"]}', "type: 'text' is none of array"),
        ('{"type": {}}', "type: {} is none of array"),
        ('{"anyOf": {}}', "anyOf: {} is no list"),
        ('{"anyOf": [{}, {"enum": 1}]}', "anyOf[1].enum: 1 is no list"),
        ('{"$defs": {"a": {"properties": []}}}', "$defs.a.properties: [] is no object"),
        ('{"minimum": "1"}', "minimum: '1' is no number"),
        ('{"maximum": true}', "maximum: True is no number"),
        ('{"multipleOf": 0}', "multipleOf: 0 is no number above 0"),
        ('{"maxLength": 1.5}', "maxLength: 1.5 is no count"),
        ('{"maxLength": 1e999}', "maxLength: inf is no count"),
        ('{"uniqueItems": 1}', "uniqueItems: 1 is no boolean"),
        ('{"pattern": "(a"}', "pattern: '(a' is not a regular expression of Python: missing )"),
        ('{"pattern": 1}', "pattern: 1 is no text"),
        ('{"$ref": 1}', "$ref: 1 is no text"),
        ('{"items": {"$ref": "#/$defs/a"}, "$defs": {"b": {}}}', "items.$ref: '#/$defs/a' is not there"),
        ('{"anyOf": [{"$ref": "#/anyOf/1"}]}', "anyOf[0].$ref: '#/anyOf/1' is not there"),
        (
            '{"$ref": "http://host/schema.json"}',
            "$ref: 'http://host/schema.json' is outside of the schema, and nothing is",
        ),
        ('{"patternProperties": {"^[": {}}}', "patternProperties: '^[' is not a regular expression"),
    ],
)
def test_what_is_no_schema_is_told(schema: str, fault: str) -> None:
    """By its place in the schema."""
    (told,) = schema_faults(schema)
    assert fault in told


@pytest.mark.parametrize(
    "schema",
    [
        "true",
        "{}",
        ' {"type": ["integer", "null"], "minimum": 0.5, "maxItems": 2.0, "multipleOf": 0.1, "uniqueItems": true}',
        '{"const": {"type": "int"}, "enum": [{"type": 1}], "default": {"pattern": "("}, "examples": [{"required": 1}]}',
        '{"properties": {"type": {"type": "string"}, "pattern": {}, "required": false}, "x-mine": {"type": 1}}',
        '{"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [true], "items": false}',
        '{"$defs": {"a/b": {"anyOf": [{}]}}, "items": {"$ref": "#/$defs/a~1b/anyOf/0"}, "properties": {"a": {"$ref": "#"}}}',
        '{"$ref": "https://json-schema.org/draft/2020-12/schema"}',
        '{"$defs": {"a": {"$anchor": "x"}}, "items": {"$ref": "#x"}, "properties": {"$ref": {"const": {"$ref": 1}}}}',
        '{"$defs": {"a": {"$id": "urn:mine:a"}}, "items": {"$ref": "urn:mine:a"}}',
        '{"properties": {"a": {"$id": "urn:mine:a", "$defs": {"b": {}}, "items": {"$ref": "#/$defs/b"}}}}',
        # Of another draft, and right there.
        '{"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": true, "items": [{}]}',
    ],
)
def test_what_is_a_schema_is_taken(schema: str) -> None:
    """Values that look like keywords, names of properties, words of others, and other drafts among it."""
    assert schema_faults(schema) == ()
    assert problems({"schema": {"jsonSchema": schema}}) == []
