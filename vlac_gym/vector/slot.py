"""One env of a vector env, where it lives: `EnvSlot`."""

__all__ = ["EnvSlot", "EnvSpaces"]

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from vlac_gym.errors import ConfigError, SimulatorError
from vlac_gym.stepping.frame_source import FrameReader
from vlac_gym.stepping.inner_wrappers import episode_enders
from vlac_gym.stepping.sim_signals import sim_success
from vlac_gym.stepping.unrendered_steps import UnrenderedSteps
from vlac_gym.vector.commands import (
    CallCommand,
    CallReply,
    Command,
    Failure,
    Lost,
    Reply,
    ResetCommand,
    ResetReply,
    StepCommand,
    StepReply,
)
from vlac_gym.vector.observations import write_row


class EnvSpaces(NamedTuple):
    """What each env of a vector env has, since they share rows and one policy."""

    observation: gym.Space[Any]
    action: gym.Space[Any]


class EnvSlot:
    """Builds an env on its first command, carries commands out, and writes observations into its row.

    Args:
        env_fn: Builds the env.
        spaces: What the env's spaces must equal.
        batch: Where observations go; see `vlac_gym.vector.observations`.
        row: Which row.
    """

    def __init__(
        self,
        env_fn: Callable[[], gym.Env[Any, Any]],
        spaces: EnvSpaces,
        batch: Any,
        row: int,
    ) -> None:
        self._env_fn = env_fn
        self._spaces = spaces
        self._batch = batch
        self._row = row
        self._env: gym.Env[Any, Any] | None = None
        self._steps: UnrenderedSteps | None = None
        self._readers: dict[str, FrameReader] = {}
        self._has_episode = False

    def run(self, command: Command) -> Reply:
        """Carries a command out; whatever goes wrong is in the reply."""
        return self.start(command)()

    def start(self, command: Command) -> Callable[[], Reply]:
        """Carries a command out up to its pictures, which are being drawn; the result waits for them.

        Returns:
            Gives the reply, once. The observation is in the batch by then.
        """
        if isinstance(command, StepCommand):
            reply = self._safely(command, partial(self._step, command))
            if isinstance(reply, StepReply):
                return partial(self._safely, command, partial(self._look, command, reply))
        elif isinstance(command, ResetCommand):
            reply = self._safely(command, partial(self._reset, command))
        else:
            reply = self._safely(command, partial(self._call, command))
        return lambda: reply

    def _safely(self, command: Command, act: Callable[[], Reply]) -> Reply:
        try:
            return act()
        except SimulatorError as e:
            self._has_episode = False
            return Lost(str(e)) if isinstance(command, StepCommand) else Failure.of(e)
        except Exception as e:  # noqa: BLE001 (the reply carries it to the caller, who raises it)
            return Failure.of(e)

    def close(self) -> None:
        """Closes the env."""
        if self._env is not None:
            self._env.close()
            self._env = self._steps = None
        self._has_episode = False

    def _reset(self, command: ResetCommand) -> Reply:
        env, steps = self._built()
        observation, info = env.reset(seed=command.seed, options=command.options)
        steps.begin(observation)
        write_row(self._batch, self._row, observation)
        self._has_episode = True
        return ResetReply(info, episode_enders(env))

    def _step(self, command: StepCommand) -> Reply:
        """Moves, and has what will be looked at drawn."""
        if not self._has_episode:
            return Lost("its worker was replaced, or its simulator failed, since the episode began")
        _, steps = self._built()
        rewards: list[float] = []
        successes: list[bool | None] = []
        terminated = truncated = False
        info: dict[str, Any] = {}
        for action in command.actions:
            reward, terminated, truncated, info = steps.step(action)
            rewards.append(reward)
            successes.append(sim_success(info))
            if (terminated and command.stops_at_terminated) or (truncated and command.stops_at_truncated):
                break
        reply = StepReply(np.array(rewards, np.float64), tuple(successes), terminated, truncated, info)
        steps.draw_ahead(self._reader(command, reply))
        return reply

    def _look(self, command: StepCommand, reply: StepReply) -> Reply:
        _, steps = self._built()
        reader = self._reader(command, reply)
        if reader is None:
            write_row(self._batch, self._row, steps.observe())
        else:
            self._batch[command.key][self._row] = steps.frame(reader, reply.info)
        return reply

    def _reader(self, command: StepCommand, reply: StepReply) -> FrameReader | None:
        """What reads the critic's frame where nothing else is looked at; None for the whole observation."""
        is_cut = len(reply.rewards) < len(command.actions)
        if command.key is None or is_cut:
            return None
        if command.key not in self._readers:
            self._readers[command.key] = FrameReader(self._built()[0], command.key)
        return self._readers[command.key]

    def _call(self, command: CallCommand) -> Reply:
        env, _ = self._built()
        found = env.get_wrapper_attr(command.name)
        return CallReply(found(*command.args, **command.kwargs) if callable(found) else found)

    def _built(self) -> tuple[gym.Env[Any, Any], UnrenderedSteps]:
        if self._env is None or self._steps is None:
            env = self._env_fn()
            if EnvSpaces(env.observation_space, env.action_space) != self._spaces:
                env.close()
                raise ConfigError(
                    f"Expected every env to observe {self._spaces.observation} and to take {self._spaces.action}, as "
                    f"env 0 does, got {env.observation_space} and {env.action_space}. "
                    "Build all envs with the same cameras, image size and actions."
                )
            self._env, self._steps = env, UnrenderedSteps(env)
        return self._env, self._steps
