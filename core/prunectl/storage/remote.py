"""Shared storage through fsspec: ``s3://`` and whatever else is installed."""

from __future__ import annotations

import errno
import posixpath
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from prunectl.errors import Conflict, NotFound, Unavailable
from prunectl.storage.names import STAGING_PREFIX, checked, staged

LAST = "SHA256SUMS"
"""Moved last: object stores have no rename of a directory, and whoever waits for this file waits for all of them."""
REMOVALS = 3
"""How often one removal goes over what is left."""


@contextmanager
def _reached() -> Iterator[None]:
    """Raises Unavailable where the file system refuses or doesn't answer, whatever its driver calls that."""
    try:
        yield
    except _faults() as error:
        raise Unavailable(
            f"the storage doesn't answer as it should: {str(error) or type(error).__name__}",
            hint="prunectl doctor; check PRUNECTL_STORAGE_URL and the credentials for it",
        ) from error


def _faults() -> tuple[type[Exception], ...]:
    botocore = sys.modules.get("botocore.exceptions")  # loaded where S3 is what is talked to
    return (OSError,) if botocore is None else (OSError, botocore.BotoCoreError, botocore.ClientError)


class RemoteStorage:
    """`prunectl.jobs.ports.Storage` below ``root`` of an fsspec file system.

    The file system may keep listings, and other machines write too: whatever is asked for is looked up anew.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str, scheme: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._base = f"{scheme}://{self._root.lstrip('/')}"

    def _path(self, name: str, *, root_allowed: bool = False) -> str:
        checked(name, root_allowed=root_allowed)
        return f"{self._root}/{name}" if name else self._root

    def _fresh(self, name: str, *, root_allowed: bool = False) -> str:
        """The path, about which the file system no longer believes what it has heard."""
        path = self._path(name, root_allowed=root_allowed)
        self._fs.invalidate_cache(path)
        return path

    def _info(self, path: str) -> dict[str, Any] | None:
        """None where nothing is there. (fsspec's own tests for that take every fault for an absence.)"""
        try:
            found: dict[str, Any] = self._fs.info(path)
        except FileNotFoundError:
            return None
        return found

    def _is(self, path: str, kind: str) -> bool:
        return (self._info(path) or {}).get("type") == kind

    def uri(self, name: str) -> str:
        return f"{self._base}/{checked(name, root_allowed=True)}".rstrip("/")

    def name_of(self, uri: str) -> str | None:
        prefix = self._base + "/"
        name = uri.removeprefix(prefix)
        return name if uri.startswith(prefix) and name and ".." not in name.split("/") else None

    @_reached()
    def publish(self, source: str, name: str) -> str:
        target = self._fresh(name)
        if self._info(target) is not None:
            raise Conflict(f"{name} is published already", value=name)
        top = Path(source)
        if not top.is_dir():
            raise NotFound(f"{source} is not a directory", value=source)
        files = sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())
        files.sort(key=lambda file: file == LAST)
        staging = self._path(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        try:
            for file in files:
                self._fs.makedirs(posixpath.dirname(f"{staging}/{file}"), exist_ok=True)
                self._fs.put_file(str(top / file), f"{staging}/{file}")
            for file in files:
                self._fs.makedirs(posixpath.dirname(f"{target}/{file}"), exist_ok=True)
                self._fs.mv(f"{staging}/{file}", f"{target}/{file}")
        except BaseException:
            self._remove(target)
            raise
        finally:
            self._remove(staging)
        return self.uri(name)

    @_reached()
    def exists(self, name: str) -> bool:
        return self._info(self._fresh(name)) is not None

    @_reached()
    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        try:
            end = None if length is None else offset + length
            data: bytes = self._fs.cat_file(self._path(name), start=offset, end=end)
        except FileNotFoundError as error:
            raise NotFound(f"{name} is not in the storage", value=name) from error
        except OSError as error:
            # S3 has no range that begins at the end of an object.
            if error.errno != errno.EINVAL or offset < (self.size(name) or 0):
                raise
            return b""
        return data

    @_reached()
    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        self._fs.pipe_file(path, data)  # object stores show a new object whole or not at all

    @_reached()
    def write_stream(self, name: str, chunks: Iterable[bytes]) -> int:
        path, staging = self._path(name), self._path(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        try:
            with self._fs.open(staging, "wb") as file:
                size = sum(file.write(chunk) for chunk in chunks)
            self._fs.mv(staging, path)
        finally:
            self._remove(staging)
        return size

    @_reached()
    def append(self, name: str, data: bytes) -> None:
        path = self._fresh(name)
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        with self._fs.open(path, "ab") as file:
            file.write(data)

    @_reached()
    def size(self, name: str) -> int | None:
        found = self._info(self._fresh(name)) or {}
        return int(found["size"]) if found.get("type") == "file" else None

    @_reached()
    def list(self, name: str) -> list[str]:
        top = self._fresh(name, root_allowed=True)
        found = (path.removeprefix(top).lstrip("/") for path in self._fs.find(top))
        return sorted(name for name in found if not staged(name))

    @_reached()
    def open(self, name: str) -> AbstractContextManager[Any]:
        path = self._fresh(name)
        if not self._is(path, "file"):
            raise NotFound(f"{name} is not in the storage", value=name)
        file: AbstractContextManager[Any] = self._fs.open(path, "rb")
        return file

    @contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        with self.open(name) as source, tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / posixpath.basename(name)
            with copy.open("wb") as target, _reached():
                shutil.copyfileobj(source, target)
            yield copy

    @_reached()
    def remove(self, name: str) -> None:
        self._remove(self._path(name))

    def _remove(self, path: str) -> None:
        for _ in range(REMOVALS):
            self._fs.invalidate_cache(path)
            if self._info(path) is None:
                return
            with suppress(FileNotFoundError):  # another removes it at the same time: look again for what is left
                self._fs.rm(path, recursive=True)

    def children(self, name: str) -> Iterator[tuple[str, float]]:
        for entry in self._entries(name):
            path = entry["name"].rstrip("/")
            with _reached():
                try:
                    modified = self._modified(path, entry)
                except FileNotFoundError:  # removed since it was listed
                    continue
            yield posixpath.basename(path), modified

    @_reached()
    def _entries(self, name: str) -> Sequence[dict[str, Any]]:
        top = self._fresh(name, root_allowed=True)
        entries: Sequence[dict[str, Any]] = self._fs.ls(top, detail=True) if self._is(top, "directory") else ()
        return entries

    def _modified(self, path: str, entry: dict[str, Any]) -> float:
        """Seconds since the epoch; of a directory, which has no time in an object store, that of its newest file."""
        if entry["type"] != "directory":
            return _seconds(self._fs.modified(path))
        files = self._fs.find(path)
        return max((_seconds(self._fs.modified(file)) for file in files), default=0.0)


def _seconds(moment: datetime | float) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)
