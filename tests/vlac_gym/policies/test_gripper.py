"""What a policy's gripper number becomes."""

import numpy as np
import pytest

from vlac_gym.policies.gripper import GripperConvention, convert_gripper


@pytest.mark.parametrize(
    ("convention", "theirs", "ours"),
    [
        (GripperConvention.PLUS_ONE_CLOSES, [-1.0, 1.0, 0.5], [-1.0, 1.0, 0.5]),
        (GripperConvention.PLUS_ONE_OPENS, [-1.0, 1.0, 0.5], [1.0, -1.0, -0.5]),
        (GripperConvention.ONE_OPENS, [0.0, 1.0, 0.4], [1.0, -1.0, 1.0]),
        (GripperConvention.ONE_OPENS, [0.5, 0.9, 0.1], [0.0, -1.0, 1.0]),
    ],
)
def test_only_the_gripper_changes_its_convention(convention, theirs, ours):
    actions = np.array([[0.25, g] for g in theirs])
    converted = convert_gripper(actions, convention)
    assert converted.dtype == np.float32
    assert converted[:, 0].tolist() == [0.25] * 3
    assert converted[:, 1].tolist() == ours
    assert actions[:, 1].tolist() == theirs
