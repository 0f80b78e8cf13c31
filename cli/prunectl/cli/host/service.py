"""The service's processes: what ``prunectl api`` and ``prunectl worker`` run, and the embedded stack's two children."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys

from prunectl.cli.host import processes
from prunectl.settings import Settings

GRACEFUL_SECONDS = 5
"""How long open responses (followed events) may hold up a stop."""
ALL_QUEUES = ["cpu", "gpu"]


def configure_logs(settings: Settings) -> None:
    """Structured lines on stderr, as the worker writes them."""
    from prunectl.worker import logs

    logs.configure(settings.log_level, settings.log_format)
    # Each says at every start, or at every probe, what nobody reads.
    for name in ("httpx2", "alembic.runtime.plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)


def run_api(
    settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, listener: socket.socket | None = None
) -> None:
    """Serve the HTTP API until SIGTERM, on ``listener`` where one is given."""
    import uvicorn

    from prunectl.api.app import create_app

    configure_logs(settings)
    app = create_app(settings, instance=os.environ.get(processes.INSTANCE_VARIABLE))
    settle()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run(sockets=None if listener is None else [listener])
    if not server.started:
        raise SystemExit(1)


def settle() -> None:
    """Have the garbage collector leave alone what was imported, and look less often at what is new.

    A sweep of 10,000 jobs is some 300,000 objects of which none is garbage; by default they are searched 400 times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def run_worker(settings: Settings, *, queues: list[str], slots: int, name: str | None) -> None:
    """Run jobs until SIGTERM; exits with the status that the worker ends with."""
    from prunectl.worker.main import serve

    raise SystemExit(serve(queues, slots, name, settings))


def worker_alive(settings: Settings) -> bool:
    """Whether a worker of this host has shown itself lately: what a container's health check asks."""
    from prunectl.jobs.sweeper import alive_within_seconds
    from prunectl.wiring import build

    alive = build(settings).workers.workers(alive_within_seconds=alive_within_seconds(settings))
    return any(worker.host == socket.gethostname() for worker in alive)


def main(arguments: list[str]) -> None:
    """A child of the embedded stack: ``api PARENT DESCRIPTOR`` or ``worker PARENT``."""
    what, parent, *rest = arguments
    processes.die_with_parent(int(parent))
    settings = Settings()
    if what == "api":
        run_api(settings, listener=socket.socket(fileno=int(rest[0])))
    else:
        run_worker(settings, queues=ALL_QUEUES, slots=1, name=None)


if __name__ == "__main__":
    main(sys.argv[1:])
