"""Where things lie in shared storage."""

from __future__ import annotations

RUNS = "runs"
LOGS = "logs"
LATENCIES = "latencies"


def run_name(job_id: str, attempt: int, lease_token: str) -> str:
    """The directory that one attempt publishes into: ``runs/<job>/a<attempt>-<token>``.

    The lease's token is part of it, so a worker that lost its lease can't touch what another publishes.
    """
    return f"{RUNS}/{job_id}/a{attempt}-{lease_token[:8]}"


def log_name(job_id: str, attempt: int) -> str:
    """The log of one attempt."""
    return f"{LOGS}/{job_id}/a{attempt}.log"


def latency_table_name(digest: str) -> str:
    """Where the latency table measured under the conditions with this digest lies."""
    return f"{LATENCIES}/{digest.removeprefix('sha256:')}.json"
