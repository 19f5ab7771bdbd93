"""The program of a reward's own process: it loads one function, and calls it as often as it is asked to.

`python -P child.py DESCRIPTOR WHERE NAME MEMORY`: WHERE is a file or a module, MEMORY the most bytes that it may map,
or 0. What is asked for comes in pickled, as it is the trainer's; what the function returns goes
out as JSON, so that nothing of it runs in the trainer. It ends when the trainer does.
Not here: starting, stopping and waiting (`keeper`). It imports nothing heavy: it is started again after each time-out.
"""

import asyncio
import importlib
import importlib.util
import inspect
import json
import math
import os
import pickle
import resource
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

_SHOWN = 300


def main(descriptor: str, where: str, name: str, memory: str) -> None:
    """Load, say so, and answer until the trainer has gone."""
    if int(memory):
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    connection = Connection(int(descriptor))
    asked: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_read, args=(connection, asked), daemon=True).start()
    loaded = _attempt(lambda: _load(where, name))
    call, needed = loaded.get("value", (None, None))
    _reply(connection, loaded | {"value": needed})
    if call is None:
        return
    loop = asyncio.new_event_loop()
    while True:
        question = asked.get()
        _reply(connection, _attempt(lambda: plain(_called(call, loop, question))))  # noqa: B023 - called at once


def _read(connection: Connection, asked: "SimpleQueue[bytes]") -> None:
    """A thread of its own, which sees the trainer go even while the function runs."""
    try:
        while True:
            asked.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _attempt(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": work()}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a person's function raises
        # The frames above are this program's, and of the import of a module.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith((__file__, "<frozen importlib")):
            trace = trace.tb_next
        # A syntax error shows its line even without frames; of others only the message would be left.
        lines = traceback.format_exception(type(error), error, trace) if trace or isinstance(error, SyntaxError) else []
        return {"error": f"{type(error).__name__}: {error}"[:_SHOWN], "trace": "".join(lines)}


def _reply(connection: Connection, reply: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(reply).encode())


def _load(where: str, name: str) -> tuple[Callable[..., Any], list[str]]:
    """The function, and the parameters that it cannot be called without."""
    module = _module_of(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    found = getattr(module, name, None)
    if found is None or not callable(found):
        held = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise LookupError(f"there is no function {name} in {Path(where).name}; its functions are: {held}")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(found).parameters.values()
    nameless = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY and each.default is each.empty]
    if nameless:
        raise TypeError(f"{name} is called by keyword, and takes {', '.join(nameless)} by position only: remove the /")
    needed = [each.name for each in parameters if each.kind in kinds and each.default is each.empty]
    return _named_only(found), needed


def _module_of(path: Path) -> Any:
    # Beside it there may be modules that it imports. Its own name could be that of a library.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"reward_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"  # noqa: PT018 - one thought
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _named_only(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes no `**columns` is given those that it names."""
    parameters = inspect.signature(call).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return call
    names = {parameter.name for parameter in parameters}
    return lambda *given, **named: call(*given, **{key: value for key, value in named.items() if key in names})


def _called(call: Callable[..., Any], loop: asyncio.AbstractEventLoop, question: bytes) -> Any:
    given, named = pickle.loads(question)  # noqa: S301 - the trainer's own words
    found = call(*given, **named)
    return loop.run_until_complete(_awaited(found)) if inspect.isawaitable(found) else found


async def _awaited(found: Any) -> Any:
    return await found


def plain(found: Any) -> Any:
    """A list of numbers as JSON has them; in place of what is none, what it is.

    >>> plain([1, True, None, "a"])
    [1.0, 1.0, None, {'unfit': "str 'a'"}]
    """
    if hasattr(found, "tolist"):
        found = found.tolist()
    return [_number(value) for value in found] if isinstance(found, list | tuple) else _unfit(found)


def _number(value: Any) -> Any:
    if value is None:
        return None
    try:
        # Numbers of numpy and torch too; a text has no such method.
        return float(value.__float__())
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return _unfit(value)


def _unfit(value: Any) -> dict[str, str] | None:
    return None if value is None else {"unfit": f"{type(value).__name__} {value!r}"[:_SHOWN]}


if __name__ == "__main__":
    main(*sys.argv[1:])
