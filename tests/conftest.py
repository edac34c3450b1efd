"""Fixtures shared by every test."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from vlac_gym.envs.gl import configure_gl

configure_gl()  # Before any test imports MuJoCo, which reads its choice once.


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    """Undoes what commands under test do to the root logger, which every later test in the process would feel."""
    root = logging.getLogger()
    level, handlers = root.level, set(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - handlers:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


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


@pytest.fixture
def wandb() -> Iterator[Any]:
    """The real package, without what an earlier test made it read of the environment."""
    module = pytest.importorskip("wandb", reason="wandb is not installed")
    module.teardown()
    yield module
    module.teardown()
