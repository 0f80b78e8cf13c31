"""``prunectl card``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    id: Annotated[str, typer.Argument(metavar="ID")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print a job's model card: a README.md that the Hub understands, with the measured table."""
    from prunectl.cli.connection import connect
    from prunectl.cli.output import choose_format, print_fact

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        job = client.job(id)
        card = b"".join(client.download(job["id"], "README.md")).decode()
    print_fact({"id": job["id"], "card": card}, format, card.rstrip("\n"))
