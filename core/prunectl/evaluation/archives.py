"""Archives: a folder of images as one ZIP file, classes by directory or by a metadata file. No torch.

The layout is that of the Hub's imagefolder: ``cat/1.png``, or images and a ``metadata.jsonl`` (or ``.csv``) with
``file_name`` and ``label``. Nothing is ever unpacked to disk; a name can only mean an entry of the archive.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from prunectl.errors import nearest
from prunectl.evaluation.pictures import SUFFIXES
from prunectl.evaluation.readers import read_csv, read_json_lines
from prunectl.evaluation.rows import File, Row

METADATA = {"metadata.jsonl": read_json_lines, "metadata.csv": read_csv}
MAX_IMAGE_BYTES = 64 * 2**20
MAX_BYTES = 4 * 2**30
"""Of all images together, unpacked: more is no data to measure a model on, but an archive made to fill a disk."""


def read_archive(file: File, content: bytes) -> Iterator[Row]:
    """A row an image, in the order of their names: ``image`` with ``bytes`` and ``path``, and ``label``.

    Raises InvalidData where it is no ZIP file, holds no image, names one outside itself or one that it doesn't hold.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError) as error:
        raise file.fault(f"is not a ZIP file: {error}") from error
    with archive:
        entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        for name in entries:
            _confined(file, name)
        if sum(entry.file_size for entry in entries.values()) > MAX_BYTES:
            raise file.fault(f"unpacks to more than {MAX_BYTES} bytes")
        described = next((name for name in METADATA if name in entries), None)
        if described is not None:
            rows = _described(file, archive, entries, described)
        else:
            images = sorted(name for name in entries if _is_image(name))
            if not images:
                raise file.fault("holds no image", hint=f"what is read ends in {', '.join(SUFFIXES)}")
            rows = ((row, name, {"label": _class(name)}) for row, name in enumerate(images, 1))
        for row, name, columns in rows:
            yield row, {**columns, "image": {"bytes": _read(file, archive, entries[name]), "path": name}}


def _described(
    file: File, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], metadata: str
) -> Iterator[tuple[int, str, dict[str, object]]]:
    """The rows of a metadata file and the entry that each names."""
    inner = replace(file, name=f"{file.name}/{metadata}", columns={"image": "file_name", **file.columns})
    for row, record in METADATA[metadata](inner, _read(inner, archive, entries[metadata])):
        name = record.get(inner.column("image", record))
        if not isinstance(name, str) or not name:
            raise inner.fault(f"row {row} has no {inner.columns['image']}")
        _confined(inner, name)
        known = str(PurePosixPath(name))
        if known not in entries:
            close = nearest(known, entries)
            raise inner.fault(
                f"row {row} names the image {name!r}, which isn't in the folder",
                hint=f"did you mean {close}?" if close else None,
            )
        label = record.get(inner.column("label", record))
        yield row, known, {file.column("label", ("label",)): label}


def _confined(file: File, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or (path.parts and ":" in path.parts[0]):
        raise file.fault(f"names {name!r}, which is outside the folder")


def _read(file: File, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > MAX_IMAGE_BYTES:
        raise file.fault(f"holds {entry.filename} of {entry.file_size} bytes; at most {MAX_IMAGE_BYTES} are read")
    try:
        return archive.read(entry)  # never more than its header says
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise file.fault(f"holds {entry.filename}, which can't be unpacked: {error}") from error


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _class(name: str) -> str | None:
    """The directory that an image lies in; of one that lies in none, nothing is known."""
    return PurePosixPath(name).parent.name or None
