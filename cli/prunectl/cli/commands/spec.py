"""``prunectl spec``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print the recipe file that submits a job again: prunectl spec ID | prunectl submit -f -"""
    from prunectl.cli.connection import connect
    from prunectl.cli.output import Format, choose_format, field, print_list, to_json, to_yaml, write

    format = choose_format(output, as_json, quiet, default=Format.YAML)
    with connect() as client:
        found = {ref: client.spec(ref) for ref in ids}
    specs = list(found.values())
    if format is Format.YAML:
        write("\n---\n".join(to_yaml(spec) for spec in specs))
    elif format is Format.JSON and len(specs) == 1:
        write(to_json(specs[0]))
    elif format is Format.ID:
        for ref in found:
            write(ref)
    else:
        names = dict.fromkeys(name for spec in specs for name in spec)
        print_list(specs, format, [field(name) for name in names])
