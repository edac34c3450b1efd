"""Objects below something else."""

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene
from vlac_gym.envs.scene import Predicate
from vlac_gym.policies.overhangs import is_roofed, way_out
from vlac_gym.policies.planner import plan_predicate

CUP = Box((0.0, 0.0, 0.05), (0.03, 0.03, 0.05))  # 10 cm high
OUT = [-0.12 * np.cos(np.pi / 6), 0.12 * 0.5, 0.0]


def below(roof_height, roof_x=0.0):
    roof = Box((roof_x, 0.0, roof_height), (0.06, 0.2, 0.004))
    shelf = Box((0.5, 0.0, 0.05), (0.1, 0.1, 0.05))
    goal = [Predicate("on", ("cup", "shelf"))]
    return BoxScene(goal, {"cup": CUP}, fixtures={"roof": roof, "shelf": shelf}, tip=(0.0, -0.4, 0.3))


@pytest.mark.parametrize(
    ("height", "roofed"),
    [(0.13, False), (0.175, True), (0.20, True), (0.255, True), (0.32, False)],  # 6 to 18 cm above 10 cm
)
def test_only_what_hangs_6_to_18_cm_above_is_a_roof(height, roofed):
    assert is_roofed(below(height), "cup") is roofed


def test_what_stands_beside_is_no_roof():
    # The roof ends at x = 0.12 - 0.06 = 0.06; the cup with its margin at 0.05.
    assert not is_roofed(below(0.2, roof_x=0.12), "cup")
    assert is_roofed(below(0.2, roof_x=0.12), "cup", shift=np.array([0.02, 0.0, 0.0]))


def test_a_taller_neighbour_is_no_roof():
    scene = below(0.5)
    scene.standing["post"] = Box((0.045, 0.0, 0.12), (0.01, 0.01, 0.12))  # within the margin, 24 cm high
    assert not is_roofed(scene, "cup")


def test_movable_things_do_not_hang():
    scene = below(0.5)
    scene.movables["ball"] = Box((0.0, 0.0, 0.2), (0.01, 0.01, 0.01))
    assert not is_roofed(scene, "cup")


def test_the_way_out_is_the_shortest_that_leaves_the_roof():
    # The roof begins at x = -0.04 and the cup with its margin ends at 0.05: 9.6 cm to the left are needed. 9 cm
    # are too few; of the directions in steps of 30 degrees, 150 is the first in which 12 cm lead far enough.
    np.testing.assert_allclose(way_out(below(0.2, roof_x=0.02), "cup"), OUT, atol=1e-12)


def test_no_way_out_is_a_zero_shift():
    walled = below(0.2)
    walled.standing["roof"] = Box((0.0, 0.0, 0.2), (1.0, 1.0, 0.004))
    assert way_out(walled, "cup").tolist() == [0.0, 0.0, 0.0]


def test_a_plan_slips_the_object_out_before_lifting_it():
    plan = plan_predicate(below(0.2, roof_x=0.02), Predicate("on", ("cup", "shelf")))
    lifts = [waypoint for waypoint in plan if waypoint.stage == "lift"]
    assert [waypoint.frame for waypoint in lifts] == ["tip", "tip", "object"]
    np.testing.assert_allclose(lifts[0].offset, [0.0, 0.0, 0.025])
    np.testing.assert_allclose(lifts[1].offset, OUT, atol=1e-12)
    free = plan_predicate(below(0.5), Predicate("on", ("cup", "shelf")))
    assert [waypoint.stage for waypoint in free].count("lift") == 1
