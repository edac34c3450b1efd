"""What SimpleVLA-RL's external_libs do to it, on stubs with the names of SimpleVLA-RL 7c51662."""

import importlib
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from verl_env_adapter.simplevla.worker import env_worker
from vlac_gym.errors import AdapterContractError, ConfigError


class Rollout:
    """`RobHFRollout`, as far as its rewards matter: `complete` is a bool there."""

    def _prepare_output_batch(self, vla_history, task_records, batch_size):
        complete = torch.tensor([bool(record["complete"]) for record in task_records])
        return SimpleNamespace(batch={"responses": torch.zeros(batch_size, 8), "complete": complete})


class Worker:
    """`RobActorRolloutRefWorker`, as far as its update matters."""

    def update_actor(self, data):
        return data


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    """Writes what `VLAC_GYM_SETTINGS` names."""
    path = tmp_path / "settings.json"
    monkeypatch.setenv("VLAC_GYM_SETTINGS", str(path))

    def write(spec="http://critic:8400"):
        path.write_text(json.dumps({"critic": {"spec": spec}}))

    write()
    return write


@pytest.fixture
def trainer(monkeypatch):
    """The trainer's modules: its rollout and its GPU workers."""
    rollout = SimpleNamespace(env_worker=lambda *arguments: None, RobHFRollout=copied(Rollout))
    workers = SimpleNamespace(RobActorRolloutRefWorker=copied(Worker))
    for name in ("verl", "verl.workers", "verl.workers.rollout"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["verl.workers"].fsdp_workers = workers
    sys.modules["verl.workers.rollout"].rob_rollout = rollout
    return SimpleNamespace(rob_rollout=rollout, fsdp_workers=workers)


def copied(kind):
    return type(kind.__name__, (), dict(vars(kind)))


@pytest.fixture
def external_lib(trainer, settings_file, monkeypatch):
    """Imports one as the trainer does: anew, and installed by that."""
    names = ["verl_env_adapter.simplevla.plugin", "verl_env_adapter.simplevla.sleeping"]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def plugin(external_lib):
    return external_lib("verl_env_adapter.simplevla.plugin")


@pytest.fixture
def rob_rollout(trainer):
    return trainer.rob_rollout


def test_rewards_reach_the_trainer_as_they_were_paid(plugin, rob_rollout):
    rollout = rob_rollout.RobHFRollout()
    output = rollout._prepare_output_batch([], [{"complete": 0.375}, {"complete": 1.0}], 2)
    assert output.batch["complete"].tolist() == [0.375, 1.0]
    assert output.batch["complete"].dtype == torch.float32


def test_installing_twice_changes_nothing(plugin, rob_rollout):
    placed = rob_rollout.RobHFRollout._prepare_output_batch
    plugin.install(rob_rollout)
    assert rob_rollout.RobHFRollout._prepare_output_batch is placed
    assert rob_rollout.env_worker is env_worker


def test_another_simplevla_is_refused(plugin, rob_rollout):
    del rob_rollout.env_worker
    with pytest.raises(AdapterContractError, match=r"Expected env_worker and RobHFRollout.*7c51662"):
        plugin.install(rob_rollout)


def test_settings_are_demanded(plugin, rob_rollout, monkeypatch):
    monkeypatch.delenv("VLAC_GYM_SETTINGS")
    with pytest.raises(ConfigError, match="name a settings file in VLAC_GYM_SETTINGS"):
        plugin.install(rob_rollout)


def test_a_critic_that_is_no_server_can_not_sleep(external_lib, settings_file):
    sleeping = external_lib("verl_env_adapter.simplevla.sleeping")
    settings_file("oracle")
    message = (
        r"external_lib verl_env_adapter\.simplevla\.sleeping puts a critic server to sleep, but critic\.spec is "
        r"'oracle'\. Use verl_env_adapter\.simplevla\.plugin, or give a server's URL"
    )
    with pytest.raises(ConfigError, match=message):
        sleeping.install_sleep()
