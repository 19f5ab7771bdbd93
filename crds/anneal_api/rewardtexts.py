"""Texts that rewards are made of, as far as the standard library can judge them: patterns, JSON schemas, languages.

What is wrong with them is so told by `anneal validate` and in `Accepted`, before a pod is made. Not here: all that a
schema can get wrong, and schemas of another draft than 2020-12 (the prepare pod has a library for them).
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any, Final
from urllib.parse import unquote

from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import WithJsonSchema

# What the trainer's model of languages tells apart.
LANGUAGES: Final = (
    "ace", "af", "am", "an", "ar", "ary", "arz", "as", "az", "ba", "bcl", "be", "bg", "bn", "br", "bs", "ca",
    "crh", "cs", "cy", "da", "de", "dz", "el", "en", "eo", "es", "et", "eu", "ext", "fa", "fi", "fo", "fr",
    "fuv", "fy", "ga", "gcf", "gcr", "gd", "gl", "gom", "grc", "gu", "gug", "guw", "ha", "hbo", "he", "hi",
    "hr", "ht", "hu", "hy", "id", "ig", "is", "it", "ja", "jv", "ka", "kab", "kik", "kk", "km", "kn", "ko",
    "ku", "ky", "la", "lb", "lg", "lij", "ln", "lo", "lt", "ltg", "lv", "mg", "mk", "ml", "mn", "mr", "ms",
    "mt", "my", "ne", "nl", "nn", "no", "nso", "oc", "om", "or", "pa", "pcm", "pl", "ps", "pt", "qu", "ro",
    "ru", "rw", "sa", "sdh", "se", "si", "sk", "sl", "sn", "so", "sq", "sr", "st", "sv", "sw", "ta", "te", "tg",
    "th", "tk", "tl", "tr", "tt", "ug", "uk", "ur", "uz", "uzs", "vec", "vi", "vo", "wa", "wuu", "xh", "yo",
    "yue", "zh", "zu", "zxx",
)  # fmt: skip
_LONGEST_CODE: Final = max(map(len, LANGUAGES))
_SHOWN: Final = 60
# Ranges that reach beyond ASCII take milliseconds each where case is ignored. Who writes more of them than this is told
# by the prepare pod: the operator has other jobs to look after.
_WIDE: Final = re.compile(r"-(?:[^\x00-\x7f]|\\+[uUxN])")
_MOST_WIDE: Final = 32


def regex_fault(text: str) -> str:
    """Why Python's `re` does not take a pattern; empty if it does.

    >>> regex_fault("(a"), regex_fault("a|b")
    ('missing ), unterminated subpattern at position 0', '')
    """
    if len(_WIDE.findall(text)) > _MOST_WIDE:
        return ""
    try:
        with warnings.catch_warnings():
            # About what a later Python may read otherwise.
            warnings.simplefilter("ignore")
            re.compile(text)
    except (re.error, OverflowError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return ""


@lru_cache(maxsize=256)
def schema_faults(text: str) -> tuple[str, ...]:
    """What shows that a text is no JSON schema.

    >>> schema_faults('{"properties": {"n": {"type": "int"}}, "required": "n"}')
    ("properties.n.type: 'int' is none of array, boolean, integer, null, number, object, string", "required: 'n' is no list")
    """
    try:
        document = json.loads(text, parse_constant=_refused)
        # Names of parts ($id) are the library's to find.
        within = None if '"$id"' in text else document
        return () if _is_of_another_draft(document) else tuple(_faults(document, "", within))
    except RecursionError:
        return ("it is nested too deeply",)
    except ValueError as error:
        return (f"not JSON: {error}",)


def _refused(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")


def _is_of_another_draft(document: Any) -> bool:
    return isinstance(document, dict) and "2020-12" not in str(document.get("$schema", "2020-12"))


def _faults(schema: Any, path: str, within: Any) -> Iterator[str]:
    """Of a schema and what is below it; `path` is where it stands, `within` the document that it may refer to."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield _at(path, f"{_shown(schema)} is no schema, which is an object")
        return
    for key, value in schema.items():
        here = f"{path}.{key}" if path else key
        words = _reference(value, within) if key == "$ref" else _KEYWORDS.get(key, _anything)(value)
        if words:
            yield f"{here}: {words}"
        else:
            for name, inner in _inside(key, value):
                yield from _faults(inner, f"{here}{name}", within)


def _at(path: str, words: str) -> str:
    return f"{path}: {words}" if path else words


def _inside(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The schemas that a keyword holds, with what their place is called below it."""
    if key in _OF_ONE:
        yield "", value
    elif key in _OF_LISTS:
        yield from ((f"[{index}]", inner) for index, inner in enumerate(value))
    elif key in _OF_NAMES:
        yield from ((f".{name}", inner) for name, inner in value.items())


_OF_ONE: Final = (
    "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties",
)  # fmt: skip
_OF_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_OF_NAMES: Final = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
_COUNTS: Final = (
    "maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength", "minProperties",
)  # fmt: skip


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and (isinstance(value, int) or value.is_integer())


def _anything(_: Any) -> str:
    return ""


def _no(noun: str, fits: Callable[[Any], bool]) -> Callable[[Any], str]:
    return lambda value: "" if fits(value) else f"{_shown(value)} is no {noun}"


def _type(value: Any) -> str:
    wrong = [each for each in (value if isinstance(value, list) else [value]) if each not in _TYPES]
    return f"{_shown(wrong[0])} is none of {', '.join(_TYPES)}" if wrong else ""


def _pattern(value: Any) -> str:
    if not isinstance(value, str):
        return f"{_shown(value)} is no text"
    fault = regex_fault(value)
    return f"{_shown(value)} is not a regular expression of Python: {fault}" if fault else ""


def _reference(value: Any, document: Any) -> str:
    if not isinstance(value, str):
        return f"{_shown(value)} is no text"
    if document is None or "://json-schema.org/" in value:
        return ""
    if value.startswith("#"):
        is_there = value[1:2] != "/" or _is_there(document, value[2:].split("/"))
        return "" if is_there else f"{_shown(value)} is not there"
    return f"{_shown(value)} is outside of the schema, and nothing is fetched: write it below $defs"


def _is_there(document: Any, names: list[str]) -> bool:
    for name in (unquote(name).replace("~1", "/").replace("~0", "~") for name in names):
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            return False
    return True


def _patterns(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{_shown(value)} is no object"
    return next(filter(None, map(_pattern, value)), "")


_KEYWORDS: Final[dict[str, Callable[[Any], str]]] = {
    **dict.fromkeys((*_OF_LISTS, "enum", "required"), _no("list", lambda value: isinstance(value, list))),
    **dict.fromkeys(_OF_NAMES, _no("object", lambda value: isinstance(value, dict))),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _no("number", _is_number)),
    **dict.fromkeys(_COUNTS, _no("count", _is_count)),
    "multipleOf": _no("number above 0", lambda value: _is_number(value) and value > 0),
    "uniqueItems": _no("boolean", lambda value: isinstance(value, bool)),
    "type": _type,
    "pattern": _pattern,
    "patternProperties": _patterns,
}


def _checked_pattern(text: str) -> str:
    if fault := regex_fault(text):
        raise ValueError(f"{_shown(text)} is not a regular expression of Python: {fault}")
    return text


def _checked_schema(text: str) -> str:
    if faults := schema_faults(text):
        raise ValueError(f"{_shown(text)} is not a JSON schema: {'; '.join(faults)}")
    return text


def _checked_code(text: str) -> str:
    if text not in LANGUAGES:
        raise ValueError(unknown_language(text))
    return text


def unknown_language(code: Any) -> str:
    """That a language is not known, and which are."""
    return f"{_shown(code)} is not the code of a language that is known: {', '.join(LANGUAGES)}"


PatternText = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=4096)], AfterValidator(_checked_pattern)
]
SchemaText = Annotated[Annotated[str, StringConstraints(max_length=16384)], AfterValidator(_checked_schema)]
LanguageCode = Annotated[
    str,
    AfterValidator(_checked_code),
    WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(LANGUAGES)})$", "maxLength": _LONGEST_CODE}),
]
