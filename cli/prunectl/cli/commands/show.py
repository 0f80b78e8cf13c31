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
    """Show jobs in full: recipe, progress, measurements before and after, heads kept, artifacts."""
    from prunectl.cli.connection import connect
    from prunectl.cli.job_columns import DEFAULT, columns_of
    from prunectl.cli.job_page import print_page
    from prunectl.cli.output import choose_format, print_documents

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        jobs = [client.job(ref) for ref in ids]
    print_documents(jobs, format, print_page, columns_of(DEFAULT))
