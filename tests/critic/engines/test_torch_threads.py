"""Threads of PyTorch beside a renderer."""

import sys
from types import SimpleNamespace

import pytest

from vlac_gym.critic.engines.torch_threads import limit_torch_threads
from vlac_gym.errors import ConfigError


@pytest.fixture
def thread_counts(monkeypatch):
    counts = []
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
