"""What RLinf's extension hook does to RLinf, on stubs with the names of rlinf 0.3.0."""

import sys
from types import ModuleType

import pytest

from verl_env_adapter.rlinf import plugin
from vlac_gym.errors import AdapterContractError, ConfigError

NAMES = [
    "rlinf",
    "rlinf.envs",
    "rlinf.models",
    "rlinf.workers",
    "rlinf.workers.env",
    "rlinf.workers.env.env_worker",
]


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
    found["rlinf.workers.env.env_worker"].calculate_adv_and_returns = lambda **given: given
    found["rlinf.models"].built = built = {}
    found["rlinf.models"].register_model = lambda name, build, force: built.update({name: build})
    return found


def test_both_places_that_look_up_envs_are_prepared_once(modules):
    plugin.register()
    chosen = [modules[name].get_env_cls for name in ("rlinf.envs", "rlinf.workers.env.env_worker")]
    assert all(choose is not own_env for choose in chosen)
    plugin.register()
    assert [modules[name].get_env_cls for name in ("rlinf.envs", "rlinf.workers.env.env_worker")] == chosen
    assert list(modules["rlinf.models"].built) == ["vlac_clone"]
    assert chosen[1]("libero", {"task_suite_name": "libero_10"}) == "RLinf's"


@pytest.fixture
def own_module(monkeypatch):
    """A user's extension module."""
    module = ModuleType("users_extension")
    monkeypatch.setitem(sys.modules, "users_extension", module)
    return module


def test_a_module_around_ours_is_as_good_as_ours(modules, own_module):
    own_module.register = plugin.register
    plugin.register_named({"RLINF_EXT_MODULE": "users_extension"})
    assert modules["rlinf.envs"].get_env_cls is not own_env


def test_a_module_that_does_not_call_ours_is_refused(modules, own_module):
    own_module.register = lambda: None
    with pytest.raises(
        ConfigError, match=r"users_extension.register to call verl_env_adapter.rlinf.plugin.register"
    ):
        plugin.register_named({"RLINF_EXT_MODULE": "users_extension"})
    del own_module.register
    with pytest.raises(ConfigError, match=r"users_extension\.register to call"):
        plugin.register_named({"RLINF_EXT_MODULE": "users_extension"})


@pytest.mark.parametrize("environ", [{}, {"RLINF_EXT_MODULE": "no_such_module"}])
def test_a_module_that_is_not_there_is_refused_on_the_driver(modules, environ):
    with pytest.raises(ConfigError, match=r"Can't import RLINF_EXT_MODULE=.*Export RLINF_EXT_MODULE"):
        plugin.register_named(environ)


def test_another_rlinf_is_refused(modules):
    del modules["rlinf.workers.env.env_worker"].get_env_cls
    with pytest.raises(AdapterContractError, match=r"env_worker.get_env_cls as in rlinf 0\.3\.0"):
        plugin.register()


def test_an_rlinf_without_masks_is_refused(modules):
    del modules["rlinf.workers.env.env_worker"].calculate_adv_and_returns
    with pytest.raises(
        AdapterContractError, match=r"env_worker.calculate_adv_and_returns as in rlinf 0\.3\.0"
    ):
        plugin.register()
