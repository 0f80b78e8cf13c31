from __future__ import annotations

import pytest

from prunectl.errors import InvalidInput
from prunectl.jobs.idempotency import once, request_key
from prunectl.jobs.records import AlreadyAnswered


class Known:
    """A store that knows nothing when it is asked for the first time."""

    def __init__(self, body_sha256: str | None) -> None:
        self.answers = [None, None if body_sha256 is None else (body_sha256, ["j1"])]

    def recall(self, owner: str, key: str) -> tuple[str, list[str]] | None:
        assert (owner, key) == ("ada", "k")
        return self.answers.pop(0)


def too_late() -> str:
    raise AlreadyAnswered


def test_a_request_that_was_overtaken_is_answered_with_what_the_other_made() -> None:
    request = request_key("ada", "k", "body")
    assert request is not None
    assert once(Known(request.body_sha256), request, too_late, lambda made: f"again {made}") == "again j1"
    with pytest.raises(InvalidInput, match="another body"):
        once(Known("other"), request, too_late, str)
    with pytest.raises(AlreadyAnswered):
        once(Known(None), request, too_late, str)


def test_without_a_key_nothing_is_recalled() -> None:
    assert request_key("ada", None, "body") is request_key("ada", "", "body") is None
    assert once(Known("never asked"), None, lambda: "made", str) == "made"
