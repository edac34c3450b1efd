"""Putting things into what is open at one side only."""

from dataclasses import replace

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene
from vlac_gym.envs.scene import Predicate
from vlac_gym.errors import ConfigError
from vlac_gym.policies.cavities import mouth_of, slide_in
from vlac_gym.policies.faults import draw_fault
from vlac_gym.policies.planner import plan_predicate

IN = Predicate("in", ("mug", "shelf"))
SHELF = Box((0.02, 0.4, 0.1), (0.1, 0.08, 0.08), owner="oven")


class OvenScene(BoxScene):
    """An oven open towards -y: walls at x = -0.11 and 0.11 (inside), y = 0.48, floor's top at z = 0.02, roof at 0.2.

    Its parts are fixtures of their own here: boxes are all that this scene knows.
    """

    def __init__(self, mug, roof=True):
        parts = {
            "oven": Box((0.0, 0.4, 0.01), (0.12, 0.09, 0.01)),
            "left": Box((-0.115, 0.4, 0.1), (0.005, 0.09, 0.1)),
            "right": Box((0.115, 0.4, 0.1), (0.005, 0.09, 0.1)),
            "back": Box((0.0, 0.485, 0.1), (0.12, 0.005, 0.1)),
        }
        if roof:
            parts["roof"] = Box((0.0, 0.4, 0.205), (0.12, 0.09, 0.005))
        super().__init__([IN], {"mug": mug}, fixtures=parts, regions={"shelf": SHELF})


class MugScene(OvenScene):
    """A mug 8 cm wide whose handle, 1 cm wide, reaches from its wall (y = -0.04) to y = -0.07, up to z = 0.08."""

    PARTS = (Box((0.0, 0.0, 0.05), (0.04, 0.04, 0.05)), Box((0.0, -0.055, 0.05), (0.005, 0.015, 0.03)))

    def object_bounds(self, name):
        if name != "mug":
            return super().object_bounds(name)
        return np.array([-0.04, -0.07, 0.0]), np.array([0.04, 0.04, 0.1])

    def clearance(self, points, ignore=()):
        parts = {} if "mug" in ignore else dict(zip("ab", self.PARTS, strict=True))
        fixtures = {name: box for name, box in self.standing.items() if name not in ignore}
        return BoxScene([], {}, fixtures={**parts, **fixtures}).clearance(points)


MUG = Box((0.0, 0.0, 0.05), (0.04, 0.04, 0.05))


def test_hovering_above_what_has_a_roof_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"open above, got \(in mug shelf\), which has a roof"):
        draw_fault("hover", OvenScene(MUG), rng)
    assert draw_fault("hover", OvenScene(MUG, roof=False), rng).hover_m is not None


def test_the_open_side_of_what_has_a_roof_is_found_and_the_middle_between_its_walls():
    mouth = mouth_of(OvenScene(MUG), IN)
    np.testing.assert_allclose(mouth.outwards, [0.0, -1.0, 0.0])
    # The region's middle is 2 cm beside that of the walls; its edge is at y = 0.32, and 1.5 cm more are inside.
    np.testing.assert_allclose(mouth.place[:2], [0.0, 0.335], atol=1e-9)
    assert mouth.place[2] == pytest.approx(0.02, abs=0.0021)  # depths are probed every 2 mm


@pytest.mark.parametrize(
    ("scene", "predicate"),
    [
        (OvenScene(MUG, roof=False), IN),
        (OvenScene(MUG), replace(IN, name="on")),
        (BoxScene([], {"mug": MUG, "basket": MUG}, regions={"shelf": replace(SHELF, owner="basket")}), IN),
    ],
    ids=["no roof", "on", "not a fixture"],
)
def test_what_can_be_filled_from_above_has_no_mouth(scene, predicate):
    assert mouth_of(scene, predicate) is None


def test_a_mug_is_held_by_the_handle_that_looks_out_and_slid_in_along_the_floor():
    scene = MugScene(MUG)
    plan = plan_predicate(scene, IN, place_offset=np.zeros(3))
    stages = [waypoint.stage for waypoint in plan]
    assert stages == ["reach", "descend", "grasp", "lift", "carry", "lower", "release", "retreat"]
    descend, lift, carry, lower = plan[1], plan[3], plan[4], plan[5]
    # The outer 2 cm of the handle (y = -0.07 to -0.05), 2 cm below its top at z = 0.08; the mug's centre is at 0.05.
    np.testing.assert_allclose(descend.offset, [0.0, -0.06, 0.01], atol=0.004)
    np.testing.assert_allclose(np.abs(descend.rotation[:, 0]), [1.0, 0.0, 0.0], atol=1e-9)  # closes across
    heights = [waypoint.height for waypoint in (lift, carry, lower)]
    np.testing.assert_allclose(heights, 0.02 + 0.012, atol=0.0021)  # above the floor, so that nothing drags
    np.testing.assert_allclose(carry.offset[:2], [0.0, 0.335 - 0.16], atol=1e-9)
    np.testing.assert_allclose(lower.offset[:2], [0.0, 0.335], atol=1e-9)
    np.testing.assert_allclose(plan[-1].offset, [0.0, -0.12, 0.0], atol=1e-9)


def test_without_a_handle_there_is_no_way_to_hold_it_from_outside():
    scene = OvenScene(MUG)
    assert slide_in(scene, "mug", mouth_of(scene, IN)) is None


def test_beside_an_oven_things_are_put_down_from_above():
    plan = plan_predicate(MugScene(MUG), IN, place_offset=np.array([0.2, 0.0, 0.0]))
    carry = next(waypoint for waypoint in plan if waypoint.stage == "carry")
    assert (carry.anchor, carry.offset.tolist()) == ("shelf", [0.2, 0.0, 0.0])
