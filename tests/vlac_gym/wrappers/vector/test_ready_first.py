"""Envs that each go at their own pace return what single envs return."""

import os
import signal
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError, ResetNeeded
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_envs import FaultyEnv, LookingCritic, ShadedEnv, SingleEnvs, SlowCritic, SlowEnv, as_singles
from wrapped_vector_envs import AUTORESETS, actions, build

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticConnectionError, SimulatorError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.wake_pipe import WakePipe
from vlac_gym.wrappers import ActionChunk as SingleChunk
from vlac_gym.wrappers import VLACRewardWrapper as SingleWrapper
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


def chunks(count: int, length: int) -> np.ndarray:
    return np.zeros((count, length, 7), np.float32)


def play_at_their_own_pace(env: Any, steps: int, min_ready: int, length: int | None) -> list[list[tuple]]:
    """`steps` steps of each env, in the form of `SingleEnvs.step`."""
    count = env.num_envs
    seen: list[list[tuple]] = [[] for _ in range(count)]
    sent, idle = [0] * count, [False] * count
    free = list(range(count))
    while True:
        for i in [i for i in free if idle[i]]:
            seen[i] += [("idle",)] * (steps - sent[i])
            sent[i] = steps
        free = [i for i in free if sent[i] < steps]
        if free:
            env.send(actions(len(free)) if length is None else chunks(len(free), length), free)
            for i in free:
                sent[i] += 1
        if sum(sent) == sum(map(len, seen)):
            return seen
        batch = env.recv(min_ready)
        free = batch.env_ids.tolist()
        rows = as_singles(batch[1:], [False] * len(free))
        for i, row in zip(free, rows, strict=True):
            seen[i].append(row)
            idle[i] = env.unwrapped.autoreset_mode.value == "Disabled" and (row[2] or row[3])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    autoreset=st.sampled_from(AUTORESETS),
    preset=st.sampled_from(["vlac", "vlac", "dense", "evolve", None]),
    interval=st.integers(1, 4),
    length=st.sampled_from([None, None, 3]),
    done_share=st.sampled_from([0.0, 0.2, 0.9]),
    delays_s=st.lists(st.sampled_from([0.0, 0.001, 0.003]), min_size=1, max_size=3),
    min_ready=st.integers(1, 4),
    window_s=st.sampled_from([0.0, 0.002]),
    takes_concurrent_calls=st.booleans(),
)
def test_n_envs_at_their_own_pace_equal_n_single_envs(
    lengths,
    autoreset,
    preset,
    interval,
    length,
    done_share,
    delays_s,
    min_ready,
    window_s,
    takes_concurrent_calls,
):
    fns = [
        partial(ShadedEnv, shade=i, max_episode_steps=n, success_steps=[2 + i]) for i, n in enumerate(lengths)
    ]
    rule = {
        "preset": preset,
        "done_interval": interval,
        "value_stride": 2,
        "milestone_interval": 2 * interval,
    }
    critic = SlowCritic(delays_s, done_share, takes_concurrent_calls=takes_concurrent_calls)
    vector: Any = RolloutVectorEnv(fns, mode="sync", autoreset_mode=autoreset)
    singles: list[Any] = [fn() for fn in fns]
    if preset is not None:
        vector = VLACRewardWrapper(vector, critic, ask_window_s=window_s, **rule)
        singles = [SingleWrapper(env, LookingCritic(done_share), **rule) for env in singles]
    if length is not None:
        vector = ActionChunk(vector, length)
        singles = [SingleChunk(env, length) for env in singles]
    expected = SingleEnvs(singles, autoreset)
    vector.reset(seed=5)
    expected.reset(seed=5)

    steps = 8
    seen = play_at_their_own_pace(vector, steps, min_ready, length)
    each = chunks(len(fns), length) if length is not None else actions(len(fns))
    wanted = [expected.step(each) for _ in range(steps)]
    # A single ActionChunk's info has its report too, as the vector one's has where it is plain.
    assert seen == [[rows[i] for rows in wanted] for i in range(len(fns))]
    assert max(critic.most_of.values(), default=0) <= 1
    assert takes_concurrent_calls or critic.most <= 1
    vector.close()


def test_an_env_that_is_ready_does_not_wait_for_a_slow_one():
    env = RolloutVectorEnv([partial(SlowEnv, 1.5), partial(ShadedEnv, shade=1)], envs_per_worker=1)
    try:
        env.reset(seed=0)
        env.send(actions(2), [0, 1])
        for _ in range(3):
            batch = env.recv()
            assert batch.env_ids.tolist() == [1]
            env.send(actions(1), [1])
        with pytest.raises(AlreadyPendingCallError, match=r"Steps of envs \[0\] are under way"):
            env.send(actions(1), [0])
        batch = env.recv(min_ready=2)
        assert batch.env_ids.tolist() == [0, 1]
        assert batch.observations["state"].ravel().tolist() == [1.0, 4.0]
        assert batch.infos["elapsed_steps"].tolist() == [1, 4]
        with pytest.raises(NoAsyncCallError, match="Nothing is under way"):
            env.recv()
        assert env.step(actions(2))[4]["elapsed_steps"].tolist() == [2, 5]
    finally:
        env.close()


def test_envs_of_one_worker_are_received_one_by_one():
    fns = [partial(ShadedEnv, shade=0), partial(SlowEnv, 1.0, shade=1)]
    env = RolloutVectorEnv(fns, envs_per_worker=2)
    try:
        env.reset(seed=0)
        env.send(actions(2), [0, 1])
        assert env.recv().env_ids.tolist() == [0]
        env.send(actions(1), [0])
        assert env.recv(min_ready=2).env_ids.tolist() == [0, 1]
    finally:
        env.close()


def test_questions_that_come_while_the_critic_is_busy_make_one_call():
    entered, leave = threading.Event(), threading.Event()

    class Held(LookingCritic):
        def success_prob(self, frames, tasks):
            entered.set()
            assert leave.wait(30.0)
            return super().success_prob(frames, tasks)

    critic = Held(0.0)
    env = build([partial(ShadedEnv, shade=i) for i in range(4)], critic, ask_window_s=0.0)
    env.reset(seed=0)
    env.send(actions(1), [2])
    assert env.recv(timeout_s=0.0).env_ids.tolist() == []
    assert entered.wait(30.0)
    env.send(actions(3), [0, 1, 3])
    for _ in range(3):
        assert env.recv(timeout_s=0.0).env_ids.tolist() == []
    leave.set()
    assert env.recv(min_ready=4).env_ids.tolist() == [0, 1, 2, 3]
    assert critic.calls == [("success_prob", 1), ("success_prob", 3)]


def test_an_env_goes_on_while_the_value_list_of_another_is_asked_for():
    critic = LookingCritic(0.0)
    env = build([partial(ShadedEnv, shade=i, max_episode_steps=n) for i, n in enumerate([1, 9])], critic)
    env.reset(seed=0)
    env.send(actions(2), [0, 1])
    assert env.recv().env_ids.tolist() == [1]
    assert critic.calls[0] == ("success_prob", 2)
    assert env.recv().env_ids.tolist() == [0]
    assert critic.calls == [("success_prob", 2), ("values", 1)]


class HeldLists(SlowCritic):
    """Gives no value list before `leave` is set; `entered` says that it was asked for one."""

    def __init__(self, **declared: Any) -> None:
        super().__init__([0.0], 0.0, **declared)
        self.entered, self.leave = threading.Event(), threading.Event()

    def values(self, episodes, tasks, references=None):
        self.entered.set()
        assert self.leave.wait(30.0)
        return super().values(episodes, tasks, references)


def held(critic: HeldLists, lengths: tuple[int, int] = (1, 9)) -> Any:
    """Two envs, of which the first has ended and waits for its value list."""
    fns = [partial(ShadedEnv, shade=i, max_episode_steps=n) for i, n in enumerate(lengths)]
    env = build(fns, critic, ask_window_s=0.0)
    env.reset(seed=0)
    env.send(actions(1), [0])
    while not critic.entered.is_set():
        assert env.recv(timeout_s=0.01).env_ids.tolist() == []
    assert critic.calls == [("success_prob", 1)]
    return env


def test_done_checks_are_answered_while_a_value_list_is_under_way():
    critic = HeldLists(takes_concurrent_calls=True)
    env = held(critic)
    for _ in range(3):
        env.send(actions(1), [1])
        assert env.recv(timeout_s=30.0).env_ids.tolist() == [1]
    critic.leave.set()
    assert env.recv().env_ids.tolist() == [0]
    assert critic.calls == [*[("success_prob", 1)] * 4, ("values", 1)]
    env.close()


def test_a_critic_that_takes_one_call_is_asked_nothing_else_meanwhile():
    critic = HeldLists(takes_concurrent_calls=False)
    env = held(critic)
    env.send(actions(1), [1])
    for _ in range(3):
        assert env.recv(timeout_s=0.01).env_ids.tolist() == []
    assert critic.calls == [("success_prob", 1)]
    critic.leave.set()
    assert env.recv(min_ready=2).env_ids.tolist() == [0, 1]
    assert critic.calls == [("success_prob", 1), ("values", 1), ("success_prob", 1)]
    env.close()


def test_a_critic_that_takes_one_call_is_always_asked_by_the_same_thread(monkeypatch):
    threads = set()
    ring = WakePipe.ring
    # The thread is still busy when the next call begins.
    monkeypatch.setattr(WakePipe, "ring", lambda pipe: (ring(pipe), time.sleep(0.01)))

    class Noting(LookingCritic):
        def _note(self, method, frames):
            threads.add(threading.current_thread().name)

    env = build([ShadedEnv], Noting(0.0), ask_window_s=0.0)
    env.reset(seed=0)
    for _ in range(5):
        env.send(actions(1), [0])
        env.recv()
    assert len(threads) == 1
    env.close()


def test_of_each_kind_one_call_is_under_way():
    critic = HeldLists(takes_concurrent_calls=True)
    env = held(critic, lengths=(1, 1))
    env.send(actions(1), [1])  # a done check at once, and then a list of its own, which waits
    while len(critic.calls) < 2:
        assert env.recv(timeout_s=0.01).env_ids.tolist() == []
    assert env.recv(timeout_s=0.01).env_ids.tolist() == []
    critic.leave.set()
    assert env.recv(min_ready=2).env_ids.tolist() == [0, 1]
    assert critic.calls == [("success_prob", 1)] * 2 + [("values", 1)] * 2
    env.close()


def test_an_error_beside_another_call_is_raised_when_that_has_returned():
    class Failing(HeldLists):
        def success_prob(self, frames, tasks):
            if self.entered.is_set() and not self.leave.is_set():
                threading.Timer(0.05, self.leave.set).start()
                raise CriticConnectionError("away")
            return super().success_prob(frames, tasks)

    critic = Failing(takes_concurrent_calls=True)
    env = held(critic)
    env.send(actions(1), [1])
    with pytest.raises(CriticConnectionError, match="away"):
        env.recv()
    assert critic.calls[-1] == ("values", 1)
    env.reset(seed=0)
    env.send(actions(2), [0, 1])
    assert env.recv(min_ready=2).infos["elapsed_steps"].tolist() == [1, 1]
    env.close()


def test_waiting_ends_when_another_thread_has_more_to_send():
    env = RolloutVectorEnv([partial(SlowEnv, 1.5), partial(ShadedEnv, shade=1)])
    try:
        env.reset(seed=0)
        env.send(actions(1), [0])
        threading.Timer(0.1, env.interrupt_recv).start()
        assert env.recv().env_ids.tolist() == []
        env.interrupt_recv()  # before it waits
        assert env.recv().env_ids.tolist() == []
        env.send(actions(1), [1])
        assert env.recv().env_ids.tolist() == [1]
        assert env.recv().env_ids.tolist() == [0]
    finally:
        env.close()


def test_episodes_are_given_up_to_switch_the_mode():
    env = build([ShadedEnv] * 2, LookingCritic(0.0), "Disabled")
    env.reset(seed=0)
    env.send(actions(1), [0])
    with pytest.raises(AlreadyPendingCallError):
        env.set_mode("eval", abandon=True)
    env.recv()
    with pytest.raises(ConfigError, match="while an episode is running"):
        env.set_mode("eval")
    env.set_mode("eval", abandon=True)
    with pytest.raises(ResetNeeded, match=r"Envs \[0\] have no episode"):
        env.send(actions(1), [0])
    env.send_reset([0])
    assert "critic" not in env.recv().infos


def test_a_start_can_be_chosen_for_each_episode():
    env = RolloutVectorEnv([partial(ShadedEnv, shade=i) for i in range(3)], mode="sync")
    env.send_reset([2, 0], seeds=[7, 7], options=[{"task_id": 4}, None])
    batch = env.recv(min_ready=2)
    assert batch.env_ids.tolist() == [0, 2]
    draw = ShadedEnv().reset(seed=7)[1]["draw"]
    assert batch.infos["draw"].tolist() == [draw, draw]
    assert batch.infos["options"]["task_id"].tolist() == [0, 4]
    env.send(actions(1), [2])
    assert env.recv().infos["elapsed_steps"].tolist() == [1]
    with pytest.raises(ResetNeeded, match=r"Envs \[1\] have no episode"):
        env.send(actions(1), [1])


def test_a_privileged_critic_draws_by_the_episodes_number_wherever_it_is_played():
    def probs(env_id: int) -> list[float]:
        fns = [partial(ScriptedEnv, goal_progress=[0.5], success_steps=range(1, 9))] * 2
        env = build(fns, "noisy_oracle:tpr=0.5,fpr=0.5", "Disabled", done_threshold=1.0)
        env.send_reset([env_id], episode_ids=[11])
        env.recv()
        seen = []
        for _ in range(6):
            env.send(actions(1), [env_id])
            batch = env.recv()
            seen.append(float(batch.infos["critic"]["success_prob"][0]))
            if batch.terminations[0]:
                break
        return seen

    assert probs(0) == probs(1)


def test_killed_worker_loses_its_episode_and_the_others_go_on():
    env = RolloutVectorEnv(
        [partial(FaultyEnv, "die", at_step=2), partial(ShadedEnv, shade=1)], autoreset_mode="SameStep"
    )
    try:
        env.reset(seed=0)
        env.send(actions(2), [0, 1])
        while not (batch := env.recv()).infos["lost"].any():
            env.send(actions(len(batch.env_ids)), batch.env_ids)
        row = batch.env_ids.tolist().index(0)
        assert batch.infos["lost"][row]
        assert batch.infos["final_info"]["lost_reason"][row] == "the worker process died with exit code 7"
        assert batch.observations["state"][row].tolist() == [0.0]
    finally:
        env.close()


def test_worker_killed_between_steps_is_noticed_at_the_next():
    env = RolloutVectorEnv([ShadedEnv, partial(ShadedEnv, shade=1)], autoreset_mode="Disabled")
    try:
        env.reset(seed=0)
        os.kill(env.worker_pids[0], signal.SIGKILL)
        env.send(actions(2), [0, 1])
        batch = env.recv(min_ready=2)
        assert batch.infos["lost"].tolist() == [True, False]
        with pytest.raises(ConfigError, match=r"Expected running episodes, got envs \[0\]"):
            env.send(actions(1), [0])
        env.send_reset([0])
        env.send(actions(1), [1])
        assert env.recv(min_ready=2).infos["elapsed_steps"].tolist() == [0, 2]
    finally:
        env.close()


def test_raised_critic_error_needs_a_reset():
    critic = ScriptedCritic([CriticConnectionError("away"), 0.1, 0.1])
    env = build([ShadedEnv] * 2, critic)
    env.reset(seed=0)
    env.send(actions(2), [0, 1])
    with pytest.raises(CriticConnectionError, match="away"):
        env.recv()
    with pytest.raises(ResetNeeded, match=r"Envs \[0, 1\] have no episode"):
        env.send(actions(2), [0, 1])
    env.reset(seed=0)
    env.send(actions(2), [0, 1])
    assert env.recv(min_ready=2).infos["elapsed_steps"].tolist() == [1, 1]


def test_a_bug_in_an_env_is_raised_and_a_reset_brings_order():
    fns = [partial(FaultyEnv, "bug", at_step=1), partial(SlowEnv, 0.3, shade=1)]
    env = RolloutVectorEnv(fns)
    try:
        env.reset(seed=0)
        env.send(actions(2), [0, 1])
        with pytest.raises(SimulatorError, match="Env 0 raised KeyError: 'a bug'"):
            env.recv(min_ready=2)
        observations, _ = env.reset(seed=0)  # the slow env's old reply is dropped
        assert observations["state"].ravel().tolist() == [0.0, 0.0]
        env.send(actions(1), [1])
        assert env.recv().infos["elapsed_steps"].tolist() == [1]
    finally:
        env.close()


def test_step_and_reset_refuse_while_envs_are_under_way_or_not_received():
    env = build([ShadedEnv] * 2, LookingCritic(0.0), mode="eval")
    env.reset(seed=0)
    env.send(actions(2), [0, 1])
    for expected in ([0], [1]):
        for refused in (
            lambda: env.step(actions(2)),
            lambda: env.reset(seed=0),
            lambda: env.set_mode("train"),
        ):
            with pytest.raises(AlreadyPendingCallError):
                refused()
        assert env.recv().env_ids.tolist() == expected
    env.step_async(actions(2))
    with pytest.raises(AlreadyPendingCallError):
        env.send(actions(1), [0])
    assert env.step_wait()[4]["elapsed_steps"].tolist() == [2, 2]


@pytest.mark.parametrize("ids", [[], [2], [-1], [0, 0], [0.5], 0])
def test_unknown_envs_are_refused(ids):
    env = RolloutVectorEnv([ShadedEnv] * 2, mode="sync")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"Expected env_ids as different ints in 0\.\.1"):
        env.send(actions(1), ids)


def test_wrong_actions_and_starts_move_nothing():
    env = ActionChunk(RolloutVectorEnv([ShadedEnv] * 3, mode="sync"), 2)
    env.reset(seed=0)
    for bad in (chunks(1, 2), chunks(2, 3), chunks(2, 2) * np.nan):
        with pytest.raises(ConfigError):
            env.send(bad, [0, 2])
    with pytest.raises(ConfigError, match="Expected 2 seeds, one per env, got 1"):
        env.send_reset([0, 1], seeds=[1])
    with pytest.raises(ConfigError, match="min_ready >= 1"):
        env.recv(min_ready=0)
    assert env.unwrapped.get_attr("num_steps") == (0, 0, 0)


@pytest.mark.parametrize("bad", [0.5, None, "left", actions(1)[0], actions(2)[:, :-1]])
def test_actions_of_another_shape_are_refused_as_by_step(bad):
    env = RolloutVectorEnv([ShadedEnv] * 2, mode="sync")
    env.reset(seed=0)
    shape = ", ".join(str(n) for n in actions(2).shape)
    for give in (env.step, lambda given: env.send(given, [0, 1])):
        with pytest.raises(ConfigError, match=rf"Expected actions of shape \({shape}\), got .*nothing moved"):
            give(bad)


def test_envs_that_step_all_at_once_are_refused():
    plain = VLACRewardWrapper(
        SyncVectorEnv([ScriptedEnv] * 2), LookingCritic(0.0), on_sim_terminated="truncate"
    )
    plain.reset(seed=0)
    with pytest.raises(ConfigError, match="Expected a RolloutVectorEnv for send and recv"):
        plain.send(actions(1), [0])


def test_closing_waits_for_the_critics_call_and_leaves_no_thread():
    before = threading.active_count()
    env = build([ShadedEnv], SlowCritic([0.05], 0.0))
    env.reset(seed=0)
    env.send(actions(1), [0])
    env.recv(timeout_s=0.0)
    env.close()
    assert threading.active_count() == before
