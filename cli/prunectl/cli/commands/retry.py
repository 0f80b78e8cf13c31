"""``prunectl retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Queue failed or cancelled jobs again, under the same id."""
    from prunectl.cli.actions import act
    from prunectl.cli.advice import next_commands

    jobs = act(ids, lambda client, ref: client.retry(ref), output, as_json, quiet)
    next_commands(f"wait {' '.join(job['id'] for job in jobs)}")
