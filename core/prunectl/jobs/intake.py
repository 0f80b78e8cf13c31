"""What happens to a submission before it is queued: everything that can be refused without weights is refused here.

Reads ``config.json`` and the uploaded data file at most; never weights, never torch. What only a worker can see (missing or
corrupt weights, an architecture that it can't prune, no tokenizer) fails the job instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from ulid import ULID

from prunectl.errors import HubForbidden, HubUnavailable, InvalidInput, UnsupportedArchitecture
from prunectl.evaluation import data
from prunectl.evaluation.tasks import refuse_builtin, task_of, text_limit
from prunectl.inspection import inspect
from prunectl.jobs.caller import Caller
from prunectl.jobs.lookup import Source, find_model, hub_settings, parse_source, upload_name
from prunectl.jobs.ports import Storage, WorkerStore
from prunectl.jobs.records import NewJob
from prunectl.jobs.sweeper import alive_within_seconds
from prunectl.pruning import axes, planning
from prunectl.pruning.architectures import family_of
from prunectl.schemas import BUILTIN_TEXT, Environment, Inspection, JobCreate, column_names, job_digest, spec_of
from prunectl.settings import Settings
from prunectl.zoo import datasets
from prunectl.zoo.config import read_config
from prunectl.zoo.resolve import Located


@dataclass(frozen=True, slots=True)
class Admitted:
    """A submission that may be queued, with what was learnt on the way."""

    body: JobCreate
    located: Located
    queue: str
    config: dict[str, Any] | None
    task: str | None
    notes: list[str] = field(default_factory=list)


def new_id() -> str:
    """A new id: a ULID, so that ids sort by their time, to the millisecond."""
    return str(ULID()).lower()


def new_job_of(caller: Caller, admitted: Admitted, *, job_id: str | None = None, sweep_id: str | None = None) -> NewJob:
    """The row to be queued for an admitted submission."""
    body = admitted.body
    return NewJob(
        id=job_id or new_id(),
        owner=caller.owner,
        queue=admitted.queue,
        priority=body.priority,
        spec=spec_of(body),
        digest=job_digest(caller.owner, admitted.located.identity, body),
        recipe_digest=body.recipe.digest,
        model_name=body.model,
        model_identity=admitted.located.identity,
        max_failures=body.retries,
        timeout_seconds=body.timeout_seconds,
        name=body.name,
        sweep_id=sweep_id,
        tags=dict(body.tags),
    )


class Intake:
    """Checks submissions against the model's configuration, the uploaded data and the workers that are alive."""

    def __init__(self, settings: Settings, storage: Storage, workers: WorkerStore) -> None:
        self._settings = settings
        self._storage = storage
        self._workers = workers

    def admit(self, body: JobCreate, *, hub_token: str | None) -> Admitted:
        """Raises InvalidInput (or a subclass) naming the field at fault; nothing was queued then."""
        [admitted] = self.admit_all([body], hub_token=hub_token)
        return admitted

    def admit_all(self, bodies: Iterable[JobCreate], *, hub_token: str | None) -> list[Admitted]:
        """`admit` for many: what they share (models, data files, recipes) is looked at once."""
        looks = _Looks(
            locate=cache(partial(self._locate, hub_token=hub_token)),
            config=cache(partial(self._config, hub_token=hub_token)),
            read=cache(partial(self._read, hub_token=hub_token)),
            served=cache(self._served),
            checked={},
        )
        return [self._admit(body, looks) for body in bodies]

    def _admit(self, body: JobCreate, looks: _Looks) -> Admitted:
        if body.environment is not None and not self._settings.embedded:
            body = body.model_copy(update={"environment": None})
        located = looks.locate(body.model, body.environment)
        config = looks.config(located, body.environment)
        notes: list[str] = []
        task = None
        sources = {
            flag: parse_source(value, flag=flag)
            for flag, value in (
                ("data", body.evaluation.data),
                ("calibration", body.evaluation.calibration),
                ("vocab", body.recipe.vocab),
                ("recover_data", body.recipe.recover_data),
            )
            if value is not None
        }
        examples = {
            flag: looks.read(source, flag, body.evaluation.columns or (), body.environment)
            for flag, source in sources.items()
        }
        if config is not None:
            # The seed draws what is removed, never how much: recipes that differ by it alone are checked once.
            same = (located, body.environment, body.evaluation, body.recipe.model_copy(update={"seed": 0}))
            if same not in looks.checked:
                looks.checked[same] = self._check_model(body, config, examples)
            task = looks.checked[same]
        return Admitted(body, located, self._queue(body, looks.served(), notes), config, task, notes)

    def _locate(self, model: str, environment: Environment | None, *, hub_token: str | None) -> Located:
        return find_model(
            model,
            embedded=self._settings.embedded,
            own_roots=self._settings.zoo_roots,
            environment=environment,
            hub=hub_settings(environment, hub_token),
        )

    def inspect(self, name: str, environment: Environment | None, *, hub_token: str | None) -> Inspection:
        """What the model ``name`` is made of; raises what `admit` does for a model that can't be found or read."""
        environment = environment if self._settings.embedded else None
        located = self._locate(name, environment, hub_token=hub_token)
        return inspect(read_config(located, hub_settings(environment, hub_token)), name)

    def _config(
        self, located: Located, environment: Environment | None, *, hub_token: str | None
    ) -> dict[str, Any] | None:
        """None where the Hub can't be asked now: the worker will."""
        try:
            return read_config(located, hub_settings(environment, hub_token))
        except (HubUnavailable, HubForbidden):
            return None

    def _read(
        self,
        source: Source,
        flag: str,
        columns: tuple[str, ...],
        environment: Environment | None,
        *,
        hub_token: str | None,
    ) -> list[data.Example]:
        """The rows of an uploaded file; nothing of text that only the worker reads."""
        if source.kind == "builtin":
            return []
        if source.hub is not None:
            with suppress(HubUnavailable, HubForbidden):  # the worker will ask
                datasets.look(source.hub, hub_settings(environment, hub_token), field=flag)
            return []
        assert source.digest is not None
        name = upload_name(source.digest)
        if not self._storage.exists(name):
            raise InvalidInput(
                f"no file with digest {source.digest} was uploaded",
                field=flag,
                value=source.name,
                hint="PUT it to /v1/uploads/<sha256> first; prunectl submit does",
            )
        with self._storage.local_path(name) as path:
            names = column_names(columns)
            return data.read(path, suffix=source.suffix, name=source.name, field=flag, columns=names)

    def _check_model(
        self, body: JobCreate, config: Mapping[str, Any], examples: Mapping[str, list[data.Example]]
    ) -> str | None:
        try:
            family = family_of(config)
        except UnsupportedArchitecture:
            return None
        planning.check_engine(family.model_type, body.recipe)
        for flag in ("data", "calibration"):
            if getattr(body.evaluation, flag) == BUILTIN_TEXT:
                refuse_builtin(config, flag)
        data.refuse_other_kind(examples.get("data", ()), config, "data")
        task = task_of(config, body.evaluation.task, data.labels_of(examples.get("data", ())))
        checked = {
            flag: data.check(rows, config, task, field=flag) for flag, rows in examples.items() if flag != "vocab"
        }
        _check_sides(body, checked)
        axes.check_vocabulary(config, body.recipe)
        axes.check_export(config, body.recipe)
        text_limit(config, body.evaluation.max_length)
        axes.plan(config, body.recipe, text_limit(config, body.evaluation.bench_seq, field="bench_seq"))
        return task

    def _served(self) -> frozenset[str]:
        alive = self._workers.workers(alive_within_seconds=alive_within_seconds(self._settings))
        return frozenset(queue for worker in alive for queue in worker.queues)

    @staticmethod
    def _queue(body: JobCreate, served: frozenset[str], notes: list[str]) -> str:
        queue = body.device if body.device != "auto" else ("gpu" if "gpu" in served else "cpu")
        if queue not in served:
            notes.append(f"no worker serves the queue {queue!r} now; the job waits until one does")
        return queue


def _check_sides(body: JobCreate, examples: Mapping[str, Sequence[data.Example]]) -> None:
    """Raises InvalidData where uploaded files leave nothing to calibrate or to evaluate on."""
    rows, calibration = examples.get("data"), examples.get("calibration")
    if rows and (calibration or body.evaluation.calibration is None):
        number = body.evaluation.max_samples
        data.split(rows, calibration=calibration, n_evaluation=number, n_calibration=1, seed=body.recipe.seed)


@dataclass(frozen=True)
class _Looks:
    """What one call of `Intake.admit_all` has found out so far."""

    locate: Callable[[str, Environment | None], Located]
    config: Callable[[Located, Environment | None], dict[str, Any] | None]
    read: Callable[[Source, str, tuple[str, ...], Environment | None], list[data.Example]]
    served: Callable[[], frozenset[str]]
    checked: dict[Any, str | None]
    """The task, by model, evaluation and recipe."""
