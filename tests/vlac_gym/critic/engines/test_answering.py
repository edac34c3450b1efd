"""How a reply's tokens come to the host."""

import pytest

torch = pytest.importorskip("torch")

from vlac_gym.critic.engines.answering import HostPick, Pick  # noqa: E402


class OtherDevicesTensor:
    """Of a device whose copies can be asked not to wait, but that has no CUDA event: such a copy is not filled yet."""

    is_cuda = False

    def __init__(self, values):
        self._values = torch.tensor(values)

    def to(self, device, non_blocking=False):
        assert device == "cpu"
        return torch.zeros_like(self._values) if non_blocking else self._values


@pytest.mark.parametrize("tensor", [torch.tensor, OtherDevicesTensor])
def test_a_sent_pick_holds_what_the_device_had(tensor):
    pick = Pick(
        tensor([7, 8]), tensor([-0.5, -0.25]), tensor([[7, 3], [8, 4]]), tensor([[-0.5, -1.0], [-0.25, -2.0]])
    )
    read: HostPick = pick.send().read()
    assert read.tokens == [7, 8]
    assert read.logprobs == [-0.5, -0.25]
    assert read.candidates == [[(7, -0.5), (3, -1.0)], [(8, -0.25), (4, -2.0)]]
