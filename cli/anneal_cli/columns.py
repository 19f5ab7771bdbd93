"""Tables and times for a terminal, as kubectl prints them: nothing is cut, so that output can be searched and copied.

Pure. Not here: colours and boxes, which do not survive a pipe.
"""

from collections.abc import Sequence
from datetime import datetime

GAP = "   "
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_INTEGRAL = 100  # from here on, digits after the point say nothing


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Aligned lines; an absent cell is empty, and only the last column may hold several lines."""
    cells = [[*header], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    indent = sum(widths) + len(GAP) * len(widths)
    return [_line(row, widths, indent) for row in cells]


def _line(row: Sequence[str], widths: Sequence[int], indent: int) -> str:
    fixed = "".join(f"{cell:<{width}}{GAP}" for cell, width in zip(row, widths, strict=False))
    return (fixed + f"\n{' ' * indent}".join(row[-1].splitlines())).rstrip()


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def pairs(rows: Sequence[tuple[str, object]]) -> list[str]:
    """`name  value` lines, those without a value left out."""
    shown = [(name, _cell(value)) for name, value in rows if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0)
    return [_line([name, value], [width], width + len(GAP)) for name, value in shown]


def duration(seconds: float) -> str:
    """Two units while the smaller one says something: 45s, 3m20s, 45m, 2h10m, 5d1h.

    >>> duration(45), duration(200), duration(2730), duration(7800), duration(90_000)
    ('45s', '3m20s', '45m', '2h10m', '1d1h')
    """
    total = max(0, int(seconds))
    if total < _MINUTE:
        return f"{total}s"
    if total < _HOUR:
        return _two(total, _MINUTE, "m", 1, "s") if total < 10 * _MINUTE else f"{total // _MINUTE}m"
    if total < _DAY:
        return _two(total, _HOUR, "h", _MINUTE, "m")
    return _two(total, _DAY, "d", _HOUR, "h")


def _two(total: int, large: int, unit: str, small: int, rest: str) -> str:
    remaining = total % large // small
    return f"{total // large}{unit}{f'{remaining}{rest}' if remaining else ''}"


def timestamp(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None where there is none."""
    return datetime.fromisoformat(text) if text else None


def age(text: str | None, now: datetime) -> str:
    """How long ago, or nothing."""
    then = timestamp(text)
    return duration((now - then).total_seconds()) if then else ""


def count(number: float | None) -> str | None:
    """A number with thousands separated."""
    if number is None:
        return None
    return f"{number:,.0f}" if number >= _INTEGRAL else f"{number:,.3g}"
