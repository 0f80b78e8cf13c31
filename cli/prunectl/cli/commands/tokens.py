"""``prunectl tokens``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def tokens() -> None:
    """Create, list and revoke API tokens, and limit their owners, in the database of PRUNECTL_DATABASE_URL."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what the token is for.")],
    scope: Annotated[
        str, typer.Option(metavar="read|submit|admin", help="What it may do; each includes the one before.")
    ],
    owner: Annotated[str | None, typer.Option(help="Whose jobs it submits and sees (default: NAME).")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="90d", help="How long it is valid (default: until revoked).")
    ] = None,
    max_running: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="At most N jobs of this owner run at once, with all of their tokens."),
    ] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a token and print it, once."""
    from prunectl.cli.output import choose_format, print_fact
    from prunectl.errors import InvalidInput, nearest
    from prunectl.schemas import parse_duration

    format = choose_format(output, as_json, quiet)
    with _services() as services:
        from prunectl.cli.host.tokens import SCOPES, mint

        if scope not in SCOPES:
            near = nearest(scope, SCOPES)
            hint = f"did you mean {near}?" if near else None
            raise InvalidInput(
                f"scope: {scope!r} is not valid; allowed is {', '.join(SCOPES)}", field="scope", value=scope, hint=hint
            )
        try:
            expires_at = None if expires is None else services.store.now() + parse_duration(expires)
        except ValueError as error:
            raise InvalidInput(f"expires: {error}", field="expires", value=expires) from None
        if max_running is not None:
            services.limits.set_limit(owner or name, max_running)
        secret = mint(services.tokens, name=name, owner=owner or name, scope=scope, expires_at=expires_at)
    made = {"name": name, "owner": owner or name, "scopes": [scope], "token": secret}
    print_fact({"id": secret} if format == "id" else made, format, secret)


@app.command()
def limit(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose jobs.")],
    max_running: Annotated[str, typer.Argument(metavar="N|none", help="none: PRUNECTL_MAX_RUNNING_PER_OWNER again.")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let at most N jobs of an owner run at the same time; 0 holds them back."""
    from prunectl.cli.output import choose_format, print_fact
    from prunectl.errors import InvalidInput

    format = choose_format(output, as_json, quiet)
    if max_running != "none" and not max_running.isdecimal():
        raise InvalidInput(f"max-running: {max_running!r} is neither a number nor none", field="max_running")
    number = None if max_running == "none" else int(max_running)
    with _services() as services:
        services.limits.set_limit(owner, number)
    print_fact({"id": owner, "max_running": number}, format, None)


@app.command("list")
def list_(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the tokens; never the secrets, which nobody has."""
    from prunectl.cli.output import choose_format, field, print_list

    format = choose_format(output, as_json, quiet)
    with _services() as services:
        found = [_document(token) for token in services.tokens.tokens()]
    columns = [
        field(name)
        for name in ("id", "name", "owner", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
    ]
    print_list(found, format, columns)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="ID|NAME")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Revoke a token; it stops working at once."""
    from prunectl.cli.output import choose_format, print_fact
    from prunectl.errors import Conflict, NotFound

    format = choose_format(output, as_json, quiet)
    with _services() as services:
        live = [token for token in services.tokens.tokens() if token.revoked_at is None]
        found = [token for token in live if token.id == name] or [token for token in live if token.name == name]
        if not found:
            raise NotFound(f"no live token {name!r}", hint="prunectl tokens list")
        if len(found) > 1:
            raise Conflict(f"{name!r} is the name of {len(found)} tokens", hint="revoke by id: prunectl tokens list")
        services.tokens.revoke_token(found[0].id)
    print_fact({"id": found[0].id, "name": found[0].name}, format, found[0].id)


@contextmanager
def _services() -> Iterator[Any]:
    from prunectl.cli.connection import load_settings
    from prunectl.cli.host.packages import require
    from prunectl.errors import Unavailable

    require("api")
    from prunectl.db import migrate
    from prunectl.wiring import build

    settings = load_settings()
    if migrate.current(settings.database) != migrate.head():
        raise Unavailable("the database is not at this version", hint="prunectl migrate")
    services = build(settings)
    try:
        yield services
    finally:
        services.engine.dispose()


def _document(token: Any) -> dict[str, Any]:
    from prunectl.jobs.views import iso

    times = {
        name: None if (value := getattr(token, name)) is None else iso(value)
        for name in ("created_at", "expires_at", "revoked_at", "last_used_at")
    }
    return {"id": token.id, "name": token.name, "owner": token.owner, "scopes": list(token.scopes), **times}
