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
def rob_rollout(monkeypatch):
    """The trainer's rollout module."""
    module = ModuleType("verl.workers.rollout.rob_rollout")
    module.env_worker = lambda *arguments: None
    module.RobHFRollout = type("RobHFRollout", (Rollout,), dict(vars(Rollout)))
    for name in ("verl", "verl.workers", "verl.workers.rollout"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["verl.workers.rollout"].rob_rollout = module
    return module


@pytest.fixture
def plugin(settings_file, rob_rollout, monkeypatch):
    """The plugin as the trainer imports it: anew, and installed by that."""
    name = "verl_env_adapter.simplevla.plugin"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name)


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
