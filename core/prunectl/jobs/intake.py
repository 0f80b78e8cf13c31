"""What happens to a submission before it is queued: everything that can be refused without weights is refused here.

Reads ``config.json`` and the uploaded data file at most; never weights, never torch. What only a worker can see (missing or
corrupt weights, an architecture that it can't prune, no tokenizer) fails the job instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunectl.errors import HubForbidden, HubUnavailable, InvalidInput, UnsupportedArchitecture
from prunectl.evaluation import data
from prunectl.evaluation.tasks import refuse_data, task_of, text_limit
from prunectl.inspection import inspect
from prunectl.jobs.lookup import Source, find_model, hub_settings, parse_source, upload_name
from prunectl.jobs.ports import Storage, WorkerStore
from prunectl.jobs.sweeper import alive_within_seconds
from prunectl.pruning import axes, planning
from prunectl.pruning.architectures import family_of
from prunectl.schemas import Environment, Inspection, JobCreate
from prunectl.settings import Settings
from prunectl.zoo.config import read_config
from prunectl.zoo.resolve import HubSettings, Located


@dataclass(frozen=True, slots=True)
class Admitted:
    """A submission that may be queued, with what was learnt on the way."""

    body: JobCreate
    located: Located
    queue: str
    config: dict[str, Any] | None
    task: str | None
    notes: list[str] = field(default_factory=list)


class Intake:
    """Checks submissions against the model's configuration, the uploaded data and the workers that are alive."""

    def __init__(self, settings: Settings, storage: Storage, workers: WorkerStore) -> None:
        self._settings = settings
        self._storage = storage
        self._workers = workers

    def admit(self, body: JobCreate, *, hub_token: str | None) -> Admitted:
        """Raises InvalidInput (or a subclass) naming the field at fault; nothing was queued then."""
        environment = body.environment if self._settings.embedded else None
        body = body.model_copy(update={"environment": environment})
        hub = hub_settings(environment, hub_token)
        located = find_model(
            body.model,
            embedded=self._settings.embedded,
            own_roots=self._settings.zoo_roots,
            environment=environment,
            hub=hub,
        )
        config = self._config(located, hub)
        notes: list[str] = []
        task = None
        sources = {
            flag: parse_source(value, flag=flag)
            for flag, value in (
                ("data", body.evaluation.data),
                ("calibration", body.evaluation.calibration),
                ("vocab", body.recipe.vocab),
            )
            if value is not None
        }
        examples = {flag: self._read(source, flag) for flag, source in sources.items()}
        if config is not None:
            task = self._check_model(body, config, examples)
        return Admitted(body, located, self._queue(body, notes), config, task, notes)

    def inspect(self, name: str, environment: Environment | None, *, hub_token: str | None) -> Inspection:
        """What the model ``name`` is made of; raises what `admit` does for a model that can't be found or read."""
        environment = environment if self._settings.embedded else None
        hub = hub_settings(environment, hub_token)
        located = find_model(
            name,
            embedded=self._settings.embedded,
            own_roots=self._settings.zoo_roots,
            environment=environment,
            hub=hub,
        )
        return inspect(read_config(located, hub), name)

    def _config(self, located: Located, hub: HubSettings) -> dict[str, Any] | None:
        """None where the Hub can't be asked now: the worker will."""
        try:
            return read_config(located, hub)
        except (HubUnavailable, HubForbidden):
            return None

    def _read(self, source: Source, flag: str) -> list[data.Example]:
        if source.kind == "builtin":
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
            return data.read(path, suffix=source.suffix, name=source.name, field=flag)

    def _check_model(
        self, body: JobCreate, config: Mapping[str, Any], examples: Mapping[str, list[data.Example]]
    ) -> str | None:
        labelled = any(example.label is not None for example in examples.get("data", ()))
        try:
            family = family_of(config)
        except UnsupportedArchitecture:
            return None
        planning.check_engine(family.model_type, body.recipe)
        for flag in ("data", "calibration"):
            if getattr(body.evaluation, flag) is not None:
                refuse_data(config, flag)
        task = task_of(config, body.evaluation.task, labelled=labelled)
        if task == "text-classification":
            for flag, rows in examples.items():
                if flag != "vocab":
                    data.check(rows, config)
        axes.check_vocabulary(config, body.recipe)
        axes.check_export(config, body.recipe)
        axes.plan(config, body.recipe)
        text_limit(config, body.evaluation.max_length)
        text_limit(config, body.evaluation.bench_seq, field="bench_seq")
        return task

    def _queue(self, body: JobCreate, notes: list[str]) -> str:
        alive = self._workers.workers(alive_within_seconds=alive_within_seconds(self._settings))
        served = {queue for worker in alive for queue in worker.queues}
        queue = body.device if body.device != "auto" else ("gpu" if "gpu" in served else "cpu")
        if queue not in served:
            notes.append(f"no worker serves the queue {queue!r} now; the job waits until one does")
        return queue
