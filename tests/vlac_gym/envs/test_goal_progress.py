"""Progress numbers worked out by hand on a scene of boxes."""

import math

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene, Slide
from vlac_gym.envs.goal_progress import goal_progress, predicate_progress
from vlac_gym.envs.scene import Predicate
from vlac_gym.errors import ConfigError

ON = Predicate("on", ("cube", "shelf"))
OPEN = Predicate("open", ("drawer",))
SHELF = Box((0.0, 0.4, 0.05), (0.05, 0.05, 0.05))


def near(distance, scale):
    return 1.0 - math.tanh(distance / scale)


def placing(cube=(0.0, 0.0, 0.02), tip=(0.0, 0.0, 0.29), opening=0.08, goal=(ON,)):
    scene = BoxScene(goal, {"cube": Box(cube, (0.02, 0.02, 0.02))}, fixtures={"shelf": SHELF}, tip=tip)
    scene.opening = opening
    return scene


def test_reaching_counts_the_distance_to_the_objects_box():
    # Tips at z = 0.29, the cube's top at z = 0.04: 0.25 m, one unit of the scale.
    assert goal_progress(placing()) == pytest.approx(0.30 * (1.0 - math.tanh(1.0)))
    assert goal_progress(placing(tip=(0.0, 0.0, 0.04))) == pytest.approx(0.30)


def test_closing_counts_only_at_the_object():
    # Half closed at the object: 0.30 + 0.05 * 1 * 0.5.
    assert goal_progress(placing(tip=(0.0, 0.0, 0.04), opening=0.0401)) == pytest.approx(0.325, abs=1e-4)
    far = 1.0 - math.tanh(1.0)
    assert goal_progress(placing(opening=0.04)) == pytest.approx(0.30 * far + 0.05 * far**4 * 0.5)


def test_a_held_object_counts_the_path_that_is_left():
    held = placing(tip=(0.0, 0.0, 0.02), opening=0.04)
    assert held.is_grasped("cube")
    # Bottom at 0; up to 0.10 + 0.05, across 0.4, down 0.05: 0.60 m.
    assert goal_progress(held) == pytest.approx(0.40 + 0.55 * near(0.60, 0.5))
    lifted = placing(cube=(0.0, 0.2, 0.17), tip=(0.0, 0.2, 0.17), opening=0.04)
    # Bottom at 0.15: nothing up, across 0.2, down 0.05.
    assert goal_progress(lifted) == pytest.approx(0.40 + 0.55 * near(0.25, 0.5))


def test_an_object_above_the_rims_clearance_flies_straight():
    # Bottom at 0.30, 0.15 above the clearance (0.15), and 0.2 across: 0.25 m to the point above, then 0.05 down.
    held = placing(cube=(0.0, 0.2, 0.32), tip=(0.0, 0.2, 0.32), opening=0.04)
    assert goal_progress(held) == pytest.approx(0.40 + 0.55 * near(0.25 + 0.05, 0.5))
    # Above the shelf it goes on so: 0.15 to the clearance and 0.05 down.
    over = placing(cube=(0.0, 0.4, 0.32), tip=(0.0, 0.4, 0.32), opening=0.04)
    assert goal_progress(over) == pytest.approx(0.40 + 0.55 * near(0.20, 0.5))


def test_an_object_let_go_above_its_target_still_counts_as_on_its_way():
    # Bottom 0.03 above the shelf's top and not held.
    falling = placing(cube=(0.0, 0.4, 0.15), tip=(0.0, 0.4, 0.3))
    assert not falling.is_grasped("cube")
    assert goal_progress(falling) == pytest.approx(0.40 + 0.55 * near(0.03, 0.5))


def test_dropping_an_object_elsewhere_takes_the_progress_back():
    held = placing(cube=(0.0, 0.2, 0.17), tip=(0.0, 0.2, 0.17), opening=0.04)
    dropped = placing(cube=(0.0, 0.2, 0.02), tip=(0.0, 0.2, 0.17), opening=0.08)
    assert goal_progress(dropped) < 0.3 < goal_progress(held)


def test_success_is_one_and_nothing_else_is():
    solved = placing(cube=(0.0, 0.4, 0.12), tip=(0.0, 0.4, 0.3))
    assert solved.is_success()
    assert goal_progress(solved) == 1.0
    almost = placing(cube=(0.0, 0.4, 0.1301), tip=(0.0, 0.4, 0.3))
    assert not almost.is_success()
    assert goal_progress(almost) < 0.99


def test_several_conditions_are_averaged_and_stay_below_one():
    other = Predicate("on", ("ball", "shelf"))
    scene = placing(goal=(ON, other))
    scene.movables["ball"] = Box((0.03, 0.4, 0.12), (0.02, 0.02, 0.02))
    assert scene.predicate_holds(other)
    assert predicate_progress(scene, other) == 1.0
    assert goal_progress(scene) == pytest.approx((1.0 + 0.30 * (1.0 - math.tanh(1.0))) / 2.0)


def drawer(position, tip=(0.0, 0.0, 0.1), goal=(OPEN,), cube=(0.5, 0.0, 0.02)):
    return BoxScene(
        goal,
        {"cube": Box(cube, (0.02, 0.02, 0.02))},
        fixtures={"cabinet": Box((0.0, -0.35, 0.1), (0.1, 0.1, 0.1))},
        regions={"drawer": Box((0.0, -0.2, 0.1), (0.1, 0.05, 0.03), owner="cabinet")},
        slides={"drawer": Slide((0.0, -0.25, 0.1), (0.0, 1.0, 0.0), position=position)},
        tip=tip,
    )


def test_a_drawer_counts_the_share_of_its_way():
    # At the handle: from closed (0.005) to open (0.14), a third of the way is 0.05.
    assert goal_progress(drawer(0.05, tip=(0.0, -0.2, 0.1))) == pytest.approx(0.30 + 0.65 / 3.0)
    # 0.25 m in front of the closed drawer's handle, nothing done.
    assert goal_progress(drawer(0.005, tip=(0.0, 0.005, 0.1))) == pytest.approx(0.30 * (1.0 - math.tanh(1.0)))
    assert goal_progress(drawer(0.0, tip=(0.0, 0.0, 0.1))) == goal_progress(drawer(-0.2, (0.0, -0.2, 0.1)))
    assert goal_progress(drawer(0.15)) == 1.0


def test_closing_runs_the_other_way():
    close = Predicate("close", ("drawer",))
    # From open (0.14) to closed (0.005): at 0.05 two thirds are done.
    progress = goal_progress(drawer(0.05, tip=(0.0, -0.2, 0.1), goal=(close,)))
    assert progress == pytest.approx(0.30 + 0.65 * 2.0 / 3.0)


def test_a_target_in_a_closed_drawer_counts_the_opening_first():
    put_in = Predicate("in", ("cube", "drawer"))
    closed = drawer(0.005, tip=(0.0, -0.245, 0.1), goal=(put_in,))
    assert goal_progress(closed) == pytest.approx(0.35 * 0.30)
    open_and_reached = drawer(0.15, tip=(0.5, 0.0, 0.04), goal=(put_in,))
    assert goal_progress(open_and_reached) == pytest.approx(0.35 + 0.65 * 0.30)


def test_a_place_on_the_table_may_be_reached_by_pushing():
    scene = BoxScene(
        [Predicate("on", ("cube", "spot"))],
        {"cube": Box((0.0, 0.0, 0.02), (0.02, 0.02, 0.02))},
        regions={"spot": Box((0.3, 0.0, 0.0), (0.05, 0.05, 0.001), owner="table")},
        tip=(0.0, 0.0, 0.04),
    )
    assert goal_progress(scene) == pytest.approx(0.30 + 0.65 * (1.0 - math.tanh(1.0)))


def test_the_same_state_gives_the_same_number_and_is_left_alone():
    scene = placing()
    before = (scene.tip.copy(), dict(scene.movables), scene.opening)
    assert goal_progress(scene) == goal_progress(scene)
    np.testing.assert_array_equal(scene.tip, before[0])
    assert (scene.movables, scene.opening) == before[1:]


def test_goals_without_a_measure_are_refused():
    with pytest.raises(ConfigError, match=r"Unknown goal predicate 'up'\. Available: close, in, on, open"):
        predicate_progress(placing(), Predicate("up", ("cube",)))
