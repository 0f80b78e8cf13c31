"""Real jobs on this machine without a server: the job service over its in-memory twins, and the runner's own pipeline.

A job is submitted, refused or queued, claimed, run and settled as everywhere. Only the runner is forked from a process
that has imported torch instead of started anew, which spares the seconds of the import; the pipeline's reload stage
starts its fresh process all the same.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
for _part in ("tests", "core", "worker", "api", "cli"):
    if str(ROOT / _part) not in sys.path:
        sys.path.insert(0, str(ROOT / _part))


class LocalJobs:
    """A queue in memory; ``home`` is a directory of its own. Raises nothing of a job's own: a job that fails says so."""

    def __init__(self, home: Path, *, threads: int = 1) -> None:
        from prunectl.jobs.service import Caller
        from prunectl.settings import Settings
        from support.service import memory_services

        self.home, self._threads = home, threads
        self.settings = Settings(home=home, embedded=True)
        self.storage = Path(self.settings.storage)
        self.storage.mkdir(parents=True, exist_ok=True)
        self._services = memory_services(self.settings)
        self._caller = Caller("local", frozenset({"submit"}))

    def submit(self, model: Path, recipe: dict[str, Any], evaluation: dict[str, Any], **more: Any) -> str:
        """The job's id. Raises a PrunectlError, or pydantic's ValidationError, where it is refused."""
        from prunectl.schemas import JobCreate

        environment = {"cwd": str(self.home), "hf_hub_offline": True}
        body = {"model": str(model), "recipe": recipe, "evaluation": evaluation, "environment": environment, **more}
        return self._services.jobs.submit(self._caller, JobCreate.model_validate({"retries": 0, **body})).job.id

    def run(self, *, workers: int = 1, tell: Callable[[Any], None] | None = None) -> dict[str, Any]:
        """Every queued job to its end, ``workers`` at a time; id -> the `prunectl.jobs.model.Job` as it is then."""
        from prunectl.jobs.model import Failure
        from prunectl.worker.failures import failure_from_wire

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["prunectl.worker.pipeline"])
        ended = {}
        with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
            running = {}
            self._start_all(pool, running)
            while running:
                future = next(as_completed(running))
                job, answer = running.pop(future), future.result()
                if "wanted" in answer:
                    settled: Any = self._wait(job, answer["wanted"])
                elif "result" in answer:
                    settled = self._services.store.succeed(job.lease, answer["result"])
                else:
                    failure: Failure = failure_from_wire(answer["failure"])
                    settled = self._services.store.fail(job.lease, failure)
                assert settled, f"job {job.id} lost its lease"
                self._services.searches.wake()  # type: ignore[union-attr]
                self._start_all(pool, running)
                found = self._services.store.get(job.id)
                assert found is not None
                if found.state.terminal:
                    ended[job.id] = found
                    if tell is not None:
                        tell(found)
        return ended

    def result(self, job_id: str) -> dict[str, Any]:
        """Of a job that has succeeded."""
        job = self._services.store.get(job_id)
        assert job is not None and job.result is not None, job
        return job.result

    def _start_all(self, pool: ProcessPoolExecutor, running: dict[Any, Any]) -> None:
        while (job := self._claim()) is not None:
            running[pool.submit(_run, asdict(self._assignment(job)))] = job

    def _wait(self, job: Any, wanted: list[list[int]]) -> bool:
        """A greedy search waits for its candidates."""
        from prunectl.jobs import searches

        store: Any = self._services.searches
        known = store.candidates(job.id)
        sweep, new = searches.new_candidates(job, known.sweep_id if known else None, wanted)
        return store.wait_for(job.lease, sweep, new) is not None

    def _claim(self) -> Any:
        return self._services.store.claim(["cpu", "gpu"], worker="local", device="cpu", lease_seconds=24 * 3600.0)

    def _assignment(self, job: Any) -> Any:
        from prunectl.jobs import searches
        from prunectl.worker.assignment import Assignment

        known = self._services.searches.candidates(job.id)  # type: ignore[union-attr]
        scratch = self.home / "scratch" / f"{job.id}-{job.attempt}"
        scratch.mkdir(parents=True)
        return Assignment(
            job_id=job.id,
            attempt=job.attempt,
            lease_token=job.lease.token,
            spec=job.spec,
            model_identity=job.model_identity,
            model_name=job.model_name,
            device="cpu",
            storage_url=self.settings.storage,
            scratch=str(scratch),
            threads=self._threads,
            embedded=True,
            candidates=searches.known(known),
        )


def checkpoint_of(job: Any) -> Path:
    """The directory that a succeeded job published."""
    return Path(unquote(urlsplit(job.result["artifacts"]["checkpoint"]).path))


def _run(given: dict[str, Any]) -> dict[str, Any]:
    """In a forked runner: the result or the failure, as the runner's pipe would carry it."""
    from prunectl.worker import pipeline
    from prunectl.worker.assignment import Assignment
    from prunectl.worker.failures import failure_of
    from prunectl.worker.report import Report, Wanted

    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    with open(os.devnull, "wb") as sink:
        try:
            result = pipeline.run(Assignment(**given), Report(sink.fileno()))
        except Exception as error:  # noqa: BLE001  (as the runner: whatever went wrong is the job's failure)
            return {"failure": json.loads(json.dumps(asdict(failure_of(error))))}
    if isinstance(result, Wanted):
        return {"wanted": [list(removed) for removed in result.removed]}
    return {"result": result.model_dump(mode="json")}
