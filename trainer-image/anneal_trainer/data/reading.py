"""How the rows of a job become sequences of tokens: rows to learn from (`formats`), or judgements (`alignment`).

Everything around it, from sources to Arrow files, is the same for both. Not here: what needs other rows to be decided.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from anneal_api.alignment import ALIGNMENT_READS, AlignmentRows
from anneal_api.dataset import DatasetSpec
from anneal_api.datasource import DataSource
from anneal_api.job import JobSpec
from anneal_api.online_rules import most_tokens
from anneal_api.rlhfjob import FAMILIES, AlignmentSpec, RLHFSpec, family_of
from anneal_trainer.data import alignment, formats
from anneal_trainer.data.alignment.encode import AlignmentEncoder, check
from anneal_trainer.data.alignment.examples import (
    Aligned,
    AlignedTokens,
    AskedTokens,
    ComparedTokens,
    Judged,
    JudgedTokens,
    Pair,
    PairTokens,
    StepTokens,
)
from anneal_trainer.data.alignment.fit import fit
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.formats.chat.template import Renderer, Template
from anneal_trainer.data.pieces import IGNORED, Note, RowError, Text, Tokens
from anneal_trainer.data.problems import Problems
from anneal_trainer.data.seams import seam, unasked
from anneal_trainer.data.shape import KEPT, Limits
from anneal_trainer.data.sources import Placed

_UNLIMITED = 1 << 40
_MARGIN = "margin"


class Read(NamedTuple):
    """A row with its sequences. `length`: its tokens before any cut. `value`: the number that its method needs of it.

    Rows of judgements and prompts come cut (`cut`), or with the `reason` for which they are not trained on; others
    are cut later.
    """

    placed: Placed
    sequences: list[Tokens]
    length: int
    reason: str = KEPT
    cut: bool = False
    value: float = 0.0
    # What is kept beside the tokens, as JSON.
    text: str = ""


class Reading(Protocol):
    """One kind of rows. `names` are those of a row's sequences, `expected` the columns that can be detected."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def expected(self) -> str: ...

    def limits(self, limits: Limits) -> Limits:
        """What is left to be cut of the sequences that `read` gives."""

    def detect(self, columns: Iterable[str], dataset: DataSource) -> str | None:
        """The type that the columns speak of."""

    def detect_turns(self, row: dict[str, Any]) -> tuple[str, Any] | None:
        """The type and the fields that the row's values speak of, where its columns have the names of several types."""

    def choices(self, columns: Iterable[str], dataset: DataSource) -> str:
        """The types that a person can choose from where none is detected; empty if the columns fit none."""

    def needed(self, dataset: Any) -> dict[str, tuple[str, ...]]:
        """For each thing the dataset's type cannot do without: the columns of which one must be there."""

    def formatter(self, dataset: Any, renderer: Callable[[], Renderer]) -> Callable[[dict[str, Any]], Any]:
        """From a row to an example; RowError where it cannot be one."""

    def parsed(self, dataset_json: str) -> DataSource:
        """A dataset of this kind from its JSON."""

    def notes(self, example: Any, encoder: Encoder, *, closely: bool) -> list[Note]:
        """What is worth telling of a good row; `closely` may cost a second tokenization."""

    def read(
        self, batch: Sequence[tuple[Placed, Any]], encoder: Encoder, limits: Limits, problems: Problems
    ) -> list[Read]:
        """The sequences of a batch of examples, in order."""

    def told(self, row: Read) -> tuple[str, ...]:
        """What a person sees of a row beside its tokens."""


def reading_of(spec: JobSpec) -> Reading:
    """The kind of rows that the job's method reads."""
    if not isinstance(spec, RLHFSpec):
        return Lessons()
    return Prompts(spec.method) if spec.is_online else Judgements(spec.method)


def limits_of(spec: JobSpec) -> Limits:
    """What rows are cut to: a prompt leaves room for its answer."""
    most, long_rows = spec.training.sequence_length, spec.preparation.long_rows
    if isinstance(spec, RLHFSpec) and spec.is_online:
        field = "training.sequenceLength less sampling.maxTokens"
        return Limits(most - most_tokens(spec), long_rows, untrained=True, field=field)
    return Limits(most, long_rows)


class Lessons:
    """Rows to learn from: one sequence each, or several of a row that is divided."""

    names: tuple[str, ...] = ()
    expected = formats.EXPECTED

    def limits(self, limits: Limits) -> Limits:
        """All of it."""
        return limits

    def detect(self, columns: Iterable[str], dataset: DataSource) -> str | None:
        """By the columns."""
        assert isinstance(dataset, DatasetSpec), "a FineTuneJob has such"
        return formats.detect(columns, dataset.fields)

    def detect_turns(self, row: dict[str, Any]) -> None:
        """Nothing: a column of turns has a name of its own."""
        del row

    def choices(self, columns: Iterable[str], dataset: DataSource) -> str:
        """Wordings of a question and its answer."""
        assert isinstance(dataset, DatasetSpec), "a FineTuneJob has such"
        return formats.choices(columns, dataset.fields)

    def needed(self, dataset: DatasetSpec) -> dict[str, tuple[str, ...]]:
        """By the type."""
        assert dataset.type is not None, "given or detected"
        return formats.needed(dataset.type, dataset.fields)

    def formatter(self, dataset: DatasetSpec, renderer: Callable[[], Renderer]) -> formats.Format:
        """By the type."""
        return formats.formatter(dataset, renderer=renderer)

    def parsed(self, dataset_json: str) -> DatasetSpec:
        """The entry."""
        return DatasetSpec.model_validate_json(dataset_json)

    def notes(self, example: Any, encoder: Encoder, *, closely: bool) -> list[Note]:
        """Those of its format, and of where its pieces meet."""
        found = list(example.notes) if isinstance(example, Text) else []
        if isinstance(example, Text) and encoder.special.search(example.asked):
            found.append(_SPECIAL)
        looks = (seam(encoder, example), unasked(encoder, example)) if closely else ()
        return [*found, *filter(None, looks)]

    def read(
        self, batch: Sequence[tuple[Placed, Any]], encoder: Encoder, limits: Limits, problems: Problems
    ) -> list[Read]:
        """Tokenized, and divided where the type divides rows."""
        del problems
        tokens = encoder.encode([example for _, example in batch])
        return [
            Read(placed, encoder.divided(example, row, limits.most), len(row.input_ids))
            for (placed, example), row in zip(batch, tokens, strict=True)
        ]

    def told(self, row: Read) -> tuple[str, ...]:
        """Nothing: the tokens say all."""
        del row
        return ()


@dataclass(frozen=True)
class Judgements:
    """Rows of the families that a method reads: pairs, judged answers, judged steps."""

    method: str

    @property
    def names(self) -> tuple[str, ...]:
        """A pair's two sequences."""
        return () if self.method in ("kto", "prm") else ("chosen", "rejected")

    @property
    def expected(self) -> str:
        """The types that can be detected, and all others."""
        types = {kind: reads for family in FAMILIES[self.method] for kind, reads in ALIGNMENT_READS[family].items()}
        shown = [
            f"{' and '.join(' or '.join(column.names) for column in reads.values() if column.required)} ({kind})"
            for kind, reads in list(types.items())[:4]
        ]
        return f"{', '.join(shown)}, or the columns of another type in docs/dataset-types.md"

    def limits(self, limits: Limits) -> Limits:
        """Nothing: both answers of a pair are cut as one."""
        return Limits(_UNLIMITED, limits.long_rows)

    def detect(self, columns: Iterable[str], dataset: DataSource) -> str | None:
        """The first family that knows the columns."""
        assert isinstance(dataset, AlignmentRows), "an RLHFJob has such"
        present = list(columns)
        found = (alignment.detect(present, dataset.fields, family) for family in FAMILIES[self.method])
        return next(filter(None, found), None)

    def detect_turns(self, row: dict[str, Any]) -> tuple[str, Any] | None:
        """Pairs of conversations."""
        return alignment.conversational(row) if "preference" in FAMILIES[self.method] else None

    def choices(self, columns: Iterable[str], dataset: DataSource) -> str:
        """Of every family that the method reads."""
        assert isinstance(dataset, AlignmentRows), "an RLHFJob has such"
        return alignment.choices(columns, dataset.fields, FAMILIES[self.method])

    def needed(self, dataset: AlignmentSpec) -> dict[str, tuple[str, ...]]:
        """By the type, as the method reads it."""
        assert dataset.type is not None, "given or detected"
        return alignment.needed(dataset.type, dataset.fields, family_of(self.method, dataset.type))

    def formatter(
        self, dataset: AlignmentSpec, renderer: Callable[[], Renderer]
    ) -> Callable[[dict[str, Any]], Aligned]:
        """By the type, as the method reads it."""
        assert dataset.type is not None, "given or detected"
        family = family_of(self.method, dataset.type)
        return alignment.formatter(dataset, family, template=lambda: _Rendering(renderer().chosen(None)))

    def parsed(self, dataset_json: str) -> AlignmentSpec:
        """The entry."""
        return AlignmentSpec.model_validate_json(dataset_json)

    def notes(self, example: Any, encoder: Encoder, *, closely: bool) -> list[Note]:
        """None: what is worth telling is known with the tokens."""
        del example, encoder, closely
        return []

    def read(
        self, batch: Sequence[tuple[Placed, Any]], encoder: Encoder, limits: Limits, problems: Problems
    ) -> list[Read]:
        """Tokenized and cut; a pair is two judged answers where the method wants those."""
        examples = [
            (placed, part) for placed, example in batch for part in (_apart(example) if self._unpaired else [example])
        ]
        tokens = AlignmentEncoder(encoder).encode([example for _, example in examples])
        found = []
        for (placed, _), row in zip(examples, tokens, strict=True):
            try:
                check(row)
                value = _margin(placed.row) if self.method == "reward" else _value(row)
            except RowError as error:
                problems.add(placed.place, str(error))
                continue
            if getattr(row, "lost", 0):
                problems.remark(placed.place, _MERGED)
            fitted = fit(row, limits, encoder.start)
            length = max(len(part.input_ids) for part in _sequences(row))
            found.append(Read(placed, _sequences(fitted.tokens), length, fitted.reason, fitted.cut, value))
        return found

    def told(self, row: Read) -> tuple[str, ...]:
        """How it is judged."""
        match FAMILIES[self.method][0]:
            case "unpaired":
                return ("desirable" if row.value else "undesirable",)
            case "reward" if row.value:
                return (f"margin {row.value:g}",)
            case "stepwise":
                labels = [label for label in row.sequences[0].labels if label != IGNORED]
                return (f"steps: {', '.join('right' if label else 'wrong' for label in labels)}",)
        return ()

    @property
    def _unpaired(self) -> bool:
        return FAMILIES[self.method][0] == "unpaired"


@dataclass(frozen=True)
class Prompts(Judgements):
    """Rows that only ask: the prompt's tokens, and as JSON what rewards are given of the row."""

    @property
    def names(self) -> tuple[str, ...]:
        """One sequence, which needs none."""
        return ()

    def limits(self, limits: Limits) -> Limits:
        """Nothing is left to be cut, and nothing is trained."""
        return replace(limits, most=_UNLIMITED)

    def read(
        self, batch: Sequence[tuple[Placed, Any]], encoder: Encoder, limits: Limits, problems: Problems
    ) -> list[Read]:
        """Tokenized, and cut from the left."""
        tokens = AlignmentEncoder(encoder).encode([example for _, example in batch])
        found = []
        for (placed, _), row in zip(batch, tokens, strict=True):
            assert isinstance(row, AskedTokens), "the family is of prompts"
            if not row.prompt_ids:
                problems.add(placed.place, "the prompt is empty: an answer needs a token to begin behind")
                continue
            fitted = fit(row, limits, encoder.start)
            assert isinstance(fitted.tokens, AskedTokens), "cut, and nothing else"
            ids = fitted.tokens.prompt_ids
            kept = json.dumps({"prompt": row.asked, "columns": row.row}, ensure_ascii=False, default=str)
            sequences = [Tokens(ids, [IGNORED] * len(ids))]
            found.append(Read(placed, sequences, len(row.prompt_ids), fitted.reason, fitted.cut, text=kept))
        return found

    def told(self, row: Read) -> tuple[str, ...]:
        """What rewards are given beside the prompt."""
        columns = json.dumps(json.loads(row.text)["columns"], ensure_ascii=False)
        return (f"for rewards: {columns if len(columns) <= _TOLD else f'{columns[:_TOLD]}…'}",)


_TOLD = 200
_SPECIAL = Note(
    "SpecialTokensInText", "hold the name of a special token in what is asked; it becomes that token: take it out"
)
_MERGED = Note("PromptMerges", "have a prompt whose last token becomes part of the answer's first")


@dataclass(frozen=True)
class _Rendering:
    """A chat template as the types of alignment ask for it."""

    template: Template

    def __call__(self, messages: Sequence[dict[str, str]], *, generate: bool) -> str:
        return self.template.render(list(messages), prompt=generate)


def _apart(example: Any) -> list[Any]:
    """The two judged answers of a pair; what is one already."""
    if not isinstance(example, Pair):
        return [example]
    return [Judged(example.prompt, example.chosen, label=True), Judged(example.prompt, example.rejected, label=False)]


def _sequences(tokens: AlignedTokens) -> list[Tokens]:
    """What the model reads: answers behind their prompt, which is not trained."""
    match tokens:
        case PairTokens(prompt, chosen, rejected):
            return [_answered(prompt, chosen), _answered(prompt, rejected)]
        case JudgedTokens(prompt, completion):
            return [_answered(prompt, completion)]
        case ComparedTokens(chosen, rejected):
            return [Tokens(chosen, list(chosen)), Tokens(rejected, list(rejected))]
        case StepTokens(ids, labels):
            return [Tokens(ids, labels)]
        case AskedTokens():
            raise AssertionError("prompts without answers are for methods that generate")


def _answered(prompt: list[int], answer: list[int]) -> Tokens:
    return Tokens(prompt + answer, [IGNORED] * len(prompt) + answer)


def _value(tokens: AlignedTokens) -> float:
    """Whether a judged answer is wanted; of judged steps, whether any is right (1), any wrong (2), or both (3)."""
    match tokens:
        case JudgedTokens():
            return float(tokens.label)
        case StepTokens(_, labels):
            return float((1 in labels) + 2 * (0 in labels))
        case _:
            return 0.0


def _margin(row: dict[str, Any]) -> float:
    """How much better the chosen answer is, where the data says it: a column `margin`."""
    value = row.get(_MARGIN)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise RowError(f"margin must be a number that is not negative, got {formats.values.shown(value)}")
    return float(value)
