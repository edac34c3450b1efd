"""Any Gymnasium vector env behind a `StepLoop`: `PlainEnvs`."""

__all__ = ["PlainEnvs"]

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.frames.on_device import is_tensor, on_host
from vlac_gym.stepping.actions import checked_actions, checked_mask
from vlac_gym.stepping.sim_signals import sim_success
from vlac_gym.vector.commands import Command, Reply, ResetCommand, ResetReply, StepCommand, StepReply
from vlac_gym.vector.referee import SimulatorReferee
from vlac_gym.vector.step_loop import StepLoop
from vlac_gym.vector.step_result import ChunkResult


class PlainEnvs:
    """Carries out one command per env on a vector env that only steps all envs at once.

    - An env without a command to step moves along, by the action given for it, and its result is dropped. Under
      DISABLED, where an env that is over must not be stepped, it is reset before.
    - An env that resets itself has its reset ready for the order to reset that follows; all others are reset by
      ``options["reset_mask"]``, which the vector env must take, as Gymnasium's do.

    Args:
        env: The vector env, with ``metadata["autoreset_mode"]``. What it returns may hold tensors.

    Attributes:
        autoreset_mode: Its autoreset mode.
        loop: Steps the envs.
        ends_with_env: An env can't be stepped past its own end: it resets itself, or refuses as `SyncVectorEnv` does.

    Raises:
        ConfigError: It does not say its autoreset mode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self.num_envs = env.num_envs
        self.autoreset_mode = _autoreset_mode(env)
        self.ends_with_env = self.autoreset_mode is not AutoresetMode.DISABLED or isinstance(
            env.unwrapped, SyncVectorEnv
        )
        self.loop = StepLoop(self, self.autoreset_mode)
        self._env = env
        self._commands: Mapping[int, Command] = {}
        self._actions: Any = None
        self._is_pending = False
        self._batch: Any = None
        self._has_started = np.zeros(env.num_envs, np.bool_)
        self._is_over = np.zeros(env.num_envs, np.bool_)  # as the env says
        self._finals: dict[
            int, Any
        ] = {}  # last observations of envs that have reset themselves in the same step
        self._resets: dict[
            int, dict[str, Any]
        ] = {}  # infos of envs that have reset themselves and not moved since
        self._reset_arguments: tuple[Any, dict[str, Any]] = (None, {})

    # As of `RolloutVectorEnv`.

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The vector env's own reset; until the next one of `loop`, it also has its own steps."""
        self.require_idle()
        mask = checked_mask((options or {}).get("reset_mask"), self.num_envs)
        if not (mask.all() or self.loop.has_episodes):
            raise ConfigError("Expected a reset of all envs first, got a reset_mask. Leave it out.")
        self.loop.has_episodes = False
        result = self._env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self.loop.referee = SimulatorReferee()
        self.loop.note_reset(np.flatnonzero(mask).tolist())
        return result

    def step_async(self, actions: Any) -> None:
        """Takes the actions: as the action space batches them, or a tensor of that shape."""
        if not self._is_own:
            if isinstance(actions, np.ndarray) or not hasattr(actions, "device"):
                checked_actions(actions, self._env.action_space, self.num_envs)
            self.loop.begin([[i] for i in range(self.num_envs)], np.ones(self.num_envs, np.bool_))
        elif not self.loop.has_episodes:
            raise ResetNeeded("There are no running episodes. Call reset() before the next step().")
        self.require_idle()
        self._actions, self._is_pending = actions, True

    def step_wait(self) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all envs."""
        if not self._is_pending:
            raise NoAsyncCallError("Call step_async first.", "step")
        self._is_pending = False
        if not self._is_own:
            return self.loop.finish().first_step()
        result = self._env.step(self._actions)
        self.loop.note_ends(_array(result[2]), _array(result[3]))
        return result

    def step_chunk_async(self, actions: Any, mask: Any = None) -> None:
        """Refuses.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"Expected a RolloutVectorEnv for chunks and masks, got {self._env}, which steps all envs by one action. "
            "Make the envs with vlac_gym.make_vec or RolloutVectorEnv, or call step for each action."
        )

    def step_chunk_wait(self) -> ChunkResult:
        """See `step_chunk_async`."""
        return self.loop.finish()

    # What `loop` asks of the envs; see `Envs`.

    def require_idle(self) -> None:
        """Raises `AlreadyPendingCallError` between `step_async` and `step_wait`; nothing has moved there."""
        if self._is_pending:
            raise AlreadyPendingCallError("A step is under way. Call step_wait first.", "step")

    def require_started(self) -> None:
        """Raises `ResetNeeded` unless every env was reset since the last error."""
        if not self._has_started.all():
            raise ResetNeeded("There are no episodes. Call reset() before stepping.")

    def reset_commands(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> dict[int, ResetCommand]:
        """The commands of a reset that the caller asked for; seed and options go to the vector env as they are."""
        rest = dict(options or {})
        mask = checked_mask(rest.pop("reset_mask", None), self.num_envs)
        if not (self._has_started | mask).all():
            raise ConfigError(
                "Expected a reset of all envs first, got a reset_mask that leaves some unstarted."
            )
        self._reset_arguments = (seed, rest)
        self._resets = {}
        return {i: ResetCommand() for i in np.flatnonzero(mask).tolist()}

    def autoreset_commands(self, indices: Sequence[int]) -> dict[int, ResetCommand]:
        """The commands of an automatic reset."""
        self._reset_arguments = (None, {})
        return {i: ResetCommand() for i in indices}

    def submit(self, commands: Mapping[int, Command]) -> None:
        """Remembers the commands; they are carried out by `collect`."""
        self._commands = commands

    def collect(self) -> dict[int, Reply]:
        """Carries the commands out: those to step, then those to reset."""
        steps = {i for i, command in self._commands.items() if isinstance(command, StepCommand)}
        resets = [i for i, command in self._commands.items() if isinstance(command, ResetCommand)]
        try:
            replies: dict[int, Reply] = dict(self._step(steps)) if steps else {}
            self._reset([i for i in resets if i not in self._resets], *self._reset_arguments)
        except BaseException:
            self._has_started[:] = False
            raise
        for i in resets:
            self._finals.pop(i, None)
            replies[i] = ResetReply(self._resets.pop(i))
        return dict(sorted(replies.items()))

    def collect_ready(self, timeout_s: float | None, wake: Any) -> dict[int, Reply]:
        """`collect`: all envs step at once."""
        return self.collect()

    def abandon(self) -> None:
        """Drops the commands."""
        self._commands = {}

    def execute(self, commands: Mapping[int, Command]) -> dict[int, Reply]:
        """`submit`, then `collect`."""
        self.submit(commands)
        return self.collect()

    def observation(self, index: int) -> Any:
        """Env `index`'s latest observation, of its episode."""
        return self._finals[index] if index in self._finals else _row(self._batch, index)

    def observations(self, indices: Sequence[int] | None = None) -> Any:
        """All envs' latest observations, as the vector env returned them."""
        assert indices is None
        return self._batch

    def final_observation(self, index: int) -> Any:
        """A copy of env `index`'s latest observation."""
        return _copy(self.observation(index))

    @property
    def _is_own(self) -> bool:
        return isinstance(self.loop.referee, SimulatorReferee)

    def _step(self, steps: set[int]) -> dict[int, StepReply]:
        if self.autoreset_mode is AutoresetMode.DISABLED:
            self._reset([i for i in np.flatnonzero(self._is_over).tolist() if i not in steps], None, {})
        self._batch, rewards, terminations, truncations, infos = self._env.step(self._actions)
        rewards, terminations, truncations = map(_array, (rewards, terminations, truncations))
        was_over, self._is_over = self._is_over, terminations | truncations
        infos = _arrays(infos)
        self._finals, self._resets = {}, {}
        replies = {}
        for i in range(self.num_envs):
            info = _info(infos, i)
            if was_over[i] and self.autoreset_mode is AutoresetMode.NEXT_STEP:
                self._resets[i] = info
            elif self._is_over[i] and self.autoreset_mode is AutoresetMode.SAME_STEP:
                self._resets[i], self._finals[i], info = _same_step(info, i)
            if i in steps:
                reward = np.array([rewards[i]], np.float64)
                ends = bool(terminations[i]), bool(truncations[i])
                replies[i] = StepReply(reward, (sim_success(info),), *ends, info)
        return replies

    def _reset(self, indices: Sequence[int], seed: Any, options: dict[str, Any]) -> None:
        if not indices:
            return
        mask = np.zeros(self.num_envs, np.bool_)
        mask[indices] = True
        options = dict(options) if mask.all() else {**options, "reset_mask": mask}
        self._batch, infos = self._env.reset(seed=seed, options=options or None)
        infos = _arrays(infos)
        self._resets |= {i: _info(infos, i) for i in indices}
        self._is_over[indices] = False
        self._has_started[indices] = True


def _autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError as e:
        raise ConfigError(
            f"Expected an AutoresetMode in metadata['autoreset_mode'], which says when a vector env resets its envs, "
            f"got {mode!r} of {env}. Set it."
        ) from e


def _row(batch: Any, index: int) -> Any:
    """One env's part of a batch of arrays or tensors, in dicts and tuples."""
    if isinstance(batch, Mapping):
        return {key: _row(item, index) for key, item in batch.items()}
    return tuple(_row(item, index) for item in batch) if isinstance(batch, tuple) else batch[index]


def _copy(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _copy(item) for key, item in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copy(item) for item in observation)
    return observation.clone() if is_tensor(observation) else deepcopy(observation)


def _same_step(info: dict[str, Any], index: int) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Of an env that has reset itself: the new episode's info, the last one's observation and info."""
    if not {"final_obs", "final_info"} <= set(info):
        raise ConfigError(
            f"Expected 'final_obs' and 'final_info' of env {index}, which has reset itself, got {sorted(info)}. Make "
            "the vector env with autoreset_mode DISABLED."
        )
    rest = {key: value for key, value in info.items() if key not in ("final_obs", "final_info")}
    return rest, info["final_obs"], info["final_info"]


def _array(values: Any) -> NDArray[Any]:
    """An array, or a tensor wherever it is, as an array."""
    return np.asarray(on_host(values))


def _arrays(infos: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _arrays(value) if isinstance(value, Mapping) else on_host(value) for key, value in infos.items()
    }


def _info(infos: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One env's info: what its masks say it has, and of values without a mask its entry, or the value for all."""
    info: dict[str, Any] = {}
    for key, values in infos.items():
        mask = infos.get(f"_{key}")
        is_mask = key.startswith("_") and key[1:] in infos
        if is_mask or (mask is not None and not mask[index]):
            continue
        if isinstance(values, Mapping):
            info[key] = _info(values, index)
        elif isinstance(values, np.ndarray | list | tuple) and len(values) > index:
            value = values[index]
            info[key] = value.item() if isinstance(value, np.generic) else value
        else:
            info[key] = values
    return info
