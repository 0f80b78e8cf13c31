"""Pictures: image files among the data, checked and decoded with Pillow. No torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

from prunectl.errors import InvalidData

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
INSTALL = "pip install 'prunectl[worker]'"


def check(name: str, content: bytes, *, field: str) -> None:
    """Raises InvalidData (``field``) naming the picture where its header or a checksum says that it is broken."""
    library = _library(field)
    _guarded(name, field, lambda: library.open(io.BytesIO(content), formats=FORMATS).verify())


def decoded(name: str, content: bytes, *, field: str) -> Any:
    """The picture as an RGB PIL image, turned as its camera says (EXIF); raises InvalidData (``field``) naming it where
    it can't be read to its end.
    """
    library = _library(field)
    from PIL import ImageOps

    def read() -> Any:
        return ImageOps.exif_transpose(library.open(io.BytesIO(content), formats=FORMATS)).convert("RGB")

    return _guarded(name, field, read)


def _guarded(name: str, field: str, read: Callable[[], Any]) -> Any:
    library = _library(field)
    # Pillow documents OSError and SyntaxError for a broken file; ValueError and EOFError come out of its decoders.
    broken: tuple[type[Exception], ...] = (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        library.DecompressionBombError,
        library.DecompressionBombWarning,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", library.DecompressionBombWarning)
        try:
            return read()
        except broken as error:
            raise InvalidData(
                f"image {name} can't be read: {error or type(error).__name__}",
                hint=f"replace it; what is read: {', '.join(FORMATS)}",
                field=field,
                value=name,
            ) from error


def _library(field: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidData("images need Pillow to be read", hint=INSTALL, field=field) from error
    return Image
