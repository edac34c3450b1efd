"""A clone policy that RLinf trained, as a folder for `load_policy` and ``--policy clone:FOLDER``: `export_policy`."""

__all__ = ["export_policy"]

import os
from pathlib import Path

from vlac_gym.clone.policy import load_policy, load_weights, save_policy
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

with needs("A clone policy", "vlac"):
    import torch

_PREFIX = "policy."
"""Of the policy's weights in those of `verl_env_adapter.rlinf.clone_model.CloneModel`."""


def export_policy(
    weights: str | os.PathLike[str], start: str | os.PathLike[str], out: str | os.PathLike[str]
) -> None:
    """Writes the policy of RLinf's checkpoint. RLinf itself need not be installed.

    Args:
        weights: ``full_weights.pt`` below ``checkpoints/global_step_N``.
        start: The folder that training began with; the value head is taken from there, since RLinf trains another.
        out: The folder to write.

    Raises:
        ConfigError: The file is missing, or holds weights of another policy than `start`.
    """
    policy = load_policy(start)
    if not Path(weights).is_file():
        raise ConfigError(f"Expected RLinf's full_weights.pt, found no file {weights}.")
    trained = torch.load(weights, map_location="cpu", weights_only=True)
    state = {name.removeprefix(_PREFIX): value for name, value in trained.items() if name.startswith(_PREFIX)}
    if any(name.startswith("offset.") for name in state):
        policy.add_offset()
    value_head = {name: value for name, value in policy.state_dict().items() if name.startswith("value.")}
    load_weights(policy, state | value_head, f"{weights}, as {start} has them")
    save_policy(policy, out)
