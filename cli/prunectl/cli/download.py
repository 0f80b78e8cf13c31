"""A job's checkpoint on this disk: whole and verified, or not there at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from prunectl.cli.client import Client
from prunectl.errors import DiskFull, InvalidInput, PrunectlError

SUMS = "SHA256SUMS"


class DownloadCorrupt(PrunectlError):
    """What arrived is not what the checkpoint's SHA256SUMS says."""

    code = "download_corrupt"


def fetch_checkpoint(client: Client, job_id: str, directory: Path) -> None:
    """Download into a folder beside ``directory``, verify, and rename.

    Raises InvalidInput where ``directory`` holds something already, DownloadCorrupt where a file is not as listed.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidInput(
            f"directory: {str(directory)!r} is there already and not empty",
            field="directory",
            value=str(directory),
            hint="name a new one",
        )
    files = client.artifacts(job_id)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise InvalidInput(
            f"directory: can't write to {str(directory.parent)!r}: {error.strerror}",
            field="directory",
            value=str(directory),
        ) from error
    try:
        for file in files:
            _fetch(client, job_id, str(file["path"]), int(file["size"]), staging)
        verify(staging)
        staging.chmod(0o777 & ~_umask())
        if directory.exists():
            directory.rmdir()
        staging.rename(directory)
    except OSError as error:
        raise DiskFull(f"can't write {str(directory)!r}: {error.strerror or error}", hint="check free space") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def fetch_file(client: Client, job_id: str, name: str, path: Path, *, option: str) -> None:
    """One file of a job at ``path``, whole or not there; what was there is replaced. See `write_file`."""
    write_file(path, client.download(job_id, name), option=option)


def write_file(path: Path, chunks: Iterable[bytes], *, option: str) -> None:
    """Write beside ``path`` and rename. Raises InvalidInput (field ``option``) where that can't be written."""
    staging = path.with_name(f".{path.name}.part")
    try:
        with staging.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        staging.replace(path)
    except OSError as error:
        raise InvalidInput(
            f"{option}: can't write {str(path)!r}: {error.strerror}", field=option, value=str(path)
        ) from error
    finally:
        staging.unlink(missing_ok=True)


def verify(directory: Path) -> None:
    """Raises DownloadCorrupt unless SHA256SUMS names every other file, each with the digest that it has."""
    sums = directory / SUMS
    if not sums.is_file():
        raise DownloadCorrupt(f"the checkpoint has no {SUMS}", hint="run the job again")
    expected = {}
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        expected[name.removeprefix("./")] = digest
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()} - {SUMS}
    if difference := present ^ set(expected):
        raise DownloadCorrupt(f"{SUMS} and the files differ in {', '.join(sorted(difference))}", hint="pull again")
    for name, digest in expected.items():
        with (directory / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DownloadCorrupt(f"{name} is not what {SUMS} says", hint="pull again")


def _fetch(client: Client, job_id: str, path: str, size: int, staging: Path) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise DownloadCorrupt(f"the service named a file outside the checkpoint: {path!r}")
    target = staging.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for chunk in client.download(job_id, path):
            file.write(chunk)
    if target.stat().st_size != size:
        raise DownloadCorrupt(f"{path} broke off after {target.stat().st_size} of {size} bytes", hint="pull again")


def _umask() -> int:
    # There is no way to read it but to set it; the command line has one thread.
    value = os.umask(0)
    os.umask(value)
    return value
