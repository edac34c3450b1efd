"""Synthetic recordings whose every number is known."""

from collections.abc import Callable

import pytest
from recorded_bank import record, record_bank

from vlac_gym.data import EpisodeDataset


@pytest.fixture(name="record")
def record_fixture() -> Callable[..., None]:
    """`record`, for tests that need other episodes than the bank's."""
    return record


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> EpisodeDataset:
    """`record_bank`'s 48 episodes."""
    root = tmp_path_factory.mktemp("bank")
    record_bank(root)
    return EpisodeDataset.open(root)
