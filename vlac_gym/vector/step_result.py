"""What the steps of a vector env's envs add up to: `EnvStep` for one env and its `Stage`, `ChunkResult` for
several.
"""

__all__ = ["ChunkResult", "EnvStep", "Stage", "chunk_result"]

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import CriticError
from vlac_gym.rule.round import OpenStep
from vlac_gym.vector.commands import Command, StepReply
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


class Stage(IntEnum):
    """What an env's step needs next."""

    MOVING = 0  # its command to be carried out
    ACT = 1
    ASK = 2
    LOOK = 3
    RESET = 4
    READY = 5


class EnvStep:
    """Collects the outcome of one env's step of up to T actions, or of its reset.

    Args:
        actions: What the env is to execute; none for a reset.
        episode_id: See `Referee.begin`.

    Attributes:
        left: The actions that are not executed yet.
        command: What the env is carrying out; None if nothing.
        question: What the critic must be asked before the env may go on.
        reply: Of the last executed actions.
        is_stale: Of the env's observation only the critic's picture is fresh.
        look_lost: Why it stayed so, though the episode had ended and has its verdict; None if it did not.
        begins_next: The env is being reset, or was, after the step that ended its episode.
        latency_ms: Of the critic's calls for the last executed action; NaN where it was not asked.
        error: Why the critic gave no usable answer.
        is_lost: The episode is gone with its worker or simulator.
    """

    def __init__(self, actions: Sequence[Any] = (), episode_id: int | None = None) -> None:
        self.left = actions
        self.episode_id = episode_id
        self.command: Command | None = None
        self.question: OpenStep | None = None
        self.reply: StepReply | None = None
        self.is_stale = self.is_lost = self.begins_next = False
        self.rewards: list[float] = []
        self.terminated = self.truncated = False
        self.look_lost: str | None = None
        self.latency_ms = np.nan
        self.error: CriticError | None = None
        self.info: dict[str, Any] | None = None
        self.success: bool | None = None

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended."""
        return self.terminated or self.truncated

    def stage(self, *, resets: bool) -> Stage:
        """What it needs next.

        Args:
            resets: An episode that ends is followed by the next in the same step.
        """
        if self.command is not None:
            return Stage.MOVING
        if self.question is not None:
            return Stage.ASK
        if len(self.left):
            return Stage.ACT
        if self.is_stale and not self.is_lost:
            return Stage.LOOK
        return Stage.RESET if resets and self.is_over and not self.begins_next else Stage.READY

    def note_successes(self, verdicts: Iterable[bool | None]) -> None:
        """Adds the simulator's verdicts after executed env steps."""
        for verdict in verdicts:
            if verdict is not None:
                self.success = bool(self.success) or verdict

    def settle(self, reward: float, *, terminated: bool, truncated: bool) -> None:
        """Adds one executed env step."""
        self.rewards.append(reward)
        self.terminated, self.truncated = terminated, truncated
        self.latency_ms = np.nan
        if self.is_over:
            self.left = ()

    def take_verdict(self, answered: OpenStep) -> None:
        """Settles the action that was asked about."""
        verdict = answered.verdict
        self.question = None
        self.settle(verdict.reward, terminated=verdict.terminated, truncated=verdict.truncated)
        self.latency_ms = np.nan if answered.latency_ms is None else answered.latency_ms
        self.error = answered.error or self.error

    def lose(self, reason: str) -> None:
        """The episode is lost: it ends truncated, and whatever it was paid in this step is taken back."""
        self.left, self.reply = (), None
        self.rewards = [0.0] * len(self.rewards)
        self.terminated, self.truncated, self.is_lost = False, True, True
        self.latency_ms = np.nan
        self.info = {"lost_reason": reason}

    def begin_next(self, final_observation: Any) -> None:
        """In SAME_STEP: the info of the ended episode becomes the final one."""
        self.info = {"final_obs": final_observation, "final_info": self.info}
        self.begins_next = True


def chunk_result(steps: Mapping[int, EnvStep], num_rows: int, width: int, observations: Any) -> ChunkResult:
    """The steps of some rows as arrays, with `lost` (bool (N,)) among the infos.

    Args:
        steps: Row to step; rows without one did nothing.
        num_rows: N.
        width: T.
        observations: Of these rows.
    """
    rewards = np.zeros((num_rows, width), np.float64)
    executed = np.zeros(num_rows, np.int64)
    terminations, truncations, lost = (np.zeros(num_rows, np.bool_) for _ in range(3))
    for row, step in steps.items():
        executed[row] = count = len(step.rewards)
        rewards[row, :count] = step.rewards
        terminations[row], truncations[row], lost[row] = step.terminated, step.truncated, step.is_lost
    infos = stack_infos({row: step.info for row, step in steps.items() if step.info is not None}, num_rows)
    infos["lost"] = lost
    infos["_lost"] = np.ones(num_rows, np.bool_)
    successes = tuple(steps[row].success if row in steps else None for row in range(num_rows))
    return ChunkResult(observations, rewards, executed, terminations, truncations, infos, successes)
