"""``prunectl down``."""

from __future__ import annotations

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Stop the embedded stack. A running job goes back to the queue and runs again after the next start."""
    from prunectl.cli.connection import load_settings
    from prunectl.cli.failures import say
    from prunectl.cli.host import control
    from prunectl.cli.output import choose_format, print_fact

    format = choose_format(output, as_json, quiet)
    settings = load_settings()
    stopped = control.down(settings)
    say("stopped" if stopped else f"not running: {settings.home}")
    print_fact({"id": str(settings.home), "stopped": stopped}, format, None)
