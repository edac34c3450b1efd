"""The control critic: rates as asked for, one answer per picture, nothing of the task."""

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.errors import ConfigError


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (2, 2, 3), np.uint8) for _ in range(count)]


def test_done_comes_at_its_rate_and_again_for_the_same_picture():
    critic, frames = make_critic("random:done_rate=0.25"), pictures(2000)
    answers = critic.success_prob(frames, ["stack"] * 2000)
    assert set(answers.tolist()) == {0.0, 1.0}
    assert answers.dtype == np.float32
    assert answers.mean() == pytest.approx(0.25, abs=0.04)  # four standard deviations
    np.testing.assert_array_equal(critic.success_prob(frames, ["fold"] * 2000), answers)
    assert make_critic("random:done_rate=0").success_prob(frames, ["stack"] * 2000).max() == 0.0
    assert make_critic("random:done_rate=1").success_prob(frames, ["stack"] * 2000).min() == 1.0


def test_values_and_progress_fill_their_ranges():
    critic, frames = make_critic("random"), pictures(2001)
    values = critic.value(frames, "stack")
    assert values[0] == 0.0
    assert values[1:].mean() == pytest.approx(0.5, abs=0.03)
    assert 0.0 <= values.min() < values.max() < 1.0
    progress = critic.progress(frames[:-1], frames[1:], ["stack"] * 2000)
    assert progress.mean() == pytest.approx(0.0, abs=0.06)
    assert -1.0 <= progress.min() < -0.9 < 0.9 < progress.max() < 1.0
    assert critic.value([], "stack").shape == (0,)


def test_seed_changes_the_answers():
    frames = pictures(20)
    assert make_critic("random:seed=1").value(frames, "stack")[1:].tolist() != (
        make_critic("random:seed=2").value(frames, "stack")[1:].tolist()
    )


@pytest.mark.parametrize(
    ("spec", "message"), [("random:done_rate=2", "done_rate in"), ("random:seed=-1", "seed >= 0")]
)
def test_parameters_out_of_range_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_critic(spec)
