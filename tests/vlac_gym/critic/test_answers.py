"""What a critic may answer."""

import numpy as np
import pytest

from vlac_gym.critic.answers import checked_answers
from vlac_gym.errors import CriticResponseError


@pytest.mark.parametrize(
    ("answers", "low", "message"),
    [
        ([0.5], 0.0, r"shape \(2,\) from the critic, got \(1,\)"),
        ([[0.5, 0.5]], 0.0, r"got \(1, 2\)"),
        ([[0.5], 0.5], 0.0, r"as 2 numbers from the critic, got \[\[0.5\], 0.5\]"),
        (["yes", "no"], 0.0, "as 2 numbers"),
        ([0.5, -0.5], 0.0, r"in \[0, 1\] from the critic, got -0.5 at index 1 of 2"),
        ([-1.5, 0.5], -1.0, r"in \[-1, 1\] from the critic, got -1.5 at index 0 of 2"),
        ([0.5, float("inf")], 0.0, "got inf at index 1"),
    ],
)
def test_answers_are_checked(answers, low, message):
    with pytest.raises(CriticResponseError, match=message):
        checked_answers(answers, 2, low, "value")


def test_good_answers_pass_as_float32():
    checked = checked_answers([0.0, 1.0], 2, 0.0, "value")
    assert (checked.tolist(), checked.dtype) == ([0.0, 1.0], np.float32)
