"""Errors on their way out: ``error:`` and ``hint:`` on stderr, and the exit code of their kind."""

from __future__ import annotations

import re
from typing import Any

import typer

from prunectl.cli.exits import OF_KIND, ExitCode
from prunectl.errors import PrunectlError

_NOT_FLAGS = ("recipe", "body", "directory")
"""Fields of findings that no single flag sets."""


class Detached(Exception):
    """The user pressed Ctrl-C while waiting: the job goes on, and ``message`` says how to come back to it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def report(error: Exception, arguments: list[str]) -> int:
    """Say what is wrong and return the exit code. Raises what is not an error of prunectl's or of its use."""
    if isinstance(error, PrunectlError):
        return _domain(error)
    if isinstance(error, Detached):
        say(error.message)
        return ExitCode.INTERRUPTED
    if isinstance(error, typer.Abort):
        return ExitCode.INTERRUPTED
    if isinstance(error, typer.TyperException):
        return _usage(error, arguments)
    raise error


def say(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)


def _domain(error: PrunectlError) -> int:
    found = getattr(error, "errors", None) or [{"field": error.field, "message": error.message}]
    entries = [entry for entry in found if entry.get("message")]
    for message in dict.fromkeys(_flagged(entry) for entry in entries) or [error.message]:
        say(f"error: {message}")
    if error.hint:
        say(f"hint: {error.hint}")
    return OF_KIND[error.kind]


def _flagged(entry: dict[str, Any]) -> str:
    """A finding's message, with the field written as the flag that sets it; named where the message doesn't."""
    from prunectl.validation import job_fields

    field, message = str(entry.get("field") or ""), str(entry["message"])
    if field in _NOT_FLAGS:
        return message.removeprefix(f"{field}: ")
    if not (field.islower() and field.isidentifier()):
        return message
    flag, spelt = "--" + field.replace("_", "-"), re.escape(field).replace("_", "[_-]")
    flagged, found = re.subn(rf"^{spelt}(?=[: =])", flag, message)
    if found or field not in job_fields() or message.startswith(flag):
        return flagged
    return f"{flag}: {message}"


def _usage(error: typer.TyperException, arguments: list[str]) -> int:
    message = error.format_message()
    if not message.startswith("Usage:"):
        say(f"error: {message[:1].lower()}{message[1:]}")
        context = getattr(error, "ctx", None)
        say(f"hint: {context.command_path if context else 'prunectl'} --help lists what there is")
    else:
        # No argument at all: the help is what was asked for.
        say(message)
    return int(error.exit_code)
