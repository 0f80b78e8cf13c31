"""What a checkpoint directory says of itself: prunectl.json and SHA256SUMS. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from prunectl.errors import CorruptWeights

MANIFEST = "prunectl.json"
SUMS = "SHA256SUMS"
WEIGHTS = "model.safetensors"
CONFIG_KEY = "prunectl"
"""The key of config.json that holds the shapes."""
MAX_JSON_BYTES = 256 * 2**20
"""A kept list of a large model is some megabytes; anything beyond this is not one of ours."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CorruptWeights where it is missing, oversized or something else."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CorruptWeights(f"{path.name} is larger than {MAX_JSON_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorruptWeights(f"{path.parent} has no {path.name}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptWeights(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptWeights(f"{path.name} is not a JSON object")
    return document


def write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The content of prunectl.json; raises CorruptWeights."""
    return read_json(directory / MANIFEST)


def write_manifest(directory: Path, document: dict[str, Any]) -> None:
    write_json(directory / MANIFEST, document)


def seal(directory: Path) -> None:
    """Write SHA256SUMS over every other file of ``directory``, in the format of ``sha256sum``."""
    files = sorted(file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())
    lines = [f"{_digest(directory / name)}  {name}\n" for name in files if name != SUMS]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def verify(directory: Path) -> None:
    """Check every file that SHA256SUMS lists. Raises CorruptWeights where one is missing, damaged or outside the
    directory, and where the sums don't cover the configuration and the weights.
    """
    listed: set[str] = set()
    sums = directory / SUMS
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise CorruptWeights(f"{SUMS} is missing or not text") from error
    for number, line in enumerate(lines, 1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise CorruptWeights(f"{SUMS}, line {number}: not a digest and a name")
        path = inside(directory, name)
        if not path.is_file():
            raise CorruptWeights(f"{name} is missing", hint="pull the checkpoint again")
        if _digest(path) != digest:
            raise CorruptWeights(
                f"{name} is not what {SUMS} says: the file is damaged", hint="pull the checkpoint again"
            )
        listed.add(name)
    uncovered = {"config.json", WEIGHTS} - listed
    if uncovered:
        raise CorruptWeights(f"{SUMS} doesn't cover {', '.join(sorted(uncovered))}")


def inside(directory: Path, name: str) -> Path:
    """``directory / name``; raises CorruptWeights for a name that leads out of the directory."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise CorruptWeights(f"{name!r} is not the name of a file of this checkpoint")
    return directory / parts


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync(directory: Path) -> None:
    """Push every file of ``directory`` to the disk, so that a later rename can't publish what a power cut empties."""
    for file in directory.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
