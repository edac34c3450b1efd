"""Fixtures shared by every test."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def libero_env() -> Iterator[Any]:
    """A started `LiberoEnv` (libero_spatial task 0, 64 x 64, both cameras); every test resets it first.

    Do not close it or leave it on another task: building a task takes seconds.
    """
    import gymnasium as gym

    import vlac_gym

    env = gym.make(vlac_gym.LIBERO_ENV_ID, image_size=64, disable_env_checker=True)
    env.reset(seed=0, options={"init_state_id": 0})
    yield env
    env.close()
