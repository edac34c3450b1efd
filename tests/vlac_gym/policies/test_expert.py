"""The expert's whole loop on a scene of boxes, and the ways to spoil it."""

import math
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from vlac_gym.envs.box_scene import Box, BoxScene, Slide
from vlac_gym.envs.goal_progress import goal_progress
from vlac_gym.envs.scene import JointGoal, Predicate
from vlac_gym.errors import ConfigError
from vlac_gym.policies import StagedPolicy, make_policy
from vlac_gym.policies.faults import FAULTS, draw_fault
from vlac_gym.policies.planner import in_order, plan_predicate
from vlac_gym.policies.waypoints import CLOSE

PLACING = ["reach", "descend", "grasp", "lift", "carry", "lower"]

STOVE = Box((0.0, 0.0, 0.025), (0.1, 0.1, 0.025))
BURNER = Box((0.0, 0.0, 0.02), (0.08, 0.08, 0.01), owner="stove")


class SceneEnv(gym.Env):
    def __init__(self, scene):
        self.scene = scene


def shelf_scene():
    return BoxScene(
        [Predicate("on", ("cube", "shelf"))],
        {
            "cube": Box((0.1, 0.1, 0.02), (0.02, 0.02, 0.02)),
            "other": Box((-0.2, -0.1, 0.02), (0.02, 0.02, 0.02)),
        },
        fixtures={"shelf": Box((-0.1, 0.2, 0.05), (0.06, 0.06, 0.05))},
    )


def drawer_scene(goal):
    return BoxScene(
        goal,
        {"cube": Box((0.3, 0.1, 0.02), (0.02, 0.02, 0.02))},
        fixtures={"cabinet": Box((0.0, -0.3, 0.1), (0.1, 0.08, 0.1))},
        regions={"top": Box((0.0, -0.14, 0.15), (0.09, 0.07, 0.03), owner="cabinet")},
        slides={"top": Slide((0.0, -0.2, 0.15), (0.0, 1.0, 0.0))},
    )


class DoorScene(BoxScene):
    """A door at x = y = 0, open by 90 degrees: its bar is 25 cm from the hinge, at z = 0.1."""

    def __init__(self):
        super().__init__(
            [], {}, fixtures={"door": Box((0.1, 0.1, 0.15), (0.1, 0.1, 0.15))}, tip=(0, -0.3, 0.3)
        )

    def joint_position(self, name):
        return -math.pi / 2

    def joint_goal(self, predicate):
        return JointGoal(0.0, 1)

    def joint_axis(self, name):
        return np.zeros(3), np.array([0.0, 0.0, 1.0])

    def handle_position(self, name):
        return np.array([0.0, -0.25, 0.1])


def rollout(scene, spec="expert", seed=0, steps=120):
    """Stages in order of first appearance, actions and progress, until success or `steps`."""
    policy = make_policy(spec)
    policy.reset(SceneEnv(scene), seed)
    stages, actions, values = [], [], [goal_progress(scene)]
    for _ in range(steps):
        actions.append(policy.act(None, {}))
        if policy.stage not in stages:
            stages.append(policy.stage)
        scene.apply(actions[-1])
        values.append(goal_progress(scene))
        if scene.is_success():
            break
    return stages, np.stack(actions), values


def test_picking_and_placing_solves_the_task_stage_by_stage():
    scene = shelf_scene()
    stages, actions, values = rollout(scene)
    assert scene.is_success()
    assert stages == PLACING
    assert len(actions) < 50
    assert actions.shape[1] == 7
    assert np.abs(actions).max() <= 1.0
    assert (values[-1], max(values[:-1]) <= 0.99) == (1.0, True)


def test_an_open_drawer_goal_is_pulled_open():
    scene = drawer_scene([Predicate("open", ("top",))])
    stages, _, _ = rollout(scene)
    assert scene.is_success()
    assert stages == ["reach", "descend", "grasp", "pull"]


def test_a_closed_drawer_is_opened_before_something_goes_in():
    scene = drawer_scene([Predicate("in", ("cube", "top"))])
    stages, _, _ = rollout(scene, steps=200)
    assert scene.is_success()
    assert stages == ["reach", "descend", "grasp", "pull", "release", "retreat", "lift", "carry", "lower"]


def test_a_drawer_is_closed_after_something_went_in_whatever_the_goal_names_first():
    scene = drawer_scene([Predicate("close", ("top",)), Predicate("in", ("cube", "top"))])
    scene.slides["top"] = replace(scene.slides["top"], position=0.15)
    # Beside the pushing hand's way, and on a floor: these boxes fall through regions.
    scene.regions["top"] = replace(scene.regions["top"], centre=(0.08, -0.14, 0.15))
    scene.standing["floor"] = Box((0.08, -0.14, 0.115), (0.04, 0.05, 0.005), owner="cabinet")
    stages, _, values = rollout(scene, steps=200)
    assert scene.is_success()
    assert stages == [*PLACING, "release", "retreat", "push"]
    assert max(values[:-1]) <= 0.99


def test_what_is_closed_may_be_the_fixture_that_was_filled():
    box = Box((0.0, 0.0, 0.1), (0.1, 0.1, 0.1))
    scene = BoxScene([], {"mug": box}, fixtures={"oven": box}, regions={"shelf": replace(box, owner="oven")})
    shut, fill, lid = (
        Predicate("close", ("oven",)),
        Predicate("in", ("mug", "shelf")),
        Predicate("close", ("lid",)),
    )
    assert in_order(scene, [shut, lid, fill]) == (lid, fill, shut)


def test_a_pushing_hand_comes_down_in_front_of_the_drawer_and_leans_back():
    scene = drawer_scene([Predicate("close", ("top",))])
    scene.slides["top"] = replace(scene.slides["top"], position=0.15)
    plan = plan_predicate(scene, scene.goal[0])
    assert [waypoint.stage for waypoint in plan] == ["reach", "reach", "descend", "push", "retreat"]
    assert {waypoint.gripper for waypoint in plan} == {CLOSE}
    # The bar is at y = -0.2 + 0.15 and ends 3 cm beyond where it is shut (y = -0.195).
    np.testing.assert_allclose(plan[2].offset, [0.0, -0.05 + 0.08, 0.15], atol=1e-9)
    np.testing.assert_allclose(plan[3].offset, [0.0, -0.195 - 0.03, 0.15], atol=1e-9)
    # The fingers close across the push and point down and, by 0.6 rad, towards the drawer.
    np.testing.assert_allclose(np.abs(plan[3].rotation[:, 0]), [1.0, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(plan[3].rotation[:, 2], [0.0, -np.sin(0.6), -np.cos(0.6)], atol=1e-9)


def test_a_door_is_pushed_along_its_arc():
    scene = DoorScene()
    plan = plan_predicate(scene, Predicate("close", ("door",)))
    pushes = [waypoint.offset for waypoint in plan if waypoint.stage == "push"]
    # Open by 90 degrees; ceil(1.5708 / 0.2) = 8 pushes from beside the hinge to in front of it, 0.25 m from it.
    assert len(pushes) == 8
    np.testing.assert_allclose([np.hypot(x, y) for x, y, _ in pushes], 0.25, atol=1e-9)
    np.testing.assert_allclose(pushes[-1][:2], [0.25, 0.0], atol=1e-9)
    # 5 cm above the bar's middle, below the top by more than 4 cm.
    assert {round(float(point[2]), 9) for point in pushes} == {0.15}


def test_something_goes_into_an_open_drawer_clear_of_what_hangs_above_its_back():
    scene = drawer_scene([Predicate("in", ("cube", "top"))])
    scene.slides["top"] = replace(scene.slides["top"], position=0.15)
    carry = next(w for w in plan_predicate(scene, scene.goal[0]) if w.stage == "carry")
    np.testing.assert_allclose(carry.offset, 0.0)  # nothing there
    scene.standing["bar"] = Box((0.0, -0.15, 0.22), (0.05, 0.005, 0.01))
    carry = next(w for w in plan_predicate(scene, scene.goal[0]) if w.stage == "carry")
    # The cube (2 cm to each side of y = -0.14) must stay 1 cm from the bar, which ends at y = -0.145. The drawer has
    # 5 cm to spare (7 cm - 2 cm), tried by quarters: 1.25 cm leave 0.25 cm less than nothing, 2.5 cm leave 1 cm,
    # which must be exceeded: 3.75 cm.
    np.testing.assert_allclose(carry.offset, [0.0, 0.0375, 0.0], atol=1e-9)
    assert carry.tolerance_m == 0.004


def test_what_shares_its_place_stands_in_a_row_long_sides_together():
    pots = {name: Box((x, 0.3, 0.05), (0.03, 0.04, 0.05)) for name, x in (("left", -0.1), ("right", 0.1))}
    goal = [Predicate("on", (name, "plate")) for name in pots]
    scene = BoxScene(goal, pots, fixtures={"stove": STOVE}, regions={"plate": BURNER})
    carries = [w for p in goal for w in plan_predicate(scene, p) if w.stage == "carry"]
    # 6 cm wide in x, 8 cm in y, and 1 cm between them: 3.5 cm to each side.
    np.testing.assert_allclose(
        [w.offset for w in carries], [[-0.035, 0.0, 0.0], [0.035, 0.0, 0.0]], atol=1e-9
    )


def test_what_is_put_on_a_fixture_comes_down_to_its_surface_not_to_the_region_inside():
    cube = {"cube": Box((0.1, 0.3, 0.02), (0.02, 0.02, 0.02))}
    scene = BoxScene(
        [Predicate("on", ("cube", "plate"))], cube, fixtures={"stove": STOVE}, regions={"plate": BURNER}
    )
    lower = next(w for w in plan_predicate(scene, scene.goal[0]) if w.stage == "lower")
    assert lower.height == pytest.approx(0.05, abs=0.0011)  # the region's top is 2 cm lower


def test_after_a_hold_that_failed_another_is_tried():
    scene = shelf_scene()
    policy = make_policy("expert")
    policy.reset(SceneEnv(scene), 0)
    turns = []
    for _ in range(200):
        action = policy.act(None, {})
        if policy.stage == "grasp" and (not turns or policy._runner.program is not turns[-1][0]):
            turns.append((policy._runner.program, policy._runner.waypoint.rotation[:, 0]))
        if len(turns) == 3:
            break
        scene.apply([*action[:6], -1.0])  # a hand that never closes
    assert list(policy._failed_holds) == ["cube"]
    closing = [direction for _, direction in turns]
    assert all(abs(a @ b) < 0.95 for a, b in [closing[:2], closing[1:], closing[::2]])


def test_a_bar_that_was_missed_says_nothing_about_the_object_that_goes_into_its_drawer():
    scene = drawer_scene([Predicate("in", ("cube", "top"))])
    policy = make_policy("expert")
    policy.reset(SceneEnv(scene), 0)
    for _ in range(120):
        action = policy.act(None, {})
        scene.apply([*action[:6], -1.0])  # a hand that never closes
    assert list(policy._failed_holds) == ["cabinet"]


def test_a_lost_object_is_fetched_again():
    scene = shelf_scene()
    policy = make_policy("expert")
    policy.reset(SceneEnv(scene), 0)
    lost_once = False
    for _ in range(150):
        scene.apply(policy.act(None, {}))
        if policy.stage == "carry" and not lost_once:
            scene.movables["cube"] = Box((0.2, 0.0, 0.02), (0.02, 0.02, 0.02))  # slipped out of the hand
            lost_once = True
        if scene.is_success():
            break
    assert lost_once
    assert scene.is_success()


def test_stages_label_every_step_and_start_idle():
    policy = make_policy("expert")
    assert isinstance(policy, StagedPolicy)
    assert (policy.stage, policy.stage_index) == ("idle", 0)
    scene = shelf_scene()
    policy.reset(SceneEnv(scene), 0)
    indices = []
    for _ in range(30):
        scene.apply(policy.act(None, {}))
        indices.append(policy.stage_index)
    assert indices == sorted(indices)
    assert indices[-1] >= 5


def test_noise_is_seeded_and_shakes_translation_only():
    clean = rollout(shelf_scene(), steps=5)[1]
    noisy = rollout(shelf_scene(), "expert:noise=0.1", seed=7, steps=5)[1]
    np.testing.assert_array_equal(noisy, rollout(shelf_scene(), "expert:noise=0.1", seed=7, steps=5)[1])
    assert not np.array_equal(noisy, rollout(shelf_scene(), "expert:noise=0.1", seed=8, steps=5)[1])
    assert not np.array_equal(noisy[0, :3], clean[0, :3])
    np.testing.assert_array_equal(noisy[0, 3:], clean[0, 3:])
    assert np.abs(noisy).max() <= 1.0


def test_noise_does_not_keep_the_closed_loop_from_its_goal():
    scene = shelf_scene()
    rollout(scene, "expert:noise=0.1", seed=1)
    assert scene.is_success()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "none"])
@pytest.mark.parametrize("seed", range(5))
def test_every_fault_spoils_the_episode_and_ends_standing_still(fault, seed):
    scene = shelf_scene()
    policy = make_policy(f"expert:fail={fault}")
    policy.reset(SceneEnv(scene), seed)
    for _ in range(160):
        action = policy.act(None, {})
        scene.apply(action)
        if fault != "stop":  # the boxes are quicker than an arm: the latest stops come after success
            assert not scene.is_success()
    assert policy.stage == "stop"
    assert action[:6].tolist() == [0.0] * 6


def test_a_dropped_object_lies_between_its_start_and_its_target():
    scene = shelf_scene()
    stages, _, _ = rollout(scene, "expert:fail=drop", seed=2)
    assert stages == [*PLACING[:-1], "stop"]
    x, y, z = scene.object_position("cube")
    assert -0.1 < x < 0.1
    assert 0.1 < y < 0.2
    assert z == pytest.approx(0.02)


def test_placing_beside_keeps_the_drawn_distance_from_the_target():
    scene = shelf_scene()
    rollout(scene, "expert:fail=beside", seed=2)
    distance = np.linalg.norm((scene.object_position("cube") - scene.object_position("shelf"))[:2])
    assert 0.12 < distance < 0.19


def test_a_hovering_object_stays_in_the_hand_above_its_place():
    scene = shelf_scene()
    stages, _, _ = rollout(scene, "expert:fail=hover", seed=2)
    assert stages == [*PLACING[:-1], "hover", "stop"]
    assert scene.is_grasped("cube")
    x, y, z = scene.object_position("cube")
    np.testing.assert_allclose([x, y], [-0.1, 0.2], atol=0.02)
    # The shelf's top is at 0.1 m and half the cube is 0.02 m; the height is drawn from 0.03 to 0.15 m.
    assert 0.12 + 0.02 < z < 0.12 + 0.16


def test_a_pushing_hand_is_closed_low_and_behind_the_object():
    scene = shelf_scene()
    stages, actions, _ = rollout(scene, "expert:fail=push", seed=0)
    assert stages == ["reach", "descend", "push", "retreat", "stop"]
    assert set(actions[:, 6].tolist()) == {1.0}
    # From (0.1, 0.1) to (-0.1, 0.2): 70 to 100 % of the way, less half the cube's extent along it, and up 0.08 m.
    along = (scene.tip[:2] - [0.1, 0.1]) @ np.array([-0.2, 0.1]) / np.hypot(0.2, 0.1) ** 2
    assert 0.55 < along < 0.95
    assert scene.tip[2] == pytest.approx(0.02 + 0.08, abs=0.02)


def test_a_hand_that_blocks_the_view_is_between_the_target_and_the_camera():
    scene = shelf_scene()
    stages, _, _ = rollout(scene, "expert:fail=block_view", seed=1)
    assert stages == ["hide", "stop"]
    shelf, camera = np.array([-0.1, 0.2, 0.05]), scene.camera_position("agentview")
    hand = scene.tip - shelf
    assert 0.1 < np.linalg.norm(hand) < 0.32
    assert hand @ (camera - shelf) / np.linalg.norm(hand) / np.linalg.norm(camera - shelf) > 0.98
    with pytest.raises(ConfigError, match="Unknown camera 'agentvew'"):
        scene.camera_position("agentvew")


def test_an_empty_hand_goes_to_the_target_and_touches_nothing():
    scene = shelf_scene()
    stages, _, _ = rollout(scene, "expert:fail=empty_hand")
    assert stages == ["carry", "lower", "release", "retreat", "stop"]
    np.testing.assert_allclose(scene.object_position("cube"), [0.1, 0.1, 0.02])
    np.testing.assert_allclose(scene.tip[:2], [-0.1, 0.2], atol=0.02)
    assert scene.tip[2] == pytest.approx(0.1 + 0.03 + 0.08, abs=0.03)  # top of the shelf, over it, retreat


def test_the_wrong_object_is_put_where_the_right_one_belongs():
    scene = shelf_scene()
    rollout(scene, "expert:fail=wrong_object")
    assert scene.predicate_holds(Predicate("on", ("other", "shelf")))
    np.testing.assert_allclose(scene.object_position("cube"), [0.1, 0.1, 0.02])


def test_the_wrong_object_is_of_the_same_kind_if_there_is_one():
    scene = shelf_scene()
    scene.movables["cube"] = Box((0.1, 0.1, 0.02), (0.02, 0.02, 0.02), category="bowl")
    scene.movables["bowl_2"] = Box((0.3, 0.3, 0.02), (0.02, 0.02, 0.02), category="bowl")
    for seed in range(10):
        fault = draw_fault("wrong_object", scene, np.random.default_rng(seed))
        assert fault.goal == (Predicate("on", ("bowl_2", "shelf")),)


def test_the_wrong_object_is_none_that_the_goal_places_too():
    goal = [Predicate("on", ("cube", "shelf")), Predicate("on", ("bowl", "shelf"))]
    scene = shelf_scene()
    two = BoxScene(goal, {**scene.movables, "bowl": scene.movables["other"]}, fixtures=scene.standing)
    for seed in range(10):
        fault = draw_fault("wrong_object", two, np.random.default_rng(seed))
        assert fault.goal == (Predicate("on", ("other", "shelf")), goal[1])
    del two.movables["other"]
    with pytest.raises(ConfigError, match="needs another object than 'cube' and 'bowl'"):
        draw_fault("wrong_object", two, np.random.default_rng(0))


@pytest.mark.parametrize("fault", ["beside", "hover"])
def test_a_fault_spoils_the_object_not_the_drawer_that_is_opened_for_it(fault):
    scene = drawer_scene([Predicate("in", ("cube", "top"))])
    stages, _, _ = rollout(scene, f"expert:fail={fault}", steps=200)
    assert not scene.is_success()
    assert stages[3:] == [
        "pull",
        "release",
        "retreat",
        "lift",
        "carry",
        *(["lower"] if fault == "beside" else ["hover"]),
        "stop",
    ]


def test_beside_is_as_far_as_drawn_from_a_place_in_a_row_and_in_a_drawer():
    pots = {name: Box((x, 0.3, 0.05), (0.03, 0.04, 0.05)) for name, x in (("left", -0.1), ("right", 0.1))}
    goal = [Predicate("on", (name, "plate")) for name in pots]
    row = BoxScene(goal, pots, fixtures={"stove": STOVE}, regions={"plate": BURNER})
    drawer = drawer_scene([Predicate("in", ("cube", "top"))])
    drawer.slides["top"] = replace(drawer.slides["top"], position=0.15)
    drawer.standing["bar"] = Box((0.0, -0.15, 0.22), (0.05, 0.005, 0.01))
    offset = np.array([0.09, 0.12, 0.0])
    for scene in (row, drawer):
        plan = plan_predicate(scene, scene.goal[0], place_offset=offset)
        np.testing.assert_allclose(next(w for w in plan if w.stage == "carry").offset, offset, atol=1e-9)


def test_a_door_that_should_be_opened_is_refused():
    with pytest.raises(ConfigError, match="got the door 'door', which turns: the expert pushes doors shut"):
        plan_predicate(DoorScene(), Predicate("open", ("door",)))


def test_faults_that_do_not_fit_the_goal_are_refused():
    scene = drawer_scene([Predicate("open", ("top",))])
    with pytest.raises(
        ConfigError, match=r"fault 'drop' needs a goal that places an object, got \(open top\)"
    ):
        make_policy("expert:fail=drop").reset(SceneEnv(scene), 0)
    alone = BoxScene([Predicate("on", ("cube", "shelf"))], {"cube": Box((0, 0, 0), (1, 1, 1))})
    with pytest.raises(ConfigError, match="needs another object than 'cube'"):
        make_policy("expert:fail=wrong_object").reset(SceneEnv(alone), 0)


def test_an_env_without_a_scene_is_refused():
    with pytest.raises(ConfigError, match="needs an environment with a privileged `scene`"):
        make_policy("expert").reset(gym.make("CartPole-v1"), 0)


def test_goals_without_a_skill_are_named():
    with pytest.raises(ConfigError, match="Unknown goal predicate with a skill 'up'"):
        plan_predicate(shelf_scene(), Predicate("up", ("cube",)))


def test_a_running_expert_pickles_as_a_fresh_one():
    policy = make_policy("expert:noise=0.1,fail=stop")
    policy.reset(SceneEnv(shelf_scene()), 0)
    policy.act(None, {})
    copy = pickle.loads(pickle.dumps(policy))
    assert copy.options == policy.options
    with pytest.raises(ConfigError, match="before reset"):
        copy.act(None, {})
