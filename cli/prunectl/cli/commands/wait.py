"""``prunectl wait``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Of jobs or sweeps.")],
    timeout: Annotated[str | None, typer.Option(metavar="10m", help="Give up waiting after so long (exit 8).")] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Wait until all have ended. Exits 1 if one failed, else 7 (cancelled), 6 (gate failed), 8 (pending)."""
    from prunectl.cli import waiting
    from prunectl.cli.connection import connect
    from prunectl.cli.exits import combined
    from prunectl.cli.mixed import print_waited
    from prunectl.cli.output import choose_format
    from prunectl.errors import InvalidInput
    from prunectl.schemas import parse_duration

    format = choose_format(output, as_json, quiet)
    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise InvalidInput(f"timeout: {error}", field="timeout", value=timeout) from None
    with connect() as client:
        waited = waiting.wait(client, ids, timeout=seconds, fetch=lambda ref: waiting.job_or_sweep(client, ref))
    print_waited(waited, format)
    raise typer.Exit(combined(waited))
