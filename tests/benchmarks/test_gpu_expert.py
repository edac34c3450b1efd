"""gpu_expert.py's processes against the package's expert, and gpu_statistics.py against the report card's intervals."""

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from benchmark_scripts import load_benchmark

import vlac_gym
from vlac_gym.policies import make_policy
from vlac_gym.report_card.statistics import paired_difference

TASK = {"suite": "libero_spatial", "task_id": 0}


@pytest.fixture
def gpu_expert() -> ModuleType:
    return load_benchmark("gpu_expert")


class StillWorlds:
    """Worlds that never move: the first solves its goal at step 2, the second never."""

    num_worlds = 2

    def __init__(self) -> None:
        self.actions: list[np.ndarray] = []
        zeros = type("Array", (), {"numpy": lambda self: np.zeros((2, 3))})()
        self.data = type("Data", (), {"qpos": zeros, "qvel": zeros})()

    def start_from(self, states: dict[str, np.ndarray]) -> None:
        self.actions.clear()

    def step(self, actions: np.ndarray) -> None:
        self.actions.append(actions)

    def success(self) -> np.ndarray:
        return np.array([len(self.actions) == 2, False])


class Constant:
    def act(self, states: np.ndarray) -> np.ndarray:
        return np.full((len(states), 7), float(states.shape[1]))


def in_process(env: Any, init_state_id: int, steps: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """States that the expert saw in the env itself, and what it did."""
    env.reset(options={"init_state_id": init_state_id})
    policy = make_policy("expert")
    policy.reset(env, init_state_id)
    states, actions = [], []
    for _ in range(steps):
        states.append(env.unwrapped.physics_state()[1:])
        actions.append(np.asarray(policy.act(None, env.unwrapped.current_info())))
        env.unwrapped.step_unrendered(actions[-1])
    return states, actions


def test_processes_act_as_the_expert_does_in_the_env(gpu_expert: ModuleType, libero_env: Any) -> None:
    episodes = [in_process(libero_env, state, 12) for state in (0, 1)]
    path = str(Path(vlac_gym.__file__).parents[1])
    with gpu_expert.Experts(sys.executable, path, TASK, 2, 2) as experts:
        for step in range(12):
            actions = experts.act(np.stack([states[step] for states, _ in episodes]))
            expected = np.stack([done[step] for _, done in episodes])
            np.testing.assert_allclose(actions, expected, atol=1e-4)


def test_a_process_that_ends_is_named(gpu_expert: ModuleType) -> None:
    nothing = shutil.which("false")
    assert nothing is not None
    with (
        gpu_expert.Experts(nothing, "", TASK, 3, 1) as experts,
        pytest.raises(SystemExit, match="process for worlds 0 to 2 ended with 1 before its actions came"),
    ):
        experts.act(np.zeros((3, 5)))


def test_the_first_step_of_success_is_kept(gpu_expert: ModuleType) -> None:
    worlds = StillWorlds()
    assert gpu_expert.solve(worlds, {}, Constant(), 4).tolist() == [2, -1]
    assert len(worlds.actions) == 4
    assert worlds.actions[0].tolist() == [[6.0] * 7] * 2


@pytest.mark.parametrize(
    ("both", "here", "there", "neither"), [(45, 2, 2, 1), (50, 0, 0, 0), (0, 3, 0, 0), (7, 1, 5, 9)]
)
def test_intervals_are_the_report_cards(both: int, here: int, there: int, neither: int) -> None:
    outcomes = [(True, True)] * both + [(True, False)] * here
    outcomes += [(False, True)] * there + [(False, False)] * neither
    expected = paired_difference([(b, a) for a, b in outcomes]).difference
    low, high = load_benchmark("gpu_statistics").paired_interval(
        len(outcomes), both + here, both + there, here
    )
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    text = load_benchmark("gpu_statistics").compare(
        "task", [a for a, _ in outcomes], [b for _, b in outcomes]
    )
    assert f"solved {both + here} of {len(outcomes)} on mujoco-warp, {both + there} in the recording" in text
