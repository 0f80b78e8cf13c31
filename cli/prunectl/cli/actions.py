"""What cancel, retry and rm share: act on each id or on a sweep, print what came of it, and go on past one that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import typer

from prunectl.cli.client import Client
from prunectl.cli.connection import connect
from prunectl.cli.failures import report, say
from prunectl.cli.job_columns import DEFAULT, columns_of
from prunectl.cli.job_page import print_page
from prunectl.cli.output import Format, choose_format, print_documents, print_list
from prunectl.cli.sweep_page import print_sweeps
from prunectl.errors import Conflict, InvalidInput, NotFound

Job = dict[str, Any]


def act(
    ids: Sequence[str], action: Callable[[Client, str], Job], output: str | None, as_json: bool, quiet: bool
) -> list[Job]:
    """The jobs as they are after ``action``; exits with the first failure's code once all were tried."""
    format = choose_format(output, as_json, quiet, default=Format.ID)
    jobs: list[Job] = []
    failed = 0
    with connect() as client:
        for ref in dict.fromkeys(ids):
            try:
                jobs.append(action(client, ref))
            except (NotFound, Conflict) as error:
                failed = failed or report(error, [])
    if jobs and format in (Format.TABLE, Format.WIDE):
        print_list(jobs, format, columns_of(DEFAULT))
    elif jobs:
        print_documents(jobs, format, print_page, columns_of(DEFAULT))
    if failed:
        raise typer.Exit(failed)
    return jobs


def check_ids_or_sweep(ids: Sequence[str] | None, sweep: str | None, *, only_with_sweep: str | None = None) -> None:
    """Raises InvalidInput unless there are either ids or a sweep; ``only_with_sweep`` is a flag that needs the sweep."""
    if sweep is None and only_with_sweep is not None:
        raise InvalidInput(f"{only_with_sweep}: goes with --sweep ID", field=only_with_sweep)
    if (sweep is None) == (not ids):
        raise InvalidInput("give either ids of jobs or --sweep ID", field="sweep", value=sweep)


def act_on_sweep(verb: str, action: Callable[[Client], Job], output: str | None, as_json: bool, quiet: bool) -> None:
    """Carry it out on all of the sweep's jobs that it concerns, and say how many those were."""
    format = choose_format(output, as_json, quiet, default=Format.ID)
    with connect() as client:
        sweep = action(client)
    print_sweeps([sweep], format)
    done = {"cancel": "cancelled", "retry": "queued again"}[verb]
    say(f"{sweep['changed']} of {sweep['jobs']} jobs {done}")
