"""Reasoning that stands inside an answer, between tags, taken out of it and put under a key of its own."""

from typing import Any

_THINKING = (
    ("<think>", "</think>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
_ANSWER = ("<|begin_of_solution|>", "<|end_of_solution|>")


def split(message: dict[str, Any], key: str) -> None:
    """Move the reasoning of `message` to `key`; what follows the tags is the content."""
    content = message.get("content", "")
    found = next((inside for tags in _THINKING if (inside := _between(content, tags))), None)
    if found is None:
        return
    thinking, rest = found
    rest = rest.lstrip()
    answer = _between(rest, _ANSWER)
    message[key] = thinking.strip()
    message["content"] = answer[0].strip() if answer else rest


def _between(text: str, tags: tuple[str, str]) -> tuple[str, str] | None:
    """What is between the first two tags, and what follows them."""
    start, end = text.find(tags[0]), text.find(tags[1])
    if start < 0 or end < start:
        return None
    return text[start + len(tags[0]) : end], text[end + len(tags[1]) :]
