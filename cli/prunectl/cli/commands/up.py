"""``prunectl up``."""

from __future__ import annotations

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Start the embedded stack, and return when it answers. Does nothing where it runs already."""
    from prunectl.cli.advice import next_commands
    from prunectl.cli.commands.status import print_status
    from prunectl.cli.connection import load_settings
    from prunectl.cli.host import control
    from prunectl.cli.output import choose_format

    format = choose_format(output, as_json, quiet)
    settings = load_settings()
    control.ensure(settings)
    print_status(control.inspect(settings), format)
    next_commands("submit --model M --heads 0.3 --wait", "down")
