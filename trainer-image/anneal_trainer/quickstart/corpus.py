"""A real instruction data set out of the documentation that ships with Python itself.

It needs no network and no licence of a third party, and is large enough to learn from: thousands of rows, each a
question about a topic, module, class or function, with its documentation as the answer. The modules are named here
rather than taken from `sys.stdlib_module_names`, because importing some of those opens a browser or prints.
Deterministic for one Python version. Not here: writing it anywhere.
"""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

LONGEST_ANSWER = 900
SHORTEST_ANSWER = 20

MODULES = tuple(
    """
    abc argparse array ast asyncio base64 bisect builtins bz2 calendar cmath cmd code codecs codeop collections
    collections.abc colorsys compileall concurrent.futures configparser contextlib contextvars copy copyreg csv ctypes
    dataclasses datetime decimal difflib dis doctest email email.message email.policy email.utils enum errno
    faulthandler filecmp fileinput fnmatch fractions ftplib functools gc getopt getpass gettext glob graphlib gzip
    hashlib heapq hmac html html.parser http http.client http.cookiejar http.cookies http.server imaplib importlib
    importlib.abc importlib.machinery importlib.metadata importlib.resources importlib.util inspect io ipaddress
    itertools json json.decoder json.encoder keyword linecache locale logging logging.config logging.handlers lzma
    mailbox math mimetypes mmap modulefinder multiprocessing multiprocessing.pool netrc numbers operator optparse os
    os.path pathlib pdb pickle pickletools pkgutil platform plistlib poplib pprint profile pstats py_compile pyclbr
    pydoc queue quopri random re reprlib runpy sched secrets select selectors shelve shlex shutil signal smtplib socket
    socketserver sqlite3 ssl stat statistics string stringprep struct subprocess symtable sys sysconfig tabnanny tarfile
    tempfile textwrap threading time timeit token tokenize tomllib trace traceback tracemalloc types typing unicodedata
    unittest unittest.case unittest.mock urllib.error urllib.parse urllib.request urllib.robotparser uuid venv warnings
    wave weakref xml.dom.minidom xml.etree.ElementTree xml.sax xmlrpc.client zipapp zipfile zipimport zlib zoneinfo
    """.split()  # noqa: SIM905 - eighteen lines instead of two hundred
)


def rows() -> list[dict[str, str]]:
    """Every row, in a fixed order, each answer once (inherited docstrings repeat)."""
    seen: set[str] = set()
    found = []
    for row in (*_topics(), *_modules()):
        answer = row["output"]
        if len(answer) >= SHORTEST_ANSWER and answer not in seen:
            seen.add(answer)
            found.append(row)
    return found


def _row(instruction: str, documentation: str, context: str = "") -> dict[str, str]:
    return {"instruction": instruction, "input": context, "output": _leading_paragraphs(documentation)}


def _leading_paragraphs(text: str) -> str:
    """The whole paragraphs that fit, at least the first one cut at a line end."""
    kept = ""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        grown = f"{kept}\n\n{paragraph}" if kept else paragraph
        if len(grown) > LONGEST_ANSWER:
            break
        kept = grown
    if kept:
        return kept.strip()
    return text.strip()[:LONGEST_ANSWER].rpartition("\n")[0].strip()


def _topics() -> Iterator[dict[str, str]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        title, _, body = topics[name].strip().partition("\n")
        yield _row(f'Explain "{title.strip()}" in Python.', body.lstrip("*-=\n "))


def _modules() -> Iterator[dict[str, str]]:
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # a Python built without an optional part, such as sqlite3
            continue
        if module.__doc__:
            yield _row(f"What is the Python module `{name}` for?", module.__doc__)
        yield from _members(module, name)


def _members(module: ModuleType, name: str) -> Iterator[dict[str, str]]:
    for member, value in sorted(vars(module).items()):
        if member.startswith("_") or getattr(value, "__module__", name) != name:
            continue
        if inspect.isclass(value):
            yield from _class(value, f"{name}.{member}")
        elif inspect.isroutine(value) and value.__doc__:
            yield _row(f"What does the Python function `{name}.{member}` do?", value.__doc__, _signature(member, value))


def _class(cls: type, path: str) -> Iterator[dict[str, str]]:
    if cls.__doc__:
        yield _row(f"What is the Python class `{path}`?", cls.__doc__)
    for member, value in sorted(vars(cls).items()):
        documentation = getattr(value, "__doc__", None)
        described = inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod)
        if not member.startswith("_") and described and isinstance(documentation, str):
            yield _row(f"What does `{path}.{member}` do?", documentation, _signature(member, value))


def _signature(member: str, value: Any) -> str:
    """`dumps(obj, *, indent=None)`, or nothing for builtins that do not tell and for defaults that show an address."""
    try:
        text = f"{member}{inspect.signature(value)}"
    except (TypeError, ValueError):
        return ""
    return "" if " at 0x" in text else text
