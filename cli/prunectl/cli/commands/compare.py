"""``prunectl compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="ID", help="All jobs of this sweep.")] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="A,B", help="Metrics to show (default: the usual ones).")
    ] = None,
    x: Annotated[
        str | None, typer.Option("--x", metavar="METRIC", help="Cost on the Pareto front: latency_p50_seconds.")
    ] = None,
    y: Annotated[
        str | None, typer.Option("--y", metavar="METRIC", help="Quality on it (default: what all measured).")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with the jobs' outcome: 6 if a gate is not met.")] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show jobs side by side, each against its baseline, which is the first row.

    ~ marks a difference of at most 2 standard errors, * a job that no other beats in both cost and quality.
    """
    from prunectl.cli.actions import check_ids_or_sweep
    from prunectl.cli.comparison_page import print_comparison
    from prunectl.cli.connection import connect
    from prunectl.cli.exits import combined
    from prunectl.cli.failures import say
    from prunectl.cli.output import choose_format

    check_ids_or_sweep(ids, sweep)
    format = choose_format(output, as_json, quiet)
    asked = {name: value for name, value in (("metrics", metrics), ("x", x), ("y", y)) if value}
    with connect() as client:
        comparison = client.compare(ids or (), sweep, asked)
    print_comparison(comparison, format)
    for note in comparison["notes"]:
        say(f"note: {note}")
    if gate:
        raise typer.Exit(combined(comparison["items"]))
