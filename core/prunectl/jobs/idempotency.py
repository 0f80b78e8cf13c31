"""What a request that is sent again, with the same Idempotency-Key, is answered with."""

from __future__ import annotations

from prunectl.errors import InvalidInput
from prunectl.jobs.ports import IdempotencyStore


def recalled(store: IdempotencyStore, owner: str, key: str | None, body_sha256: str) -> str | None:
    """Id of the job or sweep that the earlier request made; None where there was none, or ``key`` is empty.

    Raises InvalidInput where that request had another body.
    """
    earlier = store.recall(owner, key) if key else None
    if earlier is None:
        return None
    known_sha256, [made] = earlier
    if known_sha256 != body_sha256:
        raise InvalidInput("this Idempotency-Key was used with another body", field="Idempotency-Key")
    return made
