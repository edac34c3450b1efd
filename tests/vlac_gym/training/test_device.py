"""The device that a network is trained on."""

import pytest
import torch

from vlac_gym.errors import ConfigError
from vlac_gym.training.device import pick_device


def test_a_gpu_is_taken_where_torch_has_one():
    assert pick_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["mars", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match=f"Expected a device that torch can use, got '{name}': "):
        pick_device(name)
