"""A VLAC checkpoint by its folder or by its id on the Hugging Face Hub: `find_checkpoint`."""

__all__ = ["find_checkpoint"]

import json
import logging
from dataclasses import replace
from pathlib import Path

from vlac_gym.critic.vlac.convert import CONVERSION_FORMAT, convert_checkpoint
from vlac_gym.critic.vlac.convert_layout import read_layout
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.cached_folder import cached_folder
from vlac_gym.files.hub import CODE_FILES, MODEL_FILES, ModelFolder, find_model

_ORIGINAL, _NATIVE = "internvl_chat", "internvl"
"""`model_type` of VLAC's own format and of the native one."""

logger = logging.getLogger(__name__)


def find_checkpoint(target: str | Path, *, convert: bool = True, with_code: bool = False) -> ModelFolder:
    """The folder of a checkpoint; one of the hub is downloaded on first use, and converted if it must be.

    The converted form lies beside huggingface_hub's own cache (`HF_ASSETS_CACHE`), named after the commit that it was
    made of. Of a folder on this machine nothing is looked at, and nothing is made.

    Args:
        target: A path, or `OWNER/NAME` or `OWNER/NAME@REVISION` on the hub; see `find_model`.
        convert: Whether to give the native form of a model of the hub that is in VLAC's own format.
        with_code: Whether to fetch the Python files of a model of the hub too, for an engine that may run them.

    Raises:
        ConfigError: The hub does not give it, it is no such checkpoint, or it can't be converted.
        DependencyNotInstalled: huggingface_hub, or what a conversion needs, is missing.
    """

    def check(folder: Path) -> None:
        if _read_format(folder) == _ORIGINAL and convert:
            _check_can_convert(folder)

    files = (*MODEL_FILES, *CODE_FILES) if with_code else MODEL_FILES
    found = find_model(target, files=files, check=check)
    if found.repo is None or not convert or _read_format(found.folder) == _NATIVE:
        return found
    return replace(found, folder=_native_form(found))


def _read_format(folder: Path) -> str:
    """`model_type` of a model of the hub, which must be one of this family."""
    file = folder / "config.json"
    try:
        kind = json.loads(file.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"Expected a model with a config.json that says its model_type, {file}: {e!r}."
        ) from e
    if kind not in (_ORIGINAL, _NATIVE):
        raise ConfigError(
            f"Expected a checkpoint in VLAC's own format (model_type {_ORIGINAL!r}) or the native one ({_NATIVE!r}), "
            f"got {kind!r} in {file}."
        )
    return str(kind)


def _check_can_convert(folder: Path) -> None:
    """Before gigabytes are downloaded: does the layout fit, are the packages there?"""
    read_layout(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    with needs("Converting VLAC's own checkpoint", "convert"):
        if not (folder / "tokenizer.json").is_file():
            import google.protobuf as _protobuf  # noqa: F401
            import sentencepiece as _sentencepiece  # noqa: F401


def _native_form(found: ModelFolder) -> Path:
    with needs("A model of the hub", "vlac"):
        from huggingface_hub import constants
    cache = Path(constants.HF_ASSETS_CACHE).expanduser()
    # Laid out as huggingface_hub's cached_assets_path does, which would make the folder even where it can't.
    owner_and_name = str(found.repo).replace("/", "--")
    goal = cache / "vlac_gym" / owner_and_name / f"native-{CONVERSION_FORMAT}" / str(found.commit)

    def convert(folder: Path) -> None:
        logger.warning("%s is in VLAC's own format; converting it once, to %s", found.name, goal)
        convert_checkpoint(found.folder, folder)

    return cached_folder(goal, convert)
