"""Real English text on every machine: the language reference and docstrings that ship inside Python."""

from __future__ import annotations

import ast
import itertools
import re
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

from prunectl.errors import InvalidData

MINIMUM_WORDS = 6
# Modules with long prose docstrings, in every CPython from 3.11 on; parsed as text and never imported.
MODULES = """
    argparse ast asyncio/base_events asyncio/events asyncio/locks asyncio/queues asyncio/streams asyncio/tasks
    base64 bdb calendar codecs collections/__init__ concurrent/futures/_base configparser contextlib copy csv
    dataclasses datetime _pydatetime decimal _pydecimal difflib dis doctest email/header email/message enum
    fileinput fractions ftplib functools gettext glob gzip heapq http/client http/cookiejar http/server imaplib
    importlib/abc inspect io _pyio ipaddress json/__init__ locale logging/__init__ logging/handlers mailbox
    mimetypes multiprocessing/managers multiprocessing/pool optparse os pathlib pathlib/__init__ pdb pickle
    pickletools platform poplib pprint pydoc queue random re/__init__ sched selectors shelve shutil smtplib socket
    socketserver ssl statistics string subprocess sysconfig tarfile tempfile textwrap threading timeit
    tkinter/__init__ trace traceback turtle types typing unittest/case unittest/mock urllib/parse urllib/request
    uuid warnings weakref wsgiref/handlers xml/dom/minidom xml/etree/ElementTree zipfile zipfile/__init__
""".split()  # noqa: SIM905  (a list literal of these takes eighty lines)

_WORD = re.compile(r"[^\W\d_]{2,}")
_NOT_PROSE = re.compile(r"::=|>>>|->|={3,}|\*{3,}|-{4,}|\+--|\| |^\s*[@#]|\bself\.|\w\(\w+=|[{}\\]")
_BULLET = re.compile(r"^(?:[*+-]|\d+[.)]|\[\d+\])\s+")


def paragraphs() -> Iterator[tuple[str, str]]:
    """(source, prose paragraph), each text once; a source is ``topics/<topic>`` or ``library/<module>``.

    Lazy, because parsing the library's sources takes most of a second; the order is fixed for a given Python release.
    Raises InvalidData where Python came without its documentation.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InvalidData(
            "this Python installation has no documentation text (module pydoc_data)",
            hint="install the full Python standard library, or name a file with --data",
            field="data",
            value="builtin:python-docs",
        ) from error
    seen: set[str] = set()
    reference = ((f"topics/{name}", topics[name]) for name in sorted(topics))
    library = ((f"library/{name.removesuffix('/__init__')}", text) for name, text in _docstrings())
    for source, text in itertools.chain(reference, library):
        for paragraph in prose(text):
            if paragraph not in seen:
                seen.add(paragraph)
                yield source, paragraph


def prose(text: str) -> Iterator[str]:
    """The paragraphs of running text, each on one line; code, grammar, tables and headings are left out."""
    for block in re.split(r"\n[ \t]*\n", textwrap.dedent(text)):
        lines = [line.strip() for line in block.strip().splitlines()]
        if not lines or _NOT_PROSE.search(block):
            continue
        joined = _BULLET.sub("", " ".join(lines)).strip()
        tokens = joined.split()
        if len(_WORD.findall(joined)) < MINIMUM_WORDS or joined[-1] not in ".:!?)\"'":
            continue
        # Code and tables have few plain words among their tokens.
        if sum(bool(_WORD.search(token)) for token in tokens) < 0.7 * len(tokens):
            continue
        yield joined


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _docstrings() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for name in MODULES:
        path = root / f"{name}.py"
        if not path.is_file():  # modules come and go between releases, and some systems ship no sources
            continue
        texts = (ast.get_docstring(node) for node in _documented(ast.parse(path.read_bytes())))
        yield name, "\n\n".join(text for text in texts if text)


def _documented(node: ast.Module | ast.ClassDef) -> Iterator[_Documented]:
    """A module or class and what it defines; not the insides of functions, where walking would cost half a second."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _documented(child)
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
