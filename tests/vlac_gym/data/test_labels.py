"""Answers of pairs, worked by hand."""

import numpy as np

from vlac_gym.data.labels import pair_percent


def test_pair_answers_are_shares_of_what_was_left_and_antisymmetric():
    before = np.array([0.0, 0.5, 0.2, 1.0, 0.5, 1.0, 0.0], np.float32)
    after = np.array([0.25, 0.75, 1.0, 0.2, 0.5, 1.0, 0.001], np.float32)
    assert pair_percent(before, after).tolist() == [25, 50, 100, -100, 0, 0, 0]
    assert pair_percent(after, before).tolist() == [-25, -50, -100, 100, 0, 0, 0]
