"""Data sets on the Hugging Face Hub as local files that `prunectl.evaluation.data.read` reads. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from prunectl.errors import HubForbidden, HubUnavailable, InvalidData, ModelNotFound, nearest
from prunectl.zoo.hub import TIMEOUT_SECONDS, HubSettings, translated

SUFFIXES = (".parquet", ".jsonl", ".csv", ".txt")
"""What can be read, in the order of preference where a repository holds its rows in several forms."""
EVALUATION_SPLITS = ("test", "validation", "valid", "dev", "train")
TRAINING_SPLITS = ("train", "validation", "valid", "dev", "test")
ATTEMPTS = 4
_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<split>[\w-]+))?(?:@(?P<revision>[\w./-]+))?$", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubData:
    """``org/name[:split][@revision]``."""

    repo_id: str
    split: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubData | None:
        """None for what is no such id."""
        found = _ID.match(text)
        return None if found is None else cls(found["repo"], found["split"], found["revision"])


def look(source: HubData, hub: HubSettings, *, field: str) -> None:
    """Raises InvalidData (``field``) where the Hub says that there is no such data set, HubForbidden where it wants a
    token, HubUnavailable where it doesn't answer.
    """
    if not hub.offline:
        with _translated(source, hub, field):
            hub.api.dataset_info(source.repo_id, revision=source.revision, timeout=TIMEOUT_SECONDS)


def fetch(source: HubData, hub: HubSettings, *, field: str) -> list[Path]:
    """The files of the split, each with its own suffix; only those are downloaded, and what is cached isn't again.

    Without a split: of an evaluation (field ``data``) the first of test, validation and train that there is, of
    everything else the first of train, validation and test; of a repository that names no splits, all its files. Files
    belong to the split that their path names. Raises InvalidData naming the splits that there are, HubForbidden, and
    HubUnavailable after 4 attempts.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(HubUnavailable),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.5, max=8),
        reraise=True,
    )
    found: list[Path] = attempts(_fetch, source, hub, field)
    return found


def choose(names: Sequence[str], source: HubData, *, field: str) -> list[str]:
    """The names among ``names`` that `fetch` takes."""
    readable = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not readable:
        raise InvalidData(f"data set {source.repo_id} has no file that can be read: {', '.join(SUFFIXES)}", field=field)
    usual = EVALUATION_SPLITS if field == "data" else TRAINING_SPLITS
    if source.split is not None:
        chosen = _of_split(readable, source.split)
        if not chosen:
            splits = [split for split in EVALUATION_SPLITS if _of_split(readable, split)]
            near = nearest(source.split, splits)
            raise InvalidData(
                f"data set {source.repo_id} has no split {source.split!r}; it has {', '.join(splits) or 'none'}",
                hint=f"did you mean {near}?" if near else None,
                field=field,
                value=f"{source.repo_id}:{source.split}",
            )
    else:
        by_split = (_of_split(readable, split) for split in usual)
        chosen = next((names for names in by_split if names), readable)
    suffix = next(suffix for suffix in SUFFIXES if any(name.lower().endswith(suffix) for name in chosen))
    return sorted(name for name in chosen if name.lower().endswith(suffix))


def _fetch(source: HubData, hub: HubSettings, field: str) -> list[Path]:
    options: dict[str, Any] = {
        "repo_type": "dataset",
        "revision": source.revision,
        "cache_dir": hub.cache,
        "endpoint": hub.api.endpoint,
        "token": hub.sent_token,
        "etag_timeout": TIMEOUT_SECONDS,
    }
    with _translated(source, hub, field):
        if hub.offline:
            top = Path(snapshot_download(source.repo_id, local_files_only=True, **options))
            there = [path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()]
            return [top / name for name in choose(there, source, field=field)]
        names = hub.api.list_repo_files(source.repo_id, repo_type="dataset", revision=source.revision)
        wanted = choose(names, source, field=field)
        return [Path(hf_hub_download(source.repo_id, name, **options)) for name in wanted]


def _of_split(names: Sequence[str], split: str) -> list[str]:
    named = re.compile(rf"(?<![A-Za-z]){re.escape(split)}(?![A-Za-z])", re.IGNORECASE)
    return [name for name in names if named.search(name)]


@contextmanager
def _translated(source: HubData, hub: HubSettings, field: str) -> Iterator[None]:
    try:
        with translated(source.repo_id, source.revision, hub):
            yield
    except (ModelNotFound, HubForbidden) as error:
        message = error.message.replace("model", "data set")
        if isinstance(error, HubForbidden):
            raise HubForbidden(message, hint=error.hint, field=field, value=source.repo_id) from error
        raise InvalidData(message, hint=error.hint, field=field, value=source.repo_id) from error
