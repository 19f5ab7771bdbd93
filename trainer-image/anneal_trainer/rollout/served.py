"""What rank 0 serves to the loaders beside the servers: adapters, by the launcher's own port.

Not here: the launcher's server (`server`), and what fetches (`loader`).
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Served:
    """Adapters in `directory` (records/adapters), served by the launcher at /adapters/NAME/FILE on `port`."""

    directory: Path
    port: int
