"""What a folder's numbers follow from, so that nothing else is continued there: `check_same_settings`."""

__all__ = ["SETTINGS_FILE", "check_same_settings"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import write_json

SETTINGS_FILE = "settings.json"
_FORMAT = 1


def check_same_settings(out: Path, facts: Mapping[str, Any]) -> None:
    """Writes the settings into `out`, or compares them with those that are there.

    Args:
        out: Made if it is missing.
        facts: JSON-serialisable, of lists, dicts and plain values.

    Raises:
        ConfigError: They differ.
    """
    path = out / SETTINGS_FILE
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": _FORMAT, **facts})
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{name} was {before.get(name)!r}, is {value!r}"
        for name, value in facts.items()
        if before.get(name) != value
    ]
    if changed:
        raise ConfigError(
            f"Can't continue the attack in {out} with other settings: {'; '.join(changed)}. Choose another folder."
        )
