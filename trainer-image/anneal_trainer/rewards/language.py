"""Whether an answer is in a language: told by py3langid, whose model comes with it, so that nothing is fetched.

Short texts are told apart by few letters, so only languages that are widely written are thought of, unless the manifest
names others: with all 142 `Hello there` is Sotho. Not here: parts of an answer in several languages.
"""

import copy
from functools import cache
from importlib.util import find_spec
from typing import Any

from anneal_api.online import LanguageReward
from anneal_api.rewardtexts import LANGUAGES, unknown_language
from anneal_trainer.errors import ConfigError
from anneal_trainer.rewards.scoring import Batch, Fault, Fit, Score, Scorer

USUAL = (
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr",
    "he", "hi", "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "nl", "no", "pl", "pt",
    "ro", "ru", "sk", "sl", "sr", "sv", "ta", "te", "th", "tr", "uk", "ur", "vi", "zh",
)  # fmt: skip
COLUMN = Fit((str,), "a language's code")
# How near to what is said of no text at all: nothing in the text is known in any language.
_NEAR = 1e-6


def check(at: str) -> None:
    """ConfigError if the package is not installed."""
    if find_spec("py3langid") is None:
        raise ConfigError(
            f"{at}.language needs the Python package py3langid, which is not installed: install it, or take "
            "Anneal's trainer image"
        )


def scorer(reward: LanguageReward, at: str) -> Scorer:
    """Of one language, or of each row's."""
    check(at)
    among = tuple(reward.among or USUAL)

    def score(batch: Batch) -> list[Score]:
        codes = [reward.code] * len(batch) if reward.column is None else batch.column(reward.column)
        return [_score(code, text, among) for code, text in zip(codes, batch.completions, strict=True)]

    return score


def _score(code: Any, text: str, among: tuple[str, ...]) -> Score:
    if code is None:
        return None
    if code not in LANGUAGES:
        return Fault(f"cannot judge: {unknown_language(code)}")
    telling = _telling(code, among)
    likely, unknown = dict(telling.rank(text)), dict(telling.rank(""))
    if all(abs(share - unknown[each]) < _NEAR for each, share in likely.items()):
        return None
    return float(max(likely, key=likely.__getitem__) == code)


@cache
def _telling(code: str, among: tuple[str, ...]) -> Any:
    """What tells one language from others."""
    found = copy.copy(_model())
    found.set_languages(sorted({code, *among}))
    return found


@cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
