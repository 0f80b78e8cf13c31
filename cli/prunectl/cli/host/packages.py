"""Whether an extra is installed, before something from it is imported."""

from __future__ import annotations

from importlib.util import find_spec

from prunectl.errors import Unavailable

OF_EXTRA = {
    "api": ("fastapi", "uvicorn", "sqlalchemy", "alembic", "celery"),
    "worker": ("sqlalchemy", "alembic", "celery", "torch", "transformers"),
}


def require(*extras: str) -> None:
    """Raises Unavailable, with the pip line that mends it, where a package of ``extras`` is missing."""
    missing = [
        name for name in dict.fromkeys(p for extra in extras for p in OF_EXTRA[extra]) if find_spec(name) is None
    ]
    if missing:
        named = "all" if len(extras) > 1 else extras[0]
        raise Unavailable(
            f"this needs packages that are not installed: {', '.join(missing)}",
            hint=f"pip install 'prunectl[{named}]'"
            + (", or set PRUNECTL_API_URL to use a service elsewhere" if named == "all" else ""),
        )
