"""A rollout whose env follows a script, so that what the command does can be checked by hand in a second."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import pytest
from scripted_libero import ENV_ID, ScriptedLibero, register

from vlac_gym.cli import rollout


@pytest.fixture
def scripted_libero(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Lets `vlac-gym rollout` run the scripted env; returns the resets it received."""
    register()
    monkeypatch.setattr(rollout, "LIBERO_ENV_ID", ENV_ID)
    ScriptedLibero.reset_calls = []
    yield lambda: ScriptedLibero.reset_calls
    del gym.registry[ENV_ID]
