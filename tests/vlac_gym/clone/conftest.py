"""A folder of recorded episodes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vlac_gym.data.episodes import Episode, write_episode


@pytest.fixture
def bank(tmp_path: Path) -> Callable[..., Path]:
    """Writes episodes into a folder."""

    def write(*episodes: Episode) -> Path:
        for episode in episodes:
            write_episode(tmp_path / "bank", episode)
        return tmp_path / "bank"

    return write
