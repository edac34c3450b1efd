"""One env's training episode, whichever wrapper drives it: `TrainingEpisode`."""

__all__ = ["TrainingEpisode"]

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.rule.episode import RuleEpisode, Step
from vlac_gym.rule.report import StoppedBy
from vlac_gym.rule.round import OpenStep
from vlac_gym.stepping.sim_signals import hide_sim_signals, sim_success
from vlac_gym.types import Frame
from vlac_gym.wrappers.rule_setup import RewardConfig


class TrainingEpisode:
    """An `RuleEpisode` of the rule, with its limit, and the simulator's signals kept for audit.

    Args:
        config: What holds for every episode.
        frame: The critic's frame after reset.
        info: The env's info after reset.
        bonus: Added to the reward at the first simulator success; 0.0 outside shaping mode.
        ends_with_env: The env can't be stepped past its own end, so that its `truncated` ends the episode whatever
            the limit is.

    Raises:
        ConfigError: There is no task text.
    """

    def __init__(
        self,
        config: RewardConfig,
        frame: Frame,
        info: Mapping[str, Any],
        *,
        bonus: float = 0.0,
        ends_with_env: bool = False,
    ) -> None:
        task = config.task if config.task is not None else info.get("task")
        if not isinstance(task, str) or not task.strip():
            raise ConfigError(
                f"Expected a task text in info['task'] or as task=, got {task!r}. The critic judges a task."
            )
        self._episode = RuleEpisode(config.rule, task, frame, config.max_buffer_bytes)
        self._config = config
        self._bonus = bonus
        self._ends_with_env = ends_with_env
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
        if self._config.max_episode_steps is not None:
            left = min(left, self._config.max_episode_steps - self.num_steps)
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
                bonus = self._bonus
            self._sim_success = bool(self._sim_success) or success
        limit = self._limit(terminated, truncated)
        step = self._episode.step(limit, look)
        return OpenStep(_with_bonus(step, bonus) if bonus else step, self._episode.task)

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

    def _limit(self, terminated: bool, truncated: bool) -> StoppedBy | None:
        limit = self._config.max_episode_steps
        is_last = truncated and (limit is None or self._ends_with_env)
        if is_last or (limit is not None and self.num_steps + 1 >= limit):
            return "step_limit"
        return "sim_terminated" if terminated and self._config.on_sim_terminated == "truncate" else None


def _with_bonus(step: Step, bonus: float) -> Step:
    verdict = yield from step
    return replace(verdict, reward=verdict.reward + bonus)
