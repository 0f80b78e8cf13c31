"""``--data``, ``--calibration``, ``--vocab`` and ``--recover-data``: a local file, or a folder of images, becomes an upload by digest,
everything else passes through.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunectl.errors import InvalidInput, TooLarge, nearest

SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet", ".zip")
FLAGS = ("data", "calibration", "vocab", "recover_data")


def local_files(values: dict[str, Any]) -> dict[str, Path]:
    """The flags among ``values`` whose value is a local file, or a directory; raises InvalidInput for a path where there
    is none.
    """
    found = {}
    for flag in FLAGS:
        value = values.get(flag)
        if isinstance(value, str) and (path := _local(flag, value)) is not None:
            found[flag] = path
    return found


def referenced(values: dict[str, Any], files: dict[str, Path], send: Callable[[str, Path], None]) -> dict[str, Any]:
    """``values`` with each local file sent (through ``send(sha256, path)``) and named by its digest; a directory is sent
    as the ZIP file of its images. Raises TooLarge, naming the flag and the file, where the service takes no such size.
    """
    changed = dict(values)
    for flag, path in files.items():
        with _as_file(flag, path) as single:
            with single.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            try:
                send(digest, single)
            except TooLarge as error:
                raise TooLarge(
                    f"{flag}: {str(path)!r} has {single.stat().st_size} bytes; {error.message}",
                    hint=error.hint,
                    field=flag,
                    value=str(path),
                ) from error
        changed[flag] = f"upload:sha256:{digest}/{single.name}"
    return changed


@contextmanager
def _as_file(flag: str, path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    from prunectl.cli.image_folder import pack

    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / f"{path.resolve().name or 'images'}.zip"
        pack(path, packed, flag=flag)
        yield packed


def _local(flag: str, value: str) -> Path | None:
    if value.startswith(("builtin:", "upload:")):
        return None
    path = Path(value).expanduser()
    if path.is_file():
        return path
    if not _looks_like_path(value):
        return None
    if path.is_dir():
        if flag == "vocab":
            raise InvalidInput(f"{flag}: {value!r} is a directory, not a file", field=flag, value=value)
        return path
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, names)
    hint = f"did you mean {path.parent / near}?" if near else f"a file ends in {', '.join(SUFFIXES)}"
    raise InvalidInput(f"{flag}: no file {value!r}", field=flag, value=value, hint=hint)


def _looks_like_path(value: str) -> bool:
    return value.endswith(SUFFIXES) or value.startswith(("/", "./", "../", "~")) or Path(value).is_dir()
