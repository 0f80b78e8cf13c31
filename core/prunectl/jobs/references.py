"""How a spec names an uploaded file: ``upload:sha256:DIGEST/NAME``."""

from __future__ import annotations

import re

UPLOAD_PREFIX = "upload:sha256:"
_DIGEST = re.compile(re.escape(UPLOAD_PREFIX) + r"([0-9a-f]{64})/")


def upload_digests(spec: str) -> set[str]:
    """SHA-256 of each upload that a spec, as JSON text, names."""
    return set(_DIGEST.findall(spec))
