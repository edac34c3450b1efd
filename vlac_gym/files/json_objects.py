"""JSON files that hold an object: `read_json_object`."""

__all__ = ["read_json_object"]

import json
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: It can't be read, is not JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:
        raise ConfigError(f"Expected JSON in {path}, but it can't be read: {e}") from e
    if not isinstance(content, dict):
        raise ConfigError(f"Expected a JSON object in {path}, got {type(content).__name__}.")
    return content
