"""The memory plan's constants are those of OpenVLA-OFT in its real shapes, in SimpleVLA-RL's own classes."""

import pytest

from verl_env_adapter.simplevla.memory import PICTURE_BYTES, TOKEN_BYTES, WEIGHTS

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

AUTOCAST_NORMS = 57_507_840
"""Float32 inputs of the towers' LayerNorms, which only CUDA's autocast makes."""


@pytest.fixture
def fake(checkout):
    from fake_openvla import FakeOpenVLA

    return FakeOpenVLA()


def test_weights_and_what_autograd_keeps(fake):
    language = fake.model.language_model
    layer = count(language.model.layers[0])
    assert count(fake.model) == WEIGHTS.model
    assert layer == WEIGHTS.layer
    assert count(fake.model.projector) + count(language) - 32 * layer == WEIGHTS.root
    picture, short = fake.kept_bytes(343)
    same, long = fake.kept_bytes(443)
    assert picture == same == PICTURE_BYTES - AUTOCAST_NORMS
    assert (long - short) / 100 == pytest.approx(TOKEN_BYTES, rel=1e-3)
    assert short / 343 == pytest.approx(TOKEN_BYTES, rel=1e-3)


def count(module):
    return sum(weight.numel() for weight in module.parameters())
