"""The critic in the simulator's place: `VLACRewardWrapper`, for many envs at once."""

__all__ = ["VLACRewardWrapper"]

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack

import numpy as np
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError, ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorWrapper
from numpy.typing import NDArray

from vlac_gym.critic.base import Critic
from vlac_gym.critic.knowledge import OnMismatch
from vlac_gym.critic.registry import make_critic
from vlac_gym.errors import ConfigError, CriticError
from vlac_gym.reward import RuleOptions
from vlac_gym.types import Frame, Mode
from vlac_gym.vector.actions import checked_mask
from vlac_gym.vector.infos import stack_infos
from vlac_gym.vector.orders import ResetOrder, ResetReport
from vlac_gym.vector.rollout_env import RolloutVectorEnv, StepResult
from vlac_gym.vector.step_result import ChunkResult, VectorStep
from vlac_gym.wrappers.frame_source import FrameSource
from vlac_gym.wrappers.inner_wrappers import check_inner_wrappers, nested
from vlac_gym.wrappers.rule_setup import check_arguments, check_mode, resolve_rule, without_mode
from vlac_gym.wrappers.training_episode import EpisodeSettings
from vlac_gym.wrappers.vector.critic_desk import CriticDesk
from vlac_gym.wrappers.vector.judged_step import JudgedStep

logger = logging.getLogger(__name__)


class VLACRewardWrapper(
    VectorWrapper[Any, NDArray[Any], Any, NDArray[Any], NDArray[Any]], RecordConstructorArgs
):
    """`vlac_gym.wrappers.VLACRewardWrapper` for N envs: the same rule and info, one round of questions per step.

    A vector step asks the critic at most one `success_prob`, one `progress` and one value call, about running
    envs only, whatever N is (a chunk: as many rounds as the env with the most checks in it). N envs under
    this wrapper return what N single ones return; infos are Gymnasium's vector infos, in which a None is a
    masked entry. The critic's episodes end on their own schedule, so that this wrapper does the automatic
    resets of training, in the mode of the wrapped env:

    - NEXT_STEP: the step after an episode's end resets that env, with reward 0.0.
    - SAME_STEP: the env is reset at once; the end's observation and info are in ``infos["final_obs"]`` and
      ``infos["final_info"]``.
    - DISABLED: an env whose episode is over idles; see `RolloutVectorEnv`.

    No frame, pair or value list spans a reset. An episode that is lost with its worker ends truncated with
    reward 0.0 and ``infos["lost"][i]`` True, and has no info of the critic. In eval mode everything is what
    the wrapped env returned and the critic is never called.

    Args:
        env: From `make_vec`, or a `RolloutVectorEnv`; vector wrappers go around this one. What its envs are wrapped
            in is refused as for one env: of env 0 now, of the others at their first reset.
        critic: As for one env; a privileged critic is told about env i as ``first_env_index + i``.
        mode: As for one env.
        preset: As for one env.
        max_episode_steps: As for one env.
        task: As for one env.
        frame: As for one env, but not ``"render"``.
        on_sim_terminated: As for one env.
        on_critic_error: `raise`, after which all envs must be reset, or `truncate`, for the envs concerned:
            all that a failed call asked about, or the one whose answer was no valid number.
        on_critic_mismatch: As for one env.
        references: As for one env.
        calibration: As for one env.
        max_buffer_bytes: As for one env, of each env.
        sim_success_weight: As for one env.
        first_env_index: Where this group's envs begin among the envs that share the critic.
        **options: Fields of `TrainingRule` that replace the preset's.

    Attributes:
        rule: The training rule.
        critic_latency_ms: float64 (N,), time of the critic's calls for each env's last executed step, in ms; NaN
            where it was not asked. Not in the infos, which are the same for equal episodes.

    Raises:
        ConfigError: An argument does not fit.

    Example:
        >>> from vlac_gym.envs.scripted import ScriptedEnv
        >>> env = RolloutVectorEnv([ScriptedEnv] * 2, mode="sync")
        >>> env = VLACRewardWrapper(env, make_critic("scripted:0.1,0.95"))
        >>> _ = env.reset(seed=0)
        >>> _, rewards, terminations, _, _ = env.step(env.action_space.sample())
        >>> rewards.tolist(), terminations.tolist()
        ([0.0, 1.0], [False, True])
    """

    env: RolloutVectorEnv

    def __init__(
        self,
        env: RolloutVectorEnv,
        critic: Critic | str,
        *,
        mode: Mode = "train",
        preset: str = "vlac",
        max_episode_steps: int | None = None,
        task: str | None = None,
        frame: FrameSource | None = None,
        on_sim_terminated: Literal["ignore", "truncate"] = "ignore",
        on_critic_error: Literal["raise", "truncate"] = "raise",
        on_critic_mismatch: OnMismatch = "raise",
        references: Sequence[Frame] | None = None,
        calibration: str | None = None,
        max_buffer_bytes: int = 256 * 2**20,
        sim_success_weight: float = 1.0,
        first_env_index: int = 0,
        **options: Unpack[RuleOptions],
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,
            critic=critic,
            mode=mode,
            preset=preset,
            max_episode_steps=max_episode_steps,
            task=task,
            frame=frame,
            on_sim_terminated=on_sim_terminated,
            on_critic_error=on_critic_error,
            on_critic_mismatch=on_critic_mismatch,
            references=references,
            calibration=calibration,
            max_buffer_bytes=max_buffer_bytes,
            sim_success_weight=sim_success_weight,
            first_env_index=first_env_index,
            **options,
        )
        if not isinstance(env, RolloutVectorEnv):
            raise ConfigError(
                f"Expected an env from vlac_gym.make_vec (a RolloutVectorEnv), got {env}. Put vector wrappers around "
                f"this one: {nested(_wrapper_names(env) or ['ActionChunk'])}."
            )
        check_inner_wrappers(env.episode_enders, "env 0")
        VectorWrapper.__init__(self, env)
        check_arguments(
            critic=critic,
            mode=mode,
            task=task,
            on_sim_terminated=on_sim_terminated,
            on_critic_error=on_critic_error,
            on_critic_mismatch=on_critic_mismatch,
            references=references,
            max_buffer_bytes=max_buffer_bytes,
            sim_success_weight=sim_success_weight,
        )
        self.rule = resolve_rule(preset, calibration, options, max_episode_steps)
        self._settings = EpisodeSettings(
            rule=self.rule,
            task=task,
            max_episode_steps=max_episode_steps,
            on_sim_terminated=on_sim_terminated,
            max_buffer_bytes=max_buffer_bytes,
            sim_success_weight=sim_success_weight,
        )
        self._critic_spec = critic
        self._critic = None if isinstance(critic, str) else critic
        self._mode: Mode = mode
        self._desk = CriticDesk(
            env,
            lambda: self.critic,
            frame,
            references,
            calibration=calibration,
            on_mismatch=on_critic_mismatch,
            raises=on_critic_error == "raise",
            first_env_index=first_env_index,
        )
        self._terminations = np.zeros(env.num_envs, np.bool_)
        self._truncations = np.zeros(env.num_envs, np.bool_)
        self._idle = np.zeros(env.num_envs, np.bool_)  # over, and not touched by the step under way
        self._is_running = False
        self._pending: JudgedStep | None = None
        self.critic_latency_ms: NDArray[np.float64] = np.full(env.num_envs, np.nan)

    @property
    def mode(self) -> Mode:
        """The current mode."""
        return self._mode

    @property
    def critic(self) -> Critic:
        """The critic; built now if it was given as a spec."""
        if self._critic is None:
            assert isinstance(self._critic_spec, str)
            self._critic = make_critic(self._critic_spec)
            logger.info("critic: %s", self._critic.describe())
        return self._critic

    @property
    def critic_failures(self) -> int:
        """Steps of single envs, since the beginning, in which the critic gave no usable answer."""
        return sum(self._desk.failures)

    @property
    def critic_errors(self) -> dict[int, CriticError]:
        """By env, why the critic gave no usable answer in the last step; with ``on_critic_error="truncate"``."""
        return dict(self._desk.errors)

    def share_critic(self, lock: Any) -> None:
        """Takes a lock to hold whenever the critic is used, so that several wrappers can share it in threads."""
        self._desk.lock = lock

    def set_mode(self, mode: Mode) -> None:
        """Switches the mode when no episode is running; all envs must then be reset.

        Raises:
            ConfigError: Unknown mode, or an episode is running.
            AlreadyPendingCallError: A step is under way.
        """
        check_mode(mode)
        if mode == self._mode:
            return
        self.env.require_idle()
        if self._is_running and not (self._terminations | self._truncations).all():
            raise ConfigError(
                f"Can't switch from {self._mode!r} to {mode!r} while an episode is running. "
                "Finish all, or call reset(options={'mode': …})."
            )
        self._mode = mode
        self._is_running = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes; ``options["mode"]`` switches the mode, the rest is `RolloutVectorEnv.reset`'s.

        Raises:
            ConfigError: An option does not fit, or a `reset_mask` leaves out an env while the mode switches;
                the episodes go on.
            AlreadyPendingCallError: A step is under way.
        """
        options, mode = without_mode(options)
        mask = None if options is None else options.get("reset_mask")
        if mask is not None:
            self._check_partial(mask, mode)
        self.env.require_idle()
        orders = self.env.reset_orders(seed=seed, options=options)
        self._is_running = False  # Whatever raises below leaves episodes that can't go on.
        self._mode = self._mode if mode is None else mode
        if self._mode == "eval":
            result = self.env.execute_reset(orders)
        else:
            infos = stack_infos(self._begun(orders), self.num_envs)
            result = self.env.observations(), infos
        self._terminations[list(orders)] = self._truncations[list(orders)] = False
        self._is_running = True
        return result

    def step(self, actions: NDArray[Any]) -> StepResult:
        """One action for each env, (N, A); see the class for what comes back.

        Raises:
            ResetNeeded: There was no reset since the beginning or since an error.
            CriticError: With ``on_critic_error="raise"``; all episodes are lost.
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begins a step; `step_wait` returns it."""
        self.step_chunk_async(np.asarray(actions)[:, None])

    def step_wait(self) -> StepResult:
        """Ends the step that `step_async` began; the critic is asked here."""
        result = self.step_chunk_wait()
        return (
            result.observations,
            result.rewards[:, 0],
            result.terminations,
            result.truncations,
            result.infos,
        )

    def step_chunk(self, actions: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> ChunkResult:
        """Up to T actions for each env, (N, T, A); each stops where its episode ends, and pays every step.

        Args:
            actions: T >= 1.
            mask: bool (N,), the envs to step, as `RolloutVectorEnv.step_chunk` takes it; the critic is asked about no
                other.
        """
        self.step_chunk_async(actions, mask)
        return self.step_chunk_wait()

    def step_chunk_async(self, actions: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Begins a chunk; `step_chunk_wait` returns it."""
        if not self._is_running:
            raise ResetNeeded("There are no running episodes. Call reset() before the next step().")
        if self._mode == "eval":
            self.env.step_chunk_async(actions, mask)
            return
        if self._pending is not None:
            raise AlreadyPendingCallError("A step is under way. Call step_wait first.", "step")
        chosen = checked_mask(mask, self.num_envs)
        chunks = self.env.checked_actions(actions)
        self.env.require_started()
        over = self._terminations | self._truncations
        resets = {}
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            resets = self.env.autoreset_orders(np.flatnonzero(chosen & over).tolist())
        self._desk.errors.clear()
        self._idle = over & ~np.isin(np.arange(self.num_envs), list(resets))
        rows = {i: chunks[i] for i in np.flatnonzero(chosen & ~over).tolist()}
        step = JudgedStep(self.env, self._desk, self._episode_settings, rows, resets, len(chunks[0]))
        step.submit()
        self._pending = step

    def step_chunk_wait(self) -> ChunkResult:
        """Ends the chunk that `step_chunk_async` began; the critic is asked here."""
        if self._mode == "eval":
            result = self.env.step_chunk_wait()
            self._note_ends(result.terminations, result.truncations)
            return result
        if self._pending is None:
            raise NoAsyncCallError("Call step_async or step_chunk_async first.", "step")
        pending, self._pending = self._pending, None
        self._is_running = False  # Whatever raises below leaves episodes that can't go on.
        step = pending.finish()
        self.critic_latency_ms = pending.latency_ms
        result = self._finish(step)
        self._is_running = True
        return result

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """When an env is reset whose episode is over."""
        return self.env.autoreset_mode

    def close(self, **kwargs: Any) -> None:
        """Closes the envs, and the critic if this wrapper built it."""
        if self._critic is not None and isinstance(self._critic_spec, str):
            self._critic.close()
            self._critic = None
        self._is_running = False
        super().close(**kwargs)

    @property
    def _episode_settings(self) -> EpisodeSettings:
        weight = self._settings.sim_success_weight if self._mode == "shaping" else 0.0
        return replace(self._settings, sim_success_weight=weight)

    def _check_partial(self, mask: Any, mode: Mode | None) -> None:
        if not self._is_running:
            raise ConfigError("Expected a reset of all envs first, got a reset_mask. Leave it out.")
        if mode not in (None, self._mode) and not np.all(mask):
            raise ConfigError(
                f"Can't switch from {self._mode!r} to {mode!r} while an episode is running or awaits its reset in "
                f"an env that reset_mask leaves out, got {mask}. Reset all envs to switch."
            )

    def _begun(self, orders: Mapping[int, ResetOrder]) -> dict[int, dict[str, Any]]:
        return {
            i: self._desk.begin(i, report, self._episode_settings)
            for i, report in self.env.execute(orders).items()
            if isinstance(report, ResetReport)
        }

    def _finish(self, step: VectorStep) -> ChunkResult:
        for flags, before in (
            (step.terminations, self._terminations),
            (step.truncations, self._truncations),
        ):
            flags[self._idle] = before[self._idle]
        self._note_ends(step.terminations, step.truncations)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and step.ended.any():
            ended = np.flatnonzero(step.ended).tolist()
            finals = {i: self.env.final_observation(i) for i in ended}
            for i, info in self._begun(self.env.autoreset_orders(ended)).items():
                step.begin_next(i, finals[i], info)
        return step.result(self.env.observations())

    def _note_ends(self, terminations: NDArray[np.bool_], truncations: NDArray[np.bool_]) -> None:
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            return  # every env is in an episode after every step
        self._terminations, self._truncations = terminations.copy(), truncations.copy()


def _wrapper_names(env: object) -> list[str]:
    names = []
    while isinstance(env, VectorWrapper):
        names.append(type(env).__name__)
        env = env.env
    return names
