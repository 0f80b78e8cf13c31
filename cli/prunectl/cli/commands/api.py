"""``prunectl api``."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Run the HTTP service. It answers nothing but /healthz and /readyz without a token (prunectl tokens create)."""
    from prunectl.cli.connection import load_settings
    from prunectl.cli.host.packages import require

    require("api")
    from prunectl.cli.host.service import run_api

    run_api(load_settings(), host=host, port=port)
