"""``prunectl logs``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer


def command(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended; exit with its outcome.")
    ] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Only the last N lines.")] = None,
) -> None:
    """Print what jobs wrote, all attempts in order."""
    from prunectl.cli import waiting
    from prunectl.cli.connection import connect
    from prunectl.cli.exits import combined
    from prunectl.cli.failures import say

    ended = []
    with connect() as client:
        for ref in ids:
            if len(ids) > 1:
                say(f"==> {ref} <==")
            offset = _print_so_far(client, ref, tail)
            if follow:
                ended.append(waiting.follow(client, ref, _write, offset=offset))
    raise typer.Exit(combined(ended))


def _print_so_far(client: Any, ref: str, tail: int | None) -> int:
    """Print what there is, or its last ``tail`` lines; the offset after it."""
    from collections import deque

    offset, last, rest = 0, deque[bytes](maxlen=tail), b""
    while (chunk := client.logs(ref, offset)).data:
        offset = chunk.next_offset
        if tail is None:
            _write(chunk.data)
            continue
        *lines, rest = (rest + chunk.data).split(b"\n")
        last.extend(line + b"\n" for line in lines)
    if rest:
        last.append(rest)
    _write(b"".join(last))
    return offset


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
