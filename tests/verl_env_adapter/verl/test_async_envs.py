"""Envs lent to coroutines: none waits for another, each episode is its own; processes that die or hang."""

import asyncio
import contextlib
import os
import signal

import numpy as np
import pytest

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import parse_settings
from verl_env_adapter.verl.async_envs import AsyncEnvs, shared_envs
from vlac_gym.errors import AdapterContractError, ConfigError, CriticResponseError, SimulatorError

CHUNK = np.zeros((4, 7), np.float32)


def settings(count=4, *, spec="scripted:0.1", limit=6, env_id="scripted_ids:Scripted-v0", **placement):
    return parse_settings(
        {
            "env": {"id": env_id, "chunk": 4, "max_episode_steps": limit},
            "critic": {"spec": spec, "ask_window_s": 5.0},  # together however busy the machine is
            "placement": {"envs_per_worker": count, **placement},
        }
    )


def here(block):
    """Envs in this process."""
    return AsyncEnvs(block, lambda: EnvPool(block, block.placement.envs_per_worker))


def run(scenario, envs):
    async def play():
        try:
            return await asyncio.wait_for(scenario, 60)
        finally:
            envs.close()

    return asyncio.run(play())


async def episode(envs, *, mode="train", task_id=None, seed=0):
    """One whole episode; the reports."""
    async with envs.lend(task_id) as env:
        reports = [await env.reset(mode=mode, seed=seed)]
        while not reports[-1].is_over:
            reports.append(await env.step_chunk(CHUNK))
    return reports


def asked(envs):
    return [(call.method, call.count) for call in envs._pool.envs.critic.calls]


async def lent(envs, count, stack, mode="train"):
    """Envs in a fresh episode each."""
    every = [await stack.enter_async_context(envs.lend()) for _ in range(count)]
    await asyncio.gather(*(env.reset(mode=mode, seed=i) for i, env in enumerate(every)))
    return every


def test_envs_that_step_at_once_cause_one_question_together():
    envs = here(settings(4))

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            every = await lent(envs, 4, stack)
            played = [await asyncio.gather(*(env.step_chunk(CHUNK) for env in every)) for _ in range(2)]
        return played, asked(envs)

    played, questions = run(scenario(), envs)
    assert [[report.rewards.tolist() for report in reports] for reports in played] == [
        [[0.0] * 4] * 4,
        [[0.0, 0.5]] * 4,
    ]
    # Asked at the steps 1 to 6, and for each value list at the limit.
    assert questions[:6] == [("success_prob", 4)] * 6
    assert {method for method, _ in questions[6:]} == {"value"}


def test_env_that_is_late_does_not_hold_up_the_others():
    envs = here(settings(2, limit=100))

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            quick, slow = await lent(envs, 2, stack)
            reports = [await quick.step_chunk(CHUNK) for _ in range(2)]
            return reports[-1].episode_steps, (await slow.step_chunk(CHUNK)).episode_steps

    assert run(scenario(), envs) == (8, 4)


def test_env_that_hangs_does_not_hold_up_the_others():
    envs = AsyncEnvs(settings(3, limit=100))

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            slow, quick, fresh = await lent(envs, 3, stack, mode="eval")
            pid = envs._pool.envs.env.worker_pids[slow._env_id]
            os.kill(pid, signal.SIGSTOP)
            stepping = asyncio.create_task(slow.step_chunk(CHUNK))
            reports = [await quick.step_chunk(CHUNK), await fresh.reset(mode="eval", seed=1)]
            reports.append(await quick.step_chunk(CHUNK))
            assert not stepping.done()
            os.kill(pid, signal.SIGCONT)
            return [report.episode_steps for report in (*reports, await stepping)]

    assert run(scenario(), envs) == [4, 0, 8, 4]


def test_chunks_of_different_lengths_are_each_executed_whole():
    envs = here(settings(2, limit=100))

    async def scenario():
        async with envs.lend() as one, envs.lend() as other:
            await asyncio.gather(one.reset(mode="train"), other.reset(mode="train"))
            reports = await asyncio.gather(one.step_chunk(CHUNK[:1]), other.step_chunk(CHUNK))
            return [report.episode_steps for report in reports]

    assert run(scenario(), envs) == [1, 4]


def test_more_episodes_than_envs_wait_for_one():
    envs = here(settings(2))

    async def scenario():
        return await asyncio.gather(*(episode(envs, seed=i) for i in range(5)))

    played = run(scenario(), envs)
    assert [reports[-1].episode_return for reports in played] == [0.5] * 5


def test_env_with_the_task_compiled_is_preferred():
    envs = here(settings(2))

    async def scenario():
        async with envs.lend(0) as first, envs.lend(1):
            pass
        # The second came back first, so that it would be the next one without a preference.
        async with envs.lend(0) as again:
            return again._env_id == first._env_id

    assert run(scenario(), envs)


def test_episode_in_the_other_mode_waits_for_those_that_run():
    envs = here(settings(2, spec="scripted:0.1", limit=8))
    order = []

    async def trained():
        reports = await episode(envs)
        order.append("trained")
        return reports

    async def scenario():
        async with envs.lend() as env:
            await env.reset(mode="train")
            await env.step_chunk(CHUNK)  # given back before its end: nobody waits for it
        training = asyncio.create_task(trained())
        await asyncio.sleep(0)
        evaluated = await episode(envs, mode="eval")
        order.append("evaluated")
        return await training, evaluated

    training, evaluated = run(scenario(), envs)
    assert order == ["trained", "evaluated"]
    assert training[-1].episode_return == 0.5
    assert "critic" in training[-1].info
    assert (evaluated[-1].episode_return, evaluated[-1].truncated) == (0.0, True)
    assert "critic" not in evaluated[-1].info


def test_error_reaches_the_episode_that_it_concerns():
    envs = here(settings(3, spec="scripted:0.1,2,0.1", limit=100))

    async def scenario():
        async with envs.lend() as a, envs.lend() as b, envs.lend() as c:
            every = (a, b, c)
            await asyncio.gather(*(env.reset(mode="train") for env in every))
            first = await asyncio.gather(
                *(env.step_chunk(CHUNK[:1]) for env in every), return_exceptions=True
            )
            chunks = (CHUNK[:, :6], CHUNK[:1], np.full_like(CHUNK, np.nan))
            refused = await asyncio.gather(
                *(env.step_chunk(chunk) for env, chunk in zip(every, chunks)), return_exceptions=True
            )
            with pytest.raises(ConfigError, match="are LIBERO's"):
                await a.reset(mode="train", task_id=1)
            return first, refused

    (first, broken, third), refused = run(scenario(), envs)
    assert (first.episode_steps, third.episode_steps) == (1, 1)
    assert isinstance(broken, CriticResponseError)
    assert [type(error) for error in refused] == [AdapterContractError] * 3
    assert [text in str(error) for text, error in zip(("shape", "Call reset", "finite"), refused)] == [
        True
    ] * 3


def test_coroutine_that_is_cancelled_leaves_no_chunk_behind():
    envs = here(settings(2, env_id="slow_arm:SlowArm-v0", limit=100))

    async def scenario():
        async with envs.lend() as other:
            await other.reset(mode="train")
            cancelled = asyncio.create_task(episode(envs))
            while not envs._under_way or envs._running == {0}:  # until its first chunk is
                await asyncio.sleep(0.01)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            async with envs.lend() as again:
                stepping = asyncio.create_task(other.step_chunk(CHUNK[:1]))
                report = await again.reset(mode="train")
                await stepping
                return report.episode_steps, (await again.step_chunk(CHUNK[:1])).episode_steps

    assert run(scenario(), envs) == (0, 1)


def test_envs_that_are_closed_say_so_instead_of_waiting():
    envs = here(settings(1))

    async def scenario():
        await episode(envs)
        envs.close()
        envs.close()
        with pytest.raises(RuntimeError, match="after shutdown"):
            await episode(envs)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_closing_does_not_leave_a_coroutine_waiting():
    envs = here(settings(1, env_id="slow_arm:SlowArm-v0", limit=100))

    async def scenario():
        async with envs.lend() as env:
            await env.reset(mode="train")
            stepping = asyncio.create_task(env.step_chunk(CHUNK))
            while not envs._under_way:
                await asyncio.sleep(0)
            envs.close()
            with pytest.raises(RuntimeError, match="after shutdown"):
                await stepping

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_settings_that_do_not_fit_reach_every_episode():
    block = parse_settings({"env": {"id": "Nothing-v0"}})
    envs = AsyncEnvs(block)

    async def scenario():
        return await asyncio.gather(*(episode(envs) for _ in range(2)), return_exceptions=True)

    assert [type(error) for error in run(scenario(), envs)] == [ConfigError] * 2


def test_envs_outlive_the_agent_loop_of_one_episode():
    async def scenario():
        return shared_envs(settings()) is shared_envs(settings()), shared_envs(settings(1)) is shared_envs(
            settings()
        )

    assert asyncio.run(scenario()) == (True, False)


def test_processes_say_what_envs_in_this_process_say():
    async def scenario(envs):
        return await asyncio.gather(*(episode(envs, seed=i) for i in range(2)))

    block = settings(2)
    played = [run(scenario(envs), envs) for envs in (here(block), AsyncEnvs(block))]
    for ours, theirs in zip(*played, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.rewards.tolist() == other.rewards.tolist()
            assert (one.is_over, one.episode_steps, one.task) == (
                other.is_over,
                other.episode_steps,
                other.task,
            )
            for key, value in one.observation.items():
                assert np.array_equal(value, other.observation[key])


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "died with exit code -9"), (signal.SIGSTOP, "no reply before the deadline")],
)
def test_process_that_dies_or_hangs_costs_its_own_episode_alone(number, reason):
    pool = EnvPool(settings(step_timeout_s=3), 2, isolated=True)
    chunks = np.stack([CHUNK] * 2)
    try:
        pool.reset(mode="train")
        before = pool.envs.env.worker_pids
        os.kill(before[1], number)
        with pytest.raises(SimulatorError, match=f"Env 1 lost its episode: .*{reason}"):
            pool.step_chunk(chunks)
        first, second = pool.reports()
        assert (first.episode_steps, second) == (4, None)
        with pytest.raises(AdapterContractError, match=r"Envs \[1\] have no running episode"):
            pool.step_chunk(chunks)
        pool.reset([1], mode="train")
        batch = pool.step_chunk(chunks)
        assert batch.executed_steps.tolist() == [2, 4]
        assert batch.rewards.tolist() == [[0.0, 0.5, 0.0, 0.0], [0.0] * 4]
        after = pool.envs.env.worker_pids
        assert [old == new for old, new in zip(before, after)] == [True, False]
    finally:
        pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(after[0], 0)
