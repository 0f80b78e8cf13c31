"""Names to models: a directory, a name under a zoo root, or a repository on the Hugging Face Hub. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from prunectl.errors import HubUnavailable, InvalidInput, ModelNotFound, nearest
from prunectl.zoo.directory import CONFIG, local_config, model_files, stat_digest
from prunectl.zoo.hub import TIMEOUT_SECONDS, HubSettings, not_cached, translated, unreachable

__all__ = ["HubSettings", "Located", "locate", "zoo_names"]

_HUB_ID = re.compile(
    r"^(?P<repo>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>[\w./+-]{1,255}))?$", re.ASCII
)
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class Located:
    """A model that a name stands for. ``identity`` changes when the model does: two jobs of one identity are the same.

    ``directory:<path>#<digest of file names, sizes and times>`` or ``hub:<id>@<commit>``; where the Hub could not be
    asked, the revision stands as it was typed.
    """

    name: str
    kind: Literal["directory", "hub"]
    path: Path | None
    repo_id: str | None
    revision: str | None
    identity: str
    reached: bool = True
    """False where the Hub could not be asked: nobody should wait for it a second time."""

    def pinned_to(self, identity: str) -> Located:
        """The same model at the commit that an earlier ``identity`` names, so that a job runs on what was submitted."""
        prefix = f"hub:{self.repo_id}@"
        if self.kind == "hub" and identity.startswith(prefix):
            return replace(self, revision=identity.removeprefix(prefix), identity=identity)
        return self


def locate(
    name: str,
    *,
    zoo_roots: Sequence[Path],
    cwd: Path | None = None,
    any_directory: bool = True,
    hub: HubSettings,
) -> Located:
    """The model that ``name`` stands for, in this order: a directory, a name under a zoo root, a Hub id.

    With ``any_directory`` a path is taken as it is (relative ones from ``cwd``), without it only inside a zoo root. A
    Hub id is ``org/name[@revision]`` or ``name``; its revision is resolved to a commit, from the cache where the Hub is
    out of reach. Raises InvalidInput for a name that leaves the zoo root, ModelNotFound with the nearest name of the
    zoo as hint, and HubForbidden; all name the field ``model``.
    """
    if not name or "\0" in name:
        raise InvalidInput("the name of a model can't be empty", field="model", value=name)
    path = _as_path(name, zoo_roots, cwd, any_directory)
    if path is not None:
        local_config(path)
        return Located(name, "directory", path, None, None, f"directory:{path}#{stat_digest(path)}")
    match = _HUB_ID.match(name)
    if match is None or name.startswith((".", "/", "~")):
        raise _unknown(name, zoo_roots, f"there is no model directory {name!r}")
    try:
        return _on_hub(name, match["repo"], match["revision"] or "main", any_directory, hub)
    except ModelNotFound as error:
        error.hint = _zoo_hint(name, zoo_roots) or error.hint
        raise


def zoo_names(zoo_roots: Iterable[Path]) -> dict[str, Path]:
    """Every model under the zoo roots by its name, ``model`` or ``org/model``; where two roots have it, the first's."""
    found: dict[str, Path] = {}
    for root in zoo_roots:
        if not root.is_dir():
            continue
        for path in sorted([*root.glob(f"*/{CONFIG}"), *root.glob(f"*/*/{CONFIG}")]):
            found.setdefault(path.parent.relative_to(root).as_posix(), path.parent)
    return found


def _as_path(name: str, zoo_roots: Sequence[Path], cwd: Path | None, any_directory: bool) -> Path | None:
    """The directory that ``name`` stands for, if any."""
    if any_directory:
        path = (cwd or Path.cwd()) / name
        if path.is_dir():
            return path.resolve()
    if ".." in Path(name).parts:
        raise InvalidInput(
            f"the model {name!r} leaves the zoo: '..' is not allowed in a name", hint="name a model below the zoo root",
            field="model", value=name,
        )  # fmt: skip
    for root in zoo_roots:
        path = root / name  # an absolute name replaces the root, and must then lie inside it
        if path.is_dir():
            _confine(name, path, root)
            return path.resolve()
    return None


def _confine(name: str, path: Path, root: Path) -> None:
    """Raise InvalidInput where the directory, or a file of the model in it, is outside the root by way of a link."""
    inside = root.resolve()
    for entry in (path, *model_files(path)):
        if not entry.resolve().is_relative_to(inside):
            what = "is" if entry == path else f"has {entry.name}"
            raise InvalidInput(
                f"the model {name!r} {what} outside the zoo root",
                hint="a link may not leave it: copy the files into the zoo",
                field="model",
                value=name,
            )


def _on_hub(name: str, repo: str, revision: str, any_directory: bool, hub: HubSettings) -> Located:
    commit = revision if _COMMIT.match(revision) else None
    reached = not hub.offline
    if not hub.offline:
        try:
            with translated(repo, revision, hub):
                commit = hub.api.model_info(repo, revision=revision, timeout=TIMEOUT_SECONDS).sha
        except HubUnavailable:
            reached = False
            commit = commit or _cached_commit(repo, revision, hub)
            cached = commit is not None and _snapshot(repo, commit, hub).is_dir()
            if not cached and (any_directory or "/" not in repo):
                # Either this process's cache is the worker's too, so the job could never start, or it's a mere word.
                raise unreachable(repo) from None
    else:
        commit = commit or _cached_commit(repo, revision, hub)
        if any_directory and (commit is None or not _snapshot(repo, commit, hub).is_dir()):
            # This process's cache is the worker's too, so the job could never start.
            raise not_cached(repo)
    return Located(name, "hub", None, repo, commit or revision, f"hub:{repo}@{commit or revision}", reached)


def _cached_commit(repo: str, revision: str, hub: HubSettings) -> str | None:
    reference = hub.cache / f"models--{repo.replace('/', '--')}" / "refs" / revision
    if not reference.resolve().is_relative_to(hub.cache.resolve()) or not reference.is_file():
        return None
    return reference.read_text().strip() or None


def _snapshot(repo: str, commit: str, hub: HubSettings) -> Path:
    return hub.cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


def _unknown(name: str, zoo_roots: Sequence[Path], message: str) -> ModelNotFound:
    hint = (
        _zoo_hint(name, zoo_roots) or "name a directory with config.json, a name under PRUNECTL_MODEL_PATH, or a Hub id"
    )
    return ModelNotFound(message, hint=hint, field="model", value=name)


def _zoo_hint(name: str, zoo_roots: Sequence[Path]) -> str | None:
    close = nearest(name, zoo_names(zoo_roots))
    return f"did you mean {close}?" if close else None
