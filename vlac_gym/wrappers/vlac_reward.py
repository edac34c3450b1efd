"""The critic in the simulator's place: `VLACRewardWrapper`, for one env."""

__all__ = ["VLACRewardWrapper"]

from collections.abc import Mapping
from functools import partial
from typing import Any, SupportsFloat, TypeVar, Unpack

import gymnasium as gym
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

from vlac_gym.critic.base import Critic
from vlac_gym.errors import ConfigError
from vlac_gym.stepping.actions import check_action
from vlac_gym.stepping.frame_source import FrameReader
from vlac_gym.stepping.inner_wrappers import check_inner_wrappers, episode_enders
from vlac_gym.stepping.unrendered_steps import UnrenderedSteps
from vlac_gym.types import Frame, Mode
from vlac_gym.wrappers.critic_referee import CriticReferee
from vlac_gym.wrappers.rule_setup import RewardOptions, check_mode, reward_config, without_mode

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class VLACRewardWrapper(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """Replaces reward and episode end by a critic's verdict in train mode; passes all through in eval mode.

    Its counterpart for many envs is `vlac_gym.wrappers.vector.VLACRewardWrapper`.

    In train mode, at env step t (preset ``vlac``):

    1. Every `done_interval` steps and at the last step the critic gives `success_prob` of the frame. After
       `done_patience` consecutive checks with `success_prob >= done_threshold` the episode is *done*:
       ``terminated=True``, reward 1.0, and the value is not asked for.
    2. Else at the step limit: ``truncated=True``, and the reward is the last entry of the critic's value
       list over frames 0, `value_stride`, 2 `value_stride`, … and the last, in [0, 1].
    3. Else the reward is 0.0 and the episode goes on.

    ``truncate_as_terminal=True`` reports the end of 2. as `terminated`, for trainers that bootstrap after a
    truncation; see `TrainingRule`.

    The simulator's reward, termination and success never reach the policy: observation, reward, terminated
    and truncated do not depend on them. The observation is the wrapped env's, unchanged. In eval mode
    everything is what the wrapped env returned and the critic is never called.

    ``mode="shaping"`` is train mode that adds `sim_success_weight` once, at the first step at which the
    simulator sees success; it leaks the simulator by design and is therefore a mode of its own.

    Wrappers that end episodes or chunks themselves (`ActionChunk`, Gymnasium's `Autoreset`, `RepeatAction`,
    `MaxAndSkipObservation`, `AtariPreprocessing`) go around this one and are refused inside it, where they would act
    on the simulator's success. All others may lie inside or outside.

    Train mode's `info`: `success`, `is_success`, `goal_progress` and what `RecordEpisodeStatistics` says of the
    simulator's episode are removed; `sim_success` (bool, the
    simulator saw success at any step so far; None if the env reports none), `env_reward` and
    `sim_terminated` are for audit only. ``info["critic"]`` holds, after `reset` and at every step:

    - `checked` (bool), `success_prob` (float in [0, 1], None if not asked), `consecutive_done` (int),
      `calls` (critic calls in this episode), `buffered_frames`, `buffered_bytes`, `failures` (of the critic, since
      the wrapper was made); and, at the end of the episode only,
    - `values` (list of floats in [0, 1], empty if not asked), `value_frame_steps` (env step of each),
      `failed` (bool), `stopped_by` (`success_prob`, `value`, `step_limit`, `sim_terminated`,
      `critic_error`).

    A critic whose model runs on this process's CPU beside an env that renders in software gets one PyTorch thread
    at its first training reset, as both want the same cores, unless `OMP_NUM_THREADS` is set; a later
    `torch.set_num_threads` wins.

    Args:
        env: Any env that yields uint8 (H, W, 3) RGB frames.
        critic: A critic, or a spec for `make_critic` (built on first use in train mode, in the process that
            uses it, and closed with the env).
        mode: `train`, `eval` or `shaping`; see `set_mode`.
        preset: `vlac`, `sparse`, `dense`, `pbrs` or `evolve`; see `vlac_gym.rule.reward.PRESETS`.
        max_episode_steps: Step limit of a training episode, the only one if given; else the wrapped env's
            `truncated` is. Without effect in eval mode.
        task: Task text; None takes ``info["task"]`` at reset.
        frame: Where the frame is; see `FrameSource`.
        on_sim_terminated: What the wrapped env's `terminated` does to a training episode: nothing, or end
            it like the step limit (for envs that can't be stepped further).
        on_critic_error: What happens when the critic gives no usable answer: a `CriticFailurePolicy`, or its `then`
            alone: `raise`, or `truncate`, which ends the episode with reward 0.0 and `failed=True`.
        on_critic_mismatch: What `reset` does in training with a critic that does not know the task, its suite, the
            view or the references (`CriticInfo.knows`), or that the calibration was not measured on: `raise`
            ConfigError, or `warn` in the log and go on. Another renderer only warns.
        references: 2 to 11 frames of a successful episode, passed to `progress` and `value`.
        calibration: A JSON file with thresholds, as the report card writes it; options given here win.
        max_buffer_bytes: Bound of the buffered frames' bytes.
        sim_success_weight: The bonus of ``mode="shaping"``.
        **options: Fields of `TrainingRule` that replace the preset's.

    Attributes:
        rule: The training rule.
        critic_failures: Steps, since the beginning, in which the critic gave no usable answer.
        critic_counters: What else is counted of a failing critic, by metric name; see
            `vlac_gym.metrics.critic_counters`. Not in the info, which is the same for equal episodes.
        critic_latency_ms: Time of the critic's calls in the last training step, in ms; None if it was not asked.
        num_episodes: Training episodes begun so far. A privileged critic knows the next one by this number; set it
            to go on where another process stopped.

    Raises:
        ConfigError: An argument does not fit, or `env` holds such a wrapper; raised before the env is started.

    Example:
        >>> import gymnasium as gym, numpy as np
        >>> from vlac_gym.critic import make_critic
        >>> env = gym.make("CartPole-v1", render_mode="rgb_array")  # doctest: +SKIP
        >>> env = VLACRewardWrapper(env, make_critic("scripted:0.1,0.95"), task="balance")  # doctest: +SKIP
    """

    def __init__(
        self, env: gym.Env[ObsType, ActType], critic: Critic | str, **options: Unpack[RewardOptions]
    ) -> None:
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, critic=critic, **options)
        gym.Wrapper.__init__(self, env)
        check_inner_wrappers(episode_enders(env))
        config = reward_config(critic, options)
        self.rule = config.rule
        self.critic_latency_ms: float | None = None
        self._steps = UnrenderedSteps(env)
        self._frames = FrameReader(env, config.frame)
        self._referee = CriticReferee(
            config,
            partial(_look, self._steps, self._frames),
            camera=self._frames.camera,
            renderer=env.metadata.get("renderer"),
            shares_cpu=True,
        )
        self._mode: Mode = config.mode
        self._info: dict[str, Any] = {}
        self._is_running = False
        self._episode_mode: Mode | None = None  # of the last reset, whether or not its episode is over

    @property
    def mode(self) -> Mode:
        """The current mode."""
        return self._mode

    @property
    def critic(self) -> Critic:
        """The critic; built now if it was given as a spec."""
        return self._referee.critic

    @property
    def critic_failures(self) -> int:
        """Steps, since the beginning, in which the critic gave no usable answer."""
        return self._referee.failures[0]

    @property
    def critic_counters(self) -> dict[str, int]:
        """Retries, failovers and failed episodes by metric name; see the class."""
        return self._referee.counters

    @property
    def num_episodes(self) -> int:
        """Training episodes begun so far; see the class."""
        return self._referee.num_episodes[0]

    @num_episodes.setter
    def num_episodes(self, number: int) -> None:
        self._referee.num_episodes[0] = number

    def set_mode(self, mode: Mode) -> None:
        """Switches the mode between episodes.

        Raises:
            ConfigError: Unknown mode, or an episode is running.
        """
        check_mode(mode)
        if self._is_running and mode != self._mode:
            raise ConfigError(
                f"Can't switch from {self._mode!r} to {mode!r} while an episode is running. "
                "Finish it, or call reset(options={'mode': …})."
            )
        self._mode = mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Starts an episode; `options["mode"]` switches the mode, the other options go to the wrapped env.

        Raises:
            ConfigError: Unknown mode; the episode goes on. After any other error there is none.
        """
        options, mode = without_mode(options)
        self._is_running = False
        observation, info = self.env.reset(seed=seed, options=options)
        self._mode = self._episode_mode = self._mode if mode is None else mode
        self._steps.begin(observation)
        if self._mode != "eval":
            self.critic_latency_ms = None
            self._referee.is_shaping = self._mode == "shaping"
            info = self._referee.begin_episode(0, info)
        self._is_running = True
        return observation, info

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the env; see the class for reward, terminated, truncated and info.

        Raises:
            ResetNeeded: The training episode is over, none was started, or the mode was switched since.
            ConfigError: The action has another shape than the action space or is not finite; nothing has moved.
            CriticError: With ``on_critic_error="raise"``; the episode is lost and `reset` starts anew.
            CircuitBreakerError: More was lost to the critic than `on_critic_error` allows; `reset` raises it again.
        """
        if self._mode == "eval":
            self._require_eval_episode()
            result = self.env.step(action)
            self._is_running = not (result[2] or result[3])
            return result
        reward, terminated, truncated = self.step_unrendered(action)
        return self.observe(), reward, terminated, truncated, self._info

    def step_unrendered(self, action: ActType) -> tuple[float, bool, bool]:
        """`step` without observation and info: a frame that neither critic nor caller looks at isn't rendered.

        Returns:
            (reward, terminated, truncated), as `step` would give them; see `observe` and `current_info`.
        """
        if self._mode == "eval":
            self._require_eval_episode()
            reward, terminated, truncated, self._info = self._steps.step(action)
            self._is_running = not (terminated or truncated)
            return reward, terminated, truncated
        if not self._is_running:
            raise ResetNeeded("The training episode is over. Call reset() before the next step().")
        check_action(action, self.env.action_space)
        self._is_running = False  # Whatever raises below leaves an episode that can't go on.
        env_reward, env_terminated, env_truncated, info = self._steps.step(action)
        step = self._referee.open_step(0, env_terminated, env_truncated, info)
        try:
            self._referee.ask({0: step})
        finally:
            self.critic_latency_ms = step.latency_ms
        verdict = step.verdict
        self._info = self._referee.step_info(0, info, env_reward, env_terminated)
        self._is_running = not (verdict.terminated or verdict.truncated)
        return verdict.reward, verdict.terminated, verdict.truncated

    def current_info(self) -> dict[str, Any]:
        """The info of the last step, after `step_unrendered`."""
        return self._info

    def observe(self) -> ObsType:
        """The observation of the present state, after `step_unrendered`."""
        observation: ObsType = self._steps.observe()
        return observation

    def close(self) -> None:
        """Closes the env, and the critic if this wrapper built it."""
        self._referee.close()
        self._is_running = False
        super().close()

    def _require_eval_episode(self) -> None:
        if self._episode_mode not in (None, "eval"):  # before the first reset, the env speaks for itself
            raise ResetNeeded(f"The last episode was one of mode {self._episode_mode!r}. Call reset() first.")


def _look(steps: UnrenderedSteps, frames: FrameReader, index: int, info: Mapping[str, Any]) -> Frame:
    return steps.frame(frames, info)
