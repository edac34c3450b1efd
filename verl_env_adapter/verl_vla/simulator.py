"""verl-vla's hooks `env_reset` and `env_step` over an `EnvPool`: `VerlVLASimulator`. Loads no trainer.

Proven against verl-vla 8a18e3f (v0.1.0, 2026-08-22, on verl 0.7.1). What it translates, and why:

- pictures upright -> turned by 180 degrees (``raw[::-1, ::-1]``); `state` float32 -> float64;
- `next.success`: the critic's done while training, the simulator's success in evaluation. The trainer takes it
  for its success mask and metrics, and the simulator's word must not reach the learner in training;
- the trainer goes on stepping an env after its end, and reads a done that goes out again as another episode: the end
  stays latched, nothing is stepped and no critic asked;
- an episode that ends inside its first chunk is dropped as padding (`EpisodeBuffer`): `min_steps` is raised
  above the first chunk, see `first_chunk_safe`;
- an episode that lost its critic has no reward: NaN at its last step, by which it is left out (`unjudged`);
- auto-reset calls `env_reset` for single envs, without `reset`: the critic's history goes with each env's own
  reset; the terminal observation that auto-reset overwrites stays in `final_observations`;
- training draws start states, evaluation takes each once, in the order of the trainer's own planner.
"""

__all__ = ["VerlVLASimulator", "first_chunk_safe"]

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.env_report import ChunkBatch, EnvReport
from verl_env_adapter.common.policy_view import (
    POLICY_IMAGES,
    policy_images,
    policy_state,
    refuse_env_resource,
)
from verl_env_adapter.common.settings import AdapterSettings, Phase
from verl_env_adapter.common.start_states import StartPlan, StartState
from vlac_gym.errors import AdapterContractError, ConfigError

logger = logging.getLogger(__name__)

_PICTURES = {f"observation.images.{theirs}": ours for theirs, ours in POLICY_IMAGES.items()}


def first_chunk_safe(settings: AdapterSettings, first_chunk: int) -> AdapterSettings:
    """Keeps the critic from ending an episode inside its first chunk, which the trainer would drop.

    Args:
        settings: The block.
        first_chunk: Env steps that the trainer executes before it looks at the result.

    Raises:
        ConfigError: `rule.min_steps` is set and too small, or the whole episode fits in one chunk.
    """
    limit = settings.env.max_episode_steps
    if limit is not None and limit <= first_chunk:
        raise ConfigError(
            f"Expected env.max_episode_steps above the chunk of {first_chunk}, got {limit}: verl-vla drops episodes "
            "of one chunk as padding."
        )
    if settings.mode == "eval" or settings.rule.resolve().min_steps > first_chunk:
        return settings
    if "min_steps" in settings.rule.options:
        raise ConfigError(
            f"Expected rule.min_steps above the chunk of {first_chunk}, got "
            f"{settings.rule.options['min_steps']}: verl-vla drops episodes that end inside the first chunk."
        )
    logger.info("rule.min_steps raised to %d: verl-vla drops one-chunk episodes", first_chunk + 1)
    options = {**settings.rule.options, "min_steps": first_chunk + 1}
    return replace(settings, rule=replace(settings.rule, options=options))


class VerlVLASimulator:
    """One of verl-vla's simulators: `num_envs` envs, either training or evaluating.

    Args:
        settings: The trainer's block.
        num_envs: B.
        plan: Start states; without effect on envs other than LIBERO, which are only seeded.
        phase: What this simulator is for.
        isolated: Each env in a process of its own; see `EnvPool`.

    Raises:
        ConfigError: The settings do not fit, or forbid this phase.
    """

    def __init__(
        self,
        settings: AdapterSettings,
        num_envs: int,
        plan: StartPlan,
        *,
        phase: Phase,
        isolated: bool = True,
    ) -> None:
        refuse_env_resource(settings, "cluster.resource.env.resource_label")
        self._mode = settings.mode_in(phase)
        self._evaluates = phase == "validate"
        self._is_libero = settings.env.is_libero
        self._plan = plan
        self._pool = EnvPool(settings, num_envs, isolated=isolated)
        self._starts: list[StartState | None] = [None] * num_envs
        self._finals: list[dict[str, Any] | None] = [None] * num_envs

    @property
    def num_eval_episodes(self) -> int:
        """Different episodes of an evaluation."""
        return self._plan.num_states

    def final_observations(self) -> list[dict[str, Any] | None]:
        """The last terminal observation of each env, in the policy's view; None before its first end."""
        return list(self._finals)

    def reset(
        self, env_ids: Sequence[int], *, reset_eval: bool = False, state_id: int | None = None
    ) -> dict[str, Any]:
        """Starts episodes.

        Args:
            env_ids: Which envs.
            reset_eval: Start the evaluation anew.
            state_id: This start state (replay) instead of the plan's.

        Returns:
            `observation`: list of `observation.images.image`, `observation.images.wrist_image` (uint8 (H, W, 3))
            and `observation.state` (float64 (8,)); `task`: list of str; `task_id`, `eval_episode_id`: int64 (B,).
        """
        ids = [int(i) for i in env_ids]
        if reset_eval:
            self._plan.restart_eval()
        starts = self._choose(len(ids), state_id)
        reports = self._pool.reset(ids, mode=self._mode, options=[self._options(start) for start in starts])
        for i, start in zip(ids, starts, strict=True):
            self._starts[i] = start
        return self._describe(ids, reports)

    def step(self, actions: NDArray[Any], env_ids: Sequence[int]) -> tuple[dict[str, Any], ChunkBatch]:
        """Executes (B, T, A) actions in LIBERO's convention, as verl-vla's policies give them.

        Returns:
            `reset`'s keys after the last executed step, and `extra`; and the columns of the chunk.
        """
        ids = [int(i) for i in env_ids]
        batch = self._pool.step_chunk(actions, ids)
        described = self._describe(ids, batch.reports)
        for position, (i, report) in enumerate(zip(ids, batch.reports, strict=True)):
            if report.is_over:
                self._finals[i] = described["observation"][position]
        described["extra"] = [self._extra(i) for i in ids]
        return described, batch

    def rewards(self, batch: ChunkBatch) -> NDArray[np.float32]:
        """float32 (B, T): as paid; NaN at the step at which the critic failed, which ended the episode unpaid."""
        rewards = batch.rewards.copy()
        for row in np.flatnonzero(batch.critic_failed & (batch.executed_steps > 0)):
            rewards[row, batch.executed_steps[row] - 1] = np.nan
        return rewards

    def success(self, batch: ChunkBatch) -> NDArray[np.bool_]:
        """bool (B, T): the critic's done where the critic judges, else the simulator's success."""
        return batch.sim_success if self._mode == "eval" else batch.critic_done

    def close(self) -> None:
        """Ends the envs; safe to call twice."""
        self._pool.close()

    def _choose(self, count: int, state_id: int | None) -> list[StartState]:
        if state_id is not None:
            return [self._plan.by_id(state_id)] * count
        return self._plan.next_eval(count) if self._evaluates else self._plan.draw(count)

    def _options(self, start: StartState) -> dict[str, Any]:
        if not self._is_libero:
            return {"seed": start.state_id}
        return {"task_id": start.task_id, "init_state_id": start.init_state_id}

    def _start(self, env_id: int) -> StartState:
        start = self._starts[env_id]
        if start is None:
            raise AdapterContractError(f"Env {env_id} was stepped before its first reset.")
        return start

    def _extra(self, env_id: int) -> dict[str, NDArray[np.int64]]:
        return {"info.reset_state_id": np.array([self._start(env_id).state_id], dtype=np.int64)}

    def _describe(self, ids: list[int], reports: Sequence[EnvReport]) -> dict[str, Any]:
        starts = [self._start(i) for i in ids]
        return {
            "observation": [_observation(report.observation) for report in reports],
            "task": [report.task for report in reports],
            "task_id": np.array([start.task_id for start in starts], dtype=np.int64),
            "eval_episode_id": np.array(
                [start.eval_episode_id if self._evaluates else -1 for start in starts], dtype=np.int64
            ),
        }


def _observation(observation: dict[str, Any]) -> dict[str, Any]:
    pictures = policy_images(observation, _PICTURES, "verl-vla")
    return {**pictures, "observation.state": policy_state(observation, np.float64)}
