"""``prunectl card``."""

from __future__ import annotations

from typing import Annotated

import typer


def command(id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Print a job's model card: a README.md that the Hub understands, with the measured table."""
    from prunectl.cli.connection import connect
    from prunectl.cli.output import write

    with connect() as client:
        job = client.job(id)
        write(b"".join(client.download(job["id"], "README.md")).decode().rstrip("\n"))
