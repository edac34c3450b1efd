"""Threads of PyTorch beside a renderer."""

import sys
from types import SimpleNamespace

import pytest
from gymnasium.vector import SyncVectorEnv

from vlac_gym.critic import torch_threads
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.critic.torch_threads import limit_torch_threads
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError
from vlac_gym.types import CriticInfo
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.executor import InlineExecutor
from vlac_gym.wrappers import VLACRewardWrapper
from vlac_gym.wrappers.vector import VLACRewardWrapper as VectorVLACRewardWrapper


@pytest.fixture
def thread_counts(monkeypatch):
    counts = []
    monkeypatch.setattr(torch_threads, "_requests", [])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=counts.append))
    return counts


@pytest.mark.parametrize(
    ("requested", "in_software", "environ", "expected"),
    [
        (None, True, {}, [1]),
        (None, False, {}, []),
        (None, True, {"OMP_NUM_THREADS": "2"}, []),
        (3, True, {"OMP_NUM_THREADS": "2"}, [3]),
        (3, False, {}, [3]),
    ],
)
def test_one_thread_beside_software_rendering_unless_somebody_chose(
    thread_counts, requested, in_software, environ, expected
):
    chosen = limit_torch_threads(requested, renders_in_software=in_software, environ=environ)
    assert thread_counts == expected
    assert chosen == (expected[0] if expected else None)


def test_without_torch_there_is_nothing_to_set(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert limit_torch_threads(2, renders_in_software=True, environ={}) is None
    assert "torch" not in sys.modules


def test_fewer_than_one_thread_is_refused(thread_counts):
    with pytest.raises(ConfigError, match="Expected 1 or more threads for PyTorch, got 0"):
        limit_torch_threads(0, renders_in_software=True, environ={})
    assert thread_counts == []


def test_a_number_that_was_asked_for_stays(thread_counts):
    limit_torch_threads(3, renders_in_software=True, environ={})
    limit_torch_threads(None, renders_in_software=True, environ={})
    assert thread_counts == [3]


class RenderedEnv(ScriptedEnv):
    metadata = {**ScriptedEnv.metadata, "renderer": "mesa"}


def members(*devices):
    return {"members": [{"device": device, "details": {"weights_digest": "ab"}} for device in devices]}


@pytest.mark.parametrize(
    ("env", "in_software", "device", "details", "expected"),
    [
        (RenderedEnv, True, "cpu", {"weights_digest": "ab"}, [1]),
        (RenderedEnv, False, "cpu", {"weights_digest": "ab"}, []),
        (RenderedEnv, True, "cuda:0", {"weights_digest": "ab"}, []),
        (RenderedEnv, True, "cpu", {}, []),
        (RenderedEnv, True, "cpu", {"weights_digest": "ab", "urls": ["http://h"]}, []),
        (RenderedEnv, True, "cuda:0, cpu", members("cuda:0", "cpu"), [1]),
        (RenderedEnv, True, "cuda:0", members("cuda:0", "cuda:0"), []),
        (RenderedEnv, True, "cpu", members("cpu", "cpu") | {"urls": ["http://h"]}, []),
        (ScriptedEnv, True, "cpu", {"weights_digest": "ab"}, []),
    ],
)
def test_the_wrapper_spares_threads_for_a_renderer_in_its_process_once(
    thread_counts, monkeypatch, env, in_software, device, details, expected
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("vlac_gym.wrappers.critic_referee.renders_in_software", lambda: in_software)
    critic = ScriptedCritic()
    critic.describe = lambda: CriticInfo("nano", device=device, details=details)
    single = VLACRewardWrapper(env(), critic)
    vector = VectorVLACRewardWrapper(RolloutVectorEnv([env] * 2, mode="sync"), critic)
    for wrapped in (single, vector):
        thread_counts.clear()
        wrapped.reset(seed=0)
        wrapped.reset(seed=0)
        assert thread_counts == expected


def elsewhere(env_fns, observation_space, **timeouts):
    return InlineExecutor(env_fns, observation_space)


@pytest.mark.parametrize(
    ("make_envs", "expected"),
    [
        (lambda fns: RolloutVectorEnv(fns, mode="async"), [1]),
        (lambda fns: RolloutVectorEnv(fns, mode=elsewhere), []),
        (lambda fns: SyncVectorEnv(fns), [1]),
    ],
    ids=["workers", "workers elsewhere", "Gymnasium's"],
)
def test_the_vector_wrapper_spares_threads_for_envs_on_its_host(
    thread_counts, monkeypatch, make_envs, expected
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("vlac_gym.wrappers.critic_referee.renders_in_software", lambda: True)
    critic = ScriptedCritic()
    critic.describe = lambda: CriticInfo("nano", device="cpu", details={"weights_digest": "ab"})
    wrapped = VectorVLACRewardWrapper(make_envs([RenderedEnv] * 2), critic, on_sim_terminated="truncate")
    wrapped.reset(seed=0)
    wrapped.close()
    assert thread_counts == expected
