"""An evaluation's episodes, played: `play_episodes`, with `Footage`, what was seen of each."""

__all__ = ["LOOK_INTERVAL_STEPS", "Footage", "play_episodes"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlac_gym.evaluation.driving import Driver
from vlac_gym.evaluation.starts import PlannedEpisode
from vlac_gym.policies.base import Action
from vlac_gym.rollout.async_rollout import AsyncRollout
from vlac_gym.rollout.playing import PlayedEpisode, PolicyRow
from vlac_gym.types import Frame
from vlac_gym.vector.observations import read_row
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.wrappers.vector.action_chunk import ActionChunk

MAX_ATTEMPTS = 3
"""How often an episode is begun whose worker or simulator fails, before it counts as lost."""

LOOK_INTERVAL_STEPS = 4
"""Pictures are kept at most this often: 5 a second."""

MAX_CHUNK_STEPS = 1024
"""Most actions that a policy may plan at once, twice LIBERO's longest step limit."""


@dataclass
class Footage:
    """Pictures of one episode.

    Attributes:
        frames: Upright pictures of the agent's view, at most one per `LOOK_INTERVAL_STEPS`, the first and the last
            always; uint8 (H, W, 3).
        frame_steps: The env step of each frame.
        signals: The simulator's `success` and `goal_progress` at each frame, for a privileged critic.
    """

    frames: list[Frame] = field(default_factory=list)
    frame_steps: list[int] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)

    def look(
        self, observation: Mapping[str, Any], info: Mapping[str, Any], step: int, *, is_last: bool = False
    ) -> None:
        """Keeps the frame, unless the last one is too near."""
        is_near = self.frames and step - self.frame_steps[-1] < LOOK_INTERVAL_STEPS
        if "agentview_image" not in observation or (is_near and not is_last):
            return
        self.frames.append(np.array(observation["agentview_image"]))
        self.frame_steps.append(step)
        self.signals.append({key: info[key] for key in ("success", "goal_progress") if key in info})


def play_episodes(
    env: RolloutVectorEnv, driver: Driver, planned: Sequence[PlannedEpisode]
) -> Iterator[tuple[PlannedEpisode, PlayedEpisode, Footage]]:
    """Plays each of these episodes once, by `AsyncRollout`, and yields each as it ends.

    An episode ends at the simulator's success or at the env's step limit. One that is lost with its worker or simulator
    is repeated, by the actions already taken, until it was begun `MAX_ATTEMPTS` times.

    Args:
        env: Autoreset mode DISABLED; resets take `task_id` and `init_state_id`.
        driver: Acts.
        planned: What to play.

    Raises:
        ConfigError: The env does not fit.
        SimulatorError: An env can't be started.
        PolicyError: The policy gave no usable action.
    """
    policy = _Watched(driver)
    rollout = AsyncRollout(
        ActionChunk(env, MAX_CHUNK_STEPS),
        policy,
        starts=[episode.start for episode in planned],
        min_ready=env.num_envs if driver.plans_together else 1,
        max_repeats=MAX_ATTEMPTS - 1,
        keeps_observations=False,
    )
    for played in rollout.episodes(in_order=False):
        driver.end(played.index)
        footage = policy.footage.pop(played.index)
        if not played.is_lost:
            last = played.observations[-1], played.infos[-1], played.finished.num_steps
            footage.look(*last, is_last=True)
        yield planned[played.index], played, footage


class _Watched:
    """A driver as the policy of a rollout, which keeps what was seen of episodes under way."""

    def __init__(self, driver: Driver) -> None:
        self.footage: dict[int, Footage] = {}
        self._driver = driver

    def __call__(self, observations: Any, rows: Sequence[PolicyRow]) -> Sequence[Action]:
        singles = [read_row(observations, k) for k in range(len(rows))]
        for seen, row in zip(singles, rows, strict=True):
            self.footage.setdefault(row.episode, Footage()).look(seen, row.info, row.env_steps)
        return self._driver.plan(singles, rows)
