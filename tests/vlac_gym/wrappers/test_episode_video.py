import json

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest

from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError
from vlac_gym.reporting.video import VIDEO_SIZE, WRIST_WIDTH
from vlac_gym.wrappers import EpisodeVideoWrapper, VLACRewardWrapper

NOOP = np.zeros(7, dtype=np.float32)


def _run(env: gym.Env, **reset) -> int:
    env.reset(**reset)
    steps, is_over = 0, False
    while not is_over:
        _, _, terminated, truncated, _ = env.step(NOOP)
        steps, is_over = steps + 1, terminated or truncated
    return steps


def test_training_episode_is_recorded_step_by_step():
    critic = ScriptedCritic(success_probs=[0.1, 0.2, 0.95])
    inner = VLACRewardWrapper(ScriptedEnv(success_steps=[2], max_episode_steps=9), critic)
    env = EpisodeVideoWrapper(inner)
    assert _run(env) == 3

    episode = env.last_episode
    assert [frame[0, 0, 2] for frame in episode.frames] == [0, 1, 2, 3]
    assert [s.success_prob for s in episode.steps] == pytest.approx([0.1, 0.2, 0.95])
    assert [s.sim_success for s in episode.steps] == [False, True, True]
    assert [s.reward for s in episode.steps] == [0.0, 0.0, 1.0]
    assert (episode.mode, episode.task, episode.critic_done_step) == ("train", "put the bowl on the plate", 3)
    assert (episode.critic.name, episode.critic.calls, episode.critic.threshold) == ("scripted", 3, 0.9)
    assert episode.critic.values == ()
    assert [call.method for call in critic.calls] == ["success_prob"] * 3  # recording asks the critic nothing


def test_value_list_at_the_step_limit_is_recorded_as_reward():
    critic = ScriptedCritic(success_probs=[0.0] * 6, values=[[0.0, 0.25, 0.5]])
    env = EpisodeVideoWrapper(VLACRewardWrapper(ScriptedEnv(max_episode_steps=6), critic))
    _run(env)

    assert env.last_episode.critic.values == (0.0, 0.25, 0.5)
    assert env.last_episode.critic.value_frame_steps == (0, 5, 6)
    assert env.last_episode.critic.values_for == "reward"
    assert env.last_episode.critic_done_step is None


def test_eval_episode_asks_and_reports_no_critic():
    critic = ScriptedCritic()
    inner = VLACRewardWrapper(ScriptedEnv(success_steps=[2], max_episode_steps=9), critic, mode="eval")
    env = EpisodeVideoWrapper(inner)
    assert _run(env) == 2

    assert critic.calls == []
    assert (env.last_episode.mode, env.last_episode.sim_success_step) == ("eval", 2)
    assert env.last_episode.success_probs == ([], [])
    assert env.last_episode.critic.name == "none"


def test_results_of_the_env_pass_through_unchanged():
    bare, wrapped = ScriptedEnv(success_steps=[3]), EpisodeVideoWrapper(ScriptedEnv(success_steps=[3]))
    assert str(bare.reset(seed=1)) == str(wrapped.reset(seed=1))
    for _ in range(3):
        assert str(bare.step(NOOP)) == str(wrapped.step(NOOP))


def test_an_episode_that_was_left_is_dropped():
    env = EpisodeVideoWrapper(ScriptedEnv(max_episode_steps=4))
    env.reset()
    env.step(NOOP)
    assert env.last_episode is None

    assert _run(env) == 4
    assert env.last_episode.num_steps == 4
    assert env.last_episode.frames[0][0, 0, 0] == 2


class TwoCameras(gym.Wrapper):
    """`ScriptedEnv` with a wrist camera that sees 100 + step."""

    def __init__(self, env):
        super().__init__(env)
        wrist = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)
        self.observation_space = gym.spaces.Dict({**env.observation_space.spaces, "wrist_image": wrist})

    def reset(self, **options):
        observation, info = self.env.reset(**options)
        return self._seen(observation), info

    def step(self, action):
        observation, *rest = self.env.step(action)
        return self._seen(observation), *rest

    def _seen(self, observation):
        level = 100 + int(observation["state"][0])
        return {**observation, "wrist_image": np.full((4, 4, 3), level, np.uint8)}


def test_the_wrist_camera_of_the_observation_is_recorded_and_shown(tmp_path):
    env = EpisodeVideoWrapper(TwoCameras(ScriptedEnv(max_episode_steps=2)), tmp_path)
    for _ in range(2):
        _run(env)

        assert [frame[0, 0, 2] for frame in env.last_episode.frames] == [0, 1, 2]
        assert [frame[0, 0, 0] for frame in env.last_episode.wrist_frames] == [100, 101, 102]
    facts = next(imageio_ffmpeg.read_frames(str(tmp_path / "episode-000000.mp4")))
    assert facts["source_size"] == (VIDEO_SIZE[0] + WRIST_WIDTH, VIDEO_SIZE[1])


def test_without_a_wrist_camera_beside_the_frame_none_is_recorded():
    for env in (
        EpisodeVideoWrapper(ScriptedEnv(max_episode_steps=2)),
        EpisodeVideoWrapper(TwoCameras(ScriptedEnv(max_episode_steps=2)), frame="wrist_image"),
    ):
        _run(env)
        assert len(env.last_episode.frames) == 3
        assert env.last_episode.wrist_frames == ()


def test_failures_are_counted_per_episode():
    from vlac_gym.errors import CriticTimeoutError

    critic = ScriptedCritic(success_probs=[CriticTimeoutError("late"), CriticTimeoutError("late"), 0.95])
    inner = VLACRewardWrapper(ScriptedEnv(max_episode_steps=5), critic, on_critic_error="truncate")
    env = EpisodeVideoWrapper(inner)
    failures = []
    for _ in range(3):
        _run(env)
        failures.append((env.last_episode.critic.failures, env.last_episode.critic.stopped_by))

    assert failures == [(1, "critic_error"), (1, "critic_error"), (0, "success_prob")]


def test_privileged_critic_is_recorded_as_privileged():
    env = EpisodeVideoWrapper(VLACRewardWrapper(ScriptedEnv(success_steps=[1]), OracleCritic()))
    _run(env)

    assert env.last_episode.critic.is_privileged
    assert json.dumps(env.last_episode.summary())


def test_every_second_episode_is_written_as_mp4(tmp_path):
    folder = tmp_path / "videos"
    env = EpisodeVideoWrapper(ScriptedEnv(max_episode_steps=2), folder, every_episodes=2)
    assert not folder.exists()
    for _ in range(3):
        _run(env)

    assert sorted(p.name for p in folder.iterdir()) == ["episode-000000.mp4", "episode-000002.mp4"]


def test_no_video_of_an_earlier_run_or_another_env_is_overwritten(tmp_path):
    for _ in range(2):
        _run(EpisodeVideoWrapper(ScriptedEnv(max_episode_steps=2), tmp_path))
    first, second = tmp_path / "episode-000000.mp4", tmp_path / "episode-000000-2.mp4"
    assert sorted(tmp_path.iterdir()) == [second, first]
    assert first.stat().st_size > 0 < second.stat().st_size


def test_spec_can_rebuild_the_wrapper():
    env = EpisodeVideoWrapper(ScriptedEnv(), None, every_episodes=3)
    assert env._saved_kwargs["every_episodes"] == 3


def test_counts_below_one_are_refused():
    with pytest.raises(ConfigError, match="every_episodes and fps >= 1, got 0 and 20"):
        EpisodeVideoWrapper(ScriptedEnv(), every_episodes=0)
