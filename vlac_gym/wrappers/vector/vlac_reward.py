"""The critic in the simulator's place: `VLACRewardWrapper`, for many envs at once."""

__all__ = ["VLACRewardWrapper"]

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from vlac_gym.critic.base import Critic
from vlac_gym.errors import ConfigError, CriticError
from vlac_gym.stepping.inner_wrappers import (
    check_inner_wrappers,
    episode_enders,
    episode_enders_by_name,
    nested,
)
from vlac_gym.types import Mode
from vlac_gym.vector.commands import ResetCommand
from vlac_gym.vector.plain_envs import PlainEnvs
from vlac_gym.vector.ready_first import ReadyFirst
from vlac_gym.vector.referee import Referee, SimulatorReferee
from vlac_gym.vector.rollout_env import RolloutVectorEnv, StepResult
from vlac_gym.vector.step_loop import StepLoop
from vlac_gym.vector.step_result import ChunkResult
from vlac_gym.wrappers.rule_setup import RewardOptions, check_mode, reward_config, without_mode
from vlac_gym.wrappers.vector.critic_referee import VectorCriticReferee


class VLACRewardWrapper(
    ReadyFirst, VectorWrapper[Any, NDArray[Any], Any, NDArray[Any], NDArray[Any]], RecordConstructorArgs
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

    `send` and `recv` return the same, whichever envs are ready (`ReadyFirst`); there the critic is asked about those
    that wait together, in a thread: one call at a time or, if it `takes_concurrent_calls`, one of each kind.

    No frame, pair or value list spans a reset. An episode that is lost with its worker ends truncated with
    reward 0.0 and ``infos["lost"][i]`` True, and has no info of the critic. In eval mode everything is what
    the wrapped env returned and the critic is never called.

    **Any other vector env** (`SyncVectorEnv`, `AsyncVectorEnv`, one that simulates N envs on a GPU) steps and renders
    all envs at once, so that chunks and masks need a `RolloutVectorEnv`; an env that is over moves along, unseen, until
    it is reset by ``options["reset_mask"]``, which the vector env must take. In training it returns what a
    `RolloutVectorEnv` of the same envs returns, observations of idle envs apart, if

    - its mode is DISABLED and its envs can be stepped on after they have terminated (LIBERO's can, by
      `AsyncVectorEnv`), or
    - ``on_sim_terminated="truncate"``: an env that resets itself, and `SyncVectorEnv` in any mode, can't go on where
      the simulator ends the episode, which is then ended like at the step limit. Its own `truncated` ends the episode
      too, whatever `max_episode_steps` is.

    Everything else is refused, as the simulator's success would cut training episodes.

    Args:
        env: From `make_vec`, a `RolloutVectorEnv`, or any other vector env; vector wrappers go around it. What its
            envs are wrapped in is refused as for one env, as far as it can be seen: of env 0 now, of the others of
            a `RolloutVectorEnv` at their first reset.
        critic: As for one env; a privileged critic is told about env i as ``first_env_index + i``.
        first_env_index: Where this group's envs begin among the envs that share the critic.
        ask_window_s: With `send` and `recv`, how long the first question waits for others while the critic is free,
            in s: larger batches against idle envs. Without effect on `step`.
        **options: As for one env, with these differences. `frame` can't be ``"render"``; a function is given one env's
            (observation, info) and may return a tensor. ``on_critic_error="raise"`` loses all episodes, `truncate`
            ends those concerned: all that a failed call asked about, or the one whose answer was no valid number.

    Attributes:
        rule: The training rule.
        critic_latency_ms: float64 (N,), time of the critic's calls for each env's last executed step, in ms; NaN
            where it was not asked. Not in the infos, which are the same for equal episodes.
        critic_s: Time of all calls to the critic so far, in s; those at once count each.

    Raises:
        ConfigError: An argument does not fit.

    Example:
        >>> from vlac_gym.critic import make_critic
        >>> from vlac_gym.envs.scripted import ScriptedEnv
        >>> env = RolloutVectorEnv([ScriptedEnv] * 2, mode="sync")
        >>> env = VLACRewardWrapper(env, make_critic("scripted:0.1,0.95"))
        >>> _ = env.reset(seed=0)
        >>> _, rewards, terminations, _, _ = env.step(env.action_space.sample())
        >>> rewards.tolist(), terminations.tolist()
        ([0.0, 1.0], [False, True])
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        critic: Critic | str,
        *,
        first_env_index: int = 0,
        ask_window_s: float = 0.002,
        **options: Unpack[RewardOptions],
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,
            critic=critic,
            first_env_index=first_env_index,
            ask_window_s=ask_window_s,
            **options,
        )
        if not ask_window_s >= 0:
            raise ConfigError(f"Expected ask_window_s >= 0, got {ask_window_s!r}.")
        _check_inner(env)
        VectorWrapper.__init__(self, env)
        config = reward_config(critic, options)
        self.rule = config.rule
        self._mode: Mode = config.mode
        self._envs = env if isinstance(env, RolloutVectorEnv) else PlainEnvs(env)
        self._loop = self._envs.loop
        self._loop.window_s = ask_window_s
        ends_with_env = isinstance(self._envs, PlainEnvs) and self._envs.ends_with_env
        if ends_with_env and config.on_sim_terminated == "ignore":
            raise _ends_with_env(env)
        self._referee = VectorCriticReferee(
            config,
            env,
            self._envs,
            first_env_index=first_env_index,
            shares_cpu=env.shares_host if isinstance(env, RolloutVectorEnv) else True,
            ends_with_env=ends_with_env,
        )

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
        """Steps of single envs, since the beginning, in which the critic gave no usable answer."""
        return sum(self._referee.failures)

    @property
    def critic_counters(self) -> dict[str, int]:
        """Retries, failovers and failed episodes by metric name, of all envs; as for one env."""
        return self._referee.counters

    @property
    def critic_latency_ms(self) -> NDArray[np.float64]:
        """See the class."""
        return self._loop.latency_ms

    @property
    def critic_s(self) -> float:
        """See the class."""
        return self._referee.asked_s

    @property
    def critic_errors(self) -> dict[int, CriticError]:
        """By env, why the critic gave no usable answer in the last step; with ``on_critic_error="truncate"``."""
        return dict(self._loop.errors)

    def share_critic(self, lock: Any) -> None:
        """Takes a lock to hold whenever the critic is used, so that several wrappers can share it in threads."""
        self._referee.lock = lock

    def set_mode(self, mode: Mode, *, abandon: bool = False) -> None:
        """Switches the mode when no episode is running; all envs must then be reset.

        Args:
            mode: The new one.
            abandon: Gives up the episodes that are running.

        Raises:
            ConfigError: Unknown mode, or an episode is running.
            AlreadyPendingCallError: A step is under way.
        """
        check_mode(mode)
        if mode == self._mode:
            return
        self._loop.require_idle()
        if not abandon and (self._loop.has_episode & ~self._loop.over).any():
            raise ConfigError(
                f"Can't switch from {self._mode!r} to {mode!r} while an episode is running. "
                "Finish all, or call reset(options={'mode': …})."
            )
        self._mode = mode
        self._loop.has_episodes = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes; ``options["mode"]`` switches the mode, the rest is the wrapped env's.

        Raises:
            ConfigError: An option does not fit, or a `reset_mask` leaves out an env while the mode switches;
                the episodes go on.
            AlreadyPendingCallError: A step is under way.
        """
        options, mode = without_mode(options)
        mask = None if options is None else options.get("reset_mask")
        if mask is not None and mode not in (None, self._mode) and not np.all(mask):
            raise ConfigError(
                f"Can't switch from {self._mode!r} to {mode!r} while an episode is running or awaits its reset in "
                f"an env that reset_mask leaves out, got {mask}. Reset all envs to switch."
            )
        mode = self._mode if mode is None else mode
        if mode == "eval":
            result = self._envs.reset(seed=seed, options=options)
        else:
            commands = self._loop.reset_commands(seed=seed, options=options)
            self._referee.is_shaping = mode == "shaping"
            result = self._loop.reset(self._referee, commands)
        self._mode = mode
        return result

    def step(self, actions: Any) -> StepResult:
        """One action for each env; see the class for what comes back.

        Raises:
            ResetNeeded: There was no reset since the beginning or since an error.
            CriticError: With ``on_critic_error="raise"``; all episodes are lost.
            CircuitBreakerError: More was lost to the critic than `on_critic_error` allows; `reset` raises it again.
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Begins a step; `step_wait` returns it."""
        self._envs.step_async(actions)

    def step_wait(self) -> StepResult:
        """Ends the step that `step_async` began; the critic is asked here."""
        return self._envs.step_wait()

    def step_chunk(self, actions: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> ChunkResult:
        """Up to T actions for each env, (N, T, A); each stops where its episode ends, and pays every step.

        Args:
            actions: T >= 1.
            mask: bool (N,), the envs to step, as `RolloutVectorEnv.step_chunk` takes it; the critic is asked about no
                other.

        Raises:
            ConfigError: The envs are no `RolloutVectorEnv`, or as it says; nothing has moved.
        """
        self.step_chunk_async(actions, mask)
        return self.step_chunk_wait()

    def step_chunk_async(self, actions: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Begins a chunk; `step_chunk_wait` returns it."""
        self._envs.step_chunk_async(actions, mask)

    def step_chunk_wait(self) -> ChunkResult:
        """Ends the chunk that `step_chunk_async` began; the critic is asked here."""
        return self._envs.step_chunk_wait()

    @property
    def _step_loop(self) -> StepLoop:
        if isinstance(self._envs, PlainEnvs):
            raise ConfigError(
                f"Expected a RolloutVectorEnv for send and recv, got {self.env}, which steps all envs at once. Make "
                "the envs with vlac_gym.make_vec or RolloutVectorEnv, or call step."
            )
        return self._loop

    def _reset_command(self, index: int, seed: int | None, options: Mapping[str, Any] | None) -> ResetCommand:
        rest, mode = without_mode(None if options is None else dict(options))
        if mode not in (None, self._mode):
            raise ConfigError(f"Can't switch to mode {mode!r} in a single env. Call set_mode.")
        assert isinstance(self._envs, RolloutVectorEnv)
        return self._envs._reset_command(index, seed, rest)

    def _referee_of_next_episodes(self) -> Referee:
        if self._mode == "eval":
            return SimulatorReferee()
        self._referee.is_shaping = self._mode == "shaping"
        return self._referee

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """When an env is reset whose episode is over."""
        return self._envs.autoreset_mode

    def close(self, **kwargs: Any) -> None:
        """Closes the envs, and the critic if this wrapper built it."""
        self._loop.close()
        self._referee.close()
        self._loop.has_episodes = False
        super().close(**kwargs)


_OURS = ("ActionChunk", "CurriculumWrapper", "VLACRewardWrapper")
_OUTSIDE = (*_OURS, "DictInfoToList")
"""Vector wrappers that go around this one; the last hands out infos that are no dict."""


def _check_inner(env: Any) -> None:
    """Refuses an env whose wrappers would let the simulator's success end an episode, or hide the fast path."""
    if not isinstance(env, VectorEnv):
        raise ConfigError(
            f"Expected a gymnasium.vector.VectorEnv, got {env}. vlac_gym.wrappers.VLACRewardWrapper takes one env."
        )
    if isinstance(env, RolloutVectorEnv):
        check_inner_wrappers(env.episode_enders, "env 0")
        return
    around = _wrapper_names(env)
    if isinstance(env.unwrapped, RolloutVectorEnv) or set(around) & set(_OUTSIDE):
        raise ConfigError(
            f"Expected an env from vlac_gym.make_vec (a RolloutVectorEnv) or another vector env without "
            f"{', '.join(_OUTSIDE)} around it, got {env}. Put vector wrappers around this one: {nested(around)}."
        )
    for i, single in enumerate(getattr(env.unwrapped, "envs", ())):
        check_inner_wrappers(episode_enders(single), f"env {i}")
    if isinstance(env.unwrapped, AsyncVectorEnv):
        for i, text in enumerate(env.unwrapped.call("__str__")):
            check_inner_wrappers(episode_enders_by_name(text), f"env {i}")


def _ends_with_env(env: VectorEnv[Any, Any, Any]) -> ConfigError:
    resets_itself = AutoresetMode(env.metadata["autoreset_mode"]) is not AutoresetMode.DISABLED
    why = "resets its envs itself" if resets_itself else "steps no env past its own end"
    return ConfigError(
        f"Expected a vector env whose envs go on where the simulator ends an episode, got {env}, which {why}: a "
        "training episode would be cut by the simulator's success. Use vlac_gym.vector.RolloutVectorEnv([…]), or "
        "AsyncVectorEnv or another with autoreset_mode DISABLED; or end the episode there like at the step limit: "
        "on_sim_terminated='truncate' (which changes nothing where envs only truncate)."
    )


def _wrapper_names(env: object) -> list[str]:
    names = []
    while isinstance(env, VectorWrapper):
        names.append(type(env).__name__)
        env = env.env
    return names
