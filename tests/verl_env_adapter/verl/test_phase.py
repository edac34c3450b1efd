"""verl's phase reaches agent loops; on a module with verl 0.9.1's shape, and on one without it."""

import asyncio
import logging
import sys
from types import ModuleType

import pytest

from verl_env_adapter.common import import_hooks
from verl_env_adapter.verl.phase import AGENT_NAME, current_phase, install, prepare

NAME = "verl.experimental.agent_loop.agent_loop"


class Worker:
    """`AgentLoopWorker._run_agent_loop` with 0.9.1's signature."""

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace=True, **kwargs):
        await asyncio.sleep(0)
        return current_phase(), agent_name, kwargs


def module_with(worker: type) -> ModuleType:
    module = ModuleType(NAME)
    module.AgentLoopWorker = worker
    module._agent_loop_registry = {}
    return module


@pytest.fixture
def module():
    return module_with(type("AgentLoopWorker", (Worker,), {"_run_agent_loop": Worker._run_agent_loop}))


def run(worker, **trajectory):
    return worker._run_agent_loop({}, trajectory=trajectory, agent_name="a", uid=1)


def test_loop_knows_the_phase_of_its_own_trajectory(module):
    prepare(module)
    worker = module.AgentLoopWorker()

    async def both():
        alone = await run(worker, validate=True)
        assert alone == ("validate", "a", {"uid": 1})
        assert current_phase() is None  # in the very coroutine that awaited it
        return await asyncio.gather(run(worker, validate=True), run(worker, validate=False))

    assert asyncio.run(both()) == [("validate", "a", {"uid": 1}), ("train", "a", {"uid": 1})]
    assert current_phase() is None


def test_loop_is_registered_once_and_never_over_a_users(module):
    prepare(module)
    assert module._agent_loop_registry == {
        AGENT_NAME: {"_target_": "verl_env_adapter.verl.agent_loop.VLACAgentLoop"}
    }
    first = module.AgentLoopWorker._run_agent_loop
    module._agent_loop_registry[AGENT_NAME] = {"_target_": "mine"}
    prepare(module)
    assert module._agent_loop_registry == {AGENT_NAME: {"_target_": "mine"}}
    assert module.AgentLoopWorker._run_agent_loop is first


def test_another_verl_is_left_alone_with_a_warning(caplog):
    class Other:
        async def _run_agent_loop(self, prompt):
            return current_phase()

    module = module_with(Other)
    with caplog.at_level(logging.WARNING):
        prepare(module)
    assert "proven against verl 0.9.1" in caplog.text
    assert asyncio.run(Other()._run_agent_loop("x")) is None


def test_installation_waits_for_the_import_and_happens_once(monkeypatch, tmp_path):
    package = tmp_path / "verl" / "experimental" / "agent_loop"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").write_text("")
    (package / "agent_loop.py").write_text(
        "class AgentLoopWorker:\n"
        "    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name): ...\n"
        "_agent_loop_registry = {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(import_hooks, "_FINDER", import_hooks._Finder())
    for name in [name for name in sys.modules if name.partition(".")[0] == "verl"]:
        monkeypatch.delitem(sys.modules, name)
    install()
    install()
    assert NAME not in sys.modules
    import verl.experimental.agent_loop.agent_loop as imported

    first = imported.AgentLoopWorker._run_agent_loop
    assert list(imported._agent_loop_registry) == [AGENT_NAME]
    assert first._vlac_gym_phase is True
    assert not hasattr(first.__wrapped__, "__wrapped__")
    install()  # verl's module is there already: nothing to wait for.
    assert imported.AgentLoopWorker._run_agent_loop is first
    for name in [name for name in sys.modules if name.partition(".")[0] == "verl"]:
        monkeypatch.delitem(sys.modules, name)
