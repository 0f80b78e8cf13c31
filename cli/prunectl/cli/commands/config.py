"""``prunectl config``."""

from __future__ import annotations

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show each setting, its value and where it came from."""
    from prunectl.cli.connection import load_settings
    from prunectl.cli.output import choose_format, field, print_list

    format = choose_format(output, as_json, quiet)
    columns = [field("variable"), field("value"), field("origin")]
    print_list(load_settings().origins(), format, columns, id_of=lambda item: item["variable"])
