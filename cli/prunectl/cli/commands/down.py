"""``prunectl down``."""

from __future__ import annotations


def command() -> None:
    """Stop the embedded stack. A running job goes back to the queue and runs again after the next start."""
    from prunectl.cli.connection import load_settings
    from prunectl.cli.failures import say
    from prunectl.cli.host import control

    settings = load_settings()
    say("stopped" if control.down(settings) else f"not running: {settings.home}")
