"""In-process vector envs under the critic, as the tests of the vector reward wrapper build them."""

from typing import Any

import numpy as np

from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import VLACRewardWrapper

AUTORESETS = ["NextStep", "SameStep", "Disabled"]


def actions(count: int) -> np.ndarray:
    return np.zeros((count, 7), np.float32)


def build(env_fns: list, critic: Any, autoreset: str = "NextStep", **options: Any) -> VLACRewardWrapper:
    return VLACRewardWrapper(
        RolloutVectorEnv(env_fns, mode="sync", autoreset_mode=autoreset), critic, **options
    )
