"""Serves one job: claims it, has a runner do it, and writes down how it ended, all under the job's lease."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from prunectl.errors import FailureClass, PrunectlError
from prunectl.jobs import model, searches
from prunectl.jobs.model import Failure, Job
from prunectl.jobs.ports import Doorbell, JobEvents, JobStore, NoJobEvents, SearchStore, Storage
from prunectl.jobs.records import Candidates
from prunectl.jobs.ringing import MAX_RINGS
from prunectl.jobs.secrets import SecretFiles
from prunectl.jobs.steering import Steering
from prunectl.schemas import Result
from prunectl.settings import Settings
from prunectl.storage.layout import log_name, run_name
from prunectl.worker.assignment import Assignment
from prunectl.worker.attempt import Ending, Outcome, reason_to_end, watch
from prunectl.worker.failures import failure_from_wire, failure_of, failure_of_exit, oom_kill_count
from prunectl.worker.lease_keeper import LeaseKeeper
from prunectl.worker.log_pump import LogPump
from prunectl.worker.runner_process import RUNNER, RunnerProcess, runner_environment
from prunectl.worker.scratch import scratch_directory
from prunectl.worker.stop_flag import StopFlag
from prunectl.worker.warm_runners import WarmRunners

logger = logging.getLogger(__name__)
T = TypeVar("T")

_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Slot:
    """Which worker this is, and which of its slots."""

    worker: str
    queues: Sequence[str]
    index: int = 0
    count: int = 1


class Supervisor:
    """One slot of a worker. ``runner`` is the command line of a runner, ``template`` that of a template of runners.

    No ``template``: each runner is started anew. Tests give command lines of their own. `close` it where the process
    goes on.
    """

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        doorbell: Doorbell,
        settings: Settings,
        slot: Slot,
        stop: StopFlag,
        *,
        runner: Sequence[str] = RUNNER,
        template: Sequence[str] | None = None,
        events: JobEvents | None = None,
        searches: SearchStore | None = None,
    ) -> None:
        self._searches = searches
        self._store = store
        self._storage = storage
        self._doorbell = doorbell
        self._settings = settings
        self._slot = slot
        self._stop = stop
        self._runner = runner
        self.warm = WarmRunners(template) if template is not None and settings.warm_runners else None
        self._events = events or NoJobEvents()
        self._secrets = SecretFiles(settings.home / "secrets")
        self._steering = Steering()

    def close(self) -> None:
        """End the template of runners, if there is one."""
        if self.warm is not None:
            self.warm.close()

    def serve_one(self) -> bool:
        """Do the best queued job of our queues, if there is one; whether there was one."""
        if self._stop:
            return False
        claimed_at = time.monotonic()
        job = self._claim()
        if job is None:
            return False
        logger.info("job %s: attempt %d begins", job.id, job.attempt)
        keeper = LeaseKeeper(
            self._store,
            job.lease,
            claimed_at=claimed_at,
            lease_seconds=self._settings.lease_seconds,
            heartbeat_seconds=self._settings.heartbeat_seconds,
        )
        keeper.start()
        try:
            self._events.claimed(job)
            ended = self._serve(job, keeper, claimed_at)
        finally:
            keeper.stop()
        self._after(job, ended)
        return True

    def _claim(self) -> Job | None:
        return self._store.claim(
            self._slot.queues,
            worker=self._slot.worker,
            lease_seconds=self._settings.lease_seconds,
            max_running_per_owner=self._settings.max_running_per_owner,
            steering=self._steering,
        )

    def _serve(self, job: Job, keeper: LeaseKeeper, claimed_at: float) -> Job | None:
        """The job as it is now, where we know it: we have just ended it."""
        oom_kills = oom_kill_count()
        try:
            candidates = self._candidates(job)
            if (failure := searches.obstacle(job, candidates)) is not None:
                return self._fail(job, keeper, failure)
            if candidates is not None and searches.active(candidates):
                self._wait(job, keeper, candidates, [])
                return None
            outcome = self._run(job, keeper, claimed_at, candidates)
        except (SystemExit, KeyboardInterrupt):  # the pool ends this process: give the job back before it does
            self._insist(keeper, lambda: self._store.hand_back(job.lease))
            self._withdraw(job)
            raise
        except Exception as error:
            logger.exception("job %s: could not be run", job.id)
            return self._fail(job, keeper, failure_of(error))
        if outcome.ending is Ending.FENCED:
            logger.warning("job %s: attempt %d lost its lease; nothing is written", job.id, job.attempt)
            self._withdraw(job)
        elif outcome.received.result is not None:
            return self._succeed(job, keeper, outcome.received.result)
        elif outcome.received.wanted is not None:
            self._wait(job, keeper, candidates, outcome.received.wanted)
        elif outcome.ending is Ending.STOPPED:
            self._hand_back(job, keeper)
        elif outcome.ending is Ending.CANCELLED:
            self._insist(keeper, lambda: self._store.acknowledge_cancel(job.lease))
            self._withdraw(job)
            logger.info("job %s: cancelled", job.id)
        else:
            return self._fail(job, keeper, self._failure(job, outcome, oom_kill_count() - oom_kills))
        return None

    def _candidates(self, job: Job) -> Candidates | None:
        """What a search has tried so far; None for any other job, and before its first step."""
        if self._searches is None or not searches.is_search(job):
            return None
        return self._searches.candidates(job.id)

    def _wait(self, job: Job, keeper: LeaseKeeper, known: Candidates | None, wanted: list[list[int]]) -> None:
        """Queue what a search wants to try, and the search behind it: it holds no slot while they run."""
        store = self._searches
        if store is None:
            self._fail(job, keeper, Failure(FailureClass.USER_ERROR, "internal_error", "this worker can't search"))
            return
        sweep, new = searches.new_candidates(job, known.sweep_id if known else None, wanted)
        if self._settings.embedded:
            self._secrets.share(job.id, [item.id for item in new])
        added = self._insist(keeper, lambda: store.wait_for(job.lease, sweep, new))
        for item in new:
            if not any(other.created and other.job.id == item.id for other in added or ()):
                self._secrets.drop(item.id)
        if added is None:
            logger.warning("job %s: attempt %d came too late; it queued nothing", job.id, job.attempt)
            return
        queued = sum(item.created for item in added)
        logger.info("job %s: waits for its candidates, %d of %d of them new", job.id, queued, len(added))
        if queued:
            self._doorbell.ring(job.queue, min(queued, MAX_RINGS))

    def _run(self, job: Job, keeper: LeaseKeeper, claimed_at: float, candidates: Candidates | None) -> Outcome:
        name = f"{job.id}-a{job.attempt}-{job.lease.token[:8]}"
        with scratch_directory(self._settings.home / "scratch", name) as scratch:
            assignment = self._assignment(job, str(scratch), candidates)
            environment = runner_environment(assignment, slot=self._slot.index)
            deadline = claimed_at + self._timeout_seconds(job)

            def patient() -> bool:
                return reason_to_end(keeper, self._stop, time.monotonic() > deadline) is None

            process = RunnerProcess(self._runner, assignment, environment, self.warm, patient)
            pump = LogPump(self._storage, log_name(job.id, job.attempt), process.output)
            pump.say(f"attempt {job.attempt} on {self._slot.worker}, process {process.pid}")
            pump.start()
            try:
                outcome = watch(
                    process,
                    keeper,
                    self._stop,
                    deadline=deadline,
                    grace_seconds=self._settings.cancel_grace_seconds,
                    say=pump.say,
                )
                if outcome.status != 0:
                    pump.say(f"exit status {outcome.status}")
                    if outcome.ending is Ending.EXITED:  # by a fault: the next one shares nothing with it
                        self.close()
                        self._steering = Steering()
                return outcome
            finally:
                os.close(process.report)
                pump.finish()

    def _assignment(self, job: Job, scratch: str, candidates: Candidates | None) -> Assignment:
        settings = self._settings
        cores = len(os.sched_getaffinity(0))
        hub_token = self._secrets.path(job.id)
        return Assignment(
            job_id=job.id,
            attempt=job.attempt,
            lease_token=job.lease.token,
            spec=job.spec,
            model_identity=job.model_identity,
            model_name=job.model_name,
            device=job.queue,
            storage_url=settings.storage,
            scratch=scratch,
            threads=max(1, cores // self._slot.count),
            zoo_roots=tuple(str(root.absolute()) for root in settings.zoo_roots),
            embedded=settings.embedded,
            hub_token_file=str(hub_token) if settings.embedded and hub_token.is_file() else None,
            candidates=searches.known(candidates),
            log_level=settings.log_level,
            log_format=settings.log_format,
        )

    def _timeout_seconds(self, job: Job) -> float:
        return job.timeout_seconds if job.timeout_seconds is not None else self._settings.job_timeout_seconds

    def _failure(self, job: Job, outcome: Outcome, oom_kills: int) -> Failure:
        if outcome.ending is Ending.TIMED_OUT:
            seconds = self._timeout_seconds(job)
            return Failure(
                FailureClass.TIMEOUT,
                "timeout",
                f"the job took longer than its {seconds:g} s",
                "submit with a longer --timeout",
            )
        if outcome.received.failure is not None:
            return failure_from_wire(outcome.received.failure)
        return failure_of_exit(outcome.status, oom_kills=oom_kills)

    def _succeed(self, job: Job, keeper: LeaseKeeper, raw: dict[str, object]) -> Job | None:
        try:
            result = Result.model_validate(raw).model_dump(mode="json")
        except ValidationError as error:
            logger.error("job %s: its runner's result is not valid: %s", job.id, error)
            failure = Failure(
                FailureClass.USER_ERROR, "internal_error", f"the result is not valid: {error.errors()[0]['msg']}"
            )
            return self._fail(job, keeper, failure)
        ended_at = self._insist(keeper, lambda: self._store.succeed(job.lease, result))
        if ended_at is not None:
            logger.info("job %s: succeeded", job.id)
            self._steering = Steering(job.model_identity)
            return model.succeed(job, job.lease, result, now=ended_at)
        # Refused, or the answer was lost on the way: only the database knows whether this very attempt succeeded.
        if not self._names_our_artifacts(job):
            logger.warning("job %s: attempt %d came too late; nothing is written", job.id, job.attempt)
            self._withdraw(job)
        return None

    def _names_our_artifacts(self, job: Job) -> bool:
        try:
            current = self._store.get(job.id)
        except PrunectlError as error:
            logger.warning("job %s: outcome unknown, the collector will tidy up: %s", job.id, error.message)
            return True
        return current is not None and current.result is not None and current.attempt == job.attempt

    def _fail(self, job: Job, keeper: LeaseKeeper, failure: Failure) -> Job | None:
        now = self._insist(keeper, lambda: self._store.fail(job.lease, failure))
        self._withdraw(job)
        state = now.state if now else "out of our hands"
        logger.warning(
            "job %s: attempt %d failed (%s: %s), now %s", job.id, job.attempt, failure.code, failure.message, state
        )
        return now

    def _hand_back(self, job: Job, keeper: LeaseKeeper) -> None:
        handed_back = self._insist(keeper, lambda: self._store.hand_back(job.lease))
        self._withdraw(job)
        if handed_back:
            logger.info("job %s: handed back", job.id)
            self._doorbell.ring(job.queue)

    def _insist(self, keeper: LeaseKeeper, write: Callable[[], T]) -> T | None:
        """Try a write again while the database is away and the lease is ours; None when that ends."""
        while True:
            try:
                return write()
            except PrunectlError as error:
                logger.warning("can't write the job's end, trying again: %s", error.message)
                if keeper.fenced:
                    return None
                time.sleep(_RETRY_SECONDS)

    def _withdraw(self, job: Job) -> None:
        """Remove what this attempt published; its name is ours alone, so nobody else's can be hit."""
        try:
            self._storage.remove(run_name(job.id, job.attempt, job.lease.token))
        except (PrunectlError, OSError) as error:
            logger.warning("job %s: what attempt %d published is left to the collector: %s", job.id, job.attempt, error)

    def _after(self, job: Job, ended: Job | None) -> None:
        """Forget the secret of a job that has ended, and ring if more jobs wait.

        The message that woke us stands for one job. We ring again instead of looping, so that we can be stopped.
        """
        try:
            current = ended or self._store.get(job.id)
            self._wake(job)
            counts = self._store.queue_counts(at_most=1)
        except PrunectlError as error:
            logger.warning("can't see whether more jobs wait, the sweeper will: %s", error.message)
            return
        if current is None or current.state.terminal:
            self._secrets.drop(job.id)
        if current is not None and current.attempt == job.attempt:
            self._events.ended(current)
        for queue in self._slot.queues:
            if counts.get(queue, (0, 0))[0]:
                self._doorbell.ring(queue)
                return

    def _wake(self, job: Job) -> None:
        """Wake the searches that waited for this job last. One that is missed, a sweeper wakes."""
        if self._searches is not None and (job.sweep_id is not None or searches.is_search(job)):
            for woken in self._searches.wake():
                logger.info("job %s: its candidates have ended", woken.id)
                self._doorbell.ring(woken.queue)
