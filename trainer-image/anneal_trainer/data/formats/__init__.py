"""One pure function per dataset type: from a row to an `Example`.

A new type is its line in `anneal_api.columns` and its entry here or in a family's table. Not here: rows of pairs,
judgements, steps and prompts, which no FineTuneJob trains on (`anneal_trainer.data.alignment`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from anneal_api.chat import CHAT_TYPES, chat_options
from anneal_api.columns import ALL_TRAINED, DETECTED, READS
from anneal_api.dataset import DatasetFields, DatasetSpec, DatasetType
from anneal_trainer.data.formats import chat, completion, dialogue, instruction, segments, tokenized, values
from anneal_trainer.data.pieces import Example, RowError, Text, all_trained
from anneal_trainer.errors import ConfigError

Row = dict[str, Any]
Format = Callable[[Row], Example]


def formatter(dataset: DatasetSpec, *, renderer: Callable[[], chat.Renderer]) -> Format:
    """The function of one data set, whose type is given or was detected; `renderer` makes the chat renderer."""
    assert dataset.type is not None, "the type is detected before rows are formatted"
    idle = chat_options(dataset)
    if idle and dataset.type not in CHAT_TYPES:
        raise ConfigError(
            f"{', '.join(idle)} cannot act on rows of type {dataset.type}, as {dataset.source} has: leave it out"
        )
    made = Checked(_of_kind(dataset, dataset.type, renderer))
    # Conversations train what every role says; what a template writes around it stays a frame.
    if not dataset.train_on_inputs or dataset.type in CHAT_TYPES:
        return made
    if dataset.type in ALL_TRAINED:
        raise ConfigError(
            f"trainOnInputs does nothing for {dataset.source}, whose type is {dataset.type}: leave it out"
        )
    return lambda row: all_trained(made(row))


@dataclass(frozen=True)
class Checked:
    """A format that refuses what no tokenizer takes: half of a character, which JSON can spell and text cannot hold."""

    made: Format

    def __call__(self, row: Row) -> Example:
        """One row."""
        try:
            example = self.made(row)
            for piece in example.pieces if isinstance(example, Text) else ():
                if not piece.text.isascii():
                    piece.text.encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start].encode("unicode_escape").decode()
            before = values.shown(error.object[max(0, error.start - 20) : error.start])
            raise RowError(
                f"holds {half} after {before}, half of a character: write both halves, or the character as UTF-8"
            ) from error
        except RecursionError as error:
            raise RowError("is nested too deeply: hundreds of lists or objects stand in one another") from error
        return example


def _of_kind(dataset: DatasetSpec, kind: DatasetType, renderer: Callable[[], chat.Renderer]) -> Format:
    columns, made = values.columns(kind, dataset.fields), _RAW.get(kind)
    if made is not None:
        return lambda row: made(row, columns)
    match kind:
        case "chat_template":
            return chat.ChatFormat(dataset, renderer())
        case "messages":
            return chat.WeightedFormat(dataset, renderer())
        case "user_defined":
            assert dataset.format is not None, "a rule of the spec: user_defined has a format"
            worded = instruction.user_defined(dataset.format)
        case "reflection" | "reflection:instruct" | "reflection:chat":
            return lambda row: instruction.reflection(kind, row, columns)
        case _:
            worded = instruction.KINDS[kind]
    return lambda row: worded.example(row, columns)


_RAW: dict[str, Callable[[Row, values.Columns], Example]] = {
    "pygmalion": dialogue.pygmalion,
    "llama2_chat": dialogue.llama2_chat,
    "input_output": segments.example,
    "completion": completion.completion,
    "pretrain": completion.pretrain,
    "tokenized": tokenized.example,
}


def needed(kind: DatasetType, fields: DatasetFields | None) -> dict[str, tuple[str, ...]]:
    """For each thing the type cannot do without: the columns of which one must be there, by its name in `fields`."""
    names = values.columns(kind, fields).names
    return {slot: names[slot] for slot, column in READS[kind].items() if column.required}


def detect(columns: Iterable[str], fields: DatasetFields | None) -> DatasetType | None:
    """The type that the columns speak of, the most telling first; it reads every column that `fields` names."""
    present = set(columns)
    named = set() if fields is None else {slot for slot, name in fields if name is not None}
    for kind, telling in DETECTED:
        names = values.columns(kind, fields).names
        slots = [slot for slot, column in READS[kind].items() if column.required or slot == telling]
        if named <= set(names) and all(present.intersection(names[slot]) for slot in slots):
            return kind  # type: ignore[return-value] # a test holds that every entry is a type
    return None


# Names that people give a question and its answer; what an answer is to is a person's to say.
_ASKED = ("question", "prompt", "query", "instruction", "input", "problem")
_ANSWERED = ("answer", "completion", "response", "output", "solution")


def choices(columns: Iterable[str], fields: DatasetFields | None) -> str:
    """What `type` can be where the columns do not say how they are worded; empty if they are no question and answer."""
    present, given = set(columns), values.renamed(fields)
    reads = {kind: slots for kind, slots in READS.items() if kind != "user_defined"}
    found = [", ".join(values.fitting(reads, given, present))]
    asked, answered = (next((name for name in known if name in present), None) for known in (_ASKED, _ANSWERED))
    if asked and answered and not given:
        found.append(f"alpaca or user_defined with fields: {{instruction: {asked}, output: {answered}}}")
    return ", or ".join(filter(None, found))


def _told(kind: str) -> str:
    wanted = [" or ".join(column.names) for column in READS[kind].values() if column.required]
    return f"{' and '.join(wanted)} ({kind})"


EXPECTED = (
    ", ".join(_told(kind) for kind in ("chat_template", "alpaca", "completion", "input_output", "tokenized"))
    + ", or the columns of another type in docs/dataset-types.md"
)
