"""A command's options as a YAML file: `CONFIG_FILE`, `read_config`, `write_config`. Needs PyYAML."""

__all__ = ["CONFIG_FILE", "read_config", "write_config"]

import dataclasses
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_text

CONFIG_FILE = "config.yaml"
"""What a run folder calls the options that it was made with."""


def read_config(path: Path) -> dict[str, Any]:
    """The options in a file, by name; an empty file has none.

    Raises:
        ConfigError: It can't be read, is not YAML, or is no mapping with texts as keys.
        DependencyNotInstalled: PyYAML is missing.
    """
    with needs("A config file", "cli"):
        import yaml
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"Expected a YAML file for --config, {path} can't be read: {e}") from e
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"Expected options as 'name: value' lines in {path}, got {content!r:.80}.")
    return content


def write_config(folder: Path, options: Any) -> None:
    """Writes a dataclass of options to `folder/config.yaml`, defaults too, so that `read_config` gives them back."""
    with needs("Writing a config file", "cli"):
        import yaml
    text = yaml.safe_dump(_plain(dataclasses.asdict(options)), sort_keys=False, allow_unicode=True)
    write_text(folder / CONFIG_FILE, text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
