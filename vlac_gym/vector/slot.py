"""One env of a vector env, where it lives: `EnvSlot`."""

__all__ = ["EnvSlot"]

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from vlac_gym.errors import ConfigError, SimulatorError
from vlac_gym.stepping.frame_source import FrameReader
from vlac_gym.stepping.inner_wrappers import episode_enders
from vlac_gym.stepping.quiet_steps import QuietSteps
from vlac_gym.stepping.sim_signals import sim_success
from vlac_gym.vector.observations import write_row
from vlac_gym.vector.orders import (
    CallOrder,
    CallReport,
    Failure,
    Lost,
    Order,
    Report,
    ResetOrder,
    ResetReport,
    StepOrder,
    StepReport,
)


class EnvSlot:
    """Builds an env on its first order, carries orders out, and writes observations into its row.

    Args:
        env_fn: Builds the env.
        observation_space: What the env's observation space must equal.
        batch: Where observations go; see `vlac_gym.vector.observations`.
        row: Which row.
    """

    def __init__(
        self,
        env_fn: Callable[[], gym.Env[Any, Any]],
        observation_space: gym.Space[Any],
        batch: Any,
        row: int,
    ) -> None:
        self._env_fn = env_fn
        self._space = observation_space
        self._batch = batch
        self._row = row
        self._env: gym.Env[Any, Any] | None = None
        self._steps: QuietSteps | None = None
        self._readers: dict[str, FrameReader] = {}
        self._has_episode = False

    def run(self, order: Order) -> Report:
        """Carries an order out; whatever goes wrong is in the report."""
        try:
            if isinstance(order, StepOrder):
                return self._step(order)
            return self._reset(order) if isinstance(order, ResetOrder) else self._call(order)
        except SimulatorError as e:
            self._has_episode = False
            return Lost(str(e)) if isinstance(order, StepOrder) else Failure.of(e)
        except Exception as e:  # noqa: BLE001 (the report carries it to the caller, who raises it)
            return Failure.of(e)

    def close(self) -> None:
        """Closes the env."""
        if self._env is not None:
            self._env.close()
            self._env = self._steps = None
        self._has_episode = False

    def _reset(self, order: ResetOrder) -> Report:
        env, steps = self._built()
        observation, info = env.reset(seed=order.seed, options=order.options)
        steps.begin(observation)
        write_row(self._batch, self._row, observation)
        self._has_episode = True
        return ResetReport(info, episode_enders(env))

    def _step(self, order: StepOrder) -> Report:
        if not self._has_episode:
            return Lost("its worker was replaced, or its simulator failed, since the episode began")
        _, steps = self._built()
        rewards: list[float] = []
        successes: list[bool | None] = []
        terminated = truncated = False
        info: dict[str, Any] = {}
        for action in order.actions:
            reward, terminated, truncated, info = steps.step(action)
            rewards.append(reward)
            successes.append(sim_success(info))
            if (terminated and order.stops_at_terminated) or (truncated and order.stops_at_truncated):
                break
        is_cut = len(rewards) < len(order.actions)
        self._look(None if is_cut else order.key, info)
        return StepReport(np.array(rewards, np.float64), tuple(successes), terminated, truncated, info)

    def _look(self, key: str | None, info: dict[str, Any]) -> None:
        env, steps = self._built()
        if key is None:
            write_row(self._batch, self._row, steps.observe())
            return
        if key not in self._readers:
            self._readers[key] = FrameReader(env, key)
        self._batch[key][self._row] = steps.frame(self._readers[key], info)

    def _call(self, order: CallOrder) -> Report:
        env, _ = self._built()
        found = env.get_wrapper_attr(order.name)
        return CallReport(found(*order.args, **order.kwargs) if callable(found) else found)

    def _built(self) -> tuple[gym.Env[Any, Any], QuietSteps]:
        if self._env is None or self._steps is None:
            env = self._env_fn()
            if env.observation_space != self._space:
                env.close()
                raise ConfigError(
                    f"Expected every env to observe {self._space}, got {env.observation_space}. "
                    "Build all envs with the same cameras and image size."
                )
            self._env, self._steps = env, QuietSteps(env)
        return self._env, self._steps
