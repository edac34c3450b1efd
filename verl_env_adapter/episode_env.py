"""One wrapped env for a trainer: `build_env` makes the stack, `EpisodeEnv` plays its episodes, `EnvReport` is a result.

The stack is the env, `VLACRewardWrapper`, `ActionChunk`. No reward is computed here.
"""

__all__ = ["EnvReport", "EpisodeEnv", "build_env", "make_env"]

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import vlac_gym  # noqa: F401 (registers the LIBERO id)
from verl_env_adapter.settings import AdapterSettings
from vlac_gym.critic.base import Critic
from vlac_gym.critic.registry import make_critic
from vlac_gym.errors import ConfigError
from vlac_gym.types import Mode
from vlac_gym.wrappers import ActionChunk, VLACRewardWrapper
from vlac_gym.wrappers.sim_signals import reported_success

_CRITIC_DONE = ("success_prob", "value")
_LIMITS = ("step_limit", "sim_terminated")


class _RememberingWrapper(VLACRewardWrapper[Any, Any]):
    """Keeps what the simulator said at each step of a chunk, whose `info` is the last step's.

    Attributes:
        sim_success_so_far: Has the simulator seen success since the reset? None if it never says.
    """

    sim_success_so_far: bool | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the env and forgets its success."""
        observation, info = super().reset(seed=seed, options=options)
        self.sim_success_so_far = None
        self._remember(info)
        return observation, info

    def step_unrendered(self, action: Any) -> tuple[float, bool, bool]:
        """See `VLACRewardWrapper.step_unrendered`, by which `ActionChunk` steps."""
        result = super().step_unrendered(action)
        self._remember(self.current_info())
        return result

    def _remember(self, info: dict[str, Any]) -> None:
        now = reported_success(info)
        if now is not None:
            self.sim_success_so_far = bool(now) or bool(self.sim_success_so_far)


@dataclass(frozen=True)
class EnvReport:
    """What one env says after a reset or an action chunk. The critic's and the simulator's words stay apart.

    Attributes:
        observation: The env's observation; after the episode's end the terminal one, until the reset.
        rewards: float32 (executed steps,): what the wrapper paid; empty after a reset and after the end.
        terminated: Gymnasium's, latched until the reset; with `truncate_as_terminal` also where the critic paid
            at the step limit.
        truncated: Was the episode cut, by its limit or a lost critic? Latched until the reset.
        sim_success: Has the simulator seen success in this episode? None if it never says.
        critic_done: Did the critic end the episode as done? Always False in eval mode.
        critic_failed: Was the episode cut because the critic failed? Mask it: its reward says nothing.
        value: The critic's value at the episode's end, in [0, 1]; None where it was not asked for.
        episode_steps: Env steps since the reset.
        episode_return: Sum of the rewards since the reset.
        task: The task text.
        info: The wrapper's `info`.
    """

    observation: Any
    rewards: NDArray[np.float32]
    terminated: bool
    truncated: bool
    sim_success: bool | None
    critic_done: bool
    critic_failed: bool
    value: float | None
    episode_steps: int
    episode_return: float
    task: str
    info: dict[str, Any]

    @property
    def is_over(self) -> bool:
        """Has the episode ended?"""
        return self.terminated or self.truncated


def build_env(settings: AdapterSettings, critic: Critic | str, mode: Mode) -> ActionChunk[Any]:
    """Builds the stack; the simulator and a critic given as a spec start on first use.

    Raises:
        ConfigError: The settings do not fit the env.
    """
    env = make_env(settings)
    wrapped = _RememberingWrapper(
        env,
        critic,
        mode=mode,
        preset=settings.rule.preset,
        calibration=settings.rule.calibration,
        frame=settings.env.frame,
        on_sim_terminated=settings.env.on_sim_terminated,
        on_critic_error=settings.critic.on_error,
        on_critic_mismatch=settings.critic.on_mismatch,
        **settings.rule_options,
    )
    return ActionChunk(wrapped, settings.env.chunk)


class EpisodeEnv:
    """Episodes of one env, its end latched: after it nothing is stepped or asked until `reset`.

    The simulator starts on the first reset, in the process that calls it.

    Args:
        settings: The trainer's block.
        critic: A critic to share; None builds the settings' own, on first use in train mode.
        host_deadline_s: How long the trainer waits for one chunk; bounds the critic's deadline.

    Raises:
        ConfigError: The settings do not fit.
    """

    def __init__(
        self,
        settings: AdapterSettings,
        *,
        critic: Critic | None = None,
        host_deadline_s: float | None = None,
    ) -> None:
        self._settings = settings
        self._owns_critic = critic is None
        options = settings.critic_options(host_deadline_s)
        if critic is None and options:
            critic = make_critic(settings.critic.spec, **options)
        self._critic = critic
        # In eval mode a critic that lives in this process is never built.
        self.env = build_env(settings, settings.critic.spec if critic is None else critic, "eval")
        self._mode: Mode = "eval"
        self._report: EnvReport | None = None

    @property
    def action_size(self) -> int:
        """A, the length of one action."""
        return int(self.env.action_space.shape[-1])  # type: ignore[index]

    @property
    def report(self) -> EnvReport | None:
        """The last report; None before the first reset."""
        return self._report

    def reset(
        self,
        *,
        mode: Mode,
        seed: int | None = None,
        task_id: int | None = None,
        init_state_id: int | None = None,
    ) -> EnvReport:
        """Starts an episode; the critic's history of the one before is dropped.

        Args:
            mode: From the trainer's phase, see `AdapterSettings.mode_in`.
            seed: The env's seed.
            task_id: LIBERO only: which task of the suite.
            init_state_id: LIBERO only: which initial state; None draws one.

        Raises:
            ConfigError: The env has no such task or initial state.
            SimulatorError: The simulator can't be started.
        """
        chosen = {"task_id": task_id, "init_state_id": init_state_id}
        options: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        if options and not self._settings.env.is_libero:
            raise ConfigError(
                f"task_id and init_state_id are LIBERO's, but env.id is {self._settings.env.id!r}."
            )
        self._report = None
        observation, info = self.env.reset(seed=seed, options={**options, "mode": mode})
        self._mode = mode
        self._report = EnvReport(
            observation=observation,
            rewards=np.zeros(0, dtype=np.float32),
            terminated=False,
            truncated=False,
            sim_success=self._sim_success(),
            critic_done=False,
            critic_failed=False,
            value=None,
            episode_steps=0,
            episode_return=0.0,
            task=str(info.get("task", "")),
            info=info,
        )
        return self._report

    def step_chunk(self, actions: NDArray[Any]) -> EnvReport:
        """Executes (T, A) actions, T <= chunk, up to the episode's end; after it, does nothing.

        Raises:
            ConfigError: Wrong shape, values that are not finite, or no reset yet.
            CriticError: With ``on_error: raise``; the episode is lost.
            SimulatorError: The physics failed; the episode is lost.
        """
        last = self._report
        if last is None:
            raise ConfigError("No episode is running: the env is new, or its last one was lost. Call reset.")
        if last.is_over:
            return replace(last, rewards=np.zeros(0, dtype=np.float32))
        self._report = None  # Whatever raises below leaves an episode that can't go on.
        try:
            observation, _, terminated, truncated, info = self.env.step(actions)
        except ConfigError:  # of the actions: nothing has moved
            self._report = last
            raise
        critic = info.get("critic", {})
        rewards = np.asarray(info["chunk"]["rewards"], dtype=np.float64)
        failed = bool(critic.get("failed", False))
        truncated = truncated or critic.get("stopped_by") in _LIMITS
        values = critic.get("values")
        self._report = EnvReport(
            observation=observation,
            rewards=rewards.astype(np.float32),
            terminated=bool(terminated),
            truncated=bool(truncated),
            sim_success=self._sim_success(),
            critic_done=critic.get("stopped_by") in _CRITIC_DONE,
            critic_failed=failed,
            value=float(values[-1]) if values is not None and len(values) else None,
            episode_steps=last.episode_steps + len(rewards),
            episode_return=last.episode_return + float(rewards.sum()),
            task=last.task,
            info=info,
        )
        return self._report

    def close(self) -> None:
        """Closes the env, and a critic that was built here; safe to call twice."""
        self.env.close()
        if self._owns_critic and self._critic is not None:
            self._critic.close()

    def _sim_success(self) -> bool | None:
        seen: bool | None = self.env.get_wrapper_attr("sim_success_so_far")
        return seen


def make_env(settings: AdapterSettings) -> gym.Env[Any, Any]:
    """The bare env, without the wrapper; the simulator starts on first use.

    Raises:
        ConfigError: There is no such env.
    """
    env = settings.env
    kwargs: dict[str, Any] = {"disable_env_checker": True, **env.kwargs}
    if env.is_libero:
        kwargs |= {"task_suite": env.suite, "cameras": env.cameras, "image_size": env.image_size}
        kwargs["task_id"] = env.tasks[0] if env.tasks else 0
        if env.max_episode_steps is not None:
            kwargs["step_limit"] = env.max_episode_steps
    elif env.max_episode_steps is not None:
        kwargs["max_episode_steps"] = env.max_episode_steps
    try:
        return gym.make(env.id, **kwargs)
    except gym.error.Error as e:
        raise ConfigError(f"Can't make env.id {env.id!r}: {e}") from e
