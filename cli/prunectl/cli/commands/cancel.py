"""``prunectl cancel``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="ID", help="Every job that this sweep queued.")] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Cancel jobs: a queued one at once, a running one as soon as its worker hears of it."""
    from prunectl.cli.actions import act, act_on_sweep, check_ids_or_sweep
    from prunectl.cli.advice import next_commands

    check_ids_or_sweep(ids, sweep)
    if sweep is not None:
        act_on_sweep("cancel", lambda client: client.cancel_sweep(sweep), output, as_json, quiet)
        return
    jobs = act(ids or (), lambda client, ref: client.cancel(ref), output, as_json, quiet)
    if running := [job["id"] for job in jobs if job["state"] == "running"]:
        next_commands(f"wait {' '.join(running)}")
