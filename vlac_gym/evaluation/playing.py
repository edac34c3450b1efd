"""Plays starts in a vector env: `play_episodes`, `PlayedEpisode`."""

__all__ = ["PlayedEpisode", "play_episodes"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from vlac_gym.errors import ConfigError
from vlac_gym.evaluation.driving import Driver
from vlac_gym.evaluation.starts import EpisodeStart, StartQueue
from vlac_gym.policies.base import Action
from vlac_gym.types import Frame
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.vector.observations import read_row
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.vector.step_result import ChunkResult

MAX_ATTEMPTS = 3
"""How often an episode is begun whose worker or simulator fails, before it counts as lost."""

LOOK_INTERVAL_STEPS = 4
"""Pictures are kept at most this often: 5 a second."""


@dataclass
class PlayedEpisode:
    """One episode, under way or over.

    Attributes:
        start: Where it began.
        task: The instruction.
        steps: Executed env steps.
        success: The simulator's verdict.
        lost: Why there is no verdict; None if there is one.
        frames: Upright pictures of the agent's view, at most one per `LOOK_INTERVAL_STEPS`, the first and the last
            always; uint8 (H, W, 3).
        frame_steps: The step of each frame.
        signals: The simulator's `success` and `goal_progress` at each frame, for a privileged critic.
    """

    start: EpisodeStart
    task: str = ""
    steps: int = 0
    success: bool = False
    lost: str | None = None
    frames: list[Frame] = field(default_factory=list)
    frame_steps: list[int] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)

    def look(self, observation: Mapping[str, Any], info: Mapping[str, Any], *, is_last: bool = False) -> None:
        """Keeps the frame, unless the last one is too near."""
        is_near = self.frames and self.steps - self.frame_steps[-1] < LOOK_INTERVAL_STEPS
        if "agentview_image" not in observation or (is_near and not is_last):
            return
        self.frames.append(np.array(observation["agentview_image"]))
        self.frame_steps.append(self.steps)
        self.signals.append({key: info[key] for key in ("success", "goal_progress") if key in info})


class _Slot:
    """What one env is playing."""

    def __init__(self) -> None:
        self.episode: PlayedEpisode | None = None
        self.observation: Any = None
        self.info: Mapping[str, Any] = {}
        self.actions: Action = np.zeros((0, 0), np.float32)


def play_episodes(
    env: RolloutVectorEnv, driver: Driver, starts: Sequence[EpisodeStart]
) -> Iterator[PlayedEpisode]:
    """Plays each start once, in as many envs at a time as there are, and yields each episode as it ends.

    An episode ends at the simulator's success or at the env's step limit. One that is lost with its worker or simulator
    is begun again, up to `MAX_ATTEMPTS` times.

    Args:
        env: No more envs than starts; autoreset mode DISABLED; resets take `task_id` and `init_state_id`.
        driver: Acts.
        starts: What to play.

    Raises:
        ConfigError: The env does not fit.
        SimulatorError: An env can't be started.
        PolicyError: The policy gave no usable action.
    """
    if env.autoreset_mode is not AutoresetMode.DISABLED or not 1 <= env.num_envs <= len(starts):
        raise ConfigError(
            f"Expected a vector env of 1 to {len(starts)} envs with autoreset_mode DISABLED, got {env.num_envs} with "
            f"{env.autoreset_mode.value}."
        )
    return _Table(env, driver, StartQueue(starts)).play()


class _Table:
    """The envs at play."""

    def __init__(self, env: RolloutVectorEnv, driver: Driver, queue: StartQueue) -> None:
        self._env = env
        self._driver = driver
        self._queue = queue
        self._attempts: dict[EpisodeStart, int] = {}
        self._slots = [_Slot() for _ in range(env.num_envs)]

    def play(self) -> Iterator[PlayedEpisode]:
        over = list(range(len(self._slots)))
        while True:
            self._begin(over)
            active = [i for i, slot in enumerate(self._slots) if slot.episode is not None]
            if not active:
                return
            self._plan(active)
            result, mask = self._step(active)
            over = np.flatnonzero(mask & (result.terminations | result.truncations)).tolist()
            yield from self._ended(active, over, result)

    def _begin(self, indices: Sequence[int]) -> None:
        starts: dict[int, EpisodeStart] = {}
        for i in indices:
            before = self._slots[i].episode
            start = self._queue.next(None if before is None else before.start.task_id)
            self._slots[i].episode = None
            if start is not None:
                starts[i] = start
        if not starts:
            return
        count = len(self._slots)
        options = {
            "reset_mask": np.isin(np.arange(count), list(starts)),
            "task_id": [starts[i].task_id if i in starts else None for i in range(count)],
            "init_state_id": [starts[i].init_state_id if i in starts else None for i in range(count)],
        }
        seeds = [starts[i].seed if i in starts else None for i in range(count)]
        observations, infos = self._env.reset(seed=seeds, options=options)
        singles = unstack_infos(infos, count)
        for i, start in starts.items():
            slot = self._slots[i]
            slot.episode = PlayedEpisode(start, str(singles[i].get("task", "")))
            slot.actions = np.zeros((0, 0), np.float32)
            slot.observation, slot.info = read_row(observations, i), singles[i]
            slot.episode.look(slot.observation, slot.info)
            self._driver.begin(i, start.seed)

    def _plan(self, active: Sequence[int]) -> None:
        asked = [i for i in active if not len(self._slots[i].actions)]
        slots = [self._slots[i] for i in asked]
        if not asked:
            return
        plans = self._driver.plan(asked, [slot.observation for slot in slots], [slot.info for slot in slots])
        for slot, actions in zip(slots, plans, strict=True):
            slot.actions = actions

    def _step(self, active: Sequence[int]) -> tuple[ChunkResult, Any]:
        """As many actions as every env has left."""
        count = min(len(self._slots[i].actions) for i in active)
        size = self._slots[active[0]].actions.shape[1]
        actions = np.zeros((len(self._slots), count, size), np.float32)
        mask = np.zeros(len(self._slots), np.bool_)
        for i in active:
            actions[i], self._slots[i].actions = (
                self._slots[i].actions[:count],
                self._slots[i].actions[count:],
            )
            mask[i] = True
        return self._env.step_chunk(actions, mask), mask

    def _ended(
        self, active: Sequence[int], over: Sequence[int], result: ChunkResult
    ) -> Iterator[PlayedEpisode]:
        singles = unstack_infos(result.infos, len(self._slots))
        for i in active:
            slot = self._slots[i]
            episode = slot.episode
            assert episode is not None
            if result.infos["lost"][i]:
                yield from self._lost(episode, str(singles[i].get("lost_reason", "")))
                continue
            episode.steps += int(result.executed_steps[i])
            slot.observation, slot.info = read_row(result.observations, i), singles[i]
            episode.look(slot.observation, slot.info, is_last=i in over)
            if i in over:
                episode.success = bool(result.successes[i])
                yield episode

    def _lost(self, episode: PlayedEpisode, reason: str) -> Iterator[PlayedEpisode]:
        attempts = self._attempts.setdefault(episode.start, 0) + 1
        self._attempts[episode.start] = attempts
        if attempts < MAX_ATTEMPTS:
            self._queue.put_back(episode.start)
        else:
            episode.lost = reason
            yield episode
