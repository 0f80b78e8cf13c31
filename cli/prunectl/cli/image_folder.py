"""A folder of images as one ZIP file, the same bytes for the same folder, so that it is sent once."""

from __future__ import annotations

import zipfile
from pathlib import Path

from prunectl.errors import InvalidInput

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
METADATA = ("metadata.jsonl", "metadata.csv")


def pack(folder: Path, target: Path, *, flag: str) -> None:
    """Write the images below ``folder`` and its metadata file to ``target``; hidden files stay out.

    Raises InvalidInput (``flag``) for a folder without images, and for a link that leads out of it.
    """
    root = folder.resolve()
    found = sorted(path for path in root.rglob("*") if path.is_file() and _belongs(path.relative_to(root)))
    if not any(path.suffix.lower() in SUFFIXES for path in found):
        raise InvalidInput(
            f"{flag}: the directory {str(folder)!r} holds no image",
            field=flag,
            value=str(folder),
            hint=f"a directory is data for models of images: one for each class, of files that end in {', '.join(SUFFIXES)}",
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # images are compressed already
        for path in found:
            if not path.resolve().is_relative_to(root):
                raise InvalidInput(f"{flag}: {str(path)!r} is a link that leads out of the directory", field=flag)
            entry = zipfile.ZipInfo(path.relative_to(root).as_posix())  # of 1980: times would make it another file
            archive.writestr(entry, path.read_bytes())


def _belongs(path: Path) -> bool:
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return False
    return path.suffix.lower() in SUFFIXES or str(path) in METADATA
