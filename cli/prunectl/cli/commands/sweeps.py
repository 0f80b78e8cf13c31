"""``prunectl sweeps``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)
LimitOption = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=0, help="At most N sweeps; 0: all.")]


@app.callback()
def sweeps(
    context: typer.Context,
    limit: LimitOption = 50,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the sweeps with how far each is, the newest first; or show one."""
    if context.invoked_subcommand is None:
        _list(limit, output, as_json, quiet)


@app.command("list")
def list_(
    limit: LimitOption = 50, output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """List the sweeps, the newest first."""
    _list(limit, output, as_json, quiet)


@app.command()
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show sweeps in full, with their jobs."""
    from prunectl.cli.connection import connect
    from prunectl.cli.mixed import print_shown
    from prunectl.cli.output import choose_format

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        print_shown(client, [client.sweep(ref) for ref in ids], format)


def _list(limit: int, output: str | None, as_json: bool, quiet: bool) -> None:
    from prunectl.cli.connection import connect
    from prunectl.cli.failures import say
    from prunectl.cli.output import Format, choose_format
    from prunectl.cli.sweep_page import print_sweep_list

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        found, cursor = client.sweeps(limit)
    print_sweep_list(found, format, next_cursor=cursor)
    if format in (Format.TABLE, Format.WIDE) and not found:
        say("no sweeps; prunectl sweep queues one")
    elif cursor is not None and format not in (Format.JSON, Format.YAML):
        say(f"there are more than {len(found)}; -n 0 shows all")
