"""Where the hand takes hold."""

import math

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene
from vlac_gym.policies.grasps import Hold, choose_grasp
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


class PotScene(BoxScene):
    """A pot 9 cm wide at x = 0.2 with a knob of 1 cm in width and 2 cm in height on its lid, 1 cm off its middle."""

    PARTS = (Box((0.2, 0.0, 0.05), (0.045, 0.045, 0.05)), Box((0.21, 0.0, 0.11), (0.005, 0.005, 0.01)))

    def object_bounds(self, name):
        return np.array([0.155, -0.045, 0.0]), np.array([0.245, 0.045, 0.12])

    def clearance(self, points, ignore=()):
        parts = BoxScene([], {}, fixtures=dict(zip("ab", self.PARTS, strict=True)))
        return super().clearance(points, ignore) if "pot" in ignore else parts.clearance(points)


def test_a_pot_too_wide_to_be_held_is_taken_by_the_knob_of_its_lid():
    scene = PotScene([], {"pot": Box((0.2, 0.0, 0.06), (0.045, 0.045, 0.06))})
    grasp = choose_grasp(scene, "pot")
    # 12 mm below the knob's top at z = 12 cm; the knob is probed on a grid of 3 mm.
    np.testing.assert_allclose(grasp.offset, [0.01, 0.0, 0.12 - 0.012 - 0.06], atol=0.003)
    np.testing.assert_allclose(grasp.rotation, hand_rotation(0.0), atol=1e-12)


def test_a_failed_hold_gives_way_to_the_next_best_and_comes_back_when_all_failed():
    scene = BoxScene([], {"box": NARROW})
    straight = choose_grasp(scene, "box")
    turned = choose_grasp(scene, "box", [Hold(straight.offset, straight.rotation)])
    # 15 degrees more are still alike; the fingers span 4 cm / cos(30) + 10 cm * sin(30) > 7 cm at 30 degrees.
    np.testing.assert_allclose(turned.rotation, straight.rotation, atol=1e-12)
    bowl = BoxScene([], {"bowl": BOWL})
    first = choose_grasp(bowl, "bowl")
    second = choose_grasp(bowl, "bowl", [Hold(first.offset, first.rotation)])
    np.testing.assert_allclose(second.offset, [0.0, -0.051, 0.002], atol=1e-12)
