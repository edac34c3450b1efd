"""Checks a SimpleVLA-RL command before anything starts: `python -m verl_env_adapter.simplevla.check`.

    python -m verl_env_adapter.simplevla.check --checkout DIR [overrides …]

Composes the checkout's own config with the overrides, of which an unknown one is an error, reads the env_vars of its
``trainer.runtime_env``, and runs `check_recipe`. Prints the sizes of a step and the plan of a card's memory as JSON.
"""

__all__ = ["compose", "main"]

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_env_adapter.common.settings import SETTINGS_VARIABLE, load_settings
from verl_env_adapter.common.sources import SIMPLEVLA
from verl_env_adapter.simplevla.memory import card_memory
from verl_env_adapter.simplevla.recipe import check_recipe
from vlac_gym.errors import ConfigError, VlacGymError
from vlac_gym.extras import needs


def compose(checkout: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The config as hydra gives it to the trainer, resolved, as plain dicts.

    Raises:
        ConfigError: hydra can't compose it: no such folder, or an override that names no key.
        DependencyNotInstalled: hydra is missing.
    """
    with needs("Composing SimpleVLA-RL's config", get=SIMPLEVLA):
        import hydra
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
    folder = checkout.resolve() / "verl/trainer/config"
    try:
        with hydra.initialize_config_dir(str(folder), version_base=None):
            config = hydra.compose("ppo_trainer", overrides=list(overrides))
    except HydraException as e:
        raise ConfigError(f"Can't compose {folder}/ppo_trainer.yaml: {e}") from e
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)
    return plain


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if the command is good, else 2 with the reason on the error output."""
    parser = argparse.ArgumentParser(prog="simplevla_check", description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args(arguments)
    try:
        config = compose(given.checkout, given.overrides)
        environ = _worker_environment(config["trainer"]["runtime_env"])
        sizes = check_recipe(config, load_settings(environ[SETTINGS_VARIABLE]), environ)
        plan = card_memory(sizes, images=config["actor_rollout_ref"]["rollout"]["num_images_in_input"])
    except VlacGymError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    sys.stdout.write(json.dumps({"step": dataclasses.asdict(sizes), "card_gb": plan}, indent=2) + "\n")
    return 0


def _worker_environment(path: str) -> dict[str, str]:
    """The env_vars of ``trainer.runtime_env``."""
    try:
        variables: dict[str, str] = json.loads(Path(path).read_text())["env_vars"]
    except (OSError, ValueError, KeyError) as e:
        raise ConfigError(
            f"Expected env_vars in trainer.runtime_env, a JSON file, got {path!r}: {e!r}."
        ) from e
    if SETTINGS_VARIABLE not in variables:
        raise ConfigError(f"Expected {SETTINGS_VARIABLE} in the env_vars of {path}, got {sorted(variables)}.")
    return variables


if __name__ == "__main__":
    raise SystemExit(main())
