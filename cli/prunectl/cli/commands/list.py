"""``prunectl list``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption

RECENT = "24h"
WATCH_SECONDS = 2.0


def command(
    everything: Annotated[bool, typer.Option("--all", "-a", help="All jobs, not only active and recent ones.")] = False,
    state: Annotated[list[str] | None, typer.Option("--state", metavar="S[,S]", help="In one of these states.")] = None,
    model: Annotated[str | None, typer.Option(metavar="GLOB", help="Of models that match.")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="ID", help="Of one sweep.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="K=V", help="With this tag; repeatable.")] = None,
    since: Annotated[str | None, typer.Option(metavar="2d", help="Created within so long.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Such as 'eval_accuracy>0.9 and speedup>=1.3'.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A column or metric; - in front: descending.")
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Only those that no other listed job beats in both latency and quality.")
    ] = False,
    columns: Annotated[str | None, typer.Option(metavar="A,B", help="Columns to show.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=0, help="At most N jobs; 0: all.")] = 50,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show again as things change, until Ctrl-C.")] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List jobs: those that are active and those of the last 24 hours; with a filter or -a, all of them."""
    from prunectl.cli.connection import connect
    from prunectl.cli.output import choose_format

    format = choose_format(output, as_json, quiet)
    filters: dict[str, Any] = {
        "state": state,
        "model": model,
        "sweep": sweep,
        "tag": tags,
        "since": since,
        "where": where,
    }
    parameters = {name: value for name, value in filters.items() if value is not None}
    if not parameters and not everything and not pareto:
        parameters["recent"] = RECENT
    if sort:
        parameters["sort"] = sort
    names = [name.strip() for name in columns.split(",") if name.strip()] if columns else None
    with connect() as client:
        if watch:
            _watch(client, parameters, limit, names, format, pareto)
        else:
            items, cursor = _jobs(client, parameters, limit, pareto)
            _print(items, cursor, names, format)


def _print(items: list[dict[str, Any]], cursor: str | None, names: list[str] | None, format: Any) -> None:
    from prunectl.cli.failures import say
    from prunectl.cli.job_columns import DEFAULT, WIDE, columns_of
    from prunectl.cli.output import Format, print_list

    chosen = columns_of(names or DEFAULT, items)
    print_list(items, format, chosen, wide=() if names else columns_of(WIDE), next_cursor=cursor)
    if format in (Format.TABLE, Format.WIDE) and not items:
        say("no jobs; -a shows all, prunectl submit queues one")
    elif cursor is not None and format not in (Format.JSON, Format.YAML):
        say(f"there are more than {len(items)}; -n 0 shows all")


def _jobs(client: Any, parameters: dict[str, Any], limit: int, pareto: bool) -> tuple[list[dict[str, Any]], str | None]:
    """At most ``limit`` of the jobs that fit; with ``pareto`` all that are on the front of those that fit."""
    if not pareto:
        found: tuple[list[dict[str, Any]], str | None] = client.jobs(parameters, limit)
        return found
    from prunectl.comparison import COST, front, quality_of

    every, _ = client.jobs(parameters, 0)
    measured = [job for job in every if job["metrics"].get(COST, {}).get("after") is not None]
    quality = quality_of((job["metrics"] for job in measured), (job.get("conditions", {}) for job in measured))
    if quality is None:
        return [], None
    points = [(job["metrics"][COST]["after"], job["metrics"][quality]["after"]) for job in measured]
    return [job for job, kept in zip(measured, front(points, COST, quality), strict=True) if kept], None


def _watch(
    client: Any, parameters: dict[str, Any], limit: int, names: list[str] | None, format: Any, pareto: bool
) -> None:
    import sys
    import time

    before = None
    while True:
        items, cursor = _jobs(client, parameters, limit, pareto)
        if items != before or sys.stdout.isatty():
            if sys.stdout.isatty():
                typer.echo("\033[2J\033[H", nl=False)
            elif before is not None:
                typer.echo("")
            _print(items, cursor, names, format)
            before = items
        time.sleep(WATCH_SECONDS)
