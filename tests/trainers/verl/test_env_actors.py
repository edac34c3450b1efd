"""Envs as Ray actors on nodes with a resource: the same reports, and errors instead of waiting."""

import asyncio
from functools import partial

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


def play(env, num_steps, at_their_own_pace):
    """What each env of a SAME_STEP vector env returns in its first steps, as comparable rows."""
    actions = np.zeros((env.num_envs, 7), np.float32)
    rows = {i: [] for i in range(env.num_envs)}
    env.reset(seed=3)
    if at_their_own_pace:
        env.send(actions, list(rows))
    while min(map(len, rows.values())) < num_steps:
        ids = list(rows)
        if at_their_own_pace:
            ids, *step = env.recv()
        else:
            step = env.step(actions)
        observations, rewards, terminations, truncations, infos = step
        for k, i in enumerate(ids):
            state = observations["state"][k].tolist()
            rows[i].append((state, rewards[k], terminations[k], truncations[k], infos["lost"][k]))
        again = [i for i in ids if len(rows[i]) < num_steps]
        if at_their_own_pace and again:
            env.send(actions[: len(again)], again)
    return rows


def test_actors_at_their_own_pace_return_what_envs_in_this_process_do(cluster):
    from vector_envs import LookingCritic, ShadedEnv

    from verl_env_adapter.common.ray_executor import ray_executor
    from vlac_gym.vector import RolloutVectorEnv
    from vlac_gym.wrappers.vector import VLACRewardWrapper

    fns = [partial(ShadedEnv, shade=i, max_episode_steps=3 + i) for i in range(3)]
    played = []
    for mode, at_their_own_pace in ((partial(ray_executor, resource="sim"), True), ("sync", False)):
        envs = RolloutVectorEnv(fns, mode=mode, autoreset_mode="SameStep")
        env = VLACRewardWrapper(envs, LookingCritic(0.2), value_stride=2)
        played.append(play(env, 9, at_their_own_pace))
        env.close()
    assert played[0] == played[1]
    assert any(row[2] for rows in played[0].values() for row in rows)  # the critic ended some


def test_actor_that_is_ready_does_not_wait_for_a_slow_one(cluster):
    from vector_envs import ShadedEnv, SlowEnv

    from verl_env_adapter.common.ray_executor import ray_executor
    from vlac_gym.vector import RolloutVectorEnv

    fns = [partial(SlowEnv, 3.0), partial(ShadedEnv, shade=1)]
    env = RolloutVectorEnv(fns, mode=partial(ray_executor, resource="sim"), autoreset_mode="Disabled")
    actions = np.zeros((2, 7), np.float32)
    try:
        env.reset(seed=0)
        env.send(actions, [0, 1])
        for _ in range(3):
            assert env.recv().env_ids.tolist() == [1]
            env.send(actions[:1], [1])
        assert env.recv(min_ready=2).infos["elapsed_steps"].tolist() == [1, 4]
        ray.kill(env._executor._workers[0]._actor)
        env.send(actions, [0, 1])
        assert env.recv(min_ready=2).infos["lost"].tolist() == [True, False]
        env.send_reset([0], seeds=[0])
        env.send(actions[:1], [1])
        assert env.recv(min_ready=2).infos["elapsed_steps"].tolist() == [0, 6]
        env.send(actions[:1], [0])
        env.interrupt_recv()
        assert env.recv().env_ids.tolist() == []
        assert env.recv().env_ids.tolist() == [0]
    finally:
        env.close()
