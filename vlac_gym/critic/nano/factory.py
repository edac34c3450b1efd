"""The shipped nano critic: `from_package`, as `make_critic("nano")` calls it, and `check_package`."""

__all__ = ["CHECKPOINT", "DEFAULT_OPTIONS", "check_package", "from_package"]

from pathlib import Path
from typing import Any

from vlac_gym.critic.vlac.critic import VLACCritic
from vlac_gym.critic.vlac.factories import check_transformers, from_transformers
from vlac_gym.errors import ConfigError

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The checkpoint that ships with the package: native InternVL format, float16; see MODEL_CARD.md."""

DEFAULT_OPTIONS: dict[str, Any] = {"reading": "exact", "unfinished_value_limit": 0.95}
"""How the shipped metrics were measured (MODEL_CARD.md); the limit is explained in docs/nano.md."""


def from_package(argument: str, **options: Any) -> VLACCritic:
    """Builds `nano` or `nano:?key=value,…`: the shipped checkpoint on the transformers engine.

    Unless the options say otherwise, replies are read exactly (unrounded), and the value of a frame is the one that is
    expected given both answers, ``p + (1 - p) min(v, 0.95)`` with done probability p and accumulated progress v.

    Args:
        argument: Nothing, or options behind a question mark as for `transformers:PATH?…`.
        **options: As `from_transformers` takes them.

    Raises:
        ConfigError: Another argument, or an unknown option.
        DependencyNotInstalled: torch or transformers is missing.
    """
    return from_transformers(_on_checkpoint(argument), DEFAULT_OPTIONS, name="nano", **options)


def check_package(argument: str) -> None:
    """Raises `ConfigError` for an argument of `from_package` that does not fit; loads no model."""
    check_transformers(_on_checkpoint(argument))


def _on_checkpoint(argument: str) -> str:
    """The argument of `transformers` that means the same."""
    if argument and not argument.startswith("?"):
        raise ConfigError(
            f"The critic 'nano' takes options behind '?' only, got {argument!r}. "
            "Another checkpoint is transformers:PATH."
        )
    return f"{CHECKPOINT}{argument}"
