"""A curriculum's state as a JSON file: `read_state`, `write_state`, `STATE_VERSION`."""

__all__ = ["STATE_VERSION", "read_state", "write_state"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import write_json

STATE_VERSION = 1


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes `path` whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"version": STATE_VERSION, **state})


def read_state(path: Path) -> dict[str, Any]:
    """Reads what `write_state` wrote.

    Raises:
        ConfigError: No such file, not JSON, or another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(f"Expected a saved curriculum (JSON) at {path}, but it can't be read: {e}") from e
    version = content.get("version") if isinstance(content, dict) else None
    if version != STATE_VERSION:
        raise ConfigError(f"Expected curriculum version {STATE_VERSION} in {path}, got {version!r}.")
    return {key: value for key, value in content.items() if key != "version"}
