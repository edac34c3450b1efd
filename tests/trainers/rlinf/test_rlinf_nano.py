"""nano answers on the transformers that RLinf pins as it does on its own."""

import numpy as np
import pytest

from vlac_gym.critic import make_critic

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

pytest.importorskip("rlinf")

TASK = "pick up the black bowl between the plate and the ramekin and place it on the plate"


def test_nano_answers_alike():
    critic = make_critic("nano")
    frames = [np.random.default_rng(i).integers(0, 255, (256, 256, 3), np.uint8) for i in range(3)]
    # Measured on transformers 5.19.
    np.testing.assert_allclose(
        critic.success_prob(frames, [TASK] * 3), [0.00733608, 0.02579262, 0.01964028], rtol=1e-4
    )
    np.testing.assert_allclose(critic.value(frames, TASK), [0.0, 0.02579262, 0.05537805], rtol=1e-4)
