"""A model by its folder or by its id on the Hugging Face Hub: `ModelFolder`, `find_model`. Ids need huggingface_hub.

Files lie where huggingface_hub keeps them (`HF_HOME`, `HF_HUB_CACHE`), come from where it fetches them (`HF_ENDPOINT`,
`HF_TOKEN`), and are not fetched where it must not (`HF_HUB_OFFLINE`). A model that is there whole is taken as it is:
the server isn't asked whether there is a newer one.
"""

__all__ = ["CODE_FILES", "MODEL_FILES", "ModelFolder", "find_model"]

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

_WEIGHTS = ("*.safetensors",)
_ABOUT_THEM = ("*.json", "*.jinja", "*.txt", "*.model")
MODEL_FILES = (*_ABOUT_THEM, *_WEIGHTS)
"""What is fetched: config, tokenizer, processors, templates, weights. No code, no pickles: they could hold some."""

CODE_FILES = ("*.py",)
"""What is fetched besides for an engine that is allowed to run it."""

_SUBFOLDERS = "*/*"
_DEFAULT_REVISION = "main"
_HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII
)


@dataclass(frozen=True)
class ModelFolder:
    """Where a model's files are.

    Attributes:
        folder: The files; not to be written to.
        name: The folder as it was given; of a model of the hub, `OWNER/NAME@COMMIT`.
        repo: `OWNER/NAME`, or None for a folder.
    """

    folder: Path
    name: str
    repo: str | None = None

    @property
    def commit(self) -> str | None:
        """Of the hub's files, 40 hex digits; None for a folder."""
        return None if self.repo is None else self.name.rpartition("@")[2]


def find_model(
    target: str | Path,
    *,
    files: Sequence[str] = MODEL_FILES,
    check: Callable[[Path], None] | None = None,
) -> ModelFolder:
    """The folder of a model; one of the hub is downloaded unless the cache has it.

    A path that exists is taken as such, and so is whatever does not look like an id: whether it is a model is for the
    caller to see.

    Args:
        target: A path, or an id: `OWNER/NAME`, or `OWNER/NAME@REVISION` with a branch, tag or commit.
        files: Which files of the hub's model, as shell patterns; none of its subfolders.
        check: Called before weights are downloaded, with a folder of the other files, to refuse another kind of model.

    Raises:
        ConfigError: No such model or revision, no access, no network, or no safetensors weights; what `check` raises.
        DependencyNotInstalled: An id, and huggingface_hub is missing.
    """
    match = _HUB_ID.fullmatch(str(target))
    if match is None or Path(target).exists():
        return ModelFolder(Path(target), str(target))
    repo, revision = match["repo"], match["revision"] or _DEFAULT_REVISION
    folder = _cached(repo, revision, files)
    if folder is None:
        about = _fetch(repo, revision, [pattern for pattern in files if pattern not in _WEIGHTS])
        if check is not None:
            check(about)
        # By its commit: a branch that moves meanwhile must not mix two models.
        folder = _fetch(repo, about.name, files)
    if not _has_weights(folder):
        raise ConfigError(
            f"Expected safetensors weights in the model {repo}@{folder.name}, found none, or not all that its index "
            "names. Pickled weights are never loaded: they can run code. If a download was cut short, run: "
            f"{_download_command(repo, revision)}"
        )
    return ModelFolder(folder, f"{repo}@{folder.name}", repo)


def _client() -> Any:
    with needs("A model of the hub", "vlac"):
        import huggingface_hub
        from huggingface_hub import constants as _constants  # noqa: F401
        from huggingface_hub import errors as _errors  # noqa: F401
    return huggingface_hub


def _cached(repo: str, revision: str, files: Sequence[str]) -> Path | None:
    """The files in the cache if all of them are there, without a word to the server."""
    hub = _client()
    unlisted = getattr(hub.errors, "CachedRepoTreeNotFoundError", hub.errors.LocalEntryNotFoundError)
    try:
        folder = hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(files),
            ignore_patterns=_SUBFOLDERS,
            local_files_only=True,
        )
        # Without the list of the model's files, which older versions don't keep, nobody can tell what is missing.
        if hasattr(hub, "get_cached_repo_tree"):
            hub.get_cached_repo_tree(repo, revision=revision)
    except (hub.errors.LocalEntryNotFoundError, unlisted):
        return None
    except hub.errors.HFValidationError as e:
        raise _refusal(repo, revision, e) from e
    return Path(folder) if _has_weights(Path(folder)) else None


def _fetch(repo: str, revision: str, files: Sequence[str]) -> Path:
    hub = _client()
    http_error = hub.errors.HfHubHTTPError.__bases__[
        0
    ]  # of its HTTP client, another one in each major version
    try:
        folder = hub.snapshot_download(
            repo, revision=revision, allow_patterns=list(files), ignore_patterns=_SUBFOLDERS
        )
    except (OSError, ValueError, http_error) as e:
        raise _refusal(repo, revision, e) from e
    return Path(folder)


def _has_weights(folder: Path) -> bool:
    """Whether there are weights, and all shards that an index names; a damaged index is for the loader to refuse."""
    try:
        named = {
            name
            for index in folder.glob("*.safetensors.index.json")
            for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return True
    return any(folder.glob("*.safetensors")) and all((folder / name).is_file() for name in named)


def _download_command(repo: str, revision: str) -> str:
    return f"hf download {repo}" + (f" --revision {revision}" if revision != _DEFAULT_REVISION else "")


def _refusal(repo: str, revision: str, error: Exception) -> ConfigError:
    """What went wrong, where, and what to do about it."""
    constants, errors = _client().constants, _client().errors
    cache, server = constants.HF_HUB_CACHE, constants.ENDPOINT
    command = _download_command(repo, revision)
    if isinstance(error, errors.GatedRepoError):
        return ConfigError(
            f"The model {repo} is gated. Ask for access at {server}/{repo}, then run: hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigError(
            f"Expected a branch, tag or commit of {repo} behind '@', got {revision!r}, which {server} does not have."
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return ConfigError(
            f"Expected a folder, or the id of a model at {server}, got {repo!r}: there is no such folder in "
            f"{Path.cwd()}, and no such public model. If the model is private, run: hf auth login"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        is_offline = isinstance(error.__cause__, errors.OfflineModeIsEnabled)
        why = (
            "HF_HUB_OFFLINE is set" if is_offline else f"no answer from {server}: {error.__cause__ or error}"
        )
        return ConfigError(
            f"Expected the model {repo} (revision {revision}) in {cache}, where it is not, or not whole, and it can't "
            f"be downloaded ({why}). Run where there is a network: {command}; then bring {cache} here, or name its "
            "place in HF_HUB_CACHE."
        )
    return ConfigError(
        f"The download of {repo} (revision {revision}) from {server} to {cache} failed: {error}. Files that are whole "
        f"are kept; run the command again, or: {command}"
    )
