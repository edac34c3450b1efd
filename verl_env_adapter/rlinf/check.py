"""Checks an RLinf config on the driver before anything starts: `python -m verl_env_adapter.rlinf.check`.

    python -m verl_env_adapter.rlinf.check --config-path DIR --config-name NAME [overrides …]

Composes the config as RLinf's entry scripts do, runs `check_config`, and loads the extension module: RLinf itself only
warns when that fails. Prints the resolved block with ``--show``.
"""

__all__ = ["compose", "main"]

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_env_adapter.common.settings import to_plain
from verl_env_adapter.common.sources import RLINF
from verl_env_adapter.rlinf.options import BLOCK, check_config
from verl_env_adapter.rlinf.plugin import register_named
from vlac_gym.errors import ConfigError, VlacGymError
from vlac_gym.extras import needs


def compose(folder: Path, name: str, overrides: Sequence[str]) -> Any:
    """The config as hydra gives it to RLinf's scripts.

    Raises:
        ConfigError: hydra can't compose it.
        DependencyNotInstalled: hydra is missing.
    """
    with needs("Composing RLinf's config", get=RLINF):
        import hydra
        from hydra.errors import HydraException
    try:
        with hydra.initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            return hydra.compose(name, overrides=list(overrides))
    except HydraException as e:
        raise ConfigError(f"Can't compose {folder / name}.yaml: {e}") from e


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if the config is good, else 2 with the reason on the error output."""
    parser = argparse.ArgumentParser(prog="rlinf_check", description=__doc__.splitlines()[0])
    parser.add_argument("--config-path", type=Path, required=True)
    parser.add_argument("--config-name", required=True)
    parser.add_argument("--show", action="store_true", help="print the resolved env sections' blocks")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args(arguments)
    try:
        cfg = compose(given.config_path, given.config_name, given.overrides)
        check_config(cfg)
        register_named()
    except VlacGymError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    if given.show:
        shown = {phase: to_plain(cfg.env[phase][BLOCK]) for phase in ("train", "eval") if cfg.env.get(phase)}
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
