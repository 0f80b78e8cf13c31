"""``prunectl attention``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    id: Annotated[str, typer.Argument(metavar="ID")],
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="What the models read, before and after.")],
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="I[,J]", help="Layers to show, in the original's numbers (all).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the page goes (attention-ID.html).")
    ] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw where each head looks while it reads a text, before and after pruning; prints the page's path.

    The page is one HTML file that loads nothing: importance of the heads, head view and model view, with heads that
    went crossed. A worker draws it.
    """
    from prunectl.attention import PAGE
    from prunectl.cli.advice import next_commands
    from prunectl.cli.connection import connect
    from prunectl.cli.download import fetch_file
    from prunectl.cli.output import choose_format, print_fact
    from prunectl.cli.waiting import succeeded, wait

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        drawn = client.attention(id, {"text": text, "layers": _layers(layer)})
        [ended] = wait(client, [drawn["id"]])
        succeeded(ended)
        of = ended["attention"]["of"]
        path = out or Path(f"attention-{of}.html")
        fetch_file(client, ended["id"], PAGE, path, option="out")
    shown = {"id": ended["id"], "of": of, "path": str(path), "uri": ended["artifacts"]["attention"]}
    print_fact(shown, format, str(path))
    next_commands(f"show {of}", f"report {of}")


def _layers(given: str | None) -> list[int] | None:
    from prunectl.errors import InvalidInput

    if given is None:
        return None
    parts = [part.strip() for part in given.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdecimal() for part in parts):
        raise InvalidInput(
            f"layer: {given!r} is not a list of layer numbers", field="layer", value=given, hint="such as 0 or 0,5,11"
        )
    return [int(part) for part in parts]
