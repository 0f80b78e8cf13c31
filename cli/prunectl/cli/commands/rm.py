"""``prunectl rm``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    keep_artifacts: Annotated[
        bool, typer.Option("--keep-artifacts", help="Leave checkpoint and logs where they are.")
    ] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete ended jobs, their checkpoints and their logs."""
    from prunectl.cli.actions import act

    act(ids, lambda client, ref: client.remove(ref, keep_artifacts=keep_artifacts), output, as_json, quiet)
