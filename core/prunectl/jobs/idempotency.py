"""What a request that is sent again, with the same Idempotency-Key, is answered with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from prunectl.errors import InvalidInput
from prunectl.jobs.ports import IdempotencyStore
from prunectl.jobs.records import AlreadyAnswered, RequestKey

T = TypeVar("T")


def request_key(owner: str, key: str | None, asked: str) -> RequestKey | None:
    """The key of a request that asks for ``asked``; None where it has none."""
    return RequestKey(owner, key, hashlib.sha256(asked.encode()).hexdigest()) if key else None


def once(store: IdempotencyStore, request: RequestKey | None, make: Callable[[], T], again: Callable[[str], T]) -> T:
    """What ``make`` makes; or what ``again`` says of the id of the job or sweep that an earlier request has made.

    Two at once make one: the stores keep what they make and its key in one transaction. Raises InvalidInput where the
    earlier request had another body.
    """
    if request is None:
        return make()
    if (made := _recalled(store, request)) is not None:
        return again(made)
    try:
        return make()
    except AlreadyAnswered:
        made = _recalled(store, request)
        if made is None:
            raise
        return again(made)


def _recalled(store: IdempotencyStore, request: RequestKey) -> str | None:
    earlier = store.recall(request.owner, request.key)
    if earlier is None:
        return None
    known_sha256, [made] = earlier
    if known_sha256 != request.body_sha256:
        raise InvalidInput("this Idempotency-Key was used with another body", field="Idempotency-Key")
    return made
