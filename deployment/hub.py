"""Model folders on the hub of Hugging Face."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import InputError


def build_api() -> Any:
    """Return the client of the hub; the token is that of the environment or of `hf auth login`."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi()


def push_folder(folder: Path, files: Sequence[str], repo: str, *, private: bool) -> str:
    """Send a model folder to the hub.

    Args:
        folder: that `tools/export.py` wrote.
        files: of it that are sent; nothing else is, whatever lies there.
        repo: "USER/NAME"; made if it is not there.
        private: whether only its owner may see it.

    Returns:
        The address of the repository.

    Raises:
        InputError: the hub cannot be reached or refuses, or the repository is public and should
            be private. The folder stays.
    """
    kept = f"the folder {folder} is complete and stays"
    try:
        api = build_api()
        address = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        is_private = bool(api.model_info(repo).private)
    except Exception as error:  # noqa: BLE001 - the client and what it is made of raise many types
        raise InputError(_refusal(repo, error, kept)) from error
    if private and not is_private:
        raise InputError(
            f"{repo} is there and public, --private was asked for: nothing was sent and {kept}; "
            "make it private on the hub, or name another"
        )
    try:
        api.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            repo_type="model",
            allow_patterns=list(files),
            commit_message="Model exported by Gate-Shift-Pose",
        )
    except Exception as error:  # noqa: BLE001 - as above
        raise InputError(_refusal(repo, error, kept)) from error
    return str(address)


def _refusal(repo: str, error: BaseException, kept: str) -> str:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if type(error).__name__ == "LocalTokenNotFoundError" or status in (401, 403):
        return (
            f"the hub does not let you write {repo} (no token, or one without the right): run "
            f"'hf auth login' or set HF_TOKEN; {kept}"
        )
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0].strip()[:120]}" if lines else type(error).__name__
    return f"{repo} cannot be sent to the hub ({text}): look at the connection, or later; {kept}"
