"""A storage for a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from prunectl.errors import InvalidInput, Unavailable, nearest
from prunectl.storage.local import LocalStorage

if TYPE_CHECKING:
    from prunectl.storage.remote import RemoteStorage


_S3 = ("s3", "s3a")


def open_storage(url: str) -> LocalStorage | RemoteStorage:
    """A path or ``file://`` URL is a local directory; other schemes go through fsspec.

    Raises InvalidInput for an unknown scheme, Unavailable where its driver is missing or the directory can't be made.
    """
    if "://" not in url:
        return LocalStorage(Path(url))
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise InvalidInput(
                f"{url!r} is not a local directory", hint="file:///absolute/path", field="storage_url", value=url
            )
        return LocalStorage(Path(unquote(parts.path)))
    if parts.scheme in _S3 and not parts.netloc:
        raise InvalidInput(f"{url!r} names no bucket", hint="s3://bucket/prefix", field="storage_url", value=url)
    return _remote(url, parts.scheme)


def _remote(url: str, scheme: str) -> RemoteStorage:
    import fsspec

    from prunectl.storage.remote import RemoteStorage

    known = fsspec.available_protocols()
    if scheme not in known:
        close = nearest(scheme, known)
        raise InvalidInput(
            f"unknown storage scheme {scheme!r}",
            hint=f"did you mean {close}://?" if close else "a path, file://, or s3:// with the extra",
            field="storage_url",
            value=url,
        )
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = "s3" if scheme in _S3 else None
        hint = f"pip install 'prunectl[{extra}]'" if extra else f"install fsspec's driver for {scheme}://"
        raise Unavailable(f"{scheme}:// storage needs a driver: {error}", hint=hint) from error
    return RemoteStorage(filesystem, root, scheme)
