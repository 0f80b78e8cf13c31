"""Domain errors: a stable code, whether a retry can help, and a hint; no HTTP status and no exit code.

``Kind`` is the coarse nature of an error. The API maps it to an HTTP status and the command line to an exit code,
each in one table; ``FailureClass`` is how the queue decides on retries.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, ClassVar


class Kind(StrEnum):
    """The nature of an error, as seen by whoever called."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too_large"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"


class FailureClass(StrEnum):
    """Why an attempt at a job ended without success; the retry policy is keyed by it."""

    USER_ERROR = "user_error"
    OOM_GPU = "oom_gpu"
    OOM_HOST = "oom_host"
    KILLED = "killed"
    LOST = "lost"
    TRANSIENT_IO = "transient_io"
    DISK_FULL = "disk_full"
    TIMEOUT = "timeout"


class PrunectlError(Exception):
    """Base of every error that prunectl raises on purpose.

    ``code`` is stable and documented; ``hint`` is the next thing to try; ``field`` and ``value`` name the input at fault.
    """

    code: ClassVar[str] = "internal_error"
    kind: ClassVar[Kind] = Kind.FAILED
    failure_class: ClassVar[FailureClass] = FailureClass.USER_ERROR
    usual_hint: ClassVar[str | None] = None
    """What helps as a rule, where whoever raises knows nothing better."""

    def __init__(self, message: str, *, hint: str | None = None, field: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.usual_hint
        self.field = field
        self.value = value


class InvalidInput(PrunectlError):
    """A wrong value, refused before anything is queued."""

    code = "invalid_input"
    kind = Kind.INVALID

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        field: str | None = None,
        value: Any = None,
        errors: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message, hint=hint, field=field, value=value)
        self.errors = list(errors) or [{"field": field, "message": message, "value": value}]


class ModelNotFound(InvalidInput):
    """No directory, zoo entry or Hub repository of that name."""

    code = "model_not_found"


class NotFound(PrunectlError):
    code = "not_found"
    kind = Kind.NOT_FOUND


class Conflict(PrunectlError):
    code = "conflict"
    kind = Kind.CONFLICT


class Unauthenticated(PrunectlError):
    code = "unauthenticated"
    kind = Kind.UNAUTHENTICATED


class Forbidden(PrunectlError):
    code = "forbidden"
    kind = Kind.FORBIDDEN


class TooLarge(PrunectlError):
    code = "too_large"
    kind = Kind.TOO_LARGE


class Unavailable(PrunectlError):
    """A service that prunectl needs did not answer."""

    code = "unavailable"
    kind = Kind.UNAVAILABLE
    failure_class = FailureClass.TRANSIENT_IO


# What only a worker can see: these fail the job.


class MissingWeights(PrunectlError):
    code = "weights_missing"
    usual_hint = "the directory needs model.safetensors, or model.safetensors.index.json with its shards"


class UnsafeWeights(PrunectlError):
    """Only pickled weights; prunectl parses nothing but safetensors and JSON."""

    code = "weights_unsafe"


class CorruptWeights(PrunectlError):
    code = "weights_corrupt"
    usual_hint = "fetch the model again: config.json and the weights have to be whole, and of one model"


class UnsupportedArchitecture(PrunectlError):
    code = "unsupported_architecture"
    usual_hint = "prunectl models shows what can be pruned"


class MissingTokenizer(PrunectlError):
    code = "tokenizer_missing"
    usual_hint = "tokenizer.json, or the family's vocabulary files, must lie beside config.json"


class InvalidData(InvalidInput):
    """A data file that can't be read as what it claims to be, or rows that don't fit the task."""

    code = "data_invalid"


class ReloadMismatch(PrunectlError):
    """The saved checkpoint, loaded in a fresh process, computes something else than the model that was saved."""

    code = "reload_mismatch"


class PerformanceLost(PrunectlError):
    """A greedy search found no layer that can go within what ``keep_performance`` allows."""

    code = "performance_lost"


class EngineUnavailable(PrunectlError):
    """The engine that the recipe names isn't installed on this worker."""

    code = "engine_unavailable"


class DiskFull(PrunectlError):
    code = "disk_full"
    failure_class = FailureClass.DISK_FULL


class OutOfMemory(PrunectlError):
    code = "out_of_memory"
    failure_class = FailureClass.OOM_HOST


class OutOfGpuMemory(PrunectlError):
    code = "out_of_gpu_memory"
    failure_class = FailureClass.OOM_GPU


class HubUnavailable(Unavailable):
    code = "hub_unavailable"


class HubForbidden(PrunectlError):
    """The Hub refused: a private or gated repository, or a wrong token."""

    code = "hub_forbidden"


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """The choice closest in spelling to ``value``, or None where nothing is close."""
    found = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.5)
    return found[0] if found else None
