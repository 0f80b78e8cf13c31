"""The version of prunectl that is running, for ``--version``, the model card and the check for version skew."""

from __future__ import annotations


def version() -> str:
    """The installed distribution's version; ``0+source`` where the code runs from a path without an install."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("prunectl")
    except PackageNotFoundError:
        return "0+source"
