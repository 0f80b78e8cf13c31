"""Scratch directories: one an attempt, removed after it, also when its supervisor was killed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_NEWBORN_SECONDS = 60.0


@contextmanager
def scratch_directory(top: Path, name: str) -> Iterator[Path]:
    """A new directory ``top/name`` (0700), locked while it is in use."""
    directory = top / name
    directory.mkdir(mode=0o700, parents=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield directory
    finally:
        _remove(directory)
        os.close(descriptor)


def collect_scratch(top: Path) -> list[str]:
    """Remove the directories whose supervisor is gone; their names."""
    removed: list[str] = []
    if not top.is_dir():
        return removed
    for directory in sorted(top.iterdir()):
        if not directory.is_dir() or time.time() - directory.stat().st_mtime < _NEWBORN_SECONDS:
            continue  # made just now: its supervisor may not have locked it yet
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            logger.info("removing left-over scratch %s", directory.name)
            _remove(directory)
            removed.append(directory.name)
        finally:
            os.close(descriptor)
    return removed


def _remove(directory: Path) -> None:
    def complain(_function: Any, path: str, info: Any) -> None:
        if not isinstance(info[1], FileNotFoundError):
            logger.warning("can't remove scratch %s: %s", path, info[1])

    shutil.rmtree(directory, onerror=complain)
