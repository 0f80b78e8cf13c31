"""``prunectl status``."""

from __future__ import annotations

from typing import Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Say whether the embedded stack runs: exit 0 if it does, 3 if not."""
    from prunectl.cli.connection import load_settings
    from prunectl.cli.host import control
    from prunectl.cli.output import choose_format

    format = choose_format(output, as_json, quiet)
    found = control.inspect(load_settings())
    print_status(found, format)
    if not found["running"]:
        raise typer.Exit(3)


def print_status(found: dict[str, Any], format: Any) -> None:
    from prunectl.cli.output import field, print_documents, print_grid

    def page(item: Any) -> None:
        print_grid(
            ("", ""),
            [(key, str(value)) for key, value in item.items() if value is not None and key != "schema_version"],
        )

    if format == "id":
        found = {**found, "id": found["url"] or ""}
    print_documents([found], format, page, [field(name) for name in found])
