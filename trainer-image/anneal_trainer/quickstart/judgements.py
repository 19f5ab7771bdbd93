"""Judgements to align with, made from the quickstart's rows: the same questions with answers of all kinds, and alone.

What is preferred can be measured: an answer of one sentence to one that goes on. Deterministic.
Not here: writing them anywhere.
"""

import re
from collections.abc import Iterator
from random import Random
from typing import Any

Row = dict[str, Any]

SEED = 7
STEP_ROWS = 1500
SHORTEST = 20


def chats(rows: list[dict[str, str]]) -> Iterator[Row]:
    """A question and its documentation as turns (`chat_template`)."""
    for row in rows:
        yield {"messages": [_asked(row), {"role": "assistant", "content": row["output"]}]}


def pairs(rows: list[dict[str, str]]) -> Iterator[Row]:
    """The first sentence is preferred to the whole (`chat_template.default`)."""
    for row in rows:
        if short := _sentence(row["output"]):
            yield {
                "messages": [_asked(row)],
                "chosen": {"role": "assistant", "content": short},
                "rejected": {"role": "assistant", "content": row["output"]},
            }


def judged(rows: list[dict[str, str]]) -> Iterator[Row]:
    """Answers one by one: of a sentence, wanted; longer ones, not (`chatml.prompt_pairs`)."""
    for number, row in enumerate(rows):
        if short := _sentence(row["output"]):
            wanted = number % 2 == 0
            yield {
                "prompt": _asked(row)["content"],
                "completion": short if wanted else row["output"],
                "label": wanted,
            }


def prompts(rows: list[dict[str, str]]) -> Iterator[Row]:
    """The question alone, as turns; the documentation in a column for rewards (`chat_template`)."""
    for row in rows:
        yield {"messages": [_asked(row)], "answer": row["output"]}


def steps() -> Iterator[Row]:
    """Sums in steps, half of them wrong from some step on (`stepwise_supervised`)."""
    random = Random(SEED)  # noqa: S311 - a reproducible choice, not a secret
    for number in range(STEP_ROWS):
        terms = [random.randrange(1, 50) for _ in range(4)]
        wrong = random.randrange(1, 4) if number % 2 else len(terms)
        total, lines, labels = terms[0], [], []
        for place, term in enumerate(terms[1:], start=1):
            result = total + term + (random.randrange(1, 9) if place == wrong else 0)
            lines.append(f"{total} + {term} = {result}")
            labels.append(place < wrong)
            total = result
        yield {"prompt": f"Add {', '.join(map(str, terms))}.\n", "completions": lines, "labels": labels}


def _asked(row: dict[str, str]) -> Row:
    context = f"\n\n{row['input']}" if row["input"] else ""
    return {"role": "user", "content": f"{row['instruction']}{context}"}


def _sentence(text: str) -> str:
    """The first sentence, if it is one and not all of the text."""
    found = re.match(r".+?[.!?](?=\s)", text, re.DOTALL)
    short = " ".join(found.group().split()) if found else ""
    return short if SHORTEST <= len(short) < len(text) - SHORTEST else ""
