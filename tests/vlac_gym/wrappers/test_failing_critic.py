"""Episodes judged by real critic servers that are killed, hang and come back, for one env and for N.

The servers' critic draws its answers from the frames, which name episode and step: a lost, doubled or invented answer
shows in the rewards, which are compared with those of the same critic in this process.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import own_critics
import pytest
from serve_process import ServeProcess, serving
from vector_envs import ShadedEnv

from vlac_gym.critic import CriticFailurePolicy, CriticWrapper
from vlac_gym.critic.failover import FailoverCritic
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.errors import CircuitBreakerError, ConfigError, CriticConnectionError, CriticTimeoutError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers import VLACRewardWrapper as SingleWrapper
from vlac_gym.wrappers.vector import VLACRewardWrapper

CRITIC = "random:done_rate=0"
STEPS = 4
ACTION = np.zeros(7, np.float32)


@pytest.fixture(scope="module")
def processes() -> Iterator[list[ServeProcess]]:
    """Two servers of the same critic, and one of another."""
    with serving(CRITIC, CRITIC, f"{CRITIC},seed=1") as servers:
        yield servers


@pytest.fixture
def servers(processes) -> Iterator[list[ServeProcess]]:
    """They all answer when a test begins."""
    for server in processes:
        server.restore()
    return processes


def spec(server: ServeProcess) -> str:
    """Gives up after one attempt of half a second, so that the tests are quick."""
    return f"{server.url}?timeout_s=0.5,max_attempts=1"


def single(critic: Any, **policy: Any) -> SingleWrapper:
    env = ShadedEnv(max_episode_steps=STEPS)
    return SingleWrapper(env, critic, preset="dense", on_critic_error=CriticFailurePolicy(**policy))


def vector(critic: Any, **policy: Any) -> VLACRewardWrapper:
    env_fns = [partial(ShadedEnv, shade, max_episode_steps=STEPS) for shade in (3, 6)]
    env = RolloutVectorEnv(env_fns, mode="sync", autoreset_mode="Disabled")
    return VLACRewardWrapper(env, critic, preset="dense", on_critic_error=CriticFailurePolicy(**policy))


def play(env: Any, before: dict[int, Callable[[], None]] | None = None) -> list[tuple[float, dict[str, Any]]]:
    """One episode; `before` says what to do before a step, 1 being the first."""
    env.reset(seed=0)
    history = []
    for step in range(1, STEPS + 1):
        (before or {}).get(step, lambda: None)()
        _, reward, terminated, truncated, info = env.step(ACTION)
        history.append((float(reward), info["critic"]))
        if terminated or truncated:
            break
    return history


def play_all(
    env: VLACRewardWrapper, before: dict[int, Callable[[], None]], *, ready_first: bool
) -> np.ndarray:
    """One episode of each env, in lockstep or each at its own pace; rewards (STEPS, N)."""
    env.reset(seed=0)
    actions, rewards = np.zeros((2, 7), np.float32), []
    for step in range(1, STEPS + 1):
        before.get(step, lambda: None)()
        if ready_first:
            env.send(actions, [0, 1])
            rewards.append(env.recv(min_ready=2).rewards)
        else:
            rewards.append(env.step(actions)[1])
    return np.array(rewards)


def test_a_killed_server_costs_nothing_and_comes_back(servers):
    one, two, _ = servers
    expected = single(CRITIC)
    env = single(spec(one), fallbacks=[spec(two)], failback_s=0.05)
    assert play(env, {3: one.kill}) == play(expected)
    assert env.critic_counters["critic/failovers"] == 1
    one.restore()
    while env.critic_counters["critic/failbacks"] == 0:
        assert play(env) == play(expected)
    two.kill()
    assert play(env) == play(expected)
    assert env.critic_counters | {"critic/failbacks": 1} == {
        "critic/failed_episodes": 0,
        "critic/retries": 0,
        "critic/failovers": 1,
        "critic/failbacks": 1,
    }
    env.close()


@pytest.mark.parametrize("ready_first", [False, True])
def test_a_server_that_hangs_costs_a_deadline_and_no_episode(servers, ready_first):
    one, two, _ = servers
    expected = play_all(vector(CRITIC), {}, ready_first=ready_first)
    assert len(np.unique(expected)) == 2 * STEPS
    env = vector(spec(one), fallbacks=[spec(two)])
    assert (play_all(env, {2: one.hang}, ready_first=ready_first) == expected).all()
    assert (env.critic_counters["critic/failovers"], env.critic_failures) == (1, 0)
    env.close()


def test_a_lost_question_is_asked_again_until_the_server_is_back(servers):
    one = servers[0]
    env = single(f"{one.url}?max_attempts=1", retries=8)
    restarts: list[Any] = []

    def kill_for_a_second() -> None:
        one.kill()
        one.begin()  # loads meanwhile
        restarts.append(one)

    assert play(env, {2: kill_for_a_second}) == play(single(CRITIC))
    restarts[0].ready()
    assert env.critic_counters["critic/retries"] > 0
    env.close()


def test_episodes_without_a_critic_are_masked_until_it_is_back(servers):
    one = servers[0]
    env = single(spec(one), then="truncate", max_consecutive_failed_episodes=3)
    (_, told), (reward, failed) = play(env, {2: one.kill})
    assert (told["checked"], reward, failed["failed"], failed["stopped_by"]) == (
        True,
        0.0,
        True,
        "critic_error",
    )
    assert play(env)[0][1]["failed"] is True
    assert env.critic_counters["critic/failed_episodes"] == 2
    one.restore()
    assert [reward for reward, _ in play(env)] == [reward for reward, _ in play_third(single(CRITIC))]
    one.kill()
    play(env)
    play(env)
    env.reset(seed=0)
    with pytest.raises(CircuitBreakerError, match=rf"3 episodes in a row failed.*{one.url}"):
        env.step(ACTION)
    one.restore()
    with pytest.raises(CircuitBreakerError, match="3 episodes in a row failed"):
        env.reset(seed=0)
    env.set_mode("eval")
    env.reset(seed=0)  # the simulator judges, as ever
    env.close()


def play_third(env: SingleWrapper) -> list[tuple[float, dict[str, Any]]]:
    for _ in range(2):
        play(env)
    return play(env)


@pytest.mark.parametrize("ready_first", [False, True])
@pytest.mark.parametrize("then", ["raise", "truncate"])
def test_an_absent_critic_stops_the_run_of_many_envs(servers, ready_first, then):
    one = servers[0]
    env = vector(spec(one), then=then, max_consecutive_failed_episodes=2)
    with pytest.raises(CircuitBreakerError, match="2 episodes in a row failed"):
        play_all(env, {2: one.hang}, ready_first=ready_first)
    with pytest.raises(CircuitBreakerError, match="2 episodes in a row failed"):
        env.reset(seed=0)
    env.close()


def test_a_critic_that_never_answers_stops_the_run_at_a_reset():
    env = single("http://127.0.0.1:1?max_attempts=1", then="truncate", max_silence_s=0.1)
    env.reset(seed=0)
    time.sleep(0.1)
    with pytest.raises(CircuitBreakerError, match=r"no usable answer for \d+ s \(max_silence_s=0\.1\)"):
        env.reset(seed=0)
    env.close()


def test_silence_ends_with_an_answer():
    critic = ScriptedCritic(success_probs=[CriticConnectionError("a"), 0.95, CriticConnectionError("b")])
    env = single(critic, then="truncate", max_silence_s=0.1)
    play(env)
    assert play(env)[0][0] == 1.0
    time.sleep(0.11)
    assert play(env)[0][1]["failed"] is True


def test_a_fallback_that_was_built_here_is_closed_and_a_critic_that_was_given_is_not():
    class Closing(ScriptedCritic):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    critic = Closing(success_probs=[CriticConnectionError("gone")])
    env = single(critic, fallbacks=["own_critics:closing"], allow_other_critic=True)
    assert play(env)[0][0] == 1.0
    env.close()
    assert (critic.is_closed, own_critics.closed) == (False, 1)


def test_a_critic_given_with_fallbacks_of_its_own_keeps_them_and_is_counted_inside_another():
    now = [0.0]
    first = ScriptedCritic(success_probs=[CriticConnectionError("gone"), 0.95])
    policy = CriticFailurePolicy(fallbacks=["own_critics:closing"], allow_other_critic=True, failback_s=1.0)
    critic = FailoverCritic(first, policy, clock=lambda: now[0])
    closed = own_critics.closed
    env = SingleWrapper(ShadedEnv(max_episode_steps=STEPS), critic)
    assert play(env)[0][0] == 1.0  # the fallback's
    env.close()
    assert own_critics.closed == closed
    now[0] = 1.0
    env = SingleWrapper(ShadedEnv(max_episode_steps=STEPS), CriticWrapper(critic))
    while critic.failbacks == 0:
        play(env)
    counters = env.critic_counters
    assert (counters["critic/failovers"], counters["critic/failbacks"]) == (1, 1)


def test_failures_that_are_raised_count_though_somebody_goes_on(servers):
    one = servers[0]
    env = single(spec(one), max_consecutive_failed_episodes=2)
    with pytest.raises(CriticTimeoutError):
        play(env, {1: one.hang})
    with pytest.raises(CircuitBreakerError, match="2 episodes in a row failed"):
        play(env)
    env.close()


def test_another_critic_is_no_fallback_unless_that_is_said(servers):
    one, _, other = servers
    env = single(spec(one), fallbacks=[spec(other)])
    with pytest.raises(
        ConfigError, match=rf"Expected fallback {other.url}.* to be the critic of fingerprint"
    ):
        env.reset(seed=0)
    env.close()
    env = single(spec(one), fallbacks=[spec(other)], allow_other_critic=True)
    history = play(env, {3: one.kill})
    assert history[:2] == play(single(CRITIC))[:2]
    assert history[2][0] != play(single(CRITIC))[2][0]
    env.close()
