"""Rollouts in which policy, critic and simulators work at the same time: `PipelinedRollout`."""

__all__ = ["GroupPolicy", "PipelinedRollout", "RolloutStep"]

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.rollout.turns import Aborted, Turns
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.wrappers.vector.curriculum import CurriculumWrapper
from vlac_gym.wrappers.vector.vlac_reward import VLACRewardWrapper

AnyVectorEnv = VectorEnv[Any, NDArray[Any], NDArray[Any]]

_LOOKAHEAD = 1


class GroupPolicy(Protocol):
    """What drives the envs; called by one thread at a time, in the order of the serial loop."""

    def __call__(self, observations: Any, infos: dict[str, Any], group: int) -> NDArray[Any]:
        """Actions of a group for the observations and vector infos that its last step returned."""
        ...


@dataclass(frozen=True)
class RolloutStep:
    """One vector step of one group.

    Attributes:
        group: Which group.
        step: Which step of the rollout, from 0.
        observations: What the policy saw.
        actions: What it answered.
        rewards: float64 (N,).
        terminations: bool (N,).
        truncations: bool (N,).
        infos: Vector infos of this step.
        next_observations: What the policy sees next.
    """

    group: int
    step: int
    observations: Any
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, Any]
    next_observations: Any


class PipelinedRollout:
    """Steps groups of envs so that one group's envs move while another's frames are with critic or policy.

    Each group has a thread that plays the serial loop: policy, envs, critic, and again. The policy is called
    by one thread at a time and in the serial order (step 0 of group 0, step 0 of group 1, …), so that a policy
    that draws random numbers draws the same; the critic is used by one thread at a time, in any order, which
    makes no difference to a deterministic one. Hence ``overlap=True`` and ``overlap=False`` return the same,
    and the former takes the time of the slowest of {policy, critic, one group's whole loop}, the latter the sum.
    Groups that share a curriculum are refused under ``overlap=True``: it would choose tasks by which group's results
    came in first. Give each its own, or use ``overlap=False``. Connections to one Ray actor (`RayCurriculum`) are one
    curriculum, whose choices depend on timing under either, as nobody waits for its reports.

    Args:
        groups: Vector envs, each made of a `RolloutVectorEnv` of its own; two are enough to overlap. A critic
            that they share must be the same object; give a privileged one different `first_env_index`.
        policy: See `GroupPolicy`.
        overlap: Use threads; False runs the plain serial loop.

    Raises:
        ConfigError: No group, a group that isn't from `make_vec`, twice the same, or one with ``copy=False``;
            or two with one curriculum under ``overlap=True``.

    Example:
        >>> from vlac_gym.envs.scripted import ScriptedEnv
        >>> groups = [RolloutVectorEnv([ScriptedEnv] * 2, mode="sync") for _ in range(2)]
        >>> rollout = PipelinedRollout(groups, lambda observations, infos, group: np.zeros((2, 7)))
        >>> [(step.step, step.group) for step in rollout.run(num_steps=2, seed=0)]
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """

    def __init__(self, groups: Sequence[AnyVectorEnv], policy: GroupPolicy, *, overlap: bool = True) -> None:
        bases = [group.unwrapped for group in groups]
        if not groups or len({id(base) for base in bases}) != len(groups):
            raise ConfigError(f"Expected one or more different vector envs, got {list(groups)}.")
        for base in bases:
            if not isinstance(base, RolloutVectorEnv) or not base.copies_observations:
                raise ConfigError(
                    f"Expected groups from vlac_gym.make_vec with copy=True, got {base}: a step is read "
                    "while the next one is under way."
                )
        if overlap:
            _check_curricula(groups)
        self.groups = tuple(groups)
        self._policy = policy
        self._overlap = overlap
        self._seen: list[tuple[Any, dict[str, Any]] | None] = [None] * len(groups)
        lock = threading.Lock()
        for group in groups:
            _share_critic(group, lock)

    def run(
        self,
        num_steps: int,
        *,
        seed: int | None = None,
        options: Sequence[dict[str, Any] | None] | None = None,
        resume: bool = False,
    ) -> Iterator[RolloutStep]:
        """Resets the groups and yields `num_steps` vector steps of each, in the serial order.

        Args:
            num_steps: Steps per group.
            seed: Groups get consecutive ranges of seeds, as one large vector env would.
            options: Reset options of each group.
            resume: Go on where the last complete run ended instead of resetting.

        Raises:
            ConfigError: Nothing to resume, or not one options entry per group.
            CriticError: Like any other exception of an env or the policy: as in the serial loop.
        """
        if options is not None and len(options) != len(self.groups):
            raise ConfigError(f"Expected options for {len(self.groups)} groups, got {len(options)}.")
        if resume and any(seen is None for seen in self._seen):
            raise ConfigError("There is no complete run to resume. Leave resume out.")
        if not resume:
            self._seen = [None] * len(self.groups)
        resets = [self._reset_arguments(g, seed, options) for g in range(len(self.groups))]
        return self._pipelined(num_steps, resets) if self._overlap else self._serial(num_steps, resets)

    def _serial(self, num_steps: int, resets: list[dict[str, Any]]) -> Iterator[RolloutStep]:
        seen, self._seen = self._seen, [None] * len(self.groups)
        now = [seen[g] or self.groups[g].reset(**resets[g]) for g in range(len(self.groups))]
        for step in range(num_steps):
            for g in range(len(self.groups)):
                actions = self._policy(*now[g], g)
                taken = self._step(g, step, now[g][0], actions)
                now[g] = taken.next_observations, taken.infos
                yield taken
        self._seen = list(now)

    def _pipelined(self, num_steps: int, resets: list[dict[str, Any]]) -> Iterator[RolloutStep]:
        seen, self._seen = self._seen, [None] * len(self.groups)
        turns: Turns[RolloutStep] = Turns(len(self.groups), _LOOKAHEAD)
        threads = [
            threading.Thread(
                target=self._play, args=(turns, g, num_steps, seen[g], resets[g]), name=f"vlac-gym-group-{g}"
            )
            for g in range(len(self.groups))
        ]
        last: dict[int, tuple[Any, dict[str, Any]]] = {}
        try:
            for thread in threads:
                thread.start()
            for _ in range(num_steps):
                for g in range(len(self.groups)):
                    taken = turns.read(g)
                    last[g] = taken.next_observations, taken.infos
                    yield taken
        finally:
            turns.abort()
            for thread in threads:
                thread.join()  # ends: every wait of an env or a critic has its deadline
        self._seen = [last.get(g) for g in range(len(self.groups))]

    def _play(
        self,
        turns: Turns[RolloutStep],
        g: int,
        num_steps: int,
        seen: tuple[Any, dict[str, Any]] | None,
        reset: dict[str, Any],
    ) -> None:
        try:
            observations, infos = seen or self.groups[g].reset(**reset)
            for step in range(num_steps):
                with turns.turn(step * len(self.groups) + g):
                    actions = self._policy(observations, infos, g)
                taken = self._step(g, step, observations, actions)
                observations, infos = taken.next_observations, taken.infos
                turns.deliver(g, taken)
        except Aborted:
            pass
        except BaseException as e:  # noqa: BLE001 (the reader raises it)
            turns.fail(g, e)

    def _step(self, g: int, step: int, observations: Any, actions: NDArray[Any]) -> RolloutStep:
        following, rewards, terminations, truncations, infos = self.groups[g].step(actions)
        return RolloutStep(
            g, step, observations, actions, rewards, terminations, truncations, infos, following
        )

    def _reset_arguments(
        self, g: int, seed: int | None, options: Sequence[dict[str, Any] | None] | None
    ) -> dict[str, Any]:
        first = sum(group.num_envs for group in self.groups[:g])
        return {
            "seed": None if seed is None else seed + first,
            "options": None if options is None else options[g],
        }


def _share_critic(group: AnyVectorEnv, lock: threading.Lock) -> None:
    for env in _layers(group):
        if isinstance(env, VLACRewardWrapper):
            env.share_critic(lock)


def _check_curricula(groups: Sequence[AnyVectorEnv]) -> None:
    """Refuses groups whose assignments would depend on which of them is faster."""
    owners: dict[Hashable, int] = {}
    for g, group in enumerate(groups):
        for env in _layers(group):
            if not isinstance(env, CurriculumWrapper):
                continue
            key = env.curriculum if isinstance(env.curriculum, Hashable) else id(env.curriculum)
            if owners.setdefault(key, g) != g:
                raise ConfigError(
                    f"Expected a curriculum of its own in each group with overlap=True, got the same "
                    f"{type(env.curriculum).__name__} in groups {owners[key]} and {g}: which tasks they "
                    "play would depend on timing. Give each group's CurriculumWrapper its own curriculum, or use "
                    "PipelinedRollout(…, overlap=False)."
                )


def _layers(group: AnyVectorEnv) -> Iterator[AnyVectorEnv]:
    """The vector wrappers of a group, outermost first."""
    env = group
    while isinstance(env, VectorWrapper):
        yield env
        env = env.env
