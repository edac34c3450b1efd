"""The scene of boxes moves as it says."""

import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene, Slide
from vlac_gym.envs.scene import Predicate
from vlac_gym.errors import ConfigError

CLOSED = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def cube_scene():
    cube = Box((0.0, 0.0, 0.02), (0.02, 0.02, 0.02))
    table = {"shelf": Box((0.2, 0.0, 0.05), (0.05, 0.05, 0.05))}
    return BoxScene(
        [Predicate("on", ("cube", "shelf"))], {"cube": cube}, fixtures=table, tip=(0.0, 0.0, 0.02)
    )


def act(scene, action, times=1):
    for _ in range(times):
        scene.apply(action)


def test_the_hand_carries_out_half_of_a_commanded_motion():
    scene = BoxScene([], {})
    act(scene, [1.0, -0.5, 0.0, 0.0, 0.0, 0.4, -1.0])
    np.testing.assert_allclose(scene.end_effector_position, [0.025, -0.0125, 0.3])
    # 0.4 * 0.25 rad about z turns the closing direction from +y towards -x.
    np.testing.assert_allclose(scene.end_effector_axes[:, 0], [-np.sin(0.1), np.cos(0.1), 0.0], atol=1e-12)
    assert scene.elapsed_steps == 1


def test_closed_fingers_hold_a_box_and_carry_it():
    scene = cube_scene()
    act(scene, CLOSED, 4)
    assert not scene.is_grasped("cube")  # 8 cm - 4 * 8 mm = 4.8 cm, the cube is 4 cm wide
    act(scene, CLOSED, 2)
    assert scene.is_grasped("cube")
    assert scene.gripper_opening == pytest.approx(0.04)
    act(scene, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 5)
    np.testing.assert_allclose(scene.object_position("cube"), [0.0, 0.0, 0.02 + 0.125])


def test_a_box_let_go_drops_onto_what_is_below():
    scene = cube_scene()
    act(scene, CLOSED, 6)
    act(scene, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 6)
    act(scene, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 8)
    assert not scene.is_success()
    act(scene, [0.0] * 6 + [-1.0])
    np.testing.assert_allclose(scene.object_position("cube"), [0.2, 0.0, 0.12])
    assert scene.is_success()


def test_a_held_handle_moves_its_joint():
    scene = BoxScene(
        [Predicate("open", ("top",))],
        {},
        fixtures={"cabinet": Box((0.0, -0.3, 0.1), (0.1, 0.08, 0.1))},
        regions={"top": Box((0.0, -0.3, 0.15), (0.09, 0.07, 0.03), owner="cabinet")},
        slides={"top": Slide((0.0, -0.2, 0.15), (0.0, 1.0, 0.0))},
        tip=(0.0, -0.2, 0.15),
    )
    act(scene, CLOSED, 8)
    assert scene.is_grasped("cabinet")
    act(scene, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0], 6)
    assert scene.joint_position("top") == pytest.approx(0.15)
    np.testing.assert_allclose(scene.handle_position("top"), [0.0, -0.05, 0.15])
    assert scene.is_success()
    assert scene.predicate_holds(Predicate("close", ("top",))) is False


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="Unknown object, fixture or region 'cup'"):
        cube_scene().object_position("cup")
    with pytest.raises(ConfigError, match="Expected a drawer that one joint moves, got 'cube'"):
        cube_scene().joint_position("cube")
