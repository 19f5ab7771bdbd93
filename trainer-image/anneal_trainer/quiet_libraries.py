"""What the libraries are told before they are imported: no progress bars, no advice, no telemetry.

Their warnings would bury ours; what matters of them is checked here by other means. Nothing that is already set is
changed.
"""

import logging
import os
import warnings

_SETTINGS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def hide_bars() -> None:
    """The one kind of progress bar that has no variable; call it once transformers is imported anyway."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def apply() -> None:
    """Call before the first heavy import."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|transformers|trl|peft|accelerate|datasets|bitsandbytes)(\..*)?")
