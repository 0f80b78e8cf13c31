"""``--data``, ``--calibration``, ``--vocab`` and ``--recover-data``: a local file becomes an upload by digest, everything else passes
through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunectl.errors import InvalidInput, nearest

SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
FLAGS = ("data", "calibration", "vocab", "recover_data")


def local_files(values: dict[str, Any]) -> dict[str, Path]:
    """The flags among ``values`` whose value is a local file; raises InvalidInput for a path where there is none."""
    found = {}
    for flag in FLAGS:
        value = values.get(flag)
        if isinstance(value, str) and (path := _local(flag, value)) is not None:
            found[flag] = path
    return found


def referenced(values: dict[str, Any], files: dict[str, Path], send: Callable[[str, Path], None]) -> dict[str, Any]:
    """``values`` with each local file sent (through ``send(sha256, path)``) and named by its digest."""
    changed = dict(values)
    for flag, path in files.items():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        send(digest, path)
        changed[flag] = f"upload:sha256:{digest}/{path.name}"
    return changed


def _local(flag: str, value: str) -> Path | None:
    if value.startswith(("builtin:", "upload:")):
        return None
    path = Path(value).expanduser()
    if path.is_file():
        return path
    if not _looks_like_path(value):
        return None
    if path.is_dir():
        raise InvalidInput(f"{flag}: {value!r} is a directory, not a file", field=flag, value=value)
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, names)
    hint = f"did you mean {path.parent / near}?" if near else f"a file ends in {', '.join(SUFFIXES)}"
    raise InvalidInput(f"{flag}: no file {value!r}", field=flag, value=value, hint=hint)


def _looks_like_path(value: str) -> bool:
    return value.endswith(SUFFIXES) or value.startswith(("/", "./", "../", "~")) or Path(value).is_dir()
