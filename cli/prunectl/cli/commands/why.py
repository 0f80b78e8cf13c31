"""``prunectl why``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say why jobs wait (no worker, quota, jobs ahead, back-off), where they run, or how they ended."""
    from prunectl.cli.connection import connect
    from prunectl.cli.output import Column, choose_format, field, print_documents

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        found = [client.why(ref) for ref in ids]

    def codes(item: Any) -> str:
        return ",".join(reason["code"] for reason in item["reasons"])

    columns = [field("id"), field("state"), Column("reasons", "REASONS", codes, codes)]
    print_documents(found, format, lambda item: _page(item, named=len(found) > 1), columns)


def _page(item: Any, *, named: bool) -> None:
    """A line a reason; the hints go to stderr, beside the data."""
    from prunectl.cli.failures import say
    from prunectl.cli.output import write

    for reason in item["reasons"]:
        write((f"{item['id']}  " if named else "") + f"{item['state']}: {reason['message']}")
    for hint in dict.fromkeys(reason["hint"] for reason in item["reasons"] if reason.get("hint")):
        say(f"hint: {hint}")
