"""One env's training episode, whichever wrapper drives it: `TrainingEpisode`, `EpisodeSettings`."""

__all__ = ["EpisodeSettings", "TrainingEpisode"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlac_gym.errors import ConfigError
from vlac_gym.reward import TrainingRule
from vlac_gym.rule.episode import Episode, Step
from vlac_gym.rule.report import StoppedBy
from vlac_gym.rule.round import OpenStep
from vlac_gym.types import Frame
from vlac_gym.wrappers.sim_signals import hide_sim_signals, sim_success


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings:
    """What the reward wrappers were told about episodes; see `VLACRewardWrapper` for the meanings.

    Attributes:
        rule: The training rule.
        task: Task text, or None for ``info["task"]`` at reset.
        max_episode_steps: Step limit, or None for the env's `truncated`.
        on_sim_terminated: What the env's `terminated` does.
        max_buffer_bytes: Bound of the buffered frames' bytes.
        sim_success_weight: Bonus at the first simulator success; 0.0 outside shaping mode.
    """

    rule: TrainingRule
    task: str | None
    max_episode_steps: int | None
    on_sim_terminated: Literal["ignore", "truncate"]
    max_buffer_bytes: int
    sim_success_weight: float


class TrainingEpisode:
    """An `Episode` of the rule, with its limit, and the simulator's signals kept for audit.

    Args:
        settings: What holds for every episode.
        frame: The critic's frame after reset.
        info: The env's info after reset.

    Raises:
        ConfigError: There is no task text.
    """

    def __init__(self, settings: EpisodeSettings, frame: Frame, info: Mapping[str, Any]) -> None:
        task = settings.task if settings.task is not None else info.get("task")
        if not isinstance(task, str) or not task.strip():
            raise ConfigError(
                f"Expected a task text in info['task'] or as task=, got {task!r}. The critic judges a task."
            )
        self._episode = Episode(settings.rule, task, frame, settings.max_buffer_bytes)
        self._settings = settings
        self._sim_success = sim_success(info)

    @property
    def task(self) -> str:
        """Task text."""
        return self._episode.task

    @property
    def num_steps(self) -> int:
        """Env steps so far."""
        return self._episode.num_steps

    @property
    def steps_to_frame(self) -> int:
        """Env steps until the critic's frame is next needed, unless the env itself ends the episode before."""
        left = self._episode.steps_to_frame
        if self._settings.max_episode_steps is not None:
            left = min(left, self._settings.max_episode_steps - self.num_steps)
        return left

    def step(
        self, terminated: bool, truncated: bool, success: bool | None, look: Callable[[], Frame]
    ) -> OpenStep:
        """Takes the outcome of the next env step, as the env returned it.

        Args:
            terminated: The env's.
            truncated: The env's.
            success: The simulator's verdict, or None if it gives none.
            look: Returns the critic's frame of this step; called now, if it is needed.
        """
        bonus = 0.0
        if success is not None:
            if success and not self._sim_success:
                bonus = self._settings.sim_success_weight
            self._sim_success = bool(self._sim_success) or success
        limit = self._limit(terminated, truncated)
        return OpenStep(self._with_bonus(limit, look, bonus), self._episode.task)

    def begin_info(self, info: Mapping[str, Any], failures: int) -> dict[str, Any]:
        """The reset's info without the simulator's signals, and with the critic's."""
        report = hide_sim_signals(info, self._sim_success)
        report["critic"] = self._episode.report(failures).as_info()
        return report

    def step_info(
        self, info: Mapping[str, Any], env_reward: float, env_terminated: bool, failures: int
    ) -> dict[str, Any]:
        """The last step's info without the simulator's signals, and with the critic's."""
        report = hide_sim_signals(info, self._sim_success, env_reward, env_terminated)
        report["critic"] = self._episode.report(failures).as_info()
        return report

    def _with_bonus(self, limit: StoppedBy | None, look: Callable[[], Frame], bonus: float) -> Step:
        verdict = yield from self._episode.step(limit, look)
        return replace(verdict, reward=verdict.reward + bonus)

    def _limit(self, terminated: bool, truncated: bool) -> StoppedBy | None:
        is_last = truncated
        if self._settings.max_episode_steps is not None:
            is_last = self.num_steps + 1 >= self._settings.max_episode_steps
        if is_last:
            return "step_limit"
        return "sim_terminated" if terminated and self._settings.on_sim_terminated == "truncate" else None
