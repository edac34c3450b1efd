"""Where the hand takes hold."""

import math

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene
from vlac_gym.policies.grasps import choose_grasp
from vlac_gym.policies.waypoints import hand_rotation

NARROW = Box((0.1, 0.2, 0.05), (0.05, 0.02, 0.05))  # 10 cm long in x, 4 cm wide in y, 10 cm high
BOWL = Box((0.0, 0.0, 0.03), (0.06, 0.06, 0.03))


def test_a_narrow_object_is_held_across_its_middle_without_turning():
    grasp = choose_grasp(BoxScene([], {"box": NARROW}), "box")
    np.testing.assert_allclose(grasp.rotation, hand_rotation(0.0), atol=1e-12)
    # Half its height (5 cm) below the top is its centre.
    np.testing.assert_allclose(grasp.offset, [0.0, 0.0, 0.0], atol=1e-12)
    assert grasp.room_m == 0.02


def test_the_hand_turns_to_close_over_the_narrow_side():
    lengthwise = Box((0.1, 0.2, 0.05), (0.02, 0.05, 0.05))
    grasp = choose_grasp(BoxScene([], {"box": lengthwise}), "box")
    np.testing.assert_allclose(grasp.rotation, hand_rotation(math.pi / 2), atol=1e-12)


def test_flat_objects_are_held_above_the_table():
    flat = Box((0.0, 0.0, 0.009), (0.03, 0.02, 0.009))  # top at 1.8 cm, middle at 0.9 cm
    grasp = choose_grasp(BoxScene([], {"box": flat}), "box")
    assert grasp.offset[2] == pytest.approx(0.012 - 0.009)


def test_a_bowl_is_held_by_its_rim():
    grasp = choose_grasp(BoxScene([], {"bowl": BOWL}), "bowl")
    # 9 mm inside the side at y = +6 cm, 28 mm below the top at z = 6 cm.
    np.testing.assert_allclose(grasp.offset, [0.0, 0.051, 0.002], atol=1e-12)
    np.testing.assert_allclose(grasp.rotation, hand_rotation(0.0), atol=1e-12)


def test_the_rim_on_the_free_side_is_taken():
    neighbour = Box((0.0, 0.12, 0.06), (0.05, 0.02, 0.06))  # begins where the outer finger would go, y = 0.10
    grasp = choose_grasp(BoxScene([], {"bowl": BOWL, "neighbour": neighbour}), "bowl")
    np.testing.assert_allclose(grasp.offset, [0.0, -0.051, 0.002], atol=1e-12)


def test_a_tipped_bowl_is_taken_by_its_highest_rim_with_a_leaning_hand():
    half = math.radians(45.0) / 2.0
    # Leaning by 45 degrees about +y: its axis points to (0.707, 0, 0.707), so the rim is highest towards -x.
    tipped = Box(BOWL.centre, BOWL.half, quaternion=(math.cos(half), 0.0, math.sin(half), 0.0))
    grasp = choose_grasp(BoxScene([], {"bowl": tipped}), "bowl")
    root = math.sqrt(0.5)
    np.testing.assert_allclose(grasp.rotation[:, 2], [-root, 0.0, -root], atol=1e-9)  # along the bowl's axis
    np.testing.assert_allclose(grasp.upright[:, 2], [0.0, 0.0, -1.0], atol=1e-9)
    # Extent along the axis is root * (0.06 + 0.03), across (y) 0.06.
    along, up = root * 0.09 - 0.028, 0.06 - 0.009
    expected = along * np.array([root, 0.0, root]) + up * np.array([-root, 0.0, root])
    np.testing.assert_allclose(grasp.offset, expected, atol=1e-9)
