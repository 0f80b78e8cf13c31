"""``prunectl retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="ID", help="Every failed or cancelled job of this sweep.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="With --sweep: only those that failed.")] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Queue failed or cancelled jobs again, under the same id; with --sweep all of a sweep's, or those that --failed."""
    from prunectl.cli.actions import act, act_on_sweep, check_ids_or_sweep
    from prunectl.cli.advice import next_commands

    check_ids_or_sweep(ids, sweep, only_with_sweep="failed" if failed else None)
    if sweep is not None:
        act_on_sweep("retry", lambda client: client.retry_sweep(sweep, failed=failed), output, as_json, quiet)
        return
    jobs = act(ids or (), lambda client, ref: client.retry(ref), output, as_json, quiet)
    next_commands(f"wait {' '.join(job['id'] for job in jobs)}")
