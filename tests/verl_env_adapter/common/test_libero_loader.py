"""LIBERO's init-state loader survives trainers that replace it at import."""

import importlib

import pytest

from verl_env_adapter.common.libero_loader import preserved_init_state_loader


def test_replaced_loader_is_put_back():
    benchmark = importlib.import_module("libero.libero.benchmark").Benchmark
    own = benchmark.get_task_init_states
    with preserved_init_state_loader():
        benchmark.get_task_init_states = lambda self, i: None  # what a trainer's import does
    assert benchmark.get_task_init_states is own


def test_loader_is_put_back_after_a_failed_import():
    benchmark = importlib.import_module("libero.libero.benchmark").Benchmark
    own = benchmark.get_task_init_states

    def broken_import() -> None:
        benchmark.get_task_init_states = None
        raise ImportError("no such trainer")

    with pytest.raises(ImportError), preserved_init_state_loader():
        broken_import()
    assert benchmark.get_task_init_states is own
