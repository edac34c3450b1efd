"""Who acts in the envs of an evaluation: `Driver`, `PolicyDriver`, `InEnvDriver` with `SelfDrivenEnv`."""

__all__ = ["Driver", "InEnvDriver", "PolicyDriver", "SelfDrivenEnv"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, SupportsFloat

import gymnasium as gym
import numpy as np

from vlac_gym.policies import Action, ChunkPolicy, Policy, make_policy


class Driver(Protocol):
    """Chooses the actions of N envs."""

    def begin(self, index: int, seed: int) -> None:
        """An episode with this seed has begun in env `index`."""
        ...

    def plan(
        self, indices: Sequence[int], observations: Sequence[Any], infos: Sequence[Mapping[str, Any]]
    ) -> Sequence[Action]:
        """The next actions (T, A) of these envs, one chunk for each."""
        ...

    def close(self) -> None:
        """Frees what acts."""
        ...


class PolicyDriver:
    """A policy in this process: one for all envs if it plans chunks for many, else one for each.

    Args:
        policy: The first of them.
        spec: Makes the others.
        num_envs: How many envs.
        env: One like those in which the actions are executed, not started: policies read its spaces.
    """

    def __init__(self, policy: Policy, spec: str, num_envs: int, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._shared = policy if isinstance(policy, ChunkPolicy) else None
        others = 0 if self._shared is not None else num_envs - 1
        self._policies = [policy, *(make_policy(spec) for _ in range(others))]

    def begin(self, index: int, seed: int) -> None:
        """Resets the env's policy; one that all share remembers nothing."""
        self._policies[0 if self._shared is not None else index].reset(self._env, seed)

    def plan(
        self, indices: Sequence[int], observations: Sequence[Any], infos: Sequence[Mapping[str, Any]]
    ) -> Sequence[Action]:
        """Asks the shared policy once, or each env's own."""
        if self._shared is not None:
            return self._shared.plan(observations, infos)
        asked = zip(indices, observations, infos, strict=True)
        return [self._policies[i].act(observation, info)[None] for i, observation, info in asked]

    def close(self) -> None:
        """Closes policies that can be closed."""
        for policy in self._policies:
            if isinstance(policy, ChunkPolicy):
                policy.close()


class InEnvDriver:
    """Lets envs that drive themselves (`SelfDrivenEnv`) go on.

    Args:
        steps: Env steps between two looks.
        action_size: Numbers of an action.
    """

    def __init__(self, steps: int, action_size: int) -> None:
        self._chunk: Action = np.zeros((steps, action_size), np.float32)

    def begin(self, index: int, seed: int) -> None:
        """The env has reset its policy itself."""

    def plan(
        self, indices: Sequence[int], observations: Sequence[Any], infos: Sequence[Mapping[str, Any]]
    ) -> Sequence[Action]:
        """Zeros, in whose place the envs put actions of their own."""
        return [self._chunk] * len(indices)

    def close(self) -> None:
        """There is nothing to close."""


class SelfDrivenEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Executes the actions of a privileged policy, whatever it is given.

    Such a policy reads the simulator, so that it has to be in the process of its env, and no observations, so that
    nothing is rendered for it. `seed` of `reset` seeds the policy too.

    Args:
        env: Has `scene`, `step_unrendered`, `current_info` and `observe`, as `LiberoEnv`.
        spec: The policy.
    """

    def __init__(self, env: gym.Env[Any, Any], spec: str) -> None:
        super().__init__(env)
        self._inner: Any = env
        self._policy = make_policy(spec)

    @classmethod
    def around(cls, make_env: Callable[[], gym.Env[Any, Any]], spec: str) -> "SelfDrivenEnv":
        """The wrapper around a new env."""
        return cls(make_env(), spec)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets env and policy."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._policy.reset(self.env, seed)
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step of the policy."""
        reward, terminated, truncated = self.step_unrendered(action)
        return self.observe(), reward, terminated, truncated, self.current_info()

    def step_unrendered(self, action: Any) -> tuple[float, bool, bool]:
        """`step` without a look."""
        outcome: tuple[float, bool, bool] = self._inner.step_unrendered(
            self._policy.act(None, self._inner.current_info())
        )
        return outcome

    def observe(self) -> Any:
        """The env's."""
        return self._inner.observe()

    def current_info(self) -> dict[str, Any]:
        """The env's."""
        info: dict[str, Any] = self._inner.current_info()
        return info
