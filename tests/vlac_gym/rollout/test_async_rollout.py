"""Episodes are the same however fast envs, critic and policy are, and whichever worker dies."""

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_envs import LookingCritic, ShadedEnv, digest, plain

from vlac_gym.errors import ConfigError, CriticConnectionError, SimulatorError
from vlac_gym.rollout import AsyncRollout, EpisodeStart, PlayedEpisode
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


class SeededEnv(ShadedEnv):
    """Shows in its frame which start it plays and which actions it got, whatever it played before; can be slow, and
    fail once per marker.

    Args:
        delays_s: Of each step, in turn.
        fault: `physics` or `die`, at step 2 of starts whose seed is in `bad_seeds`.
        marks: Folder that remembers what has failed; None fails every time.
    """

    def __init__(self, delays_s=(0.0,), fault="", bad_seeds=(), marks=None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delays_s, self.fault, self.bad_seeds, self.marks = delays_s, fault, bad_seeds, marks

    def reset(self, *, seed=None, options=None):
        self.seed, self.total = seed, 0.0
        self.num_resets = 0
        self._max_episode_steps = 3 + seed % 5
        observation, info = super().reset(seed=seed, options=options)
        return observation, info

    def step_unrendered(self, action):
        time.sleep(self.delays_s[self.num_steps % len(self.delays_s)])
        self.total += float(np.sum(action))
        if self._step == 1 and self.seed in self.bad_seeds and self._fails():
            if self.fault == "die":
                os._exit(3)
            self._step = None
            raise SimulatorError("the physics became unstable")
        return super().step_unrendered(action)

    def _fails(self):
        if self.marks is None:
            return True
        mark = Path(self.marks) / str(self.seed)
        if mark.exists():
            return False
        mark.touch()
        return True

    def _frame(self, step):
        frame = super()._frame(step)
        frame[0, 1] = (self.seed, int(abs(self.total) * 100) % 256, step)
        return frame


class SlowCritic(LookingCritic):
    def __init__(self, delays_s: list[float]) -> None:
        super().__init__(done_share=0.15)
        self.delays_s = delays_s

    def _note(self, method: str, frames: Any) -> None:
        time.sleep(self.delays_s[len(self.calls) % len(self.delays_s)])
        super()._note(method, frames)


class DrawingPolicy:
    """Draws from each episode's generator and looks at its row."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.asked: list[tuple[int, int]] = []

    def __call__(self, observations, rows):
        self.asked += [(row.episode, row.step) for row in rows]
        assert [row.info["elapsed_steps"] for row in rows] == observations["state"].ravel().tolist()
        shape = (7,) if self.length is None else (self.length, 7)
        return np.stack([row.rng.uniform(-1, 1, shape) for row in rows]) + observations["state"].reshape(
            -1, *[1] * len(shape)
        ) / 1000  # fmt: skip


def build(count: int, critic: Any = None, length: int | None = None, mode: str = "sync", **env: Any) -> Any:
    vector: Any = RolloutVectorEnv(
        [partial(SeededEnv, **env)] * count, mode=mode, autoreset_mode="Disabled", max_restarts=20
    )
    if critic is not None:
        vector = VLACRewardWrapper(vector, critic, value_stride=2, ask_window_s=0.0)
    return vector if length is None else ActionChunk(vector, length)


def trace(episode: PlayedEpisode) -> tuple:
    return (
        episode.index,
        episode.group,
        episode.start,
        [digest(observation) for observation in episode.observations],
        [action.tobytes() for action in episode.actions],
        episode.rewards.tolist(),
        [plain(info) for info in episode.infos],
        episode.terminated,
        episode.truncated,
        episode.is_lost,
    )


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 5),
    group_size=st.sampled_from([1, 2]),
    length=st.sampled_from([None, 3]),
    min_ready=st.integers(1, 3),
    is_judged=st.booleans(),
    delays_s=st.lists(st.sampled_from([0.0, 0.001, 0.003]), min_size=1, max_size=3),
    critic_s=st.lists(st.sampled_from([0.0, 0.002]), min_size=1, max_size=3),
    bad_seeds=st.sets(st.integers(0, 5), max_size=3),
)
def test_episodes_do_not_depend_on_timing_or_on_simulators_that_fail(
    count, group_size, length, min_ready, is_judged, delays_s, critic_s, bad_seeds
):
    def play(num_envs: int, delays: list[float], critic_delays: list[float], **env: Any) -> tuple:
        critic = SlowCritic(critic_delays) if is_judged else None
        vector, policy = build(num_envs, critic, length, delays_s=delays, **env), DrawingPolicy(length)
        rollout = AsyncRollout(vector, policy, group_size=group_size, min_ready=min_ready)
        episodes = [trace(episode) for episode in rollout.episodes(6)]
        vector.close()
        return episodes, sorted(policy.asked)

    alone = play(1, [0.0], [0.0])
    with tempfile.TemporaryDirectory() as marks:
        fault = {"fault": "physics", "bad_seeds": bad_seeds, "marks": marks}
        assert play(count, delays_s, critic_s, **fault) == alone


def test_workers_that_die_change_nothing(tmp_path):
    def play(mode: str, count: int, **env: Any) -> list[tuple]:
        vector = build(count, LookingCritic(0.15), mode=mode, **env)
        try:
            return [trace(episode) for episode in AsyncRollout(vector, DrawingPolicy()).episodes(5)]
        finally:
            vector.close()

    dying = play("async", 2, fault="die", bad_seeds=(1, 3), marks=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]
    assert dying == play("sync", 3)


def test_an_episode_that_is_lost_again_and_again_ends_and_says_so():
    vector = build(2, fault="physics", bad_seeds=(1,))
    policy = DrawingPolicy()
    first, lost, last = AsyncRollout(vector, policy, max_repeats=2).episodes(3)
    assert (first.is_lost, lost.is_lost, last.is_lost) == (False, True, False)
    assert (lost.truncated, lost.terminated, lost.rewards.tolist()) == (True, False, [0.0, 0.0])
    assert lost.infos[-1]["lost_reason"] == "the physics became unstable"
    # Three attempts; the policy was asked for each action once.
    assert [asked for asked in policy.asked if asked[0] == 1] == [(1, 0), (1, 1)]


def test_groups_come_whole_and_begin_alike():
    def start(group: int) -> EpisodeStart:
        return EpisodeStart(seed=10 + group, options={"init_state_id": group})

    rollout = AsyncRollout(build(3), DrawingPolicy(), starts=start, group_size=2)
    groups = list(rollout.groups(3))
    assert [[(e.index, e.group, e.start.seed) for e in group] for group in groups] == [
        [(0, 0, 10), (1, 0, 10)],
        [(2, 1, 11), (3, 1, 11)],
        [(4, 2, 12), (5, 2, 12)],
    ]
    for one, other in groups:
        assert one.infos[0]["options"] == other.infos[0]["options"]
        assert digest(one.observations[0]) == digest(other.observations[0])
        assert one.actions[0].tobytes() != other.actions[0].tobytes()
    assert next(iter(rollout.groups(1)))[0].index == 6


@pytest.mark.parametrize("delays_s", [[0.0], [0.004, 0.0, 0.001]])
def test_buffers_of_fixed_length_go_on_where_the_last_ended(delays_s):
    whole = list(AsyncRollout(build(1), DrawingPolicy()).episodes(8))
    rollout = AsyncRollout(build(2, delays_s=delays_s), DrawingPolicy(), min_ready=2)
    buffers = [rollout.steps(4), rollout.steps(1), rollout.steps(5)]
    assert [buffer.rewards.shape for buffer in buffers] == [(4, 2), (1, 2), (5, 2)]
    for lane in range(2):
        played = [
            (int(b.episodes[t, lane]), b.actions[t, lane].tobytes(), digest(b.next_observations[t][lane]),
             bool(b.truncations[t, lane]), b.infos[t][lane]["elapsed_steps"])
            for b in buffers for t in range(len(b.rewards))
        ]  # fmt: skip
        expected = [
            (e.index, e.actions[t].tobytes(), digest(e.observations[t + 1]),
             t + 1 == len(e.rewards), e.infos[t + 1]["elapsed_steps"])
            for e in whole[lane::2] for t in range(len(e.rewards))
        ]  # fmt: skip
        assert played == expected[:10]


def test_left_early_the_envs_can_be_used_again():
    vector = build(3, delays_s=[0.001])
    rollout = AsyncRollout(vector, DrawingPolicy())
    episodes = rollout.episodes(6)
    assert next(episodes).index == 0
    episodes.close()
    assert [episode.index for episode in rollout.episodes(2)] == [6, 7]


def test_what_fails_is_raised_and_the_next_episodes_begin_anew():
    class Failing(LookingCritic):
        def success_prob(self, frames, tasks):
            if len(self.calls) == 2:
                self.calls.append(("failed", 0))
                raise CriticConnectionError("away")
            return super().success_prob(frames, tasks)

    rollout = AsyncRollout(build(2, Failing(0.0)), DrawingPolicy())
    with pytest.raises(CriticConnectionError, match="away"):
        list(rollout.episodes(4))
    assert [episode.index for episode in rollout.episodes(2)] == [4, 5]


def test_bad_arguments_are_refused():
    policy = DrawingPolicy()
    with pytest.raises(ConfigError, match="autoreset_mode='Disabled' and group_size=1"):
        AsyncRollout(RolloutVectorEnv([ShadedEnv], mode="sync"), policy)
    with pytest.raises(ConfigError, match="Expected an env from make_vec"):
        AsyncRollout(ShadedEnv(), policy)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="min_ready >= 1"):
        AsyncRollout(build(1), policy, min_ready=0)
    rollout = AsyncRollout(build(2), policy, group_size=2)
    with pytest.raises(ConfigError, match="multiple of 2, got 3"):
        rollout.episodes(3)
    with pytest.raises(ConfigError, match="Expected 2 rows of actions"):
        list(AsyncRollout(build(2), lambda *_: np.zeros((1, 7)), min_ready=2).episodes(2))
