"""`python -m anneal_trainer prepare | train | quickstart`: what a container is given as its arguments.

`prepare` and `train` are PID 1 of a pod: see `launcher`. Not here: anything that takes long to import.
"""

import os
import signal
import sys

# The kernel keeps signals from a PID 1 that handles none: a pod that is stopped while this program loads would hold its
# GPUs for the whole grace period. Nothing has begun then: 75 says that it may be tried again. The launcher takes over.
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))

import argparse
from pathlib import Path

from anneal_api.meta import CONFIG_DIR, PROGRESS_PORT, TERMINATION_MESSAGE_PATH, VOLUMES_DIR


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "quickstart":
        return _quickstart(options.out)
    from anneal_trainer import launcher

    return launcher.main(
        options.command,
        config_dir=options.config,
        volumes_dir=options.volumes,
        last_words=options.termination_log,
        port=options.port,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m anneal_trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (("prepare", "check the model and make the data"), ("train", "train on prepared data")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--config", type=Path, default=Path(CONFIG_DIR), help="the directory of job.json")
        command.add_argument("--volumes", type=Path, default=Path(VOLUMES_DIR), help="a directory for each claim")
        command.add_argument("--termination-log", type=Path, default=Path(TERMINATION_MESSAGE_PATH))
        command.add_argument("--port", type=int, default=PROGRESS_PORT, help="where progress is served")
    quickstart = commands.add_parser("quickstart", help="make a small model and a data set to learn with")
    quickstart.add_argument("--out", type=Path, required=True, help="the directory to make them in")
    return parser


def _quickstart(out: Path) -> int:
    from anneal_trainer import quiet_libraries
    from anneal_trainer.quickstart.build import build

    quiet_libraries.apply()
    made = build(out)
    data = ", ".join(sorted(f"data/{path.name}" for path in (out / "data").iterdir()))
    print(f"{out}: {f'made model/, {data}' if made else 'already there'}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
