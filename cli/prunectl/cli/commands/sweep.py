"""``prunectl sweep``."""

from __future__ import annotations

import functools
from typing import Any

import typer

from prunectl.cli.commands import submit

_NOT_SPEC = ("file", "sets", "dry_run", "wait", "follow", "output", "as_json", "quiet")


@functools.wraps(submit.command)  # its flags, whatever they are
def command(context: typer.Context, **given: Any) -> None:
    from prunectl.cli.connection import connect
    from prunectl.cli.output import Format, choose_format
    from prunectl.cli.specification import sweep_body
    from prunectl.cli.sweep_page import print_plan, print_sweeps

    dry_run = given["dry_run"]
    format = choose_format(
        given["output"], given["as_json"], given["quiet"], default=Format.TABLE if dry_run else Format.ID
    )
    flags = {key: value for key, value in context.params.items() if key not in _NOT_SPEC and value is not None}
    body = sweep_body(flags, given["sets"] or (), given["file"])
    with connect() as client:
        _upload(client, body)
        if dry_run:
            print_plan(client.plan_sweep(body), format)
            return
        sweep = client.submit_sweep(body)
        if format is Format.ID:
            # At once, so that a reader of the pipe has the id while the jobs run.
            print_sweeps([sweep], format)
        _tell(sweep)
        if given["wait"] or given["follow"]:
            from prunectl.cli import waiting
            from prunectl.cli.exits import combined

            [sweep] = waiting.wait(client, [sweep["id"]], fetch=client.sweep)
        if format is not Format.ID:
            print_sweeps([sweep], format)
        if given["wait"] or given["follow"]:
            raise typer.Exit(combined([sweep]))


command.__doc__ = """Queue a job for each combination of values: --heads 0.1:0.5:0.1 --ffn 0,0.25 is ten jobs.

Takes the flags of submit. Lists (a,b) and ranges (start:stop:step, the end included) multiply. Where a comma belongs to the
value (--layers 0,3, --bench-batch 1,16, files, encoder=0.3,cross=0.5), separate values by a semicolon. Prints the sweep's id.
"""


def _upload(client: Any, body: dict[str, Any]) -> None:
    """Send local data files, in the base and in the grid, and name them by their digests."""
    from prunectl.cli.data_files import FLAGS, local_files, referenced

    base, grid = body["base"], body["grid"]
    for part in ("recipe", "evaluation"):
        if found := local_files(base.get(part, {})):
            base[part] = referenced(base[part], found, client.upload)
    for flag in FLAGS:
        if flag in grid:
            named = [{flag: value} for value in grid[flag]]
            grid[flag] = [referenced(value, local_files(value), client.upload)[flag] for value in named]


def _tell(sweep: dict[str, Any]) -> None:
    from prunectl.cli.advice import next_commands
    from prunectl.cli.failures import say

    shared = f" ({sweep['shared']} of them there already; --force queues new ones)" if sweep["shared"] else ""
    say(f"sweep {sweep['id']}: {sweep['jobs']} jobs{shared}")
    next_commands(f"wait {sweep['id']}", f"list --sweep {sweep['id']}", f"cancel --sweep {sweep['id']}")
