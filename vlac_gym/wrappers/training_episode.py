"""One env's training episode, whichever wrapper drives it: `TrainingEpisode`, `EpisodeSettings`."""

__all__ = ["EpisodeSettings", "TrainingEpisode"]

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlac_gym.episode_judge import EpisodeJudge, StoppedBy, Verdict
from vlac_gym.errors import ConfigError
from vlac_gym.reward import TrainingRule
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
    """An `EpisodeJudge`, the episode's limit, and the simulator's signals kept for audit.

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
        self.judge = EpisodeJudge(settings.rule, task, frame, settings.max_buffer_bytes)
        self._settings = settings
        self._sim_success = sim_success(info)
        self._bonus = 0.0

    @property
    def steps_to_frame(self) -> int:
        """Env steps until the critic's frame is next needed, unless the env itself ends the episode before."""
        left = self.judge.steps_to_frame
        if self._settings.max_episode_steps is not None:
            left = min(left, self._settings.max_episode_steps - self.judge.step)
        return left

    def advance(self, terminated: bool, truncated: bool, success: bool | None) -> None:
        """Takes the outcome of the next env step, as the env returned it."""
        self.judge.advance(self._limit(terminated, truncated))
        self._bonus = 0.0
        if success is not None:
            if success and not self._sim_success:
                self._bonus = self._settings.sim_success_weight
            self._sim_success = bool(self._sim_success) or success

    def verdict(self, error: Exception | None = None) -> Verdict:
        """Decides the step: by the critic's answers, or because it failed."""
        verdict = self.judge.verdict() if error is None else self.judge.fail()
        return replace(verdict, reward=verdict.reward + self._bonus)

    def begin_info(self, info: Mapping[str, Any], failures: int) -> dict[str, Any]:
        """The reset's info without the simulator's signals, and with the critic's."""
        report = hide_sim_signals(info, self._sim_success)
        report["critic"] = self.judge.info() | {"failures": failures}
        return report

    def step_info(
        self,
        info: Mapping[str, Any],
        env_reward: float,
        env_terminated: bool,
        stopped_by: StoppedBy | None,
        failures: int,
    ) -> dict[str, Any]:
        """The step's info without the simulator's signals, and with the critic's."""
        report = hide_sim_signals(info, self._sim_success, env_reward, env_terminated)
        report["critic"] = self.judge.info(stopped_by) | {"failures": failures}
        return report

    def _limit(self, terminated: bool, truncated: bool) -> StoppedBy | None:
        is_last = truncated
        if self._settings.max_episode_steps is not None:
            is_last = self.judge.step + 1 >= self._settings.max_episode_steps
        if is_last:
            return "step_limit"
        return "sim_terminated" if terminated and self._settings.on_sim_terminated == "truncate" else None
