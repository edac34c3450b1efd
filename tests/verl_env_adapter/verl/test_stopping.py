"""An open circuit breaker stops verl's V1 trainer; on a module with verl 0.9.1's shape, and on one without it."""

import asyncio
import logging
from types import ModuleType, SimpleNamespace

import pytest

from verl_env_adapter.verl import phase, stopping
from vlac_gym.errors import CircuitBreakerError, CriticConnectionError


class Worker:
    """`AgentLoopWorkerTQ` inside Ray's wrapper, with an agent loop that fails as it is told."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.prompts = 0

    async def generate_sequences(self, batch):
        self.prompts += len(batch)

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace=True, **kwargs):
        raise self.error


@pytest.fixture(autouse=True)
def closed_again(monkeypatch):
    monkeypatch.setattr(stopping, "_open", [])


@pytest.fixture
def worker_class():
    return type("AgentLoopWorkerTQ", (Worker,), {})


def prepared(worker: type) -> type:
    loops, v1 = ModuleType("loops"), ModuleType("v1")
    loops.AgentLoopWorker, loops._agent_loop_registry = worker, {}
    v1.AgentLoopWorkerTQ = SimpleNamespace(__ray_metadata__=SimpleNamespace(modified_class=worker))
    phase.prepare(loops)
    stopping.prepare(v1)
    stopping.prepare(v1)  # changes nothing
    return worker


def fail_once(worker: Worker) -> None:
    episode = worker._run_agent_loop({}, trajectory={"validate": False}, agent_name="vlac_gym")
    with pytest.raises(type(worker.error)):
        asyncio.run(episode)


def test_prompts_are_refused_after_an_episode_met_the_open_breaker(worker_class):
    worker = prepared(worker_class)(CircuitBreakerError("open: 9 episodes in a row failed"))
    asyncio.run(worker.generate_sequences([1, 2]))
    fail_once(worker)
    with pytest.raises(CircuitBreakerError, match="9 episodes in a row failed"):
        asyncio.run(worker.generate_sequences([3]))
    assert worker.prompts == 2


def test_one_lost_episode_stops_nothing(worker_class):
    worker = prepared(worker_class)(CriticConnectionError("gone"))
    fail_once(worker)
    asyncio.run(worker.generate_sequences([1]))
    assert worker.prompts == 1


def test_another_verl_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        stopping.prepare(ModuleType("v1"))
    assert "does not stop the V1 trainer" in caplog.text
