"""The vector `EpisodeVideoWrapper`: which episodes it writes under each autoreset mode, and what the files hold."""

import functools

import numpy as np
import pytest
from wrapped_vector_envs import AUTORESETS, actions, build

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError
from vlac_gym.frames.files import read_frames
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import EpisodeVideoWrapper


def scripted(success_steps, limit=4):
    return functools.partial(ScriptedEnv, success_steps, limit, image_size=16)


def recorded(tmp_path, autoreset="NextStep", **options):
    # env 0 succeeds at step 2, env 1 runs into its limit at step 4
    inner = RolloutVectorEnv([scripted([2]), scripted([])], mode="sync", autoreset_mode=autoreset)
    return EpisodeVideoWrapper(inner, tmp_path / "videos", **{"raw_envs": (0, 1)} | options)


def names(tmp_path) -> list[str]:
    folder = tmp_path / "videos"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def steps(path) -> list[int]:
    """Which step of its episode each picture of a recording shows; the env writes it into the first pixel."""
    return [int(np.asarray(frame)[0, 0, 2]) for frame in read_frames(path).frames]


RAW = "batch-000000/env-0{}_ep-00{}_put-the-bowl-on-the-plate_{}.raw.mp4"


@pytest.mark.parametrize("autoreset", AUTORESETS)
def test_raw_copies_hold_each_finished_episode_from_first_to_last_picture(tmp_path, autoreset):
    env = recorded(tmp_path, autoreset)
    env.reset(seed=0)
    for _ in range(4):
        env.step(actions(2))
    env.close()
    # NextStep: steps 1 2, reset, 1. SameStep: steps 1 2, 1 2. Disabled: steps 1 2.
    again = [RAW.format(0, 1, "success")] if autoreset == "SameStep" else []
    expected = ["batch-000000.mp4", RAW.format(0, 0, "success"), *again, RAW.format(1, 0, "failure")]
    assert names(tmp_path) == sorted(expected)
    for name in [RAW.format(0, 0, "success"), *again]:
        assert steps(tmp_path / "videos" / name) == [0, 1, 2]
    assert steps(tmp_path / "videos" / RAW.format(1, 0, "failure")) == [0, 1, 2, 3, 4]


def test_nothing_that_the_env_returns_is_changed(tmp_path):
    plain = RolloutVectorEnv([scripted([2]), scripted([])], mode="sync", autoreset_mode="NextStep")
    wrapped = recorded(tmp_path)
    for env_results in zip(plain.reset(seed=0), wrapped.reset(seed=0), strict=True):
        np.testing.assert_equal(*env_results)
    for _ in range(6):
        for plain_result, result in zip(plain.step(actions(2)), wrapped.step(actions(2)), strict=True):
            np.testing.assert_equal(plain_result, result)
    plain.close(), wrapped.close()


def test_each_reset_of_all_envs_begins_a_batch_and_numbers_go_on(tmp_path):
    for _ in range(2):  # two runs into one folder
        env = recorded(tmp_path, raw_envs=())
        for _ in range(2):
            env.reset(seed=0)
            env.step(actions(2))
        env.close()
    assert names(tmp_path) == [f"batch-00000{n}.mp4" for n in range(4)]


def test_long_batches_are_cut(tmp_path):
    env = recorded(tmp_path, raw_envs=(), max_steps_per_video=2)
    env.reset(seed=0)
    for _ in range(4):
        env.step(actions(2))
    env.close()
    assert names(tmp_path) == ["batch-000000.mp4", "batch-000001.mp4"]


def test_switched_off_it_writes_nothing(tmp_path):
    env = recorded(tmp_path, save_video=False)
    env.reset(seed=0)
    env.step(actions(2))
    assert env.flush_video() is None
    env.close()
    assert not (tmp_path / "videos").exists()


def test_under_a_critic_the_simulators_verdict_names_the_outcome(tmp_path):
    # The critic stops env 0 at step 1, before the simulator's success at 2: a failure that was paid.
    critic = ScriptedCritic(success_probs=[1.0])
    env = EpisodeVideoWrapper(build([scripted([2])], critic), tmp_path / "videos")
    env.reset(seed=0)
    env.step(actions(1))
    env.close()
    assert names(tmp_path)[-1] == RAW.format(0, 0, "failure")


def test_info_on_video_adds_texts_and_traces_to_the_pictures(tmp_path):
    sizes = []
    for shown in (True, False):
        env = recorded(tmp_path / str(shown), info_on_video=shown, raw_envs=())
        env.reset(seed=0)
        env.step(actions(2))
        import imageio_ffmpeg

        meta = next(imageio_ffmpeg.read_frames(str(env.flush_video())))
        sizes.append(meta["size"])
        env.close()
    assert sizes == [(2 * 168, 266), (2 * 168, 168)]


def test_a_list_of_envs_that_its_owner_changes_later_changes_nothing(tmp_path):
    chosen = [1]
    env = recorded(tmp_path, "Disabled", raw_envs=chosen)
    chosen[:] = [0]
    env.reset(seed=0)
    for _ in range(4):
        env.step(actions(2))
    env.close()
    assert names(tmp_path) == ["batch-000000.mp4", RAW.format(1, 0, "failure")]


def test_wrong_arguments_are_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(ConfigError, match="raw_envs below 2"):
        recorded(tmp_path, raw_envs=(2,))
    with pytest.raises(ConfigError, match=r"cameras among \['agentview_image'\]"):
        recorded(tmp_path, cameras=("front",))
    assert not (tmp_path / "videos").exists()
