"""The shipped nano critic: `from_package`, as `make_critic("nano")` calls it."""

__all__ = ["CALIBRATION", "CHECKPOINT", "from_package"]

from pathlib import Path
from typing import Any

from vlac_gym.calibration import SHIPPED_CALIBRATIONS
from vlac_gym.critic.vlac.critic import VLACCritic
from vlac_gym.critic.vlac.factories import from_transformers
from vlac_gym.errors import ConfigError

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The checkpoint that ships with the package: native InternVL format, float16; see MODEL_CARD.md."""

CALIBRATION = SHIPPED_CALIBRATIONS["nano"]
"""Stop thresholds that nano's report card recommends, as `VLACRewardWrapper(calibration="nano")` loads them."""


def from_package(argument: str, **options: Any) -> VLACCritic:
    """Builds `nano` or `nano:?key=value,…`: the shipped checkpoint on the transformers engine.

    Replies are read exactly (unrounded) unless `reading` says otherwise: nano's thresholds were measured so.

    Args:
        argument: Nothing, or options behind a question mark as for `transformers:PATH?…`.
        **options: As `from_transformers` takes them.

    Raises:
        ConfigError: Another argument, or an unknown option.
        DependencyNotInstalled: torch or transformers is missing.
    """
    if argument and not argument.startswith("?"):
        raise ConfigError(
            f"The critic 'nano' takes options behind '?' only, got {argument!r}. "
            "Another checkpoint is transformers:PATH."
        )
    if "reading" not in options and "reading=" not in argument:
        options["reading"] = "exact"
    return from_transformers(f"{CHECKPOINT}{argument}", name="nano", **options)
