"""One policy for a failing critic in every adapter's common layer, with real servers that are killed and hang."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serve_process import ServeProcess, serving

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import AdapterSettings, parse_settings
from verl_env_adapter.verl.action_text import DecodedChunk
from verl_env_adapter.verl.async_envs import AsyncEnvs
from verl_env_adapter.verl.episode import DialoguePlan, play_episode, reward_extra_info
from vlac_gym.errors import CircuitBreakerError, ConfigError

CRITIC = "random:done_rate=0"
LIMIT = 4


@pytest.fixture(scope="module")
def processes() -> Iterator[list[ServeProcess]]:
    """Two servers of one critic, and one of another."""
    with serving(CRITIC, CRITIC, f"{CRITIC},seed=1") as servers:
        yield servers


@pytest.fixture
def servers(processes) -> list[ServeProcess]:
    """They all answer when a test begins."""
    for server in processes:
        server.restore()
    return processes


def block(spec: str, **on_error: Any) -> dict[str, Any]:
    """A step limit of 4, chunks of 2; one attempt of half a second where the critic is a server."""
    critic: dict[str, Any] = {"spec": spec, "on_error": on_error or "raise"}
    if spec.startswith("http"):
        critic |= {"timeout_s": 0.5, "max_attempts": 1}
    return {
        "env": {"id": "scripted_ids:Scripted-v0", "chunk": 2, "max_episode_steps": LIMIT},
        "critic": critic,
        "rule": {"preset": "dense"},
        "placement": {"envs_per_worker": 2},
    }


def settings(spec: str, **on_error: Any) -> AdapterSettings:
    return parse_settings(block(spec, **on_error))


def rewards(pool: EnvPool, before_last: Any = lambda: None) -> list[list[float]]:
    """What one episode of each env pays."""
    pool.reset(mode="train", options=[{"seed": i} for i in range(pool.num_envs)])
    first = pool.step_chunk(np.zeros((pool.num_envs, 2, 7), np.float32))
    before_last()
    last = pool.step_chunk(np.zeros((pool.num_envs, 2, 7), np.float32))
    return np.concatenate([first.rewards, last.rewards], axis=1).tolist()


def test_a_pool_goes_on_with_the_fallback(servers):
    one, two, _ = servers
    expected = rewards(EnvPool(settings(CRITIC), 2))
    pool = EnvPool(settings(one.url, fallbacks=[two.url]), 2)
    assert rewards(pool, one.hang) == expected
    report = pool.reports()[0]
    assert report.critic_counters["critic/failovers"] == 1
    assert report.critic_failed is False
    pool.close()


def test_a_pool_marks_what_it_cut_and_stops_at_the_limit(servers):
    one = servers[0]
    pool = EnvPool(settings(one.url, then="truncate", max_consecutive_failed_episodes=3), 2)
    pool.reset(mode="train")
    one.hang()
    batch = pool.step_chunk(np.zeros((2, 2, 7), np.float32))
    assert batch.critic_failed.tolist() == [True, True]
    assert batch.rewards.tolist() == [[0.0, 0.0]] * 2
    assert batch.truncated.tolist() == [[True, True]] * 2
    pool.reset([0], mode="train")
    with pytest.raises(CircuitBreakerError, match="3 episodes in a row failed"):
        pool.step_chunk(np.zeros((1, 2, 7), np.float32), [0])
    one.restore()
    with pytest.raises(CircuitBreakerError, match="3 episodes in a row failed"):
        pool.reset(mode="train")
    pool.reset(mode="eval")
    pool.close()


class _NoOps:
    """An action tokenizer whose every reply is a chunk of rest."""

    def decode(self, reply: str) -> Any:
        return DecodedChunk(np.zeros((2, 7), np.float32), is_malformed=False)


async def ask(report: Any) -> str:
    return "rest"


def play_for_verl(envs: AsyncEnvs, count: int) -> list[Any]:
    """What verl's worker gets of each episode: its result or its exception."""

    async def one(seed: int) -> Any:
        async with envs.lend() as env:
            return await play_episode(env, DialoguePlan(mode="train", seed=seed), ask, _NoOps())

    async def every() -> list[Any]:
        return await asyncio.gather(*(one(i) for i in range(count)), return_exceptions=True)

    return asyncio.run(every())


def pool_here(block: AdapterSettings) -> AsyncEnvs:
    return AsyncEnvs(block, lambda: EnvPool(block, 2))


def test_verls_episodes_carry_the_mask_and_the_counts(servers):
    one, two, _ = servers
    one.hang()
    envs = pool_here(settings(one.url, then="truncate", fallbacks=[two.url], allow_other_critic=True))
    (result,) = play_for_verl(envs, 1)
    info = reward_extra_info(result)
    assert (info["critic_failed"], info["critic_failovers"], info["env_steps"]) == (0.0, 1.0, 4.0)
    two.hang()
    envs.close()
    envs = pool_here(settings(one.url, then="truncate"))
    (result,) = play_for_verl(envs, 1)
    info = reward_extra_info(result)
    assert (info["critic_failed"], info["truncated"], info["env_reward"]) == (1.0, 1.0, 0.0)
    envs.close()


def test_verls_next_episodes_are_refused_once_too_many_failed(servers):
    one = servers[0]
    one.hang()
    envs = pool_here(settings(one.url, max_consecutive_failed_episodes=2))
    results = play_for_verl(envs, 6)
    assert sum(isinstance(result, CircuitBreakerError) for result in results) >= 4
    one.restore()
    (result,) = play_for_verl(envs, 1)
    assert isinstance(result, CircuitBreakerError)
    envs.close()


def rlinf_env(spec: str, **on_error: Any) -> Any:
    pytest.importorskip("torch")
    from verl_env_adapter.rlinf.env import RolloutEnv

    config = {
        "env_type": "libero",
        "task_suite_name": "vlac_gym",
        "auto_reset": False,
        "max_episode_steps": LIMIT,
        "is_eval": False,
        "seed": 0,
        "vlac_gym": block(spec, **on_error),
    }
    env = RolloutEnv(config, 2, 0, 1, processes="sync")
    env.reset()
    return env


def test_rlinf_goes_on_with_the_fallback_and_logs_it(servers):
    one, two, _ = servers
    chunk = np.zeros((2, 2, 7), np.float32)
    here = rlinf_env(CRITIC)
    env = rlinf_env(one.url, fallbacks=[two.url])
    assert env.chunk_step(chunk)[1].tolist() == here.chunk_step(chunk)[1].tolist()
    one.hang()
    _, paid, _, _, infos = env.chunk_step(chunk)
    assert paid.tolist() == here.chunk_step(chunk)[1].tolist()
    metrics = infos[-1]["episode"]
    assert metrics["critic_failovers"].tolist() == [1.0, 1.0]
    assert metrics["critic_failed"].tolist() == [0.0, 0.0]
    env.close()


def test_rlinf_is_stopped_by_an_absent_critic(servers):
    one = servers[0]
    env = rlinf_env(one.url, then="truncate", max_consecutive_failed_episodes=2)
    one.hang()
    with pytest.raises(CircuitBreakerError, match="The run stops here"):
        env.chunk_step(np.zeros((2, 2, 7), np.float32))
    env.close()


def test_another_critic_is_refused_before_the_first_step(servers):
    one, _, other = servers
    pool = EnvPool(settings(one.url, fallbacks=[other.url]), 1)
    with pytest.raises(ConfigError, match="to be the critic of fingerprint"):
        pool.reset(mode="train")
    pool.close()
