"""The exit codes of `anneal run`, the trainer and the launcher: one protocol for shells and the operator.

0 is done. 64 to 74 and 76 to 78 (sysexits.h) mean that the user must change something: never retried.
75 is temporary: worth another attempt. 79 is ours: out of memory, retried with a smaller micro batch.
Anything else (1, 137, 139, …) is an infrastructure failure.
"""

from typing import Final

OK: Final = 0
USAGE: Final = 64
DATA: Final = 65
NO_INPUT: Final = 66
TEMPORARY: Final = 75
CONFIG: Final = 78
OUT_OF_MEMORY: Final = 79
USER_ERRORS: Final = (*range(64, 75), 76, 77, 78)


def is_user_error(code: int) -> bool:
    """Whether `code` says that only a change by the user can help."""
    return code in USER_ERRORS
