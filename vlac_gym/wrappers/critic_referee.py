"""The critic in the simulator's place, for one env as for N: `CriticReferee`."""

__all__ = ["CriticReferee"]

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.critic.circuit_breaker import CircuitBreaker
from vlac_gym.critic.failover import FailoverCritic
from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.critic.fresh_lock import FreshLock
from vlac_gym.critic.registry import make_critic
from vlac_gym.critic.signals import EpisodeSignals
from vlac_gym.critic.torch_threads import spare_threads
from vlac_gym.critic.wrapper import adapted
from vlac_gym.envs.gl import renders_in_software
from vlac_gym.errors import CriticError
from vlac_gym.frames.on_device import on_host
from vlac_gym.metrics.critic_counters import (
    CRITIC_FAILBACKS,
    CRITIC_FAILED_EPISODES,
    CRITIC_FAILOVERS,
    CRITIC_RETRIES,
)
from vlac_gym.rule.episode import Question
from vlac_gym.rule.round import OpenStep, ask_once, ask_round
from vlac_gym.stepping.sim_signals import sim_success
from vlac_gym.types import Frame
from vlac_gym.wrappers.critic_fit import CriticFit
from vlac_gym.wrappers.rule_setup import RewardConfig
from vlac_gym.wrappers.training_episode import TrainingEpisode

logger = logging.getLogger(__name__)


class CriticReferee:
    """Holds the training episode of each env, and asks the critic about several at once.

    Args:
        config: The wrapper's arguments.
        look: Returns what the critic sees of env i now, given the env's info; a frame that nothing overwrites.
        num_envs: N.
        camera: The camera of these frames; None if that is not known.
        renderer: What draws them; None if that is not known.
        first_env_index: What a privileged critic knows env 0 as.
        shares_cpu: The envs render in this process or in others of its host.
        ends_with_env: See `TrainingEpisode`.

    Attributes:
        is_shaping: Whether episodes that begin now are those of ``mode="shaping"``.
        failures: Critic failures of each env.
        num_episodes: Training episodes of each env begun so far.
        asked_s: Time of all calls so far, in s; those at once count each.
        lock: Held while the critic is used; a lock makes several referees take turns.

    Raises:
        ConfigError: There is no such calibration.
    """

    def __init__(
        self,
        config: RewardConfig,
        look: Callable[[int, Mapping[str, Any]], Frame],
        *,
        num_envs: int = 1,
        camera: str | None,
        renderer: str | None,
        first_env_index: int = 0,
        shares_cpu: bool,
        ends_with_env: bool = False,
    ) -> None:
        self._config = config
        self._look = look
        self._fit = CriticFit(
            view=camera,
            renderer=renderer,
            has_references=config.references is not None,
            calibration=config.calibration,
            on_mismatch=config.on_critic_mismatch,
        )
        self._breaker = CircuitBreaker(config.on_critic_error)
        self._first_env_index = first_env_index
        self._must_spare_threads = shares_cpu and renderer is not None
        self._ends_with_env = ends_with_env
        self._failover: FailoverCritic | None = None  # this referee's own, if failures need one
        self._critic = None if isinstance(config.critic, str) else self._with_failover(config.critic)
        self._episodes: list[TrainingEpisode | None] = [None] * num_envs
        self._signals: list[EpisodeSignals | None] = [None] * num_envs
        self.is_shaping = config.mode == "shaping"
        self.failures = [0] * num_envs
        self.num_episodes = [0] * num_envs
        self.asked_s = 0.0
        self.lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._noting = FreshLock()

    @property
    def takes_concurrent_calls(self) -> bool:
        """Whether the critic may be asked by several threads at once."""
        return self.critic.takes_concurrent_calls

    @property
    def critic(self) -> BaseCritic:
        """The critic; built now if it was given as a spec."""
        if self._critic is None:
            assert isinstance(self._config.critic, str)
            self._critic = self._with_failover(make_critic(self._config.critic))
            logger.info("critic: %s", self._critic.describe())
        return self._critic

    def close(self) -> None:
        """Closes the critic if it was built here, and the fallbacks that were."""
        if self._failover is not None:
            self._failover.close_fallbacks()
        if self._critic is not None and isinstance(self._config.critic, str):
            self._critic.close()
            self._critic = None

    @property
    def counters(self) -> dict[str, int]:
        """The counts of `CRITIC_COUNTERS`, of this wrapper since it was made."""
        critic = self._critic
        return {
            CRITIC_FAILED_EPISODES: self._breaker.failed_episodes,
            CRITIC_RETRIES: 0 if critic is None else critic.retries,
            CRITIC_FAILOVERS: 0 if critic is None else critic.failovers,
            CRITIC_FAILBACKS: 0 if critic is None else critic.failbacks,
        }

    def episode(self, index: int) -> TrainingEpisode:
        """The episode of an env that has one."""
        episode = self._episodes[index]
        assert episode is not None
        return episode

    def begin_episode(
        self, index: int, info: Mapping[str, Any], episode_id: int | None = None
    ) -> dict[str, Any]:
        """Begins the episode of an env that was reset; returns its info.

        Args:
            index: The env.
            info: Of its reset.
            episode_id: What a privileged critic knows the episode by, whichever env plays it; None for the env's
                index and the number of its episode.

        Raises:
            ConfigError: There is no task text, or the critic does not know the episode.
            CriticError: The critic does not say who it is, and failures are raised.
            CircuitBreakerError: Too much was lost to the critic.
        """
        self._breaker.check()
        self._episodes[index] = None
        number, self.num_episodes[index] = self.num_episodes[index], self.num_episodes[index] + 1
        if self._is_privileged:
            whose = (index, number) if episode_id is None else (0, episode_id)
            self._signals[index] = EpisodeSignals(self._first_env_index + whose[0], whose[1])
        episode = self._episodes[index] = TrainingEpisode(
            self._config,
            self._seen(index, info),
            info,
            bonus=self._config.sim_success_weight if self.is_shaping else 0.0,
            ends_with_env=self._ends_with_env,
        )
        with self.lock:
            self._check_fit(episode.task, info)
        if self._must_spare_threads:
            spare_threads(self.critic.describe(), renders_in_software=renders_in_software())
            self._must_spare_threads = False
        return episode.begin_info(info, self.failures[index])

    def open_step(self, index: int, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> OpenStep:
        """The env's next step, as the env returned it; looks at it now if its frame is needed."""
        return self.episode(index).step(
            terminated, truncated, sim_success(info), lambda: self._seen(index, info)
        )

    def ask(self, steps: Mapping[int, OpenStep]) -> None:
        """Asks the critic about these envs' steps in one round, whereupon each has its verdict.

        Raises:
            CriticError: If failures are raised.
            CircuitBreakerError: Too much was lost to the critic.
        """
        self._ask(ask_round, steps)

    def ask_once(self, steps: Mapping[int, OpenStep]) -> None:
        """One call to the critic, about these steps, whose questions are of one kind.

        Raises:
            CriticError: If failures are raised.
            CircuitBreakerError: Too much was lost to the critic.
        """
        self._ask(ask_once, steps)

    def _ask(self, ask: Callable[..., None], steps: Mapping[int, OpenStep]) -> None:
        asked = [(index, step, step.question) for index, step in steps.items()]
        with self.lock:
            began = time.perf_counter()
            try:
                ask(self.critic, list(steps.values()), self._config.references)
            finally:
                took_s = time.perf_counter() - began
                with self._noting:
                    self.asked_s += took_s
        with self._noting:
            self._note_answers(asked)

    def _note_answers(self, asked: Sequence[tuple[int, OpenStep, Question | None]]) -> None:
        """What a call has left of each step's question, by env; raises as `ask`."""
        errors: list[CriticError] = []
        ends: list[OpenStep] = []
        for index, step, question in asked:
            if step.error is not None:
                self._note_error(index, step.error)
                errors.append(step.error)
            elif step.question is not question:
                self._breaker.note_answer()
            if step.is_last:
                ends.append(step)
        for error in errors:
            self._breaker.note_failure(error)
        for step in ends:
            self._breaker.note_end(failed=step.error is not None)
        self._breaker.check()
        if errors and self._policy.then == "raise":
            raise errors[0]

    def _note_error(self, index: int, error: CriticError) -> None:
        self.failures[index] += 1
        if self._policy.then == "truncate":
            steps = self.episode(index).num_steps
            logger.warning("critic failed, episode of env %d truncated at step %d: %s", index, steps, error)

    def _check_fit(self, task: str, info: Mapping[str, Any]) -> None:
        """Whether the critic knows the episode; where failures truncate, it may also begin while nobody answers."""
        try:
            self._fit.check(self.critic, task, info)
        except CriticError as e:
            self._breaker.note_failure(e)
            self._breaker.check()
            if self._policy.then == "raise":
                raise
            logger.warning("whether the critic knows this task is not known yet: %s", e)

    def _with_failover(self, critic: Critic) -> BaseCritic:
        policy = self._policy
        if not policy.retries and not policy.fallbacks:
            return adapted(critic)
        self._failover = FailoverCritic(critic, policy)
        return self._failover

    @property
    def _policy(self) -> CriticFailurePolicy:
        return self._config.on_critic_error

    def step_info(
        self, index: int, info: Mapping[str, Any], env_reward: float, env_terminated: bool
    ) -> dict[str, Any]:
        """The info of an env's last step, without the simulator's signals and with the critic's."""
        return self.episode(index).step_info(info, env_reward, env_terminated, self.failures[index])

    def _seen(self, index: int, info: Mapping[str, Any]) -> Frame:
        """The critic's frame of the env now; a privileged one also sees what the simulator says of it."""
        frame, signals = self._look(index, info), self._signals[index]
        if signals is not None or not self.critic.takes_device_frames:
            frame = on_host(frame)
        return frame if signals is None else signals.attach(frame, info)

    @cached_property
    def _is_privileged(self) -> bool:
        return self.critic.describe().is_privileged
