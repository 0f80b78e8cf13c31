"""Where a submission's names are looked up: one set of rules for the service and for the workers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunectl.errors import InvalidInput, nearest
from prunectl.jobs.references import UPLOAD_PREFIX
from prunectl.schemas import BUILTIN_TEXT, Environment
from prunectl.zoo.datasets import SUFFIXES, HubData
from prunectl.zoo.resolve import HubSettings, Located, locate

_UPLOAD = re.compile(rf"^{UPLOAD_PREFIX}([0-9a-f]{{64}})/([^/\\]{{1,255}})$")
UPLOADS = "uploads"


def hub_settings(environment: Environment | None, token: str | None) -> HubSettings:
    """The submitter's Hub where the stack is embedded, this process's own (from ``HF_*``) elsewhere."""
    if environment is None:
        return HubSettings.from_environment(token=token)
    return HubSettings(
        endpoint=environment.hf_endpoint, home=environment.hf_home, offline=environment.hf_hub_offline, token=token
    )


def roots_of(environment: Environment | None, own: Sequence[Path]) -> tuple[Path, ...]:
    """The submitter's zoo roots where the stack is embedded, else this process's ``own``."""
    return tuple(own) if environment is None else tuple(Path(part) for part in environment.model_path)


def find_model(
    name: str, *, embedded: bool, own_roots: Sequence[Path], environment: Environment | None, hub: HubSettings
) -> Located:
    """The model that ``name`` stands for. Any directory will do in the embedded stack, whose user is the submitter;
    elsewhere only one inside a zoo root. Raises InvalidInput, ModelNotFound and HubForbidden.
    """
    return locate(
        name,
        zoo_roots=roots_of(environment, own_roots),
        cwd=Path(environment.cwd) if environment else None,
        any_directory=embedded,
        hub=hub,
    )


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed ``SRC``: the built-in text, an uploaded file by its digest and the name it had, or a data set of the Hub."""

    kind: Literal["builtin", "upload", "hub"]
    digest: str | None = None
    name: str | None = None
    hub: HubData | None = None

    @property
    def suffix(self) -> str:
        return Path(self.name or "").suffix.lower()


def upload_name(digest: str) -> str:
    """Where an uploaded file lies in shared storage."""
    return f"{UPLOADS}/{digest[:2]}/{digest}"


def parse_source(text: str, *, flag: str) -> Source:
    """A ``--data`` or ``--calibration`` value; raises InvalidInput (field ``flag``) for what this version can't read."""
    if match := _UPLOAD.match(text):
        return Source("upload", match[1], match[2])
    if text == BUILTIN_TEXT:
        return Source("builtin")
    if (found := HubData.parse(text)) is not None and not text.lower().endswith((*SUFFIXES, ".zip")):
        return Source("hub", hub=found)
    close = nearest(text, [BUILTIN_TEXT])
    raise InvalidInput(
        f"{text!r} is no .txt, .jsonl, .csv, .parquet or .zip file that exists, no data set's name org/name on the Hub, and not "
        f"{BUILTIN_TEXT}",
        field=flag,
        value=text,
        hint=f"did you mean {close}?" if close else f"give the path of a local file, or {BUILTIN_TEXT}",
    )
