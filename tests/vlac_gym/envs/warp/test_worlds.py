"""LIBERO's tasks in mujoco-warp, on warp's CPU device, beside recordings of LIBERO itself.

`scripts/test_warp.sh` records, and runs these in an environment of their own: mujoco-warp needs another MuJoCo.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlac_gym import make_vec
from vlac_gym.critic import make_critic
from vlac_gym.envs.warp.scene_files import START_ARRAYS, SceneFiles, read_scene_files
from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.warp_executor import warp_envs
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

pytestmark = pytest.mark.warp

SUITES = ("libero_spatial", "libero_object")
STILL = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
CAMERAS = ("agentview", "robot0_eye_in_hand")


@pytest.fixture(scope="module")
def scenes() -> Path:
    return Path(os.environ["VLAC_GYM_TEST_SCENES"])


def expert_of(scenes: Path, task_id: int, suite: str = "libero_spatial") -> dict[str, np.ndarray]:
    with np.load(scenes / f"{suite}_{task_id}" / "expert.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=SUITES)
def played(request, scenes) -> tuple[Any, dict[str, np.ndarray]]:
    """Two worlds of the suite's task 0, and the expert's recording."""
    from vlac_gym.envs.warp.worlds import WarpWorlds

    folder = scenes / f"{request.param}_0"
    with np.load(folder / "expert.npz") as arrays:
        return WarpWorlds([(read_scene_files(folder), 2)], device="cpu"), dict(arrays)


def test_worlds_start_where_the_env_does(played):
    worlds, recorded = played
    worlds.start(np.array([1, 0], np.int32))
    theirs = np.stack([recorded["states_1"][0], recorded["states_0"][0]])
    assert np.abs(worlds.proprioception() - theirs).max() < 1e-6


def test_the_arm_follows_the_recording_and_a_held_world_does_not_move(played):
    worlds, recorded = played
    worlds.start(np.array([0, 1], np.int32))
    held = worlds.physics_state()["qpos"][1].copy()
    actions = np.zeros((2, 7))
    for step in range(15):
        actions[0] = recorded["actions_0"][step]
        worlds.step(actions, np.array([True, False]))
        assert np.abs(worlds.proprioception()[0] - recorded["states_0"][step + 1]).max() < 1e-3
        assert np.array_equal(worlds.physics_state()["qpos"][1], held)
    worlds.start(np.array([-1, 1], np.int32))
    actions[1] = recorded["actions_1"][0]
    moved = worlds.physics_state()["qpos"][0].copy()
    worlds.step(actions, np.array([False, True]))
    assert np.array_equal(worlds.physics_state()["qpos"][0], moved)
    assert np.abs(worlds.proprioception()[1] - recorded["states_1"][1]).max() < 1e-4


@pytest.mark.parametrize("breaks", [False, True])
def test_a_held_world_goes_on_from_where_it_was_held_if_nobody_looks_meanwhile(played, breaks):
    worlds, recorded = played
    actions = np.zeros((3, 2, 7))
    actions[:, 1] = recorded["actions_1"][:3]

    def last_places(*, is_held: bool) -> np.ndarray:
        starts = {name: worlds.scenes[0].starts[name][:2].copy() for name in START_ARRAYS}
        starts["qvel"][0, :7] = 1e30 if breaks else 0.0
        worlds.start_from(starts)
        for step in range(3):
            worlds.step(actions[step])
            if is_held:
                worlds.step(actions[step], np.array([True, False]))
        assert worlds.failed().tolist() == [breaks, False]
        return worlds.physics_state()["qpos"][1].copy()

    assert np.abs(last_places(is_held=True) - last_places(is_held=False)).max() < 1e-5


def test_what_follows_from_the_positions_is_of_the_positions_that_a_broken_world_was_put_back_to(played):
    worlds, _ = played
    starts = {name: worlds.scenes[0].starts[name][:2].copy() for name in START_ARRAYS}
    starts["qvel"][1, :7] = 1e30
    worlds.start_from(starts)
    before = worlds.proprioception()[1]
    worlds.step(np.array([STILL, STILL]))
    assert worlds.failed().tolist() == [False, True]
    assert np.abs(worlds.proprioception()[1] - before).max() < 1e-6


def test_the_experts_actions_solve_the_task(played):
    worlds, recorded = played
    worlds.start(np.array([0, 1], np.int32))
    lengths = [len(recorded[f"actions_{k}"]) for k in range(2)]
    first = [0, 0]
    for step in range(max(lengths) + 5):
        actions = np.array([recorded[f"actions_{k}"][step] if step < lengths[k] else STILL for k in range(2)])
        worlds.step(actions)
        for world in np.flatnonzero(worlds.success()):
            first[world] = first[world] or step + 1
    assert np.abs(np.array(first) - lengths).max() <= 5
    assert worlds.problems()["overflow"] == 0


def test_a_world_whose_numbers_explode_fails_alone_and_can_be_started_again(played):
    worlds, _ = played
    starts = {name: worlds.scenes[0].starts[name][:2].copy() for name in START_ARRAYS}
    starts["qvel"][1, :7] = 1e30
    worlds.start_from(starts)
    for _ in range(2):
        worlds.step(np.array([STILL, STILL]))
    assert worlds.failed().tolist() == [False, True]
    assert np.isfinite(worlds.physics_state()["qpos"]).all()
    worlds.start(np.array([-1, 0], np.int32))
    worlds.step(np.array([STILL, STILL]))
    assert not worlds.failed().any()


def test_the_solver_stops_at_its_limits_and_the_scenes_own_stay_in_the_scene(played):
    from vlac_gym.envs.warp.worlds import WarpWorlds, WorldPhysics

    scene = played[0].scenes[0]
    own = (scene.model.opt.iterations, scene.model.opt.ls_iterations)

    def limits_and_iterations(physics: WorldPhysics) -> tuple[tuple[int, int], int]:
        worlds = WarpWorlds([(scene, 2)], physics=physics, device="cpu")
        starts = {name: scene.starts[name][:2].copy() for name in START_ARRAYS}
        starts["qvel"][:, 9:] = 1.0  # every object slides, lifts and turns at once
        worlds.start_from(starts)
        worlds.advance()
        option = worlds.model.opt
        return (option.iterations, option.ls_iterations), int(worlds.data.solver_niter.numpy().max())

    assert limits_and_iterations(WorldPhysics(iterations=1, line_search=10)) == ((1, 10), 1)
    limits, taken = limits_and_iterations(WorldPhysics(iterations=None, line_search=None))
    assert limits == own == (100, 50)
    assert taken > 1
    assert (scene.model.opt.iterations, scene.model.opt.ls_iterations) == own
    played_with = played[0].model.opt
    assert (played_with.iterations, played_with.ls_iterations) == (5, 10)


@pytest.mark.parametrize("limit", ["iterations", "line_search"])
def test_a_solver_without_an_iteration_is_refused(limit):
    from vlac_gym.envs.warp.worlds import WorldPhysics

    with pytest.raises(ConfigError, match=f"Expected {limit} >= 1, or None for the scene's own, got 0"):
        WorldPhysics(**{limit: 0})


def test_worlds_whose_contacts_found_no_room_say_so(played):
    from vlac_gym.envs.warp.worlds import Room, WarpWorlds

    worlds = WarpWorlds([(played[0].scenes[0], 2)], room=Room(contacts=8, convex=8), device="cpu")
    worlds.start(np.array([0, 1], np.int32))
    assert worlds.crowded().tolist() == [False, False]
    worlds.step(np.array([STILL, STILL]))
    assert worlds.crowded().tolist() == [True, True]
    assert worlds.problems()["overflow"] == 2


def test_a_world_that_was_never_started_does_not_crowd_the_others(scenes):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    scene = read_scene_files(scenes / "libero_object_0")
    worlds = WarpWorlds([(scene, 3)], device="cpu")
    worlds.start(np.array([1, -1, -1], np.int32))
    alone = WarpWorlds([(scene, 1)], device="cpu")
    alone.start(np.array([1], np.int32))
    for _ in range(2):
        worlds.step(np.array([STILL] * 3), np.array([True, False, False]))
        alone.step(np.array([STILL]))
    assert worlds.problems()["contacts"] < 4 * alone.problems()["contacts"]
    assert not worlds.crowded().any()


@pytest.fixture(scope="module")
def spatial(scenes) -> list[SceneFiles]:
    """Tasks 0 and 3 of libero_spatial, which differ in where fixtures stand."""
    return [read_scene_files(scenes / f"libero_spatial_{task_id}") for task_id in (0, 3)]


def test_a_world_among_those_of_another_task_is_what_it_is_among_its_own(spatial, scenes):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    options = {"cameras": CAMERAS, "image_size": 64, "device": "cpu"}
    mixed = WarpWorlds([(scene, 1) for scene in spatial], **options)
    own = [WarpWorlds([(scene, 2)], **options) for scene in spatial]
    actions = np.stack([expert_of(scenes, task_id)[f"actions_{k}"][:6] for task_id, k in ((0, 1), (3, 0))], 1)
    for worlds in (mixed, *own):
        worlds.start(np.array([1, 0], np.int32))
        worlds.pictures(CAMERAS)

    def compare() -> None:
        for world, alone in enumerate(own):
            for ours, theirs in zip(mixed.pictures(CAMERAS), alone.pictures(CAMERAS), strict=True):
                assert np.array_equal(ours[world], theirs[world])
            for name in ("qpos", "qvel", "xpos", "xquat", "geom_xpos", "geom_xmat", "site_xpos"):
                arrays = [getattr(each.data, name).numpy()[world] for each in (mixed, alone)]
                assert np.array_equal(*arrays), name

    compare()
    fixtures = [np.flatnonzero(scene.model.body_weldid[scene.model.geom_bodyid] == 0) for scene in spatial]
    places = mixed.data.geom_xpos.numpy()
    assert np.abs(places[0, fixtures[0]] - places[1, fixtures[1]]).max() > 0.01
    for step in actions:
        for worlds in (mixed, *own):
            worlds.step(step)
    compare()


def test_the_experts_of_two_tasks_solve_them_in_one_batch(spatial, scenes):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    worlds = WarpWorlds([(scene, 1) for scene in spatial], device="cpu")
    recorded = [expert_of(scenes, task_id)["actions_0"] for task_id in (0, 3)]
    lengths, first = [len(actions) for actions in recorded], [0, 0]
    for step in range(max(lengths) + 5):
        worlds.step(np.array([each[step] if step < len(each) else STILL for each in recorded]))
        for world in np.flatnonzero(worlds.success()):
            first[world] = first[world] or step + 1
    assert np.abs(np.array(first) - lengths).max() <= 5


def test_each_world_of_a_batch_has_its_own_tasks_goal_of_any_kind(spatial):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    scene = spatial[1]  # the bowl is on the cookies
    cookies = scene.model.body("cookies_1_main").id
    box = np.flatnonzero(scene.model.geom_bodyid == cookies).tolist()
    (bowl, _), (bowls_geoms, _) = scene.task["goal_bodies"], scene.task["goal_geoms"]
    room = {"goal": "in", "goal_bodies": [bowl], "goal_geoms": [], "goal_site": scene.task["site"]}
    goals = [
        {"goal_bodies": [bowl, cookies], "goal_geoms": [bowls_geoms, box]},
        room | {"goal_size": [9.0, 9.0, 9.0]},
        {},
        room | {"goal_size": [0.01, 0.01, 0.01]},
    ]
    parts = [(dataclasses.replace(scene, task=scene.task | goal), 1) for goal in goals]
    worlds = WarpWorlds(parts, device="cpu")
    worlds.step(np.array([STILL] * 4))
    assert worlds.success().tolist() == [True, True, False, False]


def test_tasks_with_other_objects_cannot_share_a_batch(spatial, scenes):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    parts = [(spatial[0], 1), (read_scene_files(scenes / "libero_object_0"), 1)]
    with pytest.raises(ConfigError, match="got libero_spatial 0 and libero_object 0"):
        WarpWorlds(parts, device="cpu")


def test_the_vector_env_moves_tasks_of_one_scene_by_one_step(scenes, monkeypatch):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    moved = []
    step = WarpWorlds.step

    def counted(worlds: WarpWorlds, *args: Any) -> None:
        moved.append([scene.task["task_id"] for scene in worlds.scenes])
        step(worlds, *args)

    monkeypatch.setattr(WarpWorlds, "step", counted)
    tasks = [("libero_spatial", 3), ("libero_object", 0), ("libero_spatial", 0), ("libero_spatial", 3)]
    fns, mode = warp_envs(scenes, tasks, device="cpu", image_size=64)
    env = RolloutVectorEnv(fns, mode=mode)
    starts = [0, 0, 1, 1]
    observations, infos = env.reset(options={"init_state_id": starts})
    assert [*zip(infos["task_suite"], infos["task_id"], strict=True)] == tasks
    for key in ("agentview_image", "wrist_image"):
        known = [(*task, start) for task in dict.fromkeys(tasks) for start in range(2)]
        theirs = np.array(
            [expert_of(scenes, number, suite)[f"{key}_{k}"] for suite, number, k in known], float
        )
        nearest = [int(np.abs(theirs - seen).mean(axis=(1, 2, 3)).argmin()) for seen in observations[key]]
        assert [known[k] for k in nearest] == [(*task, k) for task, k in zip(tasks, starts, strict=True)], key
    env.step(np.array([STILL] * 4, np.float32))
    assert moved == [[3, 0], [0]]
    env.close()


def test_the_vector_env_runs_the_rule_and_shows_the_scene(scenes):
    recorded = expert_of(scenes, 0)
    env = make_vec(
        "libero_spatial",
        0,
        2,
        backend="warp",
        scenes=scenes,
        device="cpu",
        image_size=64,
        max_episode_steps=16,
    )
    judged = VLACRewardWrapper(env, make_critic("scripted:0"), done_interval=8, max_episode_steps=16)
    chunked = ActionChunk(judged, 8)
    observations, infos = chunked.reset(options={"init_state_id": [0, 1]})
    for key in ("agentview_image", "wrist_image"):
        theirs = np.stack([recorded[f"{key}_{k}"] for k in range(2)]).astype(float)
        apart = ((observations[key] - theirs) ** 2).mean(axis=(1, 2, 3))
        assert (10 * np.log10(255**2 / apart) > 36).all(), key  # 37 and more; one ray per pixel: 26
    assert infos["task_id"].tolist() == [0, 0]
    for begin in (0, 8):
        actions = np.stack([recorded[f"actions_{k}"][begin : begin + 8] for k in range(2)])
        observations, rewards, terminations, truncations, _ = chunked.step(actions.astype(np.float32))
    assert rewards.tolist() == [0.5, 0.5]
    assert truncations.all()
    assert not terminations.any()
    theirs = np.stack([recorded[f"states_{k}"][16] for k in range(2)])
    assert np.abs(observations["state"] - theirs).max() < 1e-3
    chunked.close()


def test_pictures_as_tensors_are_those_in_numpy_and_no_later_picture_overwrites_them(scenes):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    torch = pytest.importorskip("torch")
    options = {"cameras": CAMERAS, "image_size": 32, "device": "cpu"}
    scene = read_scene_files(scenes / "libero_spatial_0")
    arrays, tensors = (WarpWorlds([(scene, 2)], as_tensors=kind, **options) for kind in (False, True))
    for worlds in (arrays, tensors):
        worlds.start(np.array([1, 0], np.int32))
    drawn = tensors.pictures(CAMERAS)
    assert [(tensor.dtype, tuple(tensor.shape)) for tensor in drawn] == [(torch.uint8, (2, 32, 32, 3))] * 2
    before = [picture.copy() for picture in arrays.pictures(CAMERAS)]
    for _ in range(3):
        tensors.step(np.array([(1.0, *STILL[1:])] * 2))
    for tensor, array, now in zip(drawn, before, tensors.pictures(CAMERAS), strict=True):
        assert np.array_equal(tensor, array)
        assert not np.array_equal(now, array)


@pytest.mark.parametrize("critic", ["scripted:0", "nano"])
def test_the_vector_env_hands_out_tensors_and_the_rule_pays_what_it_pays_for_arrays(scenes, critic):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    results = []
    for pictures in ("numpy", "torch"):
        options = {
            "backend": "warp",
            "scenes": scenes,
            "device": "cpu",
            "image_size": 64,
            "pictures": pictures,
        }
        env = make_vec("libero_spatial", 0, 2, max_episode_steps=2, **options)
        judged = VLACRewardWrapper(env, make_critic(critic), value_stride=1, max_episode_steps=2)
        chunked = ActionChunk(judged, 2)
        first, _ = chunked.reset(options={"init_state_id": [0, 1]})
        results.append((first, *chunked.step(np.array([[STILL] * 2] * 2, np.float32))))
        chunked.close()
    (first, _, rewards, _, truncations, infos), (as_tensors, last, paid, _, ends, told) = results
    for key in ("agentview_image", "wrist_image"):
        assert np.array_equal(first[key], as_tensors[key]), key
        assert tuple(last[key].shape) == (2, 64, 64, 3)
    assert isinstance(last["state"], np.ndarray)
    assert paid == pytest.approx(rewards, abs=1e-3)  # of states that are not the same bits
    assert ends.tolist() == truncations.tolist() == [True, True]
    assert told["critic"]["calls"].tolist() == infos["critic"]["calls"].tolist()


def test_an_unknown_device_is_refused(scenes):
    with pytest.raises(ConfigError, match="cuda:7"):
        make_vec("libero_spatial", 0, 1, backend="warp", scenes=scenes, device="cuda:7")
