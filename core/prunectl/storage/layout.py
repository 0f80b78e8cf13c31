"""Where things lie in shared storage."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

RUNS = "runs"
LOGS = "logs"
TRAINING = "training"
LATENCIES = "latencies"
SHARED = "shared"


def run_name(job_id: str, attempt: int, lease_token: str) -> str:
    """The directory that one attempt publishes into: ``runs/<job>/a<attempt>-<token>``.

    The lease's token is part of it, so a worker that lost its lease can't touch what another publishes.
    """
    return f"{RUNS}/{job_id}/a{attempt}-{lease_token[:8]}"


def log_name(job_id: str, attempt: int) -> str:
    """The log of one attempt."""
    return f"{LOGS}/{job_id}/a{attempt}.log"


def training_name(job_id: str) -> str:
    """The state of a job's training, for the attempt that goes on with it."""
    return f"{TRAINING}/{job_id}.safetensors"


def published_name(uri: str) -> str | None:
    """The name ``runs/<job>/<attempt>…`` inside an artifact's URI, wherever the storage lay when it was published.

    A home may be moved and a storage mounted elsewhere: names stay, URIs in the database don't follow.
    """
    path = unquote(urlsplit(uri).path)
    _, found, rest = path.rpartition(f"/{RUNS}/")
    parts = rest.split("/")
    if not found or len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        return None
    return f"{RUNS}/{rest}"


def latency_table_name(digest: str) -> str:
    """Where the latency table measured under the conditions with this digest lies."""
    return f"{LATENCIES}/{digest.removeprefix('sha256:')}.json"


def shared_name(stage: str, digest: str) -> str:
    """Where the result of a stage lies that jobs share: ``shared/<stage>/<digest>.safetensors``."""
    return f"{SHARED}/{stage}/{digest.removeprefix('sha256:')}.safetensors"


def shared_lease_name(stage: str, digest: str) -> str:
    """Beside it, while somebody computes it."""
    return f"{SHARED}/{stage}/{digest.removeprefix('sha256:')}.lease"
