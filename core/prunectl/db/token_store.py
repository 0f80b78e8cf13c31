"""API tokens, kept as SHA-256 digests."""

from __future__ import annotations

from sqlalchemy import Engine, RowMapping, and_, insert, or_, select

from prunectl.db.session import reading, writing
from prunectl.db.tables import db_now, tokens
from prunectl.jobs.records import Token

_USE_RESOLUTION_SECONDS = 60.0
_PUBLIC = [column for column in tokens.c if column.name != "secret_sha256"]


def _token(row: RowMapping) -> Token:
    fields = {column.name: row[column.name] for column in _PUBLIC}
    return Token(**{**fields, "scopes": tuple(row["scopes"])})


class SqlTokenStore:
    """`prunectl.jobs.ports.TokenStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_token(self, token: Token, secret_sha256: str) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                insert(tokens).values(
                    id=token.id,
                    name=token.name,
                    owner=token.owner,
                    scopes=list(token.scopes),
                    secret_sha256=secret_sha256,
                    created_at=db_now(),
                    expires_at=token.expires_at,
                )
            )

    def token_by_secret(self, secret_sha256: str) -> Token | None:
        live = and_(
            tokens.c.secret_sha256 == secret_sha256,
            tokens.c.revoked_at.is_(None),
            or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > db_now()),
        )
        used_lately = tokens.c.last_used_at > db_now() - _USE_RESOLUTION_SECONDS
        with reading(self._engine) as connection:
            row = connection.execute(select(*_PUBLIC, used_lately.label("used_lately")).where(live)).mappings().first()
        if row is None:
            return None
        if not row["used_lately"]:  # a write a minute, not one a request
            with writing(self._engine) as connection:
                connection.execute(tokens.update().where(tokens.c.id == row["id"]).values(last_used_at=db_now()))
        return _token(row)

    def tokens(self) -> list[Token]:
        with reading(self._engine) as connection:
            rows = connection.execute(select(*_PUBLIC).order_by(tokens.c.created_at, tokens.c.id)).mappings().all()
        return [_token(row) for row in rows]

    def revoke_token(self, token_id: str) -> bool:
        with writing(self._engine) as connection:
            revoked = connection.execute(
                tokens.update()
                .where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
                .values(revoked_at=db_now())
                .returning(tokens.c.id)
            )
            return revoked.first() is not None
