"""The controller's numbers, worked out by hand."""

import math

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene, Slide
from vlac_gym.envs.scene import Predicate
from vlac_gym.policies.waypoints import (
    CLOSE,
    OPEN,
    Waypoint,
    hand_rotation,
    position_error,
    rotation_about,
    rotation_error,
    servo,
)

START = np.array([0.0, 0.0, 0.3])


@pytest.fixture
def scene():
    return BoxScene(
        [Predicate("open", ("drawer",))],
        {"cup": Box((0.1, 0.0, 0.05), (0.02, 0.02, 0.05))},
        fixtures={"cabinet": Box((0.0, -0.3, 0.1), (0.1, 0.1, 0.1))},
        regions={"drawer": Box((0.0, -0.3, 0.1), (0.05, 0.05, 0.02), owner="cabinet")},
        slides={"drawer": Slide((0.0, -0.2, 0.1), (0.0, 1.0, 0.0), position=0.05)},
        tip=START,
    )


@pytest.mark.parametrize(
    ("waypoint", "expected"),
    [
        (Waypoint("reach", "world", np.array([0.1, 0.2, 0.3])), [0.1, 0.2, 0.0]),
        (Waypoint("reach", "tip", np.array([0.0, 0.0, 0.1])), [0.0, 0.0, 0.0]),
        (Waypoint("reach", "object", np.array([0.0, 0.01, 0.0]), "cup"), [0.1, 0.01, -0.25]),
        (Waypoint("reach", "object", np.zeros(3), "cup", height=0.35), [0.1, 0.0, 0.05]),
        (Waypoint("reach", "handle", np.zeros(3), "drawer"), [0.0, -0.15, -0.2]),
        # A carried object: origin (0.1, 0), lowest point 0.
        (Waypoint("lower", "world", np.array([0.0, 0.0, 0.25]), carried="cup"), [-0.1, 0.0, 0.25]),
    ],
)
def test_what_is_left_to_move(scene, waypoint, expected):
    start = np.array([0.0, 0.0, 0.2])  # the tips were here when the waypoint began
    np.testing.assert_allclose(position_error(waypoint, scene, start), expected, atol=1e-12)


def test_an_action_is_twice_the_error_in_units_of_five_centimetres(scene):
    action = servo(Waypoint("reach", "world", np.array([0.01, -0.005, 0.3]), gripper=CLOSE), scene, START)
    np.testing.assert_allclose(action, [0.4, -0.2, 0.0, 0.0, 0.0, 0.0, 1.0], atol=1e-6)
    assert action.dtype == np.float32


def test_a_far_target_keeps_its_direction_at_full_speed(scene):
    far = Waypoint("reach", "world", np.array([0.4, -0.2, 0.3]), gripper=OPEN)
    np.testing.assert_allclose(servo(far, scene, START)[:3], [1.0, -0.5, 0.0], atol=1e-6)
    slow = Waypoint("reach", "world", np.array([0.4, -0.2, 0.3]), speed=0.4)
    np.testing.assert_allclose(servo(slow, scene, START)[:3], [0.4, -0.2, 0.0], atol=1e-6)
    assert servo(far, scene, START)[6] == -1.0


def test_turning_error_is_a_rotation_vector_in_world_axes(scene):
    waypoint = Waypoint("reach", "tip", np.zeros(3), rotation=hand_rotation(0.1))
    np.testing.assert_allclose(rotation_error(waypoint, scene), [0.0, 0.0, 0.1], atol=1e-9)
    # 2 * 0.1 rad / 0.5 rad
    np.testing.assert_allclose(servo(waypoint, scene, START)[3:6], [0.0, 0.0, 0.4], atol=1e-6)
    assert rotation_error(Waypoint("reach", "tip", np.zeros(3)), scene).tolist() == [0.0, 0.0, 0.0]


def test_hand_orientations():
    down = hand_rotation()
    np.testing.assert_allclose(down[:, 0], [0.0, 1.0, 0.0], atol=1e-12)  # fingers close along y
    np.testing.assert_allclose(down[:, 2], [0.0, 0.0, -1.0], atol=1e-12)  # and point down
    level = hand_rotation(0.0, math.pi / 2)
    np.testing.assert_allclose(level[:, 0], [0.0, 0.0, -1.0], atol=1e-12)
    np.testing.assert_allclose(level[:, 2], [0.0, -1.0, 0.0], atol=1e-12)
    turned = hand_rotation(math.pi / 2)
    np.testing.assert_allclose(turned[:, 0], [-1.0, 0.0, 0.0], atol=1e-12)
    for rotation in (down, level, turned):
        assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_rotation_about_an_axis_of_any_length():
    quarter = rotation_about(np.array([0.0, 0.0, 3.0]), math.pi / 2)
    np.testing.assert_allclose(quarter @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-12)
