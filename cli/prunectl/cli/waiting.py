"""Waiting for jobs: polls until they have ended, shows a bar on a terminal and plain lines elsewhere, all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer

from prunectl.cli.client import Client
from prunectl.cli.exits import outcome
from prunectl.cli.failures import Detached, say
from prunectl.cli.job_columns import SHORT_ID, state_text
from prunectl.cli.sweep_page import counts_text
from prunectl.errors import NotFound, Unavailable
from prunectl.schemas import TERMINAL_STATES

Job = dict[str, Any]
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 1.0
PATIENCE_SECONDS = 60.0
"""How long a service may be away (a restart, a network's hiccup) before a waiting command gives up on it."""


class Display(Protocol):
    def update(self, job: Job) -> None: ...


def wait(
    client: Client,
    refs: Sequence[str],
    *,
    timeout: float | None = None,
    fetch: Callable[[str], Job] | None = None,
) -> list[Job]:
    """The jobs, ended or as they are after ``timeout`` seconds. Raises Detached on Ctrl-C: nothing is cancelled.

    ``fetch`` gives the job, or the sweep, of a reference; as a rule, the job.
    """
    jobs = {ref: (fetch or client.job)(ref) for ref in dict.fromkeys(refs)}
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_PAUSE
    try:
        with display(len(jobs)) as shown:
            for job in jobs.values():
                shown.update(job)
            while pending := [ref for ref, job in jobs.items() if not ended(job)]:
                left = pause if deadline is None else min(pause, deadline - time.monotonic())
                if left <= 0:
                    break
                time.sleep(left)
                pause = min(pause * 1.3, LONGEST_PAUSE)
                for ref in pending:
                    jobs[ref] = patiently(client.sweep if "counts" in jobs[ref] else client.job, jobs[ref]["id"])
                    shown.update(jobs[ref])
    except KeyboardInterrupt:
        raise detached(job["id"] for job in jobs.values() if not ended(job)) from None
    return list(jobs.values())


def follow(client: Client, ref: str, write: Any, *, offset: int = 0) -> Job:
    """Pass the log on as it grows, and return the job when it has ended. Raises Detached on Ctrl-C."""
    job = client.job(ref)
    pause = FIRST_PAUSE
    try:
        while True:
            chunk = client.logs(job["id"], offset)
            if chunk.data:
                write(chunk.data)
                offset, pause = chunk.next_offset, FIRST_PAUSE
            elif chunk.ended:
                return client.job(job["id"])
            else:
                time.sleep(pause)
                pause = min(pause * 1.3, LONGEST_PAUSE)
    except KeyboardInterrupt:
        raise detached([job["id"]]) from None


def ended(job: Job) -> bool:
    return job["state"] in TERMINAL_STATES


def succeeded(job: Job) -> None:
    """Say what went wrong and exit with the outcome, unless ``job`` has succeeded."""
    if job["state"] != "succeeded":
        say_error(job)
        raise typer.Exit(outcome(job))


def say_error(job: Job) -> None:
    """Why the job failed and what helps, on stderr; nothing for one that has not."""
    if job.get("error"):
        say(f"error: {job['error']['code']}: {job['error']['message']}")
        if job["error"].get("hint"):
            say(f"hint: {job['error']['hint']}")


def detached(ids: Any) -> Detached:
    return Detached(f"\ndetached; the job goes on. prunectl wait {' '.join(ids)}")


def job_or_sweep(client: Client, ref: str) -> Job:
    """The job that ``ref`` names or, where there is none, the sweep."""
    try:
        return client.job(ref)
    except NotFound as no_job:
        try:
            return client.sweep(ref)
        except NotFound:
            raise no_job from None


def patiently(fetch: Callable[[str], Job], job_id: str) -> Job:
    """The job, through a service that is away for up to `PATIENCE_SECONDS`."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fetch(job_id)
        except Unavailable as error:
            if time.monotonic() > give_up:
                raise Unavailable(error.message, hint=f"the job may still go on: prunectl wait {job_id}") from error
            time.sleep(LONGEST_PAUSE)


@contextmanager
def display(jobs: int) -> Iterator[Display]:
    """A bar for each job on a terminal; a line at each change of state or stage elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=False, speed_estimate_period=300) as progress:
        yield Bars(progress)


class Lines:
    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def update(self, job: Job) -> None:
        if "counts" in job:
            text = what = counts_text(job)
        else:
            text, what = _job_text(job)
        if self._said.get(job["id"]) != what:
            self._said[job["id"]] = what
            say(f"{job['id'][-SHORT_ID:]} {text}")


class Bars:
    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def update(self, job: Job) -> None:
        if job["id"] not in self._tasks:
            self._tasks[job["id"]] = self._progress.add_task("", total=1.0)
        if "counts" in job:
            what = counts_text(job)
        else:
            what = job["stage"] if job["state"] == "running" and job.get("stage") else state_text(job)
        done = 1.0 if job["state"] == "succeeded" else job["progress"]
        self._progress.update(self._tasks[job["id"]], completed=done, description=f"{job['id'][-SHORT_ID:]} {what:<11}")


def _job_text(job: Job) -> tuple[str, str]:
    """A line about the job, and what has to change for the next one."""
    text = state_text(job)
    if job["state"] == "running" and job.get("stage"):
        text = f"{job['stage']} {job['progress']:.0%}"
    # The share alone moves all the time; a line is worth it when the stage does.
    return text, f"{job['state']} {job.get('stage')} {job['attempt']}"
