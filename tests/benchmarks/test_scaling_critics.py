"""Which questions make a critic warm, and when they are enough."""

import sys
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark


@pytest.fixture
def critics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_benchmark("scaling_critics")


class CompilingCritic:
    """Compiles a graph at the first call of each kind and size, and one more in the second pass if told so."""

    def __init__(self, counters: dict[str, Counter[str]], late: bool = False, always: bool = False) -> None:
        self.checks: list[int] = []
        self.lists: list[list[int]] = []
        self._stats, self._late, self._always = counters["stats"], late, always

    def success_prob(self, frames: list[np.ndarray], tasks: list[str]) -> None:
        assert len(frames) == len(tasks)
        assert {frame.shape for frame in frames} == {(4, 4, 3)}
        is_new = len(frames) not in self.checks
        is_late = self._late and self.checks.count(len(frames)) == 1 and len(frames) == 3
        self._stats["unique_graphs"] += is_new or is_late or self._always
        self.checks.append(len(frames))

    def values(self, episodes: list[list[np.ndarray]], tasks: list[str]) -> None:
        lengths = [len(frames) for frames in episodes]
        self._stats["unique_graphs"] += lengths not in self.lists
        self.lists.append(lengths)


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[str]]:
    counters: dict[str, Counter[str]] = {"stats": Counter()}
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", SimpleNamespace(counters=counters))
    return counters


def test_done_checks_and_value_lists_are_asked_in_every_size_until_nothing_compiles(
    critics: ModuleType, counters: dict[str, Counter[str]]
) -> None:
    critic = CompilingCritic(counters)
    assert critics.warm(critic, "open it", 4, [2, 3], 4) == 0
    assert critic.checks == [1, 2, 3, 4] * 2
    once: list[Any] = [[2], [3], [2]]
    once += [[2] * 2, [3] * 2, [2, 3], [2] * 3, [3] * 3, [2, 3, 2], [2] * 4, [3] * 4, [2, 3, 2, 3]]
    assert critic.lists == once * 2
    assert critics.compiled_graphs() == 4 + len(once) - 1  # one list of two comes twice


def test_a_pass_that_compiled_is_followed_by_another(
    critics: ModuleType, counters: dict[str, Counter[str]]
) -> None:
    critic = CompilingCritic(counters, late=True)
    assert critics.warm(critic, "open it", 3, [2], 4) == 0
    assert critic.checks == [1, 2, 3] * 3


def test_a_critic_that_goes_on_compiling_is_told_by_its_last_pass(
    critics: ModuleType, counters: dict[str, Counter[str]]
) -> None:
    critic = CompilingCritic(counters, always=True)
    assert critics.warm(critic, "open it", 3, [2], 4) == 3
    assert critic.checks == [1, 2, 3] * critics.MAX_PASSES


def test_many_lists_are_asked_about_in_few_sizes(critics: ModuleType) -> None:
    assert critics._list_counts(1) == [1]
    assert critics._list_counts(10) == [1, 2, 3, 4, 6, 8, 10]
    assert critics._list_counts(64) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
