"""Commands whose ids may be of jobs and of sweeps: what they print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunectl.cli import job_page, sweep_page
from prunectl.cli.client import Client
from prunectl.cli.job_columns import DEFAULT, columns_of
from prunectl.cli.output import Format, Item, print_documents, print_list, write

SHOWN_JOBS = 50


def is_sweep(item: Item) -> bool:
    return "counts" in item


def print_waited(items: Sequence[Item], format: Format) -> None:
    """Rows: those of jobs, then those of sweeps."""
    jobs, sweeps = [item for item in items if not is_sweep(item)], [item for item in items if is_sweep(item)]
    if format not in (Format.TABLE, Format.WIDE):
        _print_documents(items, format)
        return
    if jobs:
        print_list(jobs, format, columns_of(DEFAULT))
    if sweeps:
        sweep_page.print_sweep_list(sweeps, format)


def print_shown(client: Client, items: Sequence[Item], format: Format) -> None:
    """A page for each; a sweep's ends with the table of its jobs."""
    if format not in (Format.TABLE, Format.WIDE):
        _print_documents(items, format)
        return
    for index, item in enumerate(items):
        if index:
            write("")
        if not is_sweep(item):
            job_page.print_page(item)
            continue
        sweep_page.print_page(item)
        jobs, more = client.jobs({"sweep": item["id"], "sort": "created_at"}, SHOWN_JOBS)
        if jobs:
            write("")
            print_list(jobs, format, columns_of([name for name in DEFAULT if name != "age"]))
        if more:
            write(f"… prunectl list --sweep {item['id']} -n 0 shows all {item['jobs']}")


def _print_documents(items: Sequence[Item], format: Format) -> None:
    def no_page(_item: Any) -> None:
        """Documents alone get here."""

    only_sweeps = all(is_sweep(item) for item in items)
    columns = [*sweep_page.COLUMNS, *sweep_page.WIDE] if only_sweeps else columns_of(DEFAULT)
    if format is Format.CSV and not only_sweeps and any(is_sweep(item) for item in items):
        # One header can't fit both; the ids, names and states are what they have in common.
        columns = columns_of(["id", "name", "state", "progress", "created_at", "finished_at"])
    print_documents(items, format, no_page, columns)
