"""When a waypoint is over and when a plan has failed."""

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene
from vlac_gym.policies.runner import ProgramRunner
from vlac_gym.policies.waypoints import CLOSE, Waypoint, close_hand, hand_rotation

HERE = np.zeros(3)


@pytest.fixture
def scene():
    return BoxScene([], {"cup": Box((0.0, 0.0, 0.1), (0.02, 0.02, 0.1))}, tip=(0.0, 0.0, 0.15))


def follow(runner, scene, steps):
    for _ in range(steps):
        if runner.advance(scene) != "running":
            break
        scene.apply(runner.action(scene))
    return runner.status


def test_a_reached_waypoint_gives_way_to_the_next(scene):
    ahead = Waypoint("reach", "tip", np.array([0.05, 0.0, 0.0]))
    runner = ProgramRunner([ahead, Waypoint("wait", "tip", HERE, hold_steps=3)], scene)
    assert (runner.index, runner.waypoint.stage) == (0, "reach")
    # 5 cm at 2.5 cm per step: there after two steps, noticed in the third look.
    follow(runner, scene, 3)
    assert (runner.index, runner.waypoint.stage) == (1, "wait")
    assert follow(runner, scene, 20) == "finished"
    # Two steps of motion; arrival noticed, then three steps of waiting.
    assert scene.elapsed_steps == 2 + 1 + 3


def test_share_done_counts_the_way_of_the_present_waypoint(scene):
    runner = ProgramRunner([Waypoint("reach", "tip", np.array([0.1, 0.0, 0.0]))], scene)
    assert runner.share_done(scene) == 0.0
    follow(runner, scene, 1)
    assert runner.share_done(scene) == pytest.approx(0.25)
    assert ProgramRunner([Waypoint("wait", "tip", HERE)], scene).share_done(scene) == 1.0


class StuckScene(BoxScene):
    """Whose hand cannot move."""

    def apply(self, action):
        self.steps += 1


def test_pushing_against_something_counts_as_arrival():
    scene = StuckScene([], {})
    runner = ProgramRunner([Waypoint("lower", "tip", np.array([0.0, 0.0, -0.1]))], scene)
    assert follow(runner, scene, 50) == "finished"
    assert scene.elapsed_steps == 6  # still for six steps


def test_a_waypoint_ends_after_its_most_steps(scene):
    runner = ProgramRunner([Waypoint("reach", "tip", np.array([5.0, 0.0, 0.0]), max_steps=4)], scene)
    assert follow(runner, scene, 50) == "finished"
    assert scene.elapsed_steps == 4


def test_closing_on_an_object_succeeds_once_both_fingers_hold_it(scene):
    runner = ProgramRunner([close_hand(hand_rotation(), "cup")], scene)
    assert follow(runner, scene, 50) == "finished"
    assert scene.is_grasped("cup")


def test_closing_on_nothing_fails(scene):
    scene.tip = np.array([0.3, 0.0, 0.15])
    runner = ProgramRunner([close_hand(hand_rotation(), "cup")], scene)
    assert follow(runner, scene, 50) == "failed"
    assert scene.elapsed_steps == 30


def test_closing_without_a_name_does_not_insist_on_contact(scene):
    scene.tip = np.array([0.3, 0.0, 0.15])
    assert follow(ProgramRunner([close_hand(hand_rotation(), None)], scene), scene, 50) == "finished"


def test_losing_the_object_on_the_way_fails_after_five_steps(scene):
    carry = Waypoint("carry", "tip", np.array([0.5, 0.0, 0.0]), gripper=CLOSE, needs_grasp_of="cup")
    runner = ProgramRunner([carry], scene)  # nothing was ever held
    scene.tip = np.array([0.3, 0.0, 0.15])
    assert follow(runner, scene, 50) == "failed"
    assert scene.elapsed_steps == 4
