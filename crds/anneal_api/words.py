"""Numbers and other people's texts in sentences. Not here: sentences."""


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def on_one_line(text: str, most: int) -> str:
    r"""What a model said, for a terminal, which would obey its control characters.

    >>> on_one_line("so:\n\x1b[2J 42", 80), on_one_line("a b c", 3), on_one_line("", 3)
    ('so: \ufffd[2J 42', 'a b…', '(nothing)')
    """
    flat = "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))
    if not flat:
        return "(nothing)"
    return flat if len(flat) <= most else f"{flat[:most]}…"
