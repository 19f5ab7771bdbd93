"""Conversations from rows to ids and labels, beside the bare tokenizers batch call on the same rendered text.

Both use the same two processes, started and warmed before the clock runs. Ours is everything between a row in memory
and its labels: reading turns, rendering, finding the turns and their ends, tokenizing, labels. Reading JSONL and
writing Arrow are measured with the whole preparing, not here.
"""

import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from table import Row, report

from anneal_api.dataset import DatasetSpec
from anneal_trainer.data import formats
from anneal_trainer.data.encode import Encoder
from anneal_trainer.data.formats.chat import Renderer
from anneal_trainer.data.formats.chat.known import TEMPLATES

ROWS, PROCESSES, CHUNK, ROUNDS = 100_000, 2, 512, 2
_VOCABULARY = 4000
_state: dict[str, Any] = {}


def rows(count: int) -> list[dict[str, Any]]:
    """Conversations of two to six turns, the same every time."""
    chance = random.Random(0)
    words = ["".join(chance.choices("aeioulnrst", k=chance.randint(1, 9))) for _ in range(2000)]

    def text() -> str:
        return " ".join(chance.choices(words, k=chance.randint(5, 60)))

    roles = ["user", "assistant"]
    made = []
    for _ in range(count):
        turns = [{"role": roles[i % 2], "content": text()} for i in range(2 * chance.randint(1, 3))]
        made.append({"messages": [{"role": "system", "content": "Be brief."}, *turns] if len(made) % 3 else turns})
    return made


def tokenizer() -> Any:
    """A byte-level BPE with ChatML's tokens, trained on some of the rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = (turn["content"] for row in rows(2000) for turn in row["messages"])
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=special[-1],
        additional_special_tokens=special,
        chat_template=TEMPLATES["chatml"],
    )


def start(made: Any) -> None:
    """What a process needs, made once."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    entry = DatasetSpec(source="./rows.jsonl", type="chat_template")
    renderer = Renderer.of(made, own=made.chat_template)
    _state["form"] = formats.formatter(entry, renderer=lambda: renderer)
    _state["encoder"] = Encoder.of(made, len(made))


def ours(chunk: list[dict[str, Any]]) -> int:
    """Rows to ids and labels; only a count goes back, as the bare call sends nothing back either."""
    form, encoder = _state["form"], _state["encoder"]
    return sum(len(tokens.labels) for tokens in encoder.encode([form(row) for row in chunk]))


def texts_of(chunk: list[dict[str, Any]]) -> list[str]:
    """The rendered text, for the bare call."""
    return [_state["form"](row).pieces[0].text for row in chunk]


def bare(texts: list[str]) -> int:
    """The library's own batch call."""
    backend = _state["encoder"].tokenizer.backend_tokenizer
    return sum(len(encoding.ids) for encoding in backend.encode_batch(texts, add_special_tokens=False))


def timed(pool: ProcessPoolExecutor, work: Callable[[Any], int], chunks: list[Any]) -> tuple[float, int]:
    """Seconds for all chunks, and the tokens made."""
    begin = time.perf_counter()
    tokens = sum(pool.map(work, chunks))
    return time.perf_counter() - begin, tokens


def measure(count: int = ROWS) -> list[Row]:
    """The ratio of each round, and of them the median."""
    made, given = tokenizer(), rows(count)
    chunks = [given[first : first + CHUNK] for first in range(0, count, CHUNK)]
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), initializer=start, initargs=(made,)) as pool:
        texts = list(pool.map(texts_of, chunks))
        pairs = []
        for _ in range(ROUNDS):
            (mine, tokens), (plain, same) = timed(pool, ours, chunks), timed(pool, bare, texts)
            assert tokens == same, f"{tokens} tokens where the bare call makes {same}"
            pairs.append((mine, plain))
    ratio = statistics.median(mine / plain for mine, plain in pairs)
    median = statistics.median(mine for mine, _ in pairs)
    return [Row(f"{count:,} conversations to ids and labels", median, median / ratio, "s", "<= 2.5x, aim 1.5x")]


def main() -> None:
    """Measure and report."""
    report("chat_rows", measure())


if __name__ == "__main__":
    main()
