"""The examples in the docstrings of vector envs run as printed."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "vlac_gym.vector.finished",
        "vlac_gym.rollout.async_rollout",
        "vlac_gym.rollout.pipelined",
        "vlac_gym.rule.episode",
        "vlac_gym.vector.rollout_env",
        "vlac_gym.wrappers.vector.vlac_reward",
    ],
)
def test_example_runs(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
