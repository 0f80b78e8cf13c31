"""``prunectl show``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Ids, or at least 4 characters of their start or end.")
    ],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show jobs in full: recipe, progress, measurements before and after, heads kept, artifacts. Shows sweeps, too."""
    from prunectl.cli.connection import connect
    from prunectl.cli.mixed import print_shown
    from prunectl.cli.output import choose_format
    from prunectl.cli.waiting import job_or_sweep

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        print_shown(client, [job_or_sweep(client, ref) for ref in ids], format)
