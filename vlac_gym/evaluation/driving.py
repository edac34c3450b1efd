"""Who acts in the envs of an evaluation: `Driver`, `PolicyDriver`, `InEnvDriver` with `SelfDrivenEnv`."""

__all__ = ["Driver", "InEnvDriver", "PolicyDriver", "SelfDrivenEnv"]

from collections.abc import Callable, Sequence
from typing import Any, Protocol, SupportsFloat

import gymnasium as gym
import numpy as np

from vlac_gym.policies import Action, ChunkPolicy, Policy, make_policy
from vlac_gym.rollout.playing import PolicyRow


class Driver(Protocol):
    """Chooses the actions of N envs.

    Attributes:
        plans_together: Whether envs should wait to be asked about together.
    """

    plans_together: bool

    def plan(self, observations: Sequence[Any], rows: Sequence[PolicyRow]) -> Sequence[Action]:
        """The next actions (T, A) of each of these episodes; step 0 of one begins it."""
        ...

    def end(self, episode: int) -> None:
        """The episode of this number is over."""
        ...

    def close(self) -> None:
        """Frees what acts."""
        ...


class PolicyDriver:
    """A policy in this process: one for all episodes if it plans chunks for many, else one for each under way.

    Args:
        policy: The first of them.
        spec: Makes the others.
        env: One like those in which the actions are executed, not started: policies read its spaces.
    """

    def __init__(self, policy: Policy, spec: str, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._spec = spec
        self._shared = policy if isinstance(policy, ChunkPolicy) else None
        self._free = [policy]
        self._acting: dict[int, Policy] = {}
        self.plans_together = self._shared is not None

    def plan(self, observations: Sequence[Any], rows: Sequence[PolicyRow]) -> Sequence[Action]:
        """Asks the shared policy once, or each episode's own; one that all share remembers nothing."""
        for row in rows:
            if row.step == 0:
                self._begin(row)
        if self._shared is not None:
            return self._shared.plan(observations, [row.info for row in rows])
        asked = zip(observations, rows, strict=True)
        return [self._acting[row.episode].act(observation, row.info)[None] for observation, row in asked]

    def end(self, episode: int) -> None:
        """Its policy is free for another."""
        if self._shared is None:
            self._free.append(self._acting.pop(episode))

    def close(self) -> None:
        """Closes a policy that can be closed."""
        if self._shared is not None:
            self._shared.close()

    def _begin(self, row: PolicyRow) -> None:
        policy: Policy | None = self._shared
        if policy is None:
            policy = self._acting[row.episode] = self._free.pop() if self._free else make_policy(self._spec)
        policy.reset(self._env, row.start.seed)


class InEnvDriver:
    """Lets envs that drive themselves (`SelfDrivenEnv`) go on.

    Args:
        steps: Env steps between two looks.
        action_size: Numbers of an action.
    """

    plans_together = False

    def __init__(self, steps: int, action_size: int) -> None:
        self._chunk: Action = np.zeros((steps, action_size), np.float32)

    def plan(self, observations: Sequence[Any], rows: Sequence[PolicyRow]) -> Sequence[Action]:
        """Zeros, in whose place the envs put actions of their own."""
        return [self._chunk] * len(rows)

    def end(self, episode: int) -> None:
        """The env resets its policy itself."""

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
