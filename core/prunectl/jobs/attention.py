"""Attention pictures of jobs that have ended, queued as jobs of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prunectl.attention import PRIORITY, TAG, AttentionJob, AttentionRequest, Pictured, read_spec
from prunectl.errors import Conflict, InvalidInput, nearest
from prunectl.jobs.caller import Caller
from prunectl.jobs.idempotency import request_key
from prunectl.jobs.intake import new_id
from prunectl.jobs.model import Job, JobState
from prunectl.jobs.ports import JobStore, Storage
from prunectl.jobs.records import JobQuery, NewJob
from prunectl.schemas import JobView, Result, spec_of
from prunectl.settings import Settings
from prunectl.storage.layout import published_name

if TYPE_CHECKING:
    from prunectl.jobs.service import JobService


class AttentionService:
    """Asks workers for pictures, for those who may see the job and may submit."""

    def __init__(
        self,
        *,
        jobs: JobService,
        storage: Storage,
        settings: Settings,
    ) -> None:
        self._jobs = jobs
        self._storage = storage
        self._settings = settings

    def draw(
        self,
        caller: Caller,
        ref: str,
        request: AttentionRequest,
        *,
        idempotency_key: str | None = None,
        hub_token: str | None = None,
    ) -> tuple[JobView, bool]:
        """(the job that draws, whether it is new). The identical picture is drawn once.

        Raises Conflict where the job has no checkpoint to look into, and InvalidInput for a layer that its model never
        had.
        """
        caller.require("submit")
        pictured = self._jobs.find(caller, ref)
        key = request_key(caller.owner, idempotency_key, f"attention {pictured.id} {request.model_dump_json()}")
        submitted = self._jobs.queue_once(caller, key, lambda: self._picture(pictured, request), hub_token=hub_token)
        return submitted.job, submitted.created

    def _picture(self, pictured: Job, request: AttentionRequest) -> NewJob:
        body = self._body(pictured, request)
        return NewJob(
            id=new_id(),
            owner=pictured.owner,
            queue=pictured.queue,
            priority=PRIORITY,
            spec=spec_of(body),
            digest=body.digest_for(pictured.owner),
            recipe_digest=pictured.recipe_digest,
            model_name=pictured.model_name,
            model_identity=pictured.model_identity,
            max_failures=body.retries,
            tags=dict(body.tags),
        )

    def _body(self, job: Job, request: AttentionRequest) -> AttentionJob:
        spec = read_spec(job.spec)
        if isinstance(spec, AttentionJob):
            raise Conflict(
                f"job {job.id} is itself a picture of {spec.attention.job}",
                hint=f"prunectl attention {spec.attention.job} draws another",
            )
        result = None if job.result is None else Result.model_validate(job.result)
        checkpoint = published_name(result.artifacts.get("checkpoint", "")) if result else None
        if result is None or checkpoint is None:
            raise Conflict(
                f"job {job.id} is {job.state}: only a job that succeeded has a checkpoint to look into",
                hint=f"prunectl wait {job.id}",
            )
        if not self._storage.exists(checkpoint):
            raise Conflict(f"the checkpoint of job {job.id} is no longer in the storage", hint="run the job again")
        if "data" in result.conditions:  # "images" or "random images": see the stage evaluate
            raise Conflict(f"the model of job {job.id} reads images, and attention is shown for texts alone")
        _check_layers(request, result)
        return AttentionJob(
            model=spec.model,
            recipe=spec.recipe,
            evaluation=spec.evaluation,
            device=spec.device,
            priority=PRIORITY,
            tags={TAG: job.id},
            environment=(request.environment or spec.environment) if self._settings.embedded else None,
            attention=Pictured(
                job=job.id,
                checkpoint=checkpoint,
                model_digest=result.model_digest,
                text=request.text,
                layers=None if request.layers is None else tuple(sorted(set(request.layers))),
            ),
        )


def with_picture(view: JobView, job: Job, store: JobStore) -> JobView:
    """``view`` of ``job`` with the picture of it that was drawn last among its artifacts, if one was."""
    if job.state is not JobState.SUCCEEDED or TAG in job.tags:
        return view
    query = JobQuery(owner=job.owner, states=(JobState.SUCCEEDED,), tags={TAG: job.id}, limit=1)
    for found in store.page(query).items:
        page = ((found.result or {}).get("artifacts") or {}).get("attention")
        if page:
            return view.model_copy(update={"artifacts": {**view.artifacts, "attention": page}})
    return view


def directory_of(artifacts: Mapping[str, str]) -> str:
    """URI of the directory that a job published: its checkpoint, or where its picture lies alone; empty for neither."""
    return artifacts.get("checkpoint") or artifacts.get("attention", "").rpartition("/")[0]


def _check_layers(request: AttentionRequest, result: Result) -> None:
    if request.layers is None:
        return
    structure = result.structure
    tied = len(structure.layers) == 1  # one set of weights, applied again and again
    known = {block.index for block in structure.layers} | set(structure.removed_layers)
    wrong = [number for number in request.layers if number not in known and not tied]
    if wrong:
        near = nearest(str(wrong[0]), [str(number) for number in sorted(known)])
        raise InvalidInput(
            f"layers: the model has no layer {wrong[0]}; its layers are 0 to {max(known)}",
            field="layers",
            value=wrong[0],
            hint=f"did you mean {near or max(known)}?",
        )
