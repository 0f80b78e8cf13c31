"""The Hugging Face Hub: whose settings apply, and what its errors mean to a user. No torch."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from prunectl.errors import DiskFull, HubForbidden, HubUnavailable, ModelNotFound

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Whose Hub: always given explicitly, for a worker's environment isn't that of the command that submits.

    ``endpoint`` None is the public Hub; ``home`` is ``HF_HOME``, None the usual place. The token is never shown.
    """

    endpoint: str | None = None
    home: str | None = None
    offline: bool = False
    token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, token: str | None = None) -> HubSettings:
        """This process's ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE``; ``token``, or its own ``HF_TOKEN``."""
        from huggingface_hub import get_token

        return cls(constants.ENDPOINT, constants.HF_HOME, constants.is_offline_mode(), token or get_token())

    @property
    def cache(self) -> Path:
        """The directory that downloads are kept in and shared with other users of huggingface_hub."""
        home = self.home or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
        return Path(home).expanduser() / "hub"

    @property
    def sent_token(self) -> str | Literal[False]:
        """What huggingface_hub takes: False keeps it from looking for a token of this process's user."""
        return self.token or False

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint or constants._HF_DEFAULT_ENDPOINT, token=self.sent_token)


@contextmanager
def translated(repo: str, revision: str | None, hub: HubSettings) -> Iterator[None]:
    """Raise a Hub error as a domain error.

    ModelNotFound: no such repository, revision or configuration, or offline and not in the cache. HubForbidden:
    private, gated or a wrong token. HubUnavailable: anything that may pass. DiskFull.
    """
    try:
        yield
    except HFValidationError as error:
        raise ModelNotFound(f"{repo!r} is not a name that the Hub could know", field="model", value=repo) from error
    except (LocalEntryNotFoundError, IncompleteSnapshotError, OfflineModeIsEnabled) as error:
        if hub.offline or isinstance(error, OfflineModeIsEnabled):
            raise not_cached(repo) from error
        raise _unreachable(repo, error) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound(
            f"{repo} has no revision {revision!r} on the Hub", hint="name a branch, tag or commit that it has",
            field="model", value=f"{repo}@{revision}",
        ) from error  # fmt: skip
    except EntryNotFoundError as error:
        raise ModelNotFound(
            f"{repo} on the Hub has no config.json, so it is no model", field="model", value=repo
        ) from error
    except HfHubHTTPError as error:
        raise _refusal(error, repo, hub) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(
                f"no space left for {repo} in the cache", hint="free some, or set HF_HOME elsewhere"
            ) from error
        raise _unreachable(repo, error) from error
    except httpx2.TransportError as error:
        raise _unreachable(repo, error) from error


def not_cached(repo: str) -> ModelNotFound:
    return ModelNotFound(
        f"{repo} is not in the local cache and HF_HUB_OFFLINE forbids to ask the Hub",
        hint="unset HF_HUB_OFFLINE, or name a directory",
        field="model",
        value=repo,
    )


def unreachable(repo: str) -> ModelNotFound:
    return ModelNotFound(
        f"{repo!r} is no directory and no name in the zoo, and the Hugging Face Hub can't be reached to ask for it",
        hint="name a directory with config.json, a name under PRUNECTL_MODEL_PATH, or check the network and HF_ENDPOINT",
        field="model",
        value=repo,
    )


def _refusal(error: HfHubHTTPError, repo: str, hub: HubSettings) -> Exception:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return HubForbidden(
            f"{repo} is gated", hint="accept its terms on the Hub and give your HF_TOKEN", field="model", value=repo
        )
    if isinstance(error, RepositoryNotFoundError) and status == 404:
        return ModelNotFound(f"there is no model {repo!r} on the Hub", field="model", value=repo)
    if status in (401, 403):
        said = "refused the token for" if hub.token else "asks for a token before it shows"
        return HubForbidden(
            f"the Hub {said} {repo}: it is private, or there is no such model",
            hint="check the name, and give an HF_TOKEN that may read it",
            field="model",
            value=repo,
        )
    return HubUnavailable(f"the Hub answered {status} for {repo}", hint="it may pass: try again later")


def _unreachable(repo: str, error: Exception) -> HubUnavailable:
    # huggingface_hub wraps what went wrong in a paragraph of advice; the cause says it in a line.
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    said = (str(cause).strip().splitlines() or [""])[0][:200]
    return HubUnavailable(
        f"the Hub did not answer for {repo}: {type(cause).__name__}: {said}",
        hint="check the network and HF_ENDPOINT; what was fetched is kept",
    )
