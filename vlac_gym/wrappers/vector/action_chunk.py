"""Several actions per step: `ActionChunk`, for many envs at once."""

__all__ = ["ActionChunk"]

from typing import Any

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.stepping.actions import as_array, chunk_space
from vlac_gym.vector.ready_first import EnvIds, ReadyStep
from vlac_gym.vector.rollout_env import RolloutVectorEnv, StepResult
from vlac_gym.vector.step_result import ChunkResult
from vlac_gym.wrappers.vector.vlac_reward import VLACRewardWrapper


class ActionChunk(VectorWrapper[Any, NDArray[Any], Any, NDArray[Any], NDArray[Any]], RecordConstructorArgs):
    """`vlac_gym.wrappers.ActionChunk` for N envs: each executes its chunk until its episode ends.

    Action: Box (N, chunk_size, A); fewer rows than `chunk_size` are allowed, the same number for all envs. The
    reward is the sum over an env's executed steps, the observation and info are those after its last. Pictures
    that neither the critic nor the caller looks at are never rendered; a worker gets one message per look.

    `infos` gains ``infos["chunk"]``: `executed_steps` (int64 (N,)) and `rewards` (float64 (N, T), 0.0 after
    the last executed step). An env that a NEXT_STEP reset or idling keeps from moving has 0 executed steps;
    under SAME_STEP the entry describes the chunk that ended the episode.

    Args:
        env: A `RolloutVectorEnv` or the vector `VLACRewardWrapper`; the action of one env is a Box of shape (A,).
        chunk_size: Most actions of a chunk, >= 1.

    Raises:
        ConfigError: `chunk_size` < 1, or another env or action space.
    """

    def __init__(self, env: RolloutVectorEnv | VLACRewardWrapper, chunk_size: int) -> None:
        RecordConstructorArgs.__init__(self, chunk_size=chunk_size)
        if not isinstance(env, RolloutVectorEnv | VLACRewardWrapper) or not isinstance(
            env.unwrapped, RolloutVectorEnv
        ):
            raise ConfigError(
                f"Expected an env from vlac_gym.make_vec or the vector VLACRewardWrapper around it, got {env}. "
                "Put other vector wrappers around this one."
            )
        VectorWrapper.__init__(self, env)
        self._chunks = env
        self.single_action_space = chunk_space(env.single_action_space, chunk_size)
        self.chunk_size = chunk_size
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Executes the chunks (N, T, A), 1 <= T <= chunk_size.

        Raises:
            ConfigError: Wrong shape or not finite; nothing was executed.
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begins a chunk; `step_wait` returns it."""
        self._check_chunks(actions, self.num_envs)
        self._chunks.step_chunk_async(actions)

    def step_wait(self) -> StepResult:
        """Ends the chunk that `step_async` began."""
        return _summed(self._chunks.step_chunk_wait())

    def send(self, actions: NDArray[Any], env_ids: EnvIds) -> None:
        """Begins chunks (K, T, A), 1 <= T <= chunk_size, in K envs; see `ReadyFirst.send`."""
        self._check_chunks(actions, len(env_ids))
        self._chunks.send_chunks(actions, env_ids)

    def send_reset(self, env_ids: EnvIds, **starts: Any) -> None:
        """Begins an episode in some envs; see `ReadyFirst.send_reset`."""
        self._chunks.send_reset(env_ids, **starts)

    def recv(self, min_ready: int = 1, timeout_s: float | None = None) -> ReadyStep:
        """The envs that are ready; see `ReadyFirst.recv`. An env that was reset has 0 executed steps."""
        env_ids, result = self._chunks.recv_chunks(min_ready, timeout_s)
        return ReadyStep(env_ids, *_summed(result))

    def _check_chunks(self, actions: NDArray[Any], count: int) -> None:
        shape = as_array(actions, "chunks").shape
        if len(shape) != 3 or not 1 <= shape[1] <= self.chunk_size:
            length = self.single_action_space.shape or (0, 0)
            raise ConfigError(
                f"Expected chunks of shape ({count}, 1..{self.chunk_size}, {length[1]}), got {shape}."
            )


def _summed(result: ChunkResult) -> StepResult:
    """A chunk as one step, with what its parts paid in ``infos["chunk"]``."""
    count = len(result.rewards)
    report = {"executed_steps": result.executed_steps, "rewards": result.rewards}
    everywhere = {f"_{key}": np.ones(count, np.bool_) for key in (*report, "chunk")}
    mask = everywhere.pop("_chunk")
    infos = result.infos | {"chunk": report | everywhere, "_chunk": mask}
    sums = [sum(row) for row in result.rewards.tolist()]  # in order, as for one env: np.sum may not be
    rewards = np.array(sums, np.float64)
    return result.observations, rewards, result.terminations, result.truncations, infos
