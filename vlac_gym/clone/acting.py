"""A cloned policy that drives envs: `ClonedPolicy`, `from_spec`."""

__all__ = ["ClonedPolicy", "from_spec"]

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from vlac_gym.clone.policy import ACTION_SIZE, STATE_SIZE, ClonePolicy, load_policy
from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.extras import needs
from vlac_gym.policies.base import Action
from vlac_gym.specs.options import read_argument

with needs("A clone policy", "vlac"):
    import torch


class ClonedPolicy:
    """Acts by the means of a `ClonePolicy`, without noise; a `ChunkPolicy`.

    Args:
        policy: The network.
        chunk_steps: Actions executed before the next look, from 1 to the policy's `chunk_size`; None for all of them.
        device: PyTorch's name of the device.
        where: Where it is from, for messages.

    Attributes:
        cameras: The env's cameras that the policy needs.

    Raises:
        ConfigError: No such number of steps, or no such device.
    """

    def __init__(
        self,
        policy: ClonePolicy,
        chunk_steps: int | None = None,
        device: str = "cpu",
        where: str = "this policy",
    ) -> None:
        if chunk_steps is not None and not 1 <= chunk_steps <= policy.chunk_size:
            raise ConfigError(
                f"Expected chunk_steps from 1 to {policy.chunk_size}, the chunk of {where}, got {chunk_steps}."
            )
        try:
            self._policy = policy.to(device).eval()
        except (RuntimeError, AssertionError) as e:  # torch says it differently with and without CUDA
            raise ConfigError(
                f"Expected a device that torch can use for {where}, got {device!r}: {str(e).splitlines()[0]}"
            ) from e
        self.cameras = policy.cameras
        self._chunk_steps = chunk_steps or policy.chunk_size
        self._device, self._where = device, where
        self._queue: deque[Action] = deque()

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Forgets what is left of the last chunk.

        Raises:
            ConfigError: The env's actions, state or pictures are not those that the policy was trained on.
        """
        if env.action_space.shape != (ACTION_SIZE,):
            raise ConfigError(
                f"Expected actions of {ACTION_SIZE} numbers for {self._where}, the env's are of shape "
                f"{env.action_space.shape}."
            )
        space = env.observation_space
        shapes = {name: s.shape for name, s in space.items()} if isinstance(space, spaces.Dict) else {}
        self._check_shapes(shapes, ConfigError)
        self._queue.clear()

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """The next action of the present chunk; asks the network for another where it is over."""
        if not self._queue:
            self._queue.extend(self.plan([obs], [info])[0])
        return self._queue.popleft()

    def plan(self, observations: Sequence[Any], infos: Sequence[Mapping[str, Any]]) -> list[Action]:
        """One chunk for each env, float32 (T, 7) in [-1, 1]; see `ChunkPolicy`.

        Raises:
            PolicyError: A task that the policy was not trained on, or an observation or info without what it needs.
        """
        for observation in observations:
            self._check_shapes({name: np.shape(value) for name, value in observation.items()}, PolicyError)
        tasks, env_steps = self._policy.read_infos(infos, self._where)
        images = {
            camera: self._stacked([observation[f"{camera}_image"] for observation in observations])
            for camera in self.cameras
        }
        states = self._stacked([np.asarray(observation["state"], np.float32) for observation in observations])
        with torch.inference_mode():
            means, _, _ = self._policy(images, states, tasks, env_steps)
        chunks = means[:, : self._chunk_steps].clamp(-1.0, 1.0).float().cpu().numpy()
        return list(chunks)

    def close(self) -> None:
        """Nothing to do: the network goes with its last reference."""

    def _stacked(self, arrays: Sequence[Any]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self._device)

    def _check_shapes(self, shapes: Mapping[str, Any], error: type[ConfigError] | type[PolicyError]) -> None:
        if shapes.get("state") != (STATE_SIZE,):
            raise error(
                f"Expected an observation with a `state` of {STATE_SIZE} numbers for {self._where}, got "
                f"{shapes.get('state')}."
            )
        for camera in self.cameras:
            shape = shapes.get(f"{camera}_image")
            side = self._policy.image_size
            if shape is None:
                raise error(
                    f"Expected an observation with the pictures of {', '.join(self.cameras)} for {self._where}, got "
                    f"{', '.join(shapes)}. Make the env with cameras={self.cameras}."
                )
            if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < side:
                raise error(
                    f"Expected pictures of {side} x {side} pixels or more, RGB, for {self._where}, got {camera} of "
                    f"shape {shape}."
                )


def from_spec(argument: str) -> ClonedPolicy:
    """Builds a policy from what follows `clone:`, as in `clone:PATH?device=cuda,chunk_steps=4`.

    Raises:
        ConfigError: No such policy, or an option that does not fit.
    """
    path, options = read_argument(argument, {"device": str, "chunk_steps": int}, "clone:PATH")
    return ClonedPolicy(load_policy(path), where=f"clone:{path}", **options)
