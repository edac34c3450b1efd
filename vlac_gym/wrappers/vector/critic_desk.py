"""Where the episodes of a vector env meet the critic: `CriticDesk`."""

__all__ = ["CriticDesk"]

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any, cast

import gymnasium as gym
import numpy as np

from vlac_gym.critic.base import Critic
from vlac_gym.critic.knowledge import OnMismatch
from vlac_gym.critic.signals import EpisodeSignals
from vlac_gym.errors import CriticError
from vlac_gym.rule.round import OpenStep, ask_round
from vlac_gym.types import Frame
from vlac_gym.vector.orders import ResetReport
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.wrappers.critic_fit import CriticFit
from vlac_gym.wrappers.frame_source import FrameReader, FrameSource
from vlac_gym.wrappers.inner_wrappers import check_inner_wrappers
from vlac_gym.wrappers.training_episode import EpisodeSettings, TrainingEpisode

logger = logging.getLogger(__name__)


class CriticDesk:
    """Holds the training episode of each env, reads their frames, and asks the critic about several at once.

    Args:
        env: The vector env.
        critic: Returns the critic; called when it is needed.
        frame: Where one env's frame is; see `FrameSource`.
        references: Passed to `progress` and `value`.
        calibration: Where the thresholds come from; see `CriticFit`, as for the next.
        on_mismatch: What to do with a critic that does not know an episode.
        raises: Raise a critic's error, or end the episodes that it concerns.
        first_env_index: What a privileged critic knows env 0 as.

    Attributes:
        episodes: The episode of each env; None if it has none.
        failures: Critic failures of each env.
        errors: What the critic raised, by env, since this was last emptied.
        lock: Held while the critic is used; a lock makes several desks take turns.

    Raises:
        ConfigError: One env's observation holds no such frame, or there is no such calibration.
    """

    def __init__(
        self,
        env: RolloutVectorEnv,
        critic: Callable[[], Critic],
        frame: FrameSource | None,
        references: Sequence[Frame] | None,
        *,
        calibration: str | None,
        on_mismatch: OnMismatch,
        raises: bool,
        first_env_index: int,
    ) -> None:
        # Workers' render() is out of reach, so that the frame must be part of the observation.
        one_env = SimpleNamespace(observation_space=env.single_observation_space, render_mode=None)
        self._reader = FrameReader(cast("gym.Env[Any, Any]", one_env), frame)
        self._fit = CriticFit(
            view=self._reader.camera,
            renderer=env.metadata.get("renderer"),
            has_references=references is not None,
            calibration=calibration,
            on_mismatch=on_mismatch,
            waits_for_server=not raises,
        )
        self._env = env
        self._one_env = one_env
        self._critic = critic
        self._references = references
        self._raises = raises
        self._first_env_index = first_env_index
        self.episodes: list[TrainingEpisode | None] = [None] * env.num_envs
        self.failures = [0] * env.num_envs
        self.errors: dict[int, CriticError] = {}
        self._num_episodes = [0] * env.num_envs
        self._signals: list[EpisodeSignals | None] = [None] * env.num_envs
        self.lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()

    @property
    def key(self) -> str | None:
        """The observation's key that alone needs refreshing for the critic; None if the whole does."""
        return f"{self._reader.camera}_image" if self._reader.camera is not None else None

    def begin(self, index: int, report: ResetReport, settings: EpisodeSettings) -> dict[str, Any]:
        """Begins the episode of an env that was reset; returns its info.

        Raises:
            ConfigError: The env's wrappers would let the simulator's success end the episode, or the critic does not
                know the episode.
        """
        check_inner_wrappers(report.episode_enders, f"env {index}")
        if self._is_privileged:
            number = self._num_episodes[index]
            self._signals[index] = EpisodeSignals(self._first_env_index + index, number)
        self._num_episodes[index] += 1
        frame = self.look(index, report.info)
        episode = self.episodes[index] = TrainingEpisode(settings, frame, report.info)
        with self.lock:
            self._fit.check(self._critic(), episode.task, report.info)
        return episode.begin_info(report.info, self.failures[index])

    def look(self, index: int, info: dict[str, Any]) -> Frame:
        """The frame that the critic sees of the env now; a privileged one also what the simulator says of it."""
        env = cast("gym.Env[Any, Any]", self._one_env)
        # A copy: the row is overwritten by the env's next order.
        frame = np.array(self._reader.read(env, self._env.observation(index), info))
        signals = self._signals[index]
        return frame if signals is None else signals.attach(frame, info)

    def ask(self, steps: Mapping[int, OpenStep]) -> None:
        """Asks the critic about these envs' steps in one round, whereupon each has its verdict.

        Raises:
            CriticError: If the desk raises.
        """
        with self.lock:
            ask_round(self._critic(), list(steps.values()), self._references)
        errors = {index: step.error for index, step in steps.items() if step.error is not None}
        self.errors |= errors
        for index, error in errors.items():
            self.failures[index] += 1
            if not self._raises:
                logger.warning("critic failed, episode of env %d truncated: %s", index, error)
        if errors and self._raises:
            raise next(iter(errors.values()))

    def episode(self, index: int) -> TrainingEpisode:
        """The episode of an env that has one."""
        episode = self.episodes[index]
        assert episode is not None
        return episode

    @cached_property
    def _is_privileged(self) -> bool:
        return self._critic().describe().is_privileged
