"""Episodes are the same however fast envs, critic and policy are, and whichever worker dies."""

import contextlib
import dataclasses
import math
import os
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from vector_envs import LookingCritic, ShadedEnv, SlowCritic, digest, plain

from vlac_gym.errors import ConfigError, CriticConnectionError, SimulatorError
from vlac_gym.rollout import AsyncRollout, EpisodeStart, PlayedEpisode
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.finished import EpisodeLog
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


class SeededEnv(ShadedEnv):
    """Shows in its frame which start it plays and which actions it got, whatever it played before; can be slow, and
    fail once per marker.

    Args:
        delays_s: Of each step, in turn.
        fault: `physics` or `die`, at step 2 of starts whose seed is in `bad_seeds`; or `die at the look` which follows
            the critic's picture of a step.
        marks: Folder that remembers what has failed; None fails every time.
    """

    def __init__(self, delays_s=(0.0,), fault="", bad_seeds=(), marks=None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delays_s, self.fault, self.bad_seeds, self.marks = delays_s, fault, bad_seeds, marks

    def reset(self, *, seed=None, options=None):
        self.seed, self.total, self.shown_step = seed, 0.0, None
        self.num_resets = 0
        self._max_episode_steps = 3 + seed % 5
        observation, info = super().reset(seed=seed, options=options)
        return observation, info

    def step_unrendered(self, action):
        time.sleep(self.delays_s[self.num_steps % len(self.delays_s)])
        self.total += float(np.sum(action))
        if self._step == 1 and self.fault in ("die", "physics") and self._fails():
            if self.fault == "die":
                os._exit(3)
            self._step = None
            raise SimulatorError("the physics became unstable")
        return super().step_unrendered(action)

    def render_camera(self, camera):
        self.shown_step = self._step
        return super().render_camera(camera)

    def observe(self):
        if self.fault == "die at the look" and self.shown_step == self._step and self._fails():
            os._exit(3)
        return super().observe()

    def _fails(self):
        if self.seed not in self.bad_seeds:
            return False
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


def build(
    count: int,
    critic: Any = None,
    length: int | None = None,
    mode: str = "sync",
    ask_window_s: float = 0.0,
    envs_per_worker: int = 1,
    **env: Any,
) -> Any:
    vector: Any = RolloutVectorEnv(
        [partial(SeededEnv, **env)] * count,
        mode=mode,
        autoreset_mode="Disabled",
        envs_per_worker=envs_per_worker,
        max_restarts=20,
    )
    if critic is not None:
        vector = VLACRewardWrapper(vector, critic, value_stride=2, ask_window_s=ask_window_s)
    return vector if length is None else ActionChunk(vector, length)


def trace(episode: PlayedEpisode) -> tuple:
    return (
        episode.index,
        episode.group,
        episode.start,
        [None if observation is None else digest(observation) for observation in episode.observations],
        [action.tobytes() for action in episode.actions],
        episode.rewards.tolist(),
        episode.executed_steps.tolist(),
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
    critic=st.sampled_from([None, "one call", "concurrent calls"]),
    delays_s=st.lists(st.sampled_from([0.0, 0.001, 0.003]), min_size=1, max_size=3),
    critic_s=st.lists(st.sampled_from([0.0, 0.002]), min_size=1, max_size=3),
    bad_seeds=st.sets(st.integers(0, 5), max_size=3),
)
def test_episodes_do_not_depend_on_timing_or_on_simulators_that_fail(
    count, group_size, length, min_ready, critic, delays_s, critic_s, bad_seeds
):
    def play(num_envs: int, delays: list[float], asked: Any, **env: Any) -> tuple:
        vector, policy = build(num_envs, asked, length, delays_s=delays, **env), DrawingPolicy(length)
        rollout = AsyncRollout(vector, policy, group_size=group_size, min_ready=min_ready)
        episodes = [trace(episode) for episode in rollout.episodes(6)]
        vector.close()
        return episodes, sorted(policy.asked)

    alone = play(1, [0.0], None if critic is None else LookingCritic(0.15))
    slow = SlowCritic(critic_s, takes_concurrent_calls=critic == "concurrent calls")
    with tempfile.TemporaryDirectory() as marks:
        fault = {"fault": "physics", "bad_seeds": bad_seeds, "marks": marks}
        assert play(count, delays_s, None if critic is None else slow, **fault) == alone
    assert max(slow.most_of.values(), default=0) <= 1
    assert slow.takes_concurrent_calls or slow.most <= 1


class ForgetfulEnv(SeededEnv):
    """Plays nothing twice alike: after its simulator failed, at step 2, an episode ends after its first step."""

    def reset(self, *, seed=None, options=None):
        first = super().reset(seed=seed, options=options)
        self._max_episode_steps = 1 if (Path(self.marks) / str(seed)).exists() else 4
        return first


@pytest.mark.parametrize("length", [None, 1])
def test_an_episode_whose_repeat_ends_too_early_is_lost(length, tmp_path):
    def rollout(marks: str) -> AsyncRollout:
        (tmp_path / marks).mkdir()
        fails = partial(ForgetfulEnv, fault="physics", bad_seeds={1}, marks=tmp_path / marks)
        env = RolloutVectorEnv([fails] * 2, mode="sync", autoreset_mode="Disabled")
        chunked = env if length is None else ActionChunk(env, length)
        return AsyncRollout(chunked, DrawingPolicy(length))

    played = list(rollout("episodes").episodes(4))
    assert [(episode.is_lost, len(episode.rewards)) for episode in played] == [
        (False, 4),
        (True, 2),
        (False, 4),
        (False, 4),
    ]
    info = played[1].infos[-1]
    assert "the steps before it were repeated" in info["lost_reason"]
    assert info["lost"] is True
    assert set(info) - {"chunk"} == {"lost", "lost_reason"}  # nothing of the other end
    assert length is None or info["chunk"]["executed_steps"] == 0
    assert played[1].executed_steps.tolist() == [1, 0]

    buffer = rollout("steps").steps(4)
    assert buffer.lost.T.tolist() == [[False] * 4, [False, True, False, False]]


class KillingPolicy(DrawingPolicy):
    """Kills a worker when it is asked for the first action of some episodes."""

    def __init__(self, length: int | None, vector: Any, killed: set[int]) -> None:
        super().__init__(length)
        self.vector, self.killed = vector.unwrapped, killed

    def __call__(self, observations, rows):
        for row in rows:
            if row.step == 0 and row.episode in self.killed:
                pids = self.vector.worker_pids
                with contextlib.suppress(ProcessLookupError):  # it has just died by itself
                    os.kill(pids[row.episode % len(pids)], signal.SIGKILL)
        return super().__call__(observations, rows)


@settings(max_examples=6, deadline=None, phases=[Phase.generate])  # to shrink would take minutes
@given(
    count=st.integers(1, 4),
    envs_per_worker=st.integers(1, 2),
    group_size=st.sampled_from([1, 2, 3]),
    length=st.sampled_from([None, 3]),
    min_ready=st.integers(1, 3),
    delays_s=st.lists(st.sampled_from([0.0, 0.001, 0.003]), min_size=1, max_size=3),
    critic_s=st.lists(st.sampled_from([0.0, 0.002, 0.005]), min_size=1, max_size=3),
    takes_concurrent_calls=st.booleans(),
    fault=st.sampled_from(["die", "die at the look"]),
    bad_groups=st.sets(st.integers(0, 5), max_size=2),
    killed=st.sets(st.integers(0, 5), min_size=1, max_size=2),
)
def test_groups_do_not_depend_on_when_their_worker_processes_die(
    count,
    envs_per_worker,
    group_size,
    length,
    min_ready,
    delays_s,
    critic_s,
    takes_concurrent_calls,
    fault,
    bad_groups,
    killed,
):
    def play(vector: Any, policy: DrawingPolicy, **options: Any) -> tuple:
        try:
            rollout = AsyncRollout(vector, policy, group_size=group_size, max_repeats=30, **options)
            groups = [[trace(episode) for episode in group] for group in rollout.groups(6 // group_size)]
        finally:
            vector.close()
        return groups, sorted(policy.asked)

    alone = play(build(1, LookingCritic(0.15), length), DrawingPolicy(length))
    with tempfile.TemporaryDirectory() as marks:
        faults = {"fault": fault, "bad_seeds": bad_groups, "marks": marks}
        critic = SlowCritic(critic_s, takes_concurrent_calls=takes_concurrent_calls)
        dying = build(count, critic, length, "async", 0.002, envs_per_worker, delays_s=delays_s, **faults)
        assert play(dying, KillingPolicy(length, dying, killed), min_ready=min_ready) == alone
    assert [[(index, group) for index, group, *_ in episodes] for episodes in alone[0]] == [
        [(g * group_size + k, g) for k in range(group_size)] for g in range(6 // group_size)
    ]


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


def test_a_worker_that_dies_after_the_verdict_takes_no_last_observation_with_it(tmp_path):
    def play(mode: str, **env: Any) -> list[tuple]:
        vector = build(2, LookingCritic(0.4), 3, mode, **env)
        try:
            return [trace(episode) for episode in AsyncRollout(vector, DrawingPolicy(3)).episodes(4)]
        finally:
            vector.close()

    dying = play("async", fault="die at the look", bad_seeds=range(4), marks=tmp_path)
    assert any(tmp_path.iterdir())
    assert dying == play("sync")


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
    with pytest.raises(ConfigError, match="first_episode as a multiple of group_size 2, got 3"):
        AsyncRollout(build(2), policy, group_size=2, first_episode=3)
    with pytest.raises(ConfigError, match="play in mode 'eval'"):
        AsyncRollout(build(2), policy, mode="eval")


def test_a_list_of_starts_is_played_by_the_envs_that_may():
    starts = [EpisodeStart(g, {"init_state_id": g}, envs=(g % 2,)) for g in (0, 1, 2, 5)]
    policy = DrawingPolicy()
    rollout = AsyncRollout(build(3), policy, starts=starts)
    played = list(rollout.episodes())
    assert [(e.index, e.start.seed, e.finished.env_index) for e in played] == [
        *((0, 0, 0), (1, 1, 1), (2, 2, 0), (3, 5, 1)),
    ]
    with pytest.raises(ConfigError, match="got 0"):
        rollout.episodes()
    with pytest.raises(ConfigError, match="no more groups than the 4 starts, got number 4"):
        rollout.episodes(1)
    asked = len(policy.asked)
    elsewhere = AsyncRollout(build(3), policy, starts=[EpisodeStart(0), EpisodeStart(0, envs=(3,))])
    with pytest.raises(ConfigError, match="Expected starts for some of 3 envs"):
        elsewhere.episodes()
    with pytest.raises(ConfigError, match="a start that env 1 may play"):
        AsyncRollout(build(2), policy, starts=[EpisodeStart(0, envs=(0,))] * 4).steps(1)
    assert len(policy.asked) == asked


def test_out_of_order_each_episode_comes_when_it_has_ended():
    starts = [EpisodeStart(4), EpisodeStart(0), EpisodeStart(1)]  # 7, 3 and 4 steps
    rollout = AsyncRollout(build(2), DrawingPolicy(), starts=starts)
    assert [e.index for e in rollout.episodes(in_order=False)] == [1, 0, 2]


def test_episodes_go_on_from_a_number_as_if_all_had_been_played():
    def play(**options: Any) -> list[tuple]:
        rollout = AsyncRollout(build(2), DrawingPolicy(), starts=EpisodeStart, group_size=2, **options)
        return [trace(episode) for episode in rollout.episodes(8 - options.get("first_episode", 0))]

    assert play(first_episode=4) == play()[4:]
    listed = [EpisodeStart(2), EpisodeStart(3)]
    rollout = AsyncRollout(build(2), DrawingPolicy(), starts=listed, group_size=2, first_episode=4)
    assert [trace(episode) for episode in rollout.episodes()] == play()[4:]


def test_the_mode_says_who_pays_and_stops():
    critic = SlowCritic([0.004])
    critic.done_share = 0.0
    vector = build(2, critic, success_steps=[2])

    def play(mode: str) -> list[tuple]:
        played = AsyncRollout(vector, DrawingPolicy(), mode=mode).episodes(3)
        return [(len(e.rewards), e.finished.sim_success, e.finished.critic_said_done) for e in played]

    assert play("eval") == [(2, True, None)] * 3
    assert (critic.calls, vector.critic_s) == ([], 0.0)
    # The simulator's success ends nothing, the critic never says done: episodes are as long as their seeds say.
    assert play("train") == [(3, True, False), (4, True, False), (5, True, False)]
    assert vector.critic_s >= 0.004 * len(critic.calls) > 0
    left_early = AsyncRollout(vector, DrawingPolicy(), mode="train").episodes(2)
    next(left_early)
    left_early.close()
    assert play("eval") == [(2, True, None)] * 3


@pytest.mark.parametrize("length", [None, 3])
def test_what_counts_of_an_episode_is_what_the_log_of_a_vector_env_says(length):
    env = {"critic": LookingCritic(0.15), "length": length, "success_steps": [2]}
    played = list(AsyncRollout(build(2, **env), DrawingPolicy(length)).episodes(5))
    alone = build(1, **env)
    log = EpisodeLog(alone)
    for episode in played:
        alone.reset(seed=episode.start.seed)
        log.begin()
        (finished,) = [end for action in episode.actions for end in log.add(*alone.step(action[None])[1:])]
        assert episode.finished.latency_ms > 0
        facts, expected = (
            dataclasses.asdict(of) | {"env_index": 0, "latency_ms": 0, "info": plain(of.info)}
            for of in (episode.finished, finished)
        )
        assert facts == expected
        assert episode.executed_steps.sum() == finished.num_steps


def test_observations_that_are_not_kept_are_gone_but_for_the_last():
    kept = list(AsyncRollout(build(2), DrawingPolicy()).episodes(3))
    rollout = AsyncRollout(build(2), DrawingPolicy(), keeps_observations=False)
    for episode, whole in zip(rollout.episodes(3), kept, strict=True):
        forgotten = dataclasses.replace(
            whole, observations=[None] * len(whole.rewards) + whole.observations[-1:]
        )
        assert trace(episode) == trace(forgotten)
    with pytest.raises(ConfigError, match="keeps_observations=False"):
        rollout.steps(1)


def test_chunks_of_different_lengths_are_executed_each_to_its_end():
    def policy(observations: Any, rows: Any) -> list[np.ndarray]:
        return [row.rng.uniform(-1, 1, (1 + (row.episode + row.step) % 3, 7)) for row in rows]

    def play(count: int) -> list[tuple]:
        rollout = AsyncRollout(build(count, LookingCritic(0.0), length=3), policy, min_ready=count)
        return [trace(episode) for episode in rollout.episodes(5)]

    assert play(4) == play(1)
    # Episode 2 has 5 steps, in chunks of 3, 1 and the first of 2.
    assert play(4)[2][6] == [3, 1, 1]


@pytest.mark.parametrize("length", [None, 3])
@pytest.mark.parametrize("takes_concurrent_calls", [False, True])
def test_envs_that_all_wait_make_the_same_batches_every_time(length, takes_concurrent_calls):
    def play(delays_s: list[float]) -> tuple:
        critic = SlowCritic(delays_s, takes_concurrent_calls=takes_concurrent_calls)
        policy = DrawingPolicy(length)
        vector = build(3, critic, length, ask_window_s=math.inf, delays_s=delays_s)
        rollout = AsyncRollout(vector, policy, min_ready=3)
        list(rollout.episodes(7))
        return policy.asked, sorted(zip(critic.calls, critic.seen))

    assert play([0.0]) == play([0.003, 0.0, 0.001]) == play([0.0, 0.002])


def test_a_buffer_of_steps_wants_chunks_of_one_length():
    def policy(observations, rows):
        return [np.zeros((1 + row.step % 2, 7)) for row in rows]

    rollout = AsyncRollout(build(2, length=2), policy)
    with pytest.raises(ConfigError, match=r"one shape for a buffer of steps, got \(1, 7\), \(2, 7\) from"):
        rollout.steps(2)
