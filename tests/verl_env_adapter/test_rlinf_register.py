"""What RLinf's extension hook does to RLinf, on stubs with the names of rlinf 0.3.0."""

import sys
from types import ModuleType

import numpy as np
import pytest

from verl_env_adapter import rlinf
from vlac_gym.critic import registry
from vlac_gym.errors import AdapterContractError
from vlac_gym.registry import Registry

NAMES = ["rlinf", "rlinf.envs", "rlinf.workers", "rlinf.workers.env", "rlinf.workers.env.env_worker"]
MODELS = ["rlinf.models", "rlinf.models.embodiment", "rlinf.models.embodiment.reward"]


def own_env(env_type, env_cfg=None):
    return "RLinf's"


class BaseRewardModel:
    def __init__(self, cfg):
        self.cfg = cfg


@pytest.fixture
def modules(monkeypatch):
    """Stub modules; what the hook adds to this package's tables is taken back."""
    found = {name: ModuleType(name) for name in NAMES}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("rlinf.envs", "rlinf.workers.env.env_worker"):
        found[name].get_env_cls = own_env
    monkeypatch.setattr(registry, "_CRITICS", Registry("critic", "'oracle'", registry.known_critics()))
    monkeypatch.delitem(sys.modules, "verl_env_adapter.rlinf_reward_model", raising=False)
    yield found
    sys.modules.pop("verl_env_adapter.rlinf_reward_model", None)


@pytest.fixture
def models(modules, monkeypatch):
    """The module that only RLinf's reward worker has loaded."""
    found = {name: ModuleType(name) for name in MODELS}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    reward = found[MODELS[-1]]
    reward.BaseRewardModel = BaseRewardModel
    reward.reward_model_registry = {"resnet": object}
    return reward


def test_both_places_that_look_up_envs_are_prepared_once(modules):
    rlinf.register()
    chosen = [modules[name].get_env_cls for name in ("rlinf.envs", "rlinf.workers.env.env_worker")]
    assert all(choose is not own_env for choose in chosen)
    rlinf.register()
    assert [modules[name].get_env_cls for name in ("rlinf.envs", "rlinf.workers.env.env_worker")] == chosen
    assert chosen[1]("libero", {"task_suite_name": "libero_10"}) == "RLinf's"
    assert "rlinf_reward_worker" in registry.known_critics()
    assert "rlinf.models.embodiment.reward" not in sys.modules  # it would want torchvision in every process


def test_another_rlinf_is_refused(modules):
    del modules["rlinf.workers.env.env_worker"].get_env_cls
    with pytest.raises(AdapterContractError, match=r"env_worker.get_env_cls as in rlinf 0\.3\.0"):
        rlinf.register()


def test_reward_worker_knows_our_model(models):
    pytest.importorskip("torch")
    rlinf.register()
    model = models.reward_model_registry["vlac_gym"](
        {"model_type": "vlac_gym", "critic": "scripted:0.25,0.75"}
    )
    frames = [np.zeros((4, 4, 3), np.uint8)] * 2
    question = {"method": "success_prob", "arguments": {"frames": frames, "tasks": ["a", "b"]}}
    answer = model.compute_reward(question)
    assert (answer.tolist(), str(answer.dtype)) == ([0.25, 0.75], "torch.float32")


def test_rlinfs_own_payload_is_refused(models):
    pytest.importorskip("torch")
    rlinf.register()
    model = models.reward_model_registry["vlac_gym"]({"critic": "scripted:0.5"})
    for payload in ({"main_images": None, "dones": None}, {"method": "close"}):
        with pytest.raises(AdapterContractError, match="would be added to every step of the chunk"):
            model.compute_reward(payload)
