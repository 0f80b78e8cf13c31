"""API tokens: made here, kept as their SHA-256, shown once."""

from __future__ import annotations

import hashlib
import os
import secrets

from prunectl.db.session import make_engine
from prunectl.db.token_store import SqlTokenStore
from prunectl.jobs.ports import TokenStore
from prunectl.jobs.records import Token
from prunectl.settings import Settings

SCOPES = ("read", "submit", "admin")
LOCAL_OWNER = "local"
_PREFIX = "prunectl_"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def mint(store: TokenStore, *, name: str, owner: str, scope: str, expires_at: float | None = None) -> str:
    """A new token's secret; only its digest is kept. ``expires_at`` is in seconds since the epoch."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    token = Token(id=secrets.token_hex(6), name=name, owner=owner, scopes=(scope,), expires_at=expires_at)
    store.add_token(token, digest(secret))
    return secret


def ensure_local_token(settings: Settings) -> None:
    """The embedded stack's token, in a file that only this user can read; made again where file or row is missing."""
    engine = make_engine(settings.database)
    try:
        store = SqlTokenStore(engine)
        path = settings.token_file
        if path.exists() and store.token_by_secret(digest(path.read_text(encoding="ascii").strip())) is not None:
            path.chmod(0o600)
            return
        secret = mint(store, name="embedded", owner=LOCAL_OWNER, scope="admin")
        partial = path.with_name(".token.partial")
        partial.unlink(missing_ok=True)
        # Private from its first byte on: written and then narrowed would be readable in between.
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secret + "\n")
        partial.replace(path)
    finally:
        engine.dispose()
