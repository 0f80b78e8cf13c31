"""``prunectl wait``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    timeout: Annotated[str | None, typer.Option(metavar="10m", help="Give up waiting after so long (exit 8).")] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Wait until all have ended. Exits 1 if one failed, else 7 (cancelled), 6 (gate failed), 8 (pending)."""
    from prunectl.cli import waiting
    from prunectl.cli.connection import connect
    from prunectl.cli.exits import combined
    from prunectl.cli.job_columns import DEFAULT, columns_of
    from prunectl.cli.output import Format, choose_format, print_documents, print_list
    from prunectl.errors import InvalidInput
    from prunectl.schemas import parse_duration

    format = choose_format(output, as_json, quiet)
    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise InvalidInput(f"timeout: {error}", field="timeout", value=timeout) from None
    with connect() as client:
        jobs = waiting.wait(client, ids, timeout=seconds)
    columns = columns_of(DEFAULT)
    if format in (Format.TABLE, Format.WIDE):
        print_list(jobs, format, columns)
    else:
        print_documents(jobs, format, lambda job: None, columns)
    raise typer.Exit(combined(jobs))
