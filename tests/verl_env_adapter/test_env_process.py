"""Envs in processes of their own: the same reports, deadlines, deaths, and fair lending to coroutines."""

import asyncio
import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from verl_env_adapter.env_pool import EnvPool
from verl_env_adapter.env_process import EnvProcess
from verl_env_adapter.env_workers import EnvWorkers, shared_workers
from verl_env_adapter.episode_env import EpisodeEnv
from verl_env_adapter.settings import parse_settings
from vlac_gym.errors import AdapterContractError, ConfigError, SimulatorError


def settings(**placement):
    return parse_settings(
        {
            "env": {"id": "scripted_ids:Scripted-v0", "chunk": 4, "max_episode_steps": 6},
            "critic": {"spec": "scripted:0.1"},
            "placement": placement,
        }
    )


@pytest.fixture
def process():
    process = EnvProcess(settings())
    yield process
    process.close()


def comparable(report):
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}
    fields["observation"] = {key: value.tolist() for key, value in report.observation.items()}
    fields["rewards"] = report.rewards.tolist()
    fields.pop("info")  # It holds latencies.
    return fields


def test_process_reports_what_the_env_itself_reports(process):
    here = EpisodeEnv(settings())
    chunk = np.zeros((4, 7), np.float32)
    assert comparable(process.reset(mode="train", seed=1)) == comparable(here.reset(mode="train", seed=1))
    for _ in range(3):
        assert comparable(process.step_chunk(chunk)) == comparable(here.step_chunk(chunk))
    assert here.report.episode_return == 0.5
    here.close()
    assert process.pid != os.getpid()


def test_processes_of_one_parent_are_numbered_for_the_gpu_they_render_on(process):
    other = EnvProcess(settings())
    first, second = (
        int(Path(f"/proc/{p.pid}/cmdline").read_bytes().split(b"\0")[-2]) for p in (process, other)
    )
    other.close()
    assert second == first + 1


def test_errors_of_the_env_arrive_as_they_are_and_leave_it_usable(process):
    with pytest.raises(ConfigError, match=r"Call reset\."):
        process.step_chunk(np.zeros((4, 7), np.float32))
    with pytest.raises(ConfigError, match="are LIBERO's"):
        process.reset(mode="train", task_id=1)
    assert process.reset(mode="train").episode_steps == 0


def test_env_that_can_not_be_made_says_why():
    process = EnvProcess(parse_settings({"env": {"id": "Nothing-v0"}}))
    with pytest.raises(ConfigError, match="Can't make env"):
        process.reset(mode="train")
    process.close()


def test_dead_process_is_a_lost_episode(process):
    process.reset(mode="train")
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(SimulatorError, match="died during step_chunk with exit status -9"):
        process.step_chunk(np.zeros((4, 7), np.float32))
    assert not process.is_alive


def test_process_that_hangs_is_ended_at_the_deadline():
    process = EnvProcess(settings(step_timeout_s=0.5))
    process.reset(mode="train")
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(SimulatorError, match="gave no answer to step_chunk"):
        process.step_chunk(np.zeros((4, 7), np.float32))
    assert not process.is_alive
    with pytest.raises(SimulatorError, match="is closed"):
        process.reset(mode="train")


def test_first_reset_of_each_task_may_take_longer(process, monkeypatch):
    patience = []
    monkeypatch.setattr(process, "_call", lambda name, options, timeout_s: patience.append(timeout_s))
    for task_id in (0, 0, 1, 0, 1):
        process.reset(mode="train", task_id=task_id)
    process.step_chunk(np.zeros((4, 7), np.float32))
    assert patience == [600.0, 300.0, 600.0, 300.0, 300.0, 300.0]


def test_pool_loses_the_episode_of_a_dead_process_and_starts_another_at_the_reset():
    pool = EnvPool(settings(), 2, isolated=True)
    chunk = np.zeros((2, 4, 7), np.float32)
    try:
        pool.reset(mode="train")
        dead = pool._envs[1]._process.pid
        os.kill(dead, signal.SIGKILL)
        with pytest.raises(SimulatorError, match=f"pid {dead}.* died during step_chunk"):
            pool.step_chunk(chunk)
        assert pool.reports()[0].episode_steps == 4
        with pytest.raises(AdapterContractError, match=r"Envs \[1\] have no running episode"):
            pool.step_chunk(chunk)
        pool.reset([1], mode="train")
        batch = pool.step_chunk(chunk)
        assert batch.executed_steps.tolist() == [2, 4]
        assert batch.rewards.tolist() == [[0.0, 0.5, 0.0, 0.0], [0.0] * 4]
    finally:
        pool.close()


def test_process_ends_with_its_parents_connection(process):
    process.reset(mode="train")
    process.close()
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


class FakeEnv:
    """Counts itself; has no process."""

    made: list["FakeEnv"] = []

    def __init__(self, settings):
        self.is_alive = True
        self.is_closed = False
        FakeEnv.made.append(self)

    def close(self):
        self.is_closed = True


@pytest.fixture
def make_workers():
    FakeEnv.made = []
    return lambda count: EnvWorkers(settings(envs_per_worker=count), FakeEnv)


def test_more_episodes_than_envs_wait_for_one(make_workers):
    async def scenario():
        workers = make_workers(2)
        running = most = 0

        async def episode():
            nonlocal running, most
            async with workers.lend(0):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(episode() for _ in range(7)))
        return most

    assert asyncio.run(scenario()) == 2
    assert len(FakeEnv.made) == 2


def test_env_with_the_task_compiled_is_preferred(make_workers):
    async def scenario():
        workers = make_workers(2)
        async with workers.lend(0) as first, workers.lend(1) as second:
            pass
        # The second came back first, so that it would be the next one without a preference.
        async with workers.lend(0) as again:
            return again is first and again is not second

    assert asyncio.run(scenario())


def test_env_that_died_is_closed_and_not_lent_again(make_workers):
    async def scenario():
        workers = make_workers(1)
        async with workers.lend(0) as env:
            env.is_alive = False
        async with workers.lend(0) as other:
            assert other is not env
        assert env.is_closed
        workers.close()
        assert other.is_closed

    asyncio.run(scenario())


def test_envs_outlive_the_agent_loop_of_one_episode():
    async def scenario():
        return shared_workers(settings()) is shared_workers(settings()), shared_workers(
            settings(envs_per_worker=1)
        ) is shared_workers(settings())

    assert asyncio.run(scenario()) == (True, False)
