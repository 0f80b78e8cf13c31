"""Shared storage in a local (or network-mounted) directory."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from prunectl.errors import Conflict, DiskFull, InvalidInput, NotFound, Unavailable
from prunectl.storage.names import STAGING_PREFIX, checked, staged


class LocalStorage:
    """`prunectl.jobs.ports.Storage` below one directory. A symbolic link that leads out of it is refused."""

    def __init__(self, root: Path) -> None:
        root = root.expanduser().absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"can't make the storage directory {root}: {error.strerror}") from error
        self.root = root.resolve()

    def _path(self, name: str, *, root_allowed: bool = False) -> Path:
        path = self.root / checked(name, root_allowed=root_allowed)
        if not path.resolve().is_relative_to(self.root):
            raise InvalidInput(f"{name!r} leads out of the storage", field="path", value=name)
        return path

    def uri(self, name: str) -> str:
        return (self.root / checked(name, root_allowed=True)).as_uri()

    def name_of(self, uri: str) -> str | None:
        parts = urlsplit(uri)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            return None
        path = Path(unquote(parts.path))
        if ".." in path.parts or not path.is_relative_to(self.root) or path == self.root:
            return None
        return path.relative_to(self.root).as_posix()

    def publish(self, source: str, name: str) -> str:
        target = self._path(name)
        if target.exists():
            raise Conflict(f"{name} is published already", value=name)
        origin = Path(source)
        _refuse_links(origin)
        staging = self.root / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
        with _disk_errors(name):
            try:
                try:
                    origin.rename(staging)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    shutil.copytree(origin, staging, copy_function=_copy_file)
                _sync_tree(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                staging.rename(target)
                _sync(target.parent)
            finally:
                shutil.rmtree(staging, ignore_errors=True)  # after a success there is nothing left to remove
        shutil.rmtree(origin, ignore_errors=True)  # the copied original, in the worker's scratch
        return self.uri(name)

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        with self.open(name) as file:
            file.seek(offset)
            data: bytes = file.read(-1 if length is None else length)
            return data

    def write(self, name: str, data: bytes) -> None:
        self.write_stream(name, [data])

    def write_stream(self, name: str, chunks: Iterable[bytes]) -> int:
        path = self._path(name)
        staging = path.with_name(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        with _disk_errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with staging.open("xb") as file:
                    size = sum(file.write(chunk) for chunk in chunks)
                    file.flush()
                    os.fsync(file.fileno())
                staging.replace(path)
                _sync(path.parent)
            finally:
                staging.unlink(missing_ok=True)
        return size

    def append(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with _disk_errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(data)

    def size(self, name: str) -> int | None:
        path = self._path(name)
        return path.stat().st_size if path.is_file() else None

    def list(self, name: str) -> list[str]:
        top = self._path(name, root_allowed=True)
        found = (
            path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file() and not path.is_symlink()
        )
        return sorted(name for name in found if not staged(name))

    def open(self, name: str) -> AbstractContextManager[Any]:
        path = self._path(name)
        if not path.is_file():
            raise NotFound(f"{name} is not in the storage", value=name)
        return path.open("rb")

    @contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        path = self._path(name)
        if not path.is_file():
            raise NotFound(f"{name} is not in the storage", value=name)
        yield path

    def remove(self, name: str) -> None:
        path = self._path(name)
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        elif path.is_dir():
            # Out of sight at once, so that no reader sees half of it, and collected later if we die in between.
            staging = self.root / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
            with suppress(FileNotFoundError):  # another removes it at the same time
                path.rename(staging)
            while staging.exists():
                with suppress(FileNotFoundError):  # a collector removes the same files
                    shutil.rmtree(staging)

    def children(self, name: str) -> Iterator[tuple[str, float]]:
        top = self._path(name, root_allowed=True)
        try:
            paths = sorted(top.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for path in paths:
            try:
                modified = path.lstat().st_mtime
            except FileNotFoundError:  # removed since it was listed
                continue
            yield path.name, modified


def _copy_file(source: str, target: str) -> None:
    # An OSError would be collected by copytree, and its errno lost in a list of texts.
    with _disk_errors(target):
        shutil.copyfile(source, target)


def _refuse_links(directory: Path) -> None:
    if not directory.is_dir():
        raise NotFound(f"{directory} is not a directory", value=str(directory))
    links = [path for path in directory.rglob("*") if path.is_symlink()]
    if links:
        raise InvalidInput(f"{links[0].name} is a symbolic link: only plain files are published", field="path")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(top: Path) -> None:
    for path in top.rglob("*"):
        _sync(path)
    _sync(top)


@contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space in the storage for {name}", hint="free some space, then retry the job") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise Unavailable(f"the storage can't be written: {error.strerror}", hint="prunectl doctor") from error
        raise
