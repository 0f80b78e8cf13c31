"""``prunectl worker``."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    queues: Annotated[str, typer.Option(metavar="cpu,gpu", help="Queues to serve.")] = "cpu",
    slots: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Jobs at once.")] = 1,
    name: Annotated[
        str | None, typer.Option(metavar="S", help="A name that no other worker has (default: host-pid-suffix).")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing: exit 0 if a worker of this host is alive, else 1.")
    ] = False,
) -> None:
    """Run a worker: it claims jobs of its queues and runs each in a process of its own."""
    from prunectl.cli.connection import load_settings
    from prunectl.cli.host.packages import require
    from prunectl.errors import InvalidInput, nearest

    names = list(dict.fromkeys(part.strip() for part in queues.split(",") if part.strip()))
    for queue in names:
        if queue not in ("cpu", "gpu"):
            near = nearest(queue, ("cpu", "gpu"))
            raise InvalidInput(
                f"queues: {queue!r} is not valid; allowed is cpu, gpu",
                field="queues",
                value=queue,
                hint=f"did you mean {near}?" if near else None,
            )
    if not names:
        raise InvalidInput("queues: name at least one", field="queues", value=queues)
    require("worker")
    from prunectl.cli.host.service import run_worker, worker_alive

    if check:
        raise typer.Exit(0 if worker_alive(load_settings()) else 1)
    run_worker(load_settings(), queues=names, slots=slots, name=name)
