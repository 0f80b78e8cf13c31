"""``prunectl cancel``."""

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
    """Cancel jobs: a queued one at once, a running one as soon as its worker hears of it."""
    from prunectl.cli.actions import act
    from prunectl.cli.advice import next_commands

    jobs = act(ids, lambda client, ref: client.cancel(ref), output, as_json, quiet)
    if running := [job["id"] for job in jobs if job["state"] == "running"]:
        next_commands(f"wait {' '.join(running)}")
