"""``prunectl migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    revision: Annotated[str, typer.Option("--revision", metavar="REV|head", help="Upgrade to this revision.")] = "head",
    down: Annotated[
        str | None, typer.Option("--down", metavar="REV", help="Downgrade to this revision (base: empty).")
    ] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the database (PRUNECTL_DATABASE_URL) to this version; prints the revision that it is at."""
    from prunectl.cli.connection import load_settings
    from prunectl.cli.host.packages import require
    from prunectl.cli.output import choose_format, print_fact
    from prunectl.errors import InvalidInput

    format = choose_format(output, as_json, quiet)
    require("api")
    from prunectl.db import migrate

    if down is not None and revision != "head":
        raise InvalidInput("down: --down and --revision can't both be given", field="down", value=down)
    settings = load_settings()
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if down is not None:
        migrate.downgrade(settings.database, down)
    else:
        migrate.upgrade(settings.database, revision)
    current = migrate.current(settings.database) or "base"
    print_fact({"id": current}, format, current)
