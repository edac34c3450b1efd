"""What RLinf's extension hook does to RLinf, on stubs with the names of rlinf 0.3.0."""

import sys
from types import ModuleType

import pytest

from verl_env_adapter.rlinf import plugin
from vlac_gym.errors import AdapterContractError

NAMES = ["rlinf", "rlinf.envs", "rlinf.workers", "rlinf.workers.env", "rlinf.workers.env.env_worker"]


def own_env(env_type, env_cfg=None):
    return "RLinf's"


@pytest.fixture
def modules(monkeypatch):
    """Stub modules."""
    found = {name: ModuleType(name) for name in NAMES}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("rlinf.envs", "rlinf.workers.env.env_worker"):
        found[name].get_env_cls = own_env
    return found


def test_both_places_that_look_up_envs_are_prepared_once(modules):
    plugin.register()
    chosen = [modules[name].get_env_cls for name in ("rlinf.envs", "rlinf.workers.env.env_worker")]
    assert all(choose is not own_env for choose in chosen)
    plugin.register()
    assert [modules[name].get_env_cls for name in ("rlinf.envs", "rlinf.workers.env.env_worker")] == chosen
    assert chosen[1]("libero", {"task_suite_name": "libero_10"}) == "RLinf's"


def test_another_rlinf_is_refused(modules):
    del modules["rlinf.workers.env.env_worker"].get_env_cls
    with pytest.raises(AdapterContractError, match=r"env_worker.get_env_cls as in rlinf 0\.3\.0"):
        plugin.register()
