"""LIBERO's tasks in mujoco-warp, on warp's CPU device, beside recordings of LIBERO itself.

`scripts/test_warp.sh` records, and runs these in an environment of their own: mujoco-warp needs another MuJoCo.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlac_gym import make_vec
from vlac_gym.critic import make_critic
from vlac_gym.envs.warp.scene_files import START_ARRAYS, read_scene_files
from vlac_gym.errors import ConfigError
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

pytestmark = pytest.mark.warp

SUITES = ("libero_spatial", "libero_object")
STILL = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture(scope="module")
def scenes() -> Path:
    return Path(os.environ["VLAC_GYM_TEST_SCENES"])


@pytest.fixture(scope="module", params=SUITES)
def played(request, scenes) -> tuple[Any, dict[str, np.ndarray]]:
    """Two worlds of the suite's task 0, and the expert's recording."""
    from vlac_gym.envs.warp.worlds import WarpWorlds

    folder = scenes / f"{request.param}_0"
    with np.load(folder / "expert.npz") as arrays:
        return WarpWorlds(read_scene_files(folder), 2, device="cpu"), dict(arrays)


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
        starts = {name: worlds.scene.starts[name][:2].copy() for name in START_ARRAYS}
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
    starts = {name: worlds.scene.starts[name][:2].copy() for name in START_ARRAYS}
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
    starts = {name: worlds.scene.starts[name][:2].copy() for name in START_ARRAYS}
    starts["qvel"][1, :7] = 1e30
    worlds.start_from(starts)
    for _ in range(2):
        worlds.step(np.array([STILL, STILL]))
    assert worlds.failed().tolist() == [False, True]
    assert np.isfinite(worlds.physics_state()["qpos"]).all()
    worlds.start(np.array([-1, 0], np.int32))
    worlds.step(np.array([STILL, STILL]))
    assert not worlds.failed().any()


def test_worlds_whose_contacts_found_no_room_say_so(played):
    from vlac_gym.envs.warp.worlds import Room, WarpWorlds

    worlds = WarpWorlds(played[0].scene, 2, room=Room(contacts=8, convex=8), device="cpu")
    worlds.start(np.array([0, 1], np.int32))
    assert worlds.crowded().tolist() == [False, False]
    worlds.step(np.array([STILL, STILL]))
    assert worlds.crowded().tolist() == [True, True]
    assert worlds.problems()["overflow"] == 2


def test_a_world_that_was_never_started_does_not_crowd_the_others(scenes):
    from vlac_gym.envs.warp.worlds import WarpWorlds

    worlds = WarpWorlds(read_scene_files(scenes / "libero_object_0"), 3, device="cpu")
    worlds.start(np.array([1, -1, -1], np.int32))
    alone = WarpWorlds(read_scene_files(scenes / "libero_object_0"), 1, device="cpu")
    alone.start(np.array([1], np.int32))
    for _ in range(2):
        worlds.step(np.array([STILL] * 3), np.array([True, False, False]))
        alone.step(np.array([STILL]))
    assert worlds.problems()["contacts"] < 4 * alone.problems()["contacts"]
    assert not worlds.crowded().any()


def test_the_vector_env_runs_the_rule_and_shows_the_scene(scenes):
    with np.load(scenes / "libero_spatial_0" / "expert.npz") as arrays:
        recorded = dict(arrays)
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
        assert np.abs(observations[key] - theirs).mean() < 3, key
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
    cameras = ("agentview", "robot0_eye_in_hand")
    options = {"cameras": cameras, "image_size": 32, "device": "cpu"}
    scene = read_scene_files(scenes / "libero_spatial_0")
    arrays, tensors = (WarpWorlds(scene, 2, as_tensors=kind, **options) for kind in (False, True))
    for worlds in (arrays, tensors):
        worlds.start(np.array([1, 0], np.int32))
    drawn = tensors.pictures(cameras)
    assert [(tensor.dtype, tuple(tensor.shape)) for tensor in drawn] == [(torch.uint8, (2, 32, 32, 3))] * 2
    before = [picture.copy() for picture in arrays.pictures(cameras)]
    for _ in range(3):
        tensors.step(np.array([(1.0, *STILL[1:])] * 2))
    for tensor, array, now in zip(drawn, before, tensors.pictures(cameras), strict=True):
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
