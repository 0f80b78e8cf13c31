"""``prunectl pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    id: Annotated[str, typer.Argument(metavar="ID")],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the checkpoint goes; must not exist, or be empty.")
    ],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download a job's checkpoint, verify its SHA256SUMS, and print where it is."""
    from prunectl.cli.advice import next_commands
    from prunectl.cli.connection import connect
    from prunectl.cli.download import fetch_checkpoint
    from prunectl.cli.output import choose_format, print_fact

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        job = client.job(id)
        fetch_checkpoint(client, job["id"], directory)
    print_fact({"id": job["id"], "path": str(directory)}, format, str(directory))
    next_commands(f"show {job['id']}")
