"""Names inside shared storage: relative, '/' between parts, and no way out of the root."""

from __future__ import annotations

from prunectl.errors import InvalidInput

STAGING_PREFIX = ".tmp-"
"""What is being written; never listed, and collected when it is old."""


def checked(name: str, *, root_allowed: bool = False) -> str:
    """``name`` itself. Raises InvalidInput for an absolute name, an empty or '..' part, or a control character."""
    if root_allowed and name == "":
        return name
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(ord(char) < 32 or char in "\x7f\\" for char in name):
        raise InvalidInput(
            f"{name!r} is not a name in this storage",
            hint="a relative path without '..'",
            field="path",
            value=name,
        )
    return name


def staged(name: str) -> bool:
    """Whether some part of ``name`` is only being written."""
    return any(part.startswith(STAGING_PREFIX) for part in name.split("/"))
