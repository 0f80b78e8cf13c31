"""A directory to a repository on the Hugging Face Hub, by huggingface_hub."""

from __future__ import annotations

from pathlib import Path

from prunectl.errors import Forbidden, InvalidInput, PrunectlError, Unavailable


class Upload:
    """To ``repo`` (``org/name``) at ``HF_ENDPOINT``, as the user of ``HF_TOKEN`` or of ``hf auth login``.

    Raises InvalidInput (field ``repo``) for a name that the Hub can't have, PrunectlError where huggingface_hub isn't
    installed.
    """

    def __init__(self, repo: str, *, revision: str | None = None, private: bool = False) -> None:
        try:
            from huggingface_hub.errors import HFValidationError
            from huggingface_hub.utils import validate_repo_id
        except ImportError as error:
            raise PrunectlError("push needs huggingface_hub", hint="pip install huggingface_hub") from error
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise InvalidInput(f"repo: {repo!r} is no repository's name: {error}", field="repo", value=repo) from None
        if repo.count("/") != 1:
            raise InvalidInput(f"repo: {repo!r} has no owner", field="repo", value=repo, hint="write org/name")
        self._repo, self._revision, self._private = repo, revision, private

    def send(self, directory: Path, message: str) -> str:
        """Make the repository where it isn't there and commit the directory's files; the commit's URL.

        Raises Forbidden where the Hub refuses the token, PrunectlError where it refuses what is sent, Unavailable where it
        doesn't answer or fails.
        """
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

        api = HfApi()
        try:
            api.create_repo(self._repo, private=self._private, exist_ok=True)
            if self._revision is not None:
                api.create_branch(self._repo, branch=self._revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=self._repo, folder_path=directory, revision=self._revision, commit_message=message
            )
        except (HfHubHTTPError, LocalTokenNotFoundError) as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else 401
            if status in (401, 403):
                raise Forbidden(
                    f"the Hub doesn't let this token write to {self._repo}",
                    hint="set HF_TOKEN to one that may, or run `hf auth login`",
                ) from error
            said = (str(error).strip().splitlines() or [""])[-1]
            if status < 500 and status not in (408, 429):
                raise PrunectlError(f"the Hub refused {self._repo} ({status}): {said}") from error
            raise Unavailable(f"the Hub answered {status} for {self._repo}", hint="it may pass: try again") from error
        except (httpx2.TransportError, OfflineModeIsEnabled, OSError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Unavailable(f"the Hub can't be reached: {said}", hint="check the network and HF_ENDPOINT") from error
        return str(commit.commit_url)
