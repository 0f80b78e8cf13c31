"""How a runner tells its supervisor where it is: JSON lines on a pipe."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

from prunectl.jobs.model import Failure
from prunectl.schemas import Result, StageName, StageRecord

logger = logging.getLogger(__name__)


# Where each stage starts and ends on the way of the whole job: rough shares, for a bar and an ETA that only grow.
_SPANS: dict[StageName, tuple[float, float]] = {
    "fetch": (0.0, 0.05),
    "baseline": (0.05, 0.20),
    "score": (0.20, 0.40),
    "prune": (0.40, 0.42),
    "recover": (0.42, 0.45),
    "save": (0.45, 0.47),
    "reload": (0.47, 0.65),
    "evaluate": (0.65, 0.80),
    "benchmark": (0.80, 0.98),
    "export": (0.98, 1.0),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A search's look found candidates that must be tried first: the layers that each of them lacks."""

    removed: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class OpenStage:
    """A stage that is under way; set ``reused`` where its outcome came from shared storage.

    None: this part of the stage has nothing to reuse, and the stage's other parts say.
    """

    name: str
    reused: bool | None = False


class Report:
    """The runner's end of the pipe. ``stages`` is what has ended so far, in order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._span = (0.0, 1.0)
        self._furthest = 0.0
        self.stages: list[StageRecord] = []
        self._reused: dict[str, bool] = {}

    @contextmanager
    def stage(self, name: StageName) -> Iterator[OpenStage]:
        """Announce a stage, and record its seconds when it ends well; one that is entered again goes on.

        Raises ValueError for an unknown name.
        """
        if name not in get_args(StageName):
            raise ValueError(f"{name!r} is not a stage")
        self._span = _SPANS[name]
        self.progress(0.0)  # first: a stage is shown as soon as it is read, with the progress known by then
        self._send("stage", name)
        logger.info("stage %s", name)
        stage, started = OpenStage(name), time.monotonic()
        yield stage
        if stage.reused is not None:
            self._reused[name] = self._reused.get(name, True) and stage.reused
        seconds, reused = round(time.monotonic() - started, 6), self._reused.get(name, False)
        record = StageRecord(name=name, seconds=seconds, reused=reused)
        earlier = next((place for place, known in enumerate(self.stages) if known.name == name), None)
        if earlier is None:
            self.stages.append(record)
        else:
            total = round(self.stages[earlier].seconds + seconds, 6)
            self.stages[earlier] = record.model_copy(update={"seconds": total})
        logger.info("stage %s: %.2f s%s", name, record.seconds, ", reused" if record.reused else "")

    def progress(self, fraction: float) -> None:
        """How much of the open stage is done, in [0, 1]; sent as a part of the whole job."""
        start, end = self._span
        # A recipe of several steps scores and prunes in turns; the bar doesn't go back with it.
        self._furthest = max(self._furthest, start + (end - start) * min(1.0, max(0.0, fraction)))
        self._send("progress", round(self._furthest, 4))

    def result(self, result: Result) -> None:
        self._send("result", result.model_dump(mode="json"))

    def wanted(self, wanted: Wanted) -> None:
        self._send("wanted", wanted.removed)

    def failure(self, failure: Failure) -> None:
        self._send("failure", asdict(failure))

    def _send(self, kind: str, value: Any) -> None:
        line = memoryview(json.dumps({kind: value}, allow_nan=False).encode() + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]


@dataclass(slots=True)
class Received:
    """The supervisor's end: what the runner has said so far."""

    stage: str | None = None
    progress: float = 0.0
    result: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    wanted: list[list[int]] | None = None
    faults: int = 0
    """Lines that were no message of ours."""
    _partial: bytes = b""

    def feed(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        try:
            message = json.loads(line, parse_constant=_no_constant)
            ((kind, value),) = cast("dict[str, Any]", message).items()
        except (ValueError, AttributeError):
            self.faults += 1
            return
        match kind, value:
            case "stage", str() if value in get_args(StageName):
                self.stage = value
            case "progress", float() | int():
                self.progress = float(value)
            case "result", dict():
                self.result = value
            case "failure", dict():
                self.failure = value
            case "wanted", list():
                self.wanted = value
            case _:
                self.faults += 1


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
