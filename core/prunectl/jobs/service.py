"""What may be done to jobs, and by whom. Transports translate to and from this; no rule lives anywhere else."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from prunectl.attention import read_spec
from prunectl.errors import Conflict, InvalidInput, NotFound, TooLarge
from prunectl.evaluation.tasks import text_limit
from prunectl.jobs.attention import directory_of, with_picture
from prunectl.jobs.caller import Caller
from prunectl.jobs.catalog import Catalog
from prunectl.jobs.doctor import Check, Doctor
from prunectl.jobs.idempotency import once, request_key
from prunectl.jobs.intake import Intake, new_job_of
from prunectl.jobs.lookup import upload_name
from prunectl.jobs.model import Job, JobState
from prunectl.jobs.ports import Doorbell, IdempotencyStore, JobStore, Storage, WorkerStore
from prunectl.jobs.records import Event, JobQuery, NewJob, RequestKey, Worker
from prunectl.jobs.ringing import Ringer
from prunectl.jobs.secrets import SecretKeeper, kept_while_queueing
from prunectl.jobs.sweeper import alive_within_seconds
from prunectl.jobs.views import full_recipe, view_of, worker_view
from prunectl.pruning import axes, planning
from prunectl.pruning.architectures import family_of
from prunectl.schemas import (
    Environment,
    Inspection,
    JobCreate,
    JobPage,
    JobView,
    Measure,
    ModelInspect,
    ModelRef,
    ModelView,
    Plan,
    QueueView,
    WorkerView,
    flatten,
    job_digest,
)
from prunectl.settings import Settings
from prunectl.storage.layout import LOGS, RUNS, log_name, published_name

log = logging.getLogger(__name__)

MIN_ABBREVIATION = 4
LOG_CHUNK_BYTES = 2**20
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Submitted:
    job: JobView
    created: bool


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a job's log; ``ended`` when the job has ended and nothing is left after ``next_offset`` bytes."""

    data: bytes
    next_offset: int
    ended: bool


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    path: str
    size: int


class JobService:
    """Submits, shows and steers jobs through the ports it is given."""

    def __init__(
        self,
        *,
        store: JobStore,
        workers: WorkerStore,
        idempotency: IdempotencyStore,
        doorbell: Doorbell,
        storage: Storage,
        secrets: SecretKeeper,
        doctor: Doctor,
        settings: Settings,
    ) -> None:
        self._store = store
        self._workers = workers
        self._idempotency = idempotency
        self._ringer = Ringer(store, workers, doorbell, alive_within_seconds(settings))
        self._storage = storage
        self._secrets = secrets
        self._settings = settings
        self._doctor = doctor
        self._catalog = Catalog(settings)
        self._intake = Intake(settings, storage, workers)

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(
        self, caller: Caller, body: JobCreate, *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Submitted:
        """Queue a job, or return the identical one. The doorbell rings after the commit, and may fail without harm."""
        caller.require("submit")
        request = request_key(caller.owner, idempotency_key, body.model_dump_json())

        def admit() -> NewJob:
            return new_job_of(caller, self._intake.admit(body, hub_token=hub_token))

        return self.queue_once(caller, request, admit, hub_token=hub_token, force=body.force)

    def queue_once(
        self,
        caller: Caller,
        request: RequestKey | None,
        admit: Callable[[], NewJob],
        *,
        hub_token: str | None,
        force: bool = False,
    ) -> Submitted:
        """Queue what ``admit`` admits, or return the identical job, or the one that an earlier ``request`` was for."""
        return once(
            self._idempotency,
            request,
            lambda: self._queue(admit(), hub_token, request, force),
            lambda job_id: Submitted(view_of(self.find(caller, job_id)), created=False),
        )

    def _queue(self, new: NewJob, hub_token: str | None, request: RequestKey | None, force: bool) -> Submitted:
        token = hub_token if self._settings.embedded else None
        with kept_while_queueing(self._secrets, token, [new.id]) as created:
            [added] = self._store.add([new], force=force, request=request)
            if added.created:
                created.append(new.id)
        if added.created:
            self._ringer.ring(added.job.queue, 1)
        return Submitted(view_of(added.job), added.created)

    def _alive(self) -> Sequence[Worker]:
        return self._workers.workers(alive_within_seconds=alive_within_seconds(self._settings))

    def plan(self, caller: Caller, body: JobCreate, *, hub_token: str | None = None) -> Plan:
        """What `submit` would do, from ``config.json`` alone. Also refuses an architecture that can't be pruned."""
        caller.require("read")
        admitted = self._intake.admit(body, hub_token=hub_token)
        if admitted.config is None:
            raise InvalidInput(
                f"config.json of {body.model} can't be read from here now",
                field="model",
                value=body.model,
                hint="check the network, HF_ENDPOINT and HF_TOKEN, or submit without --dry-run and let the worker fetch it",
            )
        config, recipe = admitted.config, body.recipe
        seq = text_limit(config, body.evaluation.bench_seq, field="bench_seq")
        family = family_of(config)
        planned = axes.plan(config, recipe, seq)
        units = planned.units
        identical = self._store.identical(job_digest(caller.owner, admitted.located.identity, body))
        return Plan(
            model=ModelRef(name=body.model),
            family=family.model_type,
            task=admitted.task or "auto",
            recipe=full_recipe(recipe),
            recipe_digest=recipe.digest,
            heads_total=units.heads_total,
            heads_removed=units.heads_removed,
            ffn_total=units.ffn_total,
            ffn_removed=units.ffn_removed,
            layers_total=planned.layers_total,
            layers_removed=planned.layers_removed,
            weights_total=planned.weights_total,
            weights_zeroed=planned.weights_zeroed,
            parameters=Measure(
                before=planning.count_parameters(config),
                after=planned.parameters,
            ),
            macs=Measure(before=planning.count_macs(config, seq), after=planned.macs(seq)),
            queue=admitted.queue,
            identical_job=None if identical is None else identical.id,
            notes=[*admitted.notes, *planned.notes],
        )

    # -- looking ------------------------------------------------------------------------------------------------------

    def list(self, caller: Caller, query: JobQuery) -> JobPage:
        caller.require("read")
        if not caller.is_admin:
            query = replace(query, owner=caller.owner)
        rows = self._store.page(query)
        items = [self._here(view_of(job, structure=False)) for job in rows.items]
        return JobPage(items=items, next_cursor=rows.next_cursor)

    def show(self, caller: Caller, ref: str) -> JobView:
        caller.require("read")
        job = self.find(caller, ref)
        return self._here(with_picture(view_of(job), job, self._store))

    def spec(self, caller: Caller, ref: str) -> dict[str, Any]:
        """The flat recipe file that submits this job again."""
        caller.require("read")
        return flatten(read_spec(self.find(caller, ref).spec))

    def events(self, caller: Caller, ref: str, after: int) -> Sequence[Event]:
        caller.require("read")
        return self._store.events(self.find(caller, ref).id, after=after)

    def workers(self, caller: Caller) -> Sequence[WorkerView]:
        caller.require("read")
        running: dict[str, list[str]] = {}
        for worker_name, job_id in self._store.running():
            running.setdefault(worker_name, []).append(job_id)
        alive = {worker.token for worker in self._alive()}
        return [
            worker_view(w, alive=w.token in alive, running=running.get(w.name, [])) for w in self._workers.workers()
        ]

    def queues(self, caller: Caller) -> Sequence[QueueView]:
        caller.require("read")
        counts = self._store.queue_counts()
        alive = self._alive()
        names = sorted({"cpu", "gpu", *counts, *(queue for w in alive for queue in w.queues)})
        views = []
        for name in names:
            queued, running = counts.get(name, (0, 0))
            serving = [w for w in alive if name in w.queues]
            views.append(
                QueueView(
                    name=name, queued=queued, running=running, workers=len(serving), slots=sum(w.slots for w in serving)
                )
            )
        return views

    def models(self, caller: Caller, environment: Environment | None = None) -> Sequence[ModelView]:
        caller.require("read")
        return self._catalog.models(environment)

    def model(self, caller: Caller, name: str, environment: Environment | None = None) -> ModelView:
        caller.require("read")
        return self._catalog.model(name, environment)

    def inspect(self, caller: Caller, body: ModelInspect, *, hub_token: str | None = None) -> Inspection:
        """What a model is made of, from ``config.json`` alone; takes the names that `submit` takes."""
        caller.require("read")
        return self._intake.inspect(body.model, body.environment, hub_token=hub_token)

    def health(self) -> dict[str, str]:
        """``ok`` or what is wrong, for each part that the service can't work without."""
        return {check.name: "ok" if check.ok else check.detail for check in self._doctor.service_checks()}

    def doctor(self, caller: Caller) -> Sequence[Check]:
        caller.require("read")
        return self._doctor.all_checks()

    # -- steering -----------------------------------------------------------------------------------------------------

    def cancel(self, caller: Caller, ref: str) -> JobView:
        """A queued job is cancelled at once, a running one by its worker's next heartbeat; a cancelled one stays as it is.
        Raises Conflict where it has ended otherwise.
        """
        caller.require("submit")
        job = self.find(caller, ref)
        return view_of(job if job.state is JobState.CANCELLED else self._changed(self._store.cancel(job.id), ref))

    def retry(self, caller: Caller, ref: str) -> JobView:
        caller.require("submit")
        job = self._changed(self._store.retry(self.find(caller, ref).id), ref)
        self._ringer.ring(job.queue, 1)
        return view_of(job)

    def remove(self, caller: Caller, ref: str, *, keep_artifacts: bool = False) -> JobView:
        """Delete an ended job's row, then its artifacts and logs: a crash in between leaves orphans, which are collected."""
        caller.require("submit")
        job = self._changed(self._store.remove(self.find(caller, ref).id), ref)
        if not keep_artifacts:
            self._storage.remove(f"{RUNS}/{job.id}")
            self._storage.remove(f"{LOGS}/{job.id}")
        return view_of(job)

    # -- logs, artifacts, uploads -------------------------------------------------------------------------------------

    def logs(self, caller: Caller, ref: str, *, offset: int) -> LogChunk:
        """Bytes from ``offset`` of the logs of all attempts, one after the other; at most 1 MiB a call."""
        caller.require("read")
        # The job first, the bytes after: what was written before the end is then in the bytes.
        job = self.find(caller, ref)
        skip = offset
        for attempt in range(1, job.attempt + 1):
            name = log_name(job.id, attempt)
            size = self._storage.size(name) or 0
            if skip < size:
                data = self._storage.read(name, offset=skip, length=LOG_CHUNK_BYTES)
                return LogChunk(data, offset + len(data), ended=False)
            skip -= size
        return LogChunk(b"", offset, ended=job.state.terminal)

    def artifact_files(self, caller: Caller, ref: str) -> Sequence[ArtifactFile]:
        """Files of the job's checkpoint directory, by path relative to it."""
        caller.require("read")
        root = self._artifact_root(self.find(caller, ref))
        files = []
        for path in sorted(self._storage.list(root)):
            size = self._storage.size(f"{root}/{path}")
            if size is not None:
                files.append(ArtifactFile(path, size))
        return files

    def open_artifact(self, caller: Caller, ref: str, path: str) -> tuple[AbstractContextManager[Any], int]:
        """(a context manager of a binary file, its size). Raises NotFound for anything that is not in the job's own directory."""
        caller.require("read")
        root = self._artifact_root(self.find(caller, ref))
        parts = PurePosixPath(path).parts
        if path not in self._storage.list(root) or ".." in parts or path.startswith("/"):
            raise NotFound(f"the job has no artifact {path!r}", hint="prunectl pull ID DIR fetches all of them")
        name = f"{root}/{path}"
        return self._storage.open(name), self._storage.size(name) or 0

    def _artifact_root(self, job: Job) -> str:
        uri = directory_of((job.result or {}).get("artifacts") or {})
        name = self._storage.name_of(self._uri_here(uri)) if uri else None
        if name is None:
            raise NotFound(f"job {job.id} is {job.state} and has no checkpoint", hint="prunectl show says why")
        return name

    def _here(self, view: JobView) -> JobView:
        artifacts = {kind: self._uri_here(uri) for kind, uri in view.artifacts.items()}
        return view if artifacts == view.artifacts else view.model_copy(update={"artifacts": artifacts})

    def _uri_here(self, uri: str) -> str:
        """Where an artifact is now: a home may have been moved, or a storage mounted elsewhere, since it was published."""
        name = published_name(uri)
        if name is None or self._storage.name_of(uri) is not None or not self._storage.exists(name):
            return uri
        return self._storage.uri(name)

    def has_upload(self, caller: Caller, sha256: str) -> bool:
        caller.require("read")
        return self._storage.exists(upload_name(_digest(sha256)))

    def upload(self, caller: Caller, sha256: str, chunks: Iterable[bytes]) -> str:
        """Keep a data file under its own digest; raises InvalidInput if the bytes have another, TooLarge past the limit."""
        caller.require("submit")
        name = upload_name(_digest(sha256))
        limit, seen, total = self._settings.upload_limit, hashlib.sha256(), 0

        def checked() -> Iterator[bytes]:
            nonlocal total
            for chunk in chunks:
                total += len(chunk)
                if limit is not None and total > limit:
                    raise TooLarge(
                        f"an upload may have at most {limit} bytes", hint="PRUNECTL_MAX_UPLOAD_BYTES sets the limit"
                    )
                seen.update(chunk)
                yield chunk
            if seen.hexdigest() != sha256:
                raise InvalidInput("the bytes have another SHA-256 than the address says", field="sha256", value=sha256)

        self._storage.write_stream(name, checked())
        return name

    # -- shared -------------------------------------------------------------------------------------------------------

    def find(self, caller: Caller, ref: str) -> Job:
        """The job that ``ref`` names, whole or abbreviated. Another owner's is as if it were not there."""
        ref = ref.strip().lower()
        owner = caller.sees
        hint = "prunectl list -a shows all"
        if len(ref) < MIN_ABBREVIATION or not ref.isalnum():
            raise NotFound(
                f"no job {ref!r}: an id, or at least {MIN_ABBREVIATION} characters of its start or end", hint=hint
            )
        ids = self._store.find(ref, owner=owner)
        if len(ids) > 1 and ref not in ids:
            raise Conflict(f"{ref!r} fits more than one job: " + ", ".join(ids), hint="give more characters")
        job = self._store.get(ref if ref in ids else ids[0]) if ids else None
        if job is None or (owner is not None and job.owner != owner):
            raise NotFound(f"no job {ref!r}", hint=hint)
        return job

    @staticmethod
    def _changed(job: Job | None, ref: str) -> Job:
        if job is None:
            raise JobService.removed(ref)
        return job

    @staticmethod
    def removed(ref: str) -> NotFound:
        return NotFound(f"no job {ref!r}: it was removed meanwhile")


def _digest(sha256: str) -> str:
    if not _SHA256.match(sha256):
        raise InvalidInput("a SHA-256 is 64 lower-case hexadecimal digits", field="sha256", value=sha256)
    return sha256
