"""Rows of a measurement: printed as a table and written as JSON. Not here: any judgement; no figure fails a run."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One figure beside the reference of the same run and the target it is meant to meet."""

    what: str
    ours: float
    reference: float | None
    unit: str
    target: str

    @property
    def ratio(self) -> float | None:
        """Ours over the reference."""
        return self.ours / self.reference if self.reference else None


def report(name: str, rows: Iterable[Row]) -> None:
    """Print the rows and write `results/NAME.json`."""
    listed = list(rows)
    print(f"\n{name}  ({os.cpu_count()} cores, Python {platform.python_version()})")
    print(f"{'what':<52}{'ours':>12}{'reference':>12}{'ratio':>8}  {'unit':<12}target")
    for row in listed:
        reference = f"{row.reference:.3f}" if row.reference is not None else "-"
        ratio = f"{row.ratio:.3f}" if row.ratio is not None else "-"
        print(f"{row.what:<52}{row.ours:>12.3f}{reference:>12}{ratio:>8}  {row.unit:<12}{row.target}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    document = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count()}
    document |= {"rows": [asdict(row) | {"ratio": row.ratio} for row in listed]}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
