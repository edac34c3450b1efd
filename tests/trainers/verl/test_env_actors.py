"""Envs as Ray actors on nodes with a resource: the same reports, and errors instead of waiting."""

import asyncio

import numpy as np
import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("default"),  # Ray's own warnings are not ours to mend.
]

ray = pytest.importorskip("ray")


def settings(resource: str, **placement):
    from verl_env_adapter.common.settings import parse_settings

    return parse_settings(
        {
            "env": {"id": "scripted_ids:Scripted-v0", "chunk": 4, "max_episode_steps": 6},
            "critic": {"spec": "scripted:0.1"},
            "placement": {"env_resource": resource, **placement},
        }
    )


@pytest.fixture(scope="module")
def cluster(start_ray):
    start_ray(num_cpus=4, resources={"sim": 1})
    yield
    ray.shutdown()


def test_actor_on_the_named_resource_plays_an_episode(cluster):
    from verl_env_adapter.verl.async_envs import AsyncEnvs

    async def play():
        envs = AsyncEnvs(settings("sim"))
        async with envs.lend() as env:
            await env.reset(mode="train", seed=0)
            reports = [await env.step_chunk(np.zeros((4, 7), np.float32)) for _ in range(3)]
        envs.close()
        return reports

    reports = asyncio.run(play())
    assert [report.rewards.tolist() for report in reports] == [[0.0] * 4, [0.0, 0.5], []]
    assert [report.episode_steps for report in reports] == [4, 6, 6]


def test_actor_that_dies_costs_its_episode_and_is_replaced_at_the_reset(cluster):
    from verl_env_adapter.verl.async_envs import AsyncEnvs
    from vlac_gym.errors import AdapterContractError, SimulatorError

    async def play():
        envs = AsyncEnvs(settings("sim", envs_per_worker=1))
        chunk = np.zeros((4, 7), np.float32)
        try:
            async with envs.lend() as env:
                with pytest.raises(AdapterContractError, match=r"Call reset\."):
                    await env.step_chunk(chunk)
                await env.reset(mode="train", seed=0)
                ray.kill(envs._pool.envs.env._executor._workers[0]._actor)
                with pytest.raises(SimulatorError, match="the actor died"):
                    await env.step_chunk(chunk)
                await env.reset(mode="train", seed=0)
                return await env.step_chunk(chunk)
        finally:
            envs.close()

    assert asyncio.run(play()).episode_steps == 4


def test_resource_that_no_node_has_is_an_error_not_a_wait(cluster):
    from verl_env_adapter.verl.async_envs import AsyncEnvs
    from vlac_gym.errors import SimulatorError

    async def play():
        async with AsyncEnvs(settings("moon", start_timeout_s=2)).lend() as env:
            await env.reset(mode="train", seed=0)

    with pytest.raises(SimulatorError, match="Has a node the resource 'moon'"):
        asyncio.run(play())
