"""``prunectl logs``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended; exit with its outcome.")
    ] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Only the last N lines.")] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print what jobs wrote, all attempts in order."""
    from prunectl.cli import waiting
    from prunectl.cli.connection import connect
    from prunectl.cli.exits import combined
    from prunectl.cli.failures import say
    from prunectl.cli.output import Format, choose_format, field, print_documents

    format = choose_format(output, as_json, quiet)
    as_text = format in (Format.TABLE, Format.WIDE)
    ended, documents = [], []
    with connect() as client:
        for ref in ids:
            if len(ids) > 1 and as_text:
                say(f"==> {ref} <==")
            kept = bytearray()
            write = _write if as_text else kept.extend
            offset = _pass_on(client, ref, tail, write)
            if follow:
                ended.append(waiting.follow(client, ref, write, offset=offset))
            if not as_text:
                text = kept.decode("utf-8", "replace")
                documents.append({"schema_version": 1, "id": client.job(ref)["id"], "logs": text})
    if documents:
        print_documents(documents, format, lambda item: None, [field("id"), field("logs")])
    raise typer.Exit(combined(ended))


def _pass_on(client: Any, ref: str, tail: int | None, write: Callable[[bytes], None]) -> int:
    """Write what there is, or its last ``tail`` lines; the offset after it."""
    from collections import deque

    offset, last, rest = 0, deque[bytes](maxlen=tail), b""
    while (chunk := client.logs(ref, offset)).data:
        offset = chunk.next_offset
        if tail is None:
            write(chunk.data)
            continue
        *lines, rest = (rest + chunk.data).split(b"\n")
        last.extend(line + b"\n" for line in lines)
    if rest:
        last.append(rest)
    write(b"".join(last))
    return offset


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
