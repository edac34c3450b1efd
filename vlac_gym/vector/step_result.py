"""What a vector step adds up to: `VectorStep`."""

__all__ = ["ChunkResult", "VectorStep"]

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import CriticError
from vlac_gym.vector.infos import stack_infos


class ChunkResult(NamedTuple):
    """A vector step of one or more actions per env; shapes with N envs and T actions each.

    Attributes:
        observations: After each env's last executed action.
        rewards: float64 (N, T), of each action; 0.0 for those that were not executed.
        executed_steps: int64 (N,).
        terminations: bool (N,).
        truncations: bool (N,).
        infos: Vector infos.
        successes: N of them: did the simulator see success at any executed action? None where it gave no verdict, and
            where a critic decides: there `sim_success` in the infos remembers it.
    """

    observations: Any
    rewards: NDArray[np.float64]
    executed_steps: NDArray[np.int64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, Any]
    successes: tuple[bool | None, ...]

    def first_step(self) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """What Gymnasium's `step` returns, of a chunk of one action."""
        return self.observations, self.rewards[:, 0], self.terminations, self.truncations, self.infos


class VectorStep:
    """Collects the outcome of a vector step env by env.

    Args:
        num_envs: N.
        width: T, actions per env.

    Attributes:
        latency_ms: float64 (N,), of the critic's calls for each env's last executed step; NaN where it was not asked.
        errors: By env, why the critic gave no usable answer.
    """

    def __init__(self, num_envs: int, width: int) -> None:
        self.num_envs = num_envs
        self.rewards = np.zeros((num_envs, width), np.float64)
        self.executed_steps = np.zeros(num_envs, np.int64)
        self.terminations = np.zeros(num_envs, np.bool_)
        self.truncations = np.zeros(num_envs, np.bool_)
        self.lost = np.zeros(num_envs, np.bool_)
        self.latency_ms: NDArray[np.float64] = np.full(num_envs, np.nan)
        self.errors: dict[int, CriticError] = {}
        self.infos: dict[int, dict[str, Any]] = {}
        self._successes: list[bool | None] = [None] * num_envs

    def note_successes(self, index: int, verdicts: Iterable[bool | None]) -> None:
        """Adds the simulator's verdicts after executed env steps."""
        for verdict in verdicts:
            if verdict is not None:
                self._successes[index] = bool(self._successes[index]) or verdict

    def pay(self, index: int, reward: float) -> None:
        """Adds one executed env step."""
        self.rewards[index, self.executed_steps[index]] = reward
        self.executed_steps[index] += 1

    def end(self, index: int, *, terminated: bool, truncated: bool) -> None:
        """Notes how the last executed step left the env's episode."""
        self.terminations[index] = terminated
        self.truncations[index] = truncated

    def lose(self, index: int, reason: str) -> None:
        """The env's episode is lost: it ends truncated, and whatever it was paid in this step is taken back."""
        self.rewards[index] = 0.0
        self.end(index, terminated=False, truncated=True)
        self.lost[index] = True
        self.latency_ms[index] = np.nan
        self.infos[index] = {"lost_reason": reason}

    def begin_next(self, index: int, final_observation: Any, info: dict[str, Any]) -> None:
        """In SAME_STEP: the info of the ended episode becomes the final one, beside that of the new episode."""
        final = {"final_obs": final_observation, "final_info": self.infos[index]}
        self.infos[index] = final | info

    def result(self, observations: Any) -> ChunkResult:
        """The arrays, with `lost` (bool (N,)) among the infos."""
        infos = stack_infos(self.infos, self.num_envs)
        infos["lost"] = self.lost
        infos["_lost"] = np.ones(self.num_envs, np.bool_)
        return ChunkResult(
            observations,
            self.rewards,
            self.executed_steps,
            self.terminations,
            self.truncations,
            infos,
            tuple(self._successes),
        )
