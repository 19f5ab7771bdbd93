"""The tokens that end a turn: which they are, and where one stands behind a turn.

A model that never learns them never stops, so they are found from the template itself: the tokens that it writes
behind the last words of an assistant. That holds where EOS is another token than the one that ends a turn.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data.formats.chat.locate import pieces_of
from anneal_trainer.data.formats.chat.options import Options
from anneal_trainer.data.formats.chat.parts import Span
from anneal_trainer.data.formats.chat.template import Renderer, Template
from anneal_trainer.errors import ConfigError

# How many tokens a template may put between a turn and the token that ends it.
_GAP = 3
_PROBES = (("user", "assistant"), ("system", "user", "assistant"), ("user", "model"))


@dataclass(frozen=True)
class Endings:
    """The tokens looked for behind a turn: those that end it, and EOS."""

    eot: re.Pattern[str] | None
    eos: re.Pattern[str] | None

    @classmethod
    def of(cls, dataset: DatasetSpec, options: Options, template: Template) -> "Endings":
        """The entry's own, or the template's; ConfigError where they cannot be."""
        renderer = template.renderer
        eos = (renderer.eos,) if renderer.eos else ()
        eot = _found(template) if dataset.eot_tokens is None else _checked(dataset.eot_tokens, template)
        if options.eot != options.eos and set(eot) & set(eos):
            raise ConfigError(
                f"trainOnEos is {options.eos} and trainOnEot is {options.eot}, but {renderer.eos} is both the "
                "end-of-sequence token and one that ends a turn: write the same in both, or leave trainOnEot out"
            )
        # A template may write EOS behind the token that ends a turn: each is looked for, unless they are one.
        return cls(_near(eot, renderer), _near(() if eos == eot else eos, renderer))


def behind(text: str, end: int, tokens: re.Pattern[str]) -> Span | None:
    """The first of `tokens` that follows a turn's `end`, at most three tokens away."""
    found = tokens.match(text, end)
    return found and found.span(1)


def _near(tokens: tuple[str, ...], renderer: Renderer) -> re.Pattern[str] | None:
    """What finds the first of `tokens`, and of those that begin there the longest, behind at most `_GAP` others."""
    if not tokens:
        return None
    added = "".join(f"{token}|" for token in _longest_first(renderer.added_tokens))
    return re.compile(rf"(?>{added}\s+|\w+|[^\w\s]){{0,{_GAP}}}?({'|'.join(_longest_first(tokens))})")


def _longest_first(tokens: Iterable[str]) -> list[str]:
    return [re.escape(token) for token in sorted(tokens, key=len, reverse=True)]


def _found(template: Template) -> tuple[str, ...]:
    """The tokens that the template writes behind an assistant's last words: EOS only where it is the only one."""
    for shape in _PROBES:
        pieces = pieces_of(template, shape)
        if pieces is not None:
            written = tuple(token for token in template.renderer.added_tokens if token in pieces[-1])
            return tuple(token for token in written if token != template.renderer.eos) or written
    return ()


def _checked(tokens: list[str], template: Template) -> tuple[str, ...]:
    renderer = template.renderer
    for token in tokens:
        if token not in renderer.added_tokens:
            raise ConfigError(
                f"eotTokens: {token} is not one token of this tokenizer; add it with model.addSpecialTokens, or name "
                f"one of: {', '.join(renderer.added_tokens[:20])}"
            )
        written = token in template.source or (token == renderer.eos and "eos_token" in template.names)
        if not written:
            ends = ", ".join(_found(template)) or "none that could be found"
            raise ConfigError(f"eotTokens: the chat template never writes {token}; what ends its turns: {ends}")
    return tuple(tokens)
