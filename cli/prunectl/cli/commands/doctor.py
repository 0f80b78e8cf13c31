"""``prunectl doctor``."""

from __future__ import annotations

from typing import Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Check this machine, the service, its database, broker, storage and workers. Exits 1 if something is wrong."""
    from prunectl.cli.output import choose_format, field, print_list

    format = choose_format(output, as_json, quiet)
    checks = _checks()
    columns = [field("name", "CHECK"), field("ok"), field("detail"), field("hint")]
    print_list(checks, format, columns, id_of=lambda item: item["name"])
    if not all(check["ok"] for check in checks):
        raise typer.Exit(1)


def _checks() -> list[dict[str, Any]]:
    from prunectl.cli.connection import connect, load_settings
    from prunectl.errors import PrunectlError
    from prunectl.version import version

    settings = load_settings()
    target = settings.api_url or f"embedded, under {settings.home}"
    try:
        with connect() as client:
            theirs = client.version()
            found = client.doctor()
            service = _check("service", True, f"{target} at {client.url}")
    except PrunectlError as error:
        return [_check("service", False, f"{target}: {error.message}", error.hint)]
    same = theirs == version()
    hint = None if same else "install the same version, or restart: prunectl down; prunectl up"
    return [service, _check("version", same, f"command line {version()}, service {theirs}", hint), *found]


def _check(name: str, ok: bool, detail: str, hint: str | None = None) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "hint": hint}
