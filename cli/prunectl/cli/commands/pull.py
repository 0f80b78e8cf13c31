"""``prunectl pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    id: Annotated[str, typer.Argument(metavar="ID")],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the checkpoint goes; must not exist, or be empty.")
    ],
) -> None:
    """Download a job's checkpoint, verify its SHA256SUMS, and print where it is."""
    from prunectl.cli.advice import next_commands
    from prunectl.cli.connection import connect
    from prunectl.cli.download import fetch_checkpoint
    from prunectl.cli.output import write

    with connect() as client:
        job = client.job(id)
        fetch_checkpoint(client, job["id"], directory)
    write(str(directory))
    next_commands(f"show {job['id']}")
