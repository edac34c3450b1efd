"""The env class that verl-vla's workers start in place of their own `LiberoEnv`: `VLACLiberoEnv`.

Imports verl-vla; see `verl_env_adapter.verl_vla.plugin` for the configuration and `simulator` for what is
translated. Each env of a simulator has a process of its own.
"""

__all__ = ["VLACLiberoEnv"]

from typing import Any

import numpy as np

from verl_env_adapter.common.env_report import ChunkBatch
from verl_env_adapter.common.sources import VERL_VLA
from verl_env_adapter.common.start_states import StartPlan, start_counts
from verl_env_adapter.verl_vla.simulator import VerlVLASimulator, first_chunk_safe
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

with needs("The verl-vla adapter", get=VERL_VLA):
    import torch
    from omegaconf import OmegaConf
    from verl_vla.envs.action_executor import ExecutedStep
    from verl_vla.envs.base import BaseEnv

_STATE_ID = "info.reset_state_id"


class VLACLiberoEnv(BaseEnv):  # type: ignore[misc]
    """A batch of wrapped envs behind verl-vla's `BaseEnv`.

    Args:
        cfg: The env worker's config; ``cfg.simulator.libero`` is a `VLACLiberoConfig`.
        rank: Of the env worker.
        world_size: Number of env workers.
        stage_id: Pipeline stage.
        stage_num: Number of stages.
        only_eval: A simulator of the trainer's evaluation: the simulator's signals, no critic.

    Raises:
        ConfigError: The settings do not fit what the trainer does.
    """

    env_type = "libero"

    def __init__(
        self,
        cfg: Any,
        rank: int,
        world_size: int,
        stage_id: int = 0,
        stage_num: int = 1,
        only_eval: bool = False,
    ) -> None:
        self.stage_num = int(stage_num)
        self.only_eval = bool(only_eval)
        self.libero_cfg = OmegaConf.to_object(cfg.simulator.libero)
        super().__init__(cfg, rank, world_size, stage_id=stage_id)

    # Called by BaseEnv.

    def env_init(self) -> None:
        """Prepares the envs; simulators start at the first reset."""
        execution = self.cfg.action_execution
        if execution.mode != "serial":
            raise ConfigError(
                "Expected env_worker.action_execution.mode: serial, got 'async', in which verl-vla reports every "
                "reward, end and success as zero."
            )
        settings = self.libero_cfg.settings()
        if not self.only_eval:
            settings = first_chunk_safe(settings, _executed_steps(execution, settings.env.chunk))
        counts = start_counts(settings.env) if settings.env.is_libero else {0: 1}
        plan = StartPlan(
            counts,
            settings.env.tasks,
            seed=int(self.libero_cfg.seed),
            process=self.rank * self.stage_num + self.stage_id,
            num_processes=self.world_size * self.stage_num,
            num_envs=self.num_envs,
            max_states_per_task=self.libero_cfg.num_trials_per_task,
            only_state_id=self.libero_cfg.specific_reset_id,
        )
        self._simulator = VerlVLASimulator(
            settings, self.num_envs, plan, phase="validate" if self.only_eval else "train"
        )

    def env_benchmark_size(self) -> int:
        """Episodes of an evaluation."""
        return self._simulator.num_eval_episodes

    def get_recorder_strategy_kwargs(self) -> dict[str, Any]:
        """The pictures' shape."""
        side = self.libero_cfg.settings().env.image_size
        return {"image_shape": (side, side, 3)}

    def env_reset(
        self, *, env_ids: Any, reset_eval: bool = False, extra: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """See `BaseEnv.env_reset`; `extra` names the start state of a replay."""
        state_id = None if extra is None else int(np.asarray(extra[_STATE_ID]).flat[0])
        return self._simulator.reset(env_ids, reset_eval=reset_eval, state_id=state_id)

    def env_step(self, action: Any, *, env_ids: Any) -> dict[str, Any]:
        """See `BaseEnv.env_step`: one step of each env in `env_ids`, its end latched."""
        described, batch = self._simulator.step(np.asarray(action)[:, None, :], env_ids)
        return {**described, **self._signals(batch)[0]}

    def env_close(self) -> None:
        """Ends the envs."""
        self._simulator.close()

    def final_observations(self) -> list[dict[str, Any] | None]:
        """The terminal observations that auto-reset replaces; see `VerlVLASimulator`."""
        return self._simulator.final_observations()

    def record_step_result(
        self, step_result: dict[str, Any], actions: Any, env_ids: Any, *args: Any, **kwargs: Any
    ) -> None:
        """See `BaseEnv.record_step_result`; of an episode that lost its critic no frame is kept."""
        if self.recorder is not None:
            lost = np.isnan(np.asarray(step_result["next.reward"]))
            for env_id in np.asarray(env_ids)[lost].tolist():
                self.recorder.clear_episode(env_id)
                self._recorder_episode_done[env_id] = True
        super().record_step_result(step_result, actions, env_ids, *args, **kwargs)

    # Called by the env worker.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See `BaseEnv.reset`; refuses to evaluate on a simulator that trains."""
        if str((options or {}).get("mode", "train")) == "eval" and not self.only_eval:
            raise ConfigError(
                "The trainer evaluates on a training simulator. Add 'eval' to cluster.env.env_worker.modes."
            )
        return super().reset(seed=seed, options=options)

    def step(self, action: Any, **kwargs: Any) -> Any:
        """See `BaseEnv.step`; a chunk at once where nobody records or steers, which renders its last step only."""
        if not self._takes_whole_chunks():
            return super().step(action, **kwargs)
        described, batch = self._simulator.step(self._to_numpy(action), range(self.num_envs))
        columns = self._signals(batch)
        self._execution_merged_step_result = {**described, **columns[-1]}
        result, _ = self._finish_execution_slice([ExecutedStep(feedback=column) for column in columns])
        return result

    def _takes_whole_chunks(self) -> bool:
        execution = self.cfg.action_execution
        return (
            self.recorder is None
            and not self.teleops
            and self.target_step_hz is None
            and not execution.interpolation.enable
            and not execution.serial_smoothing.enable
        )

    def _signals(self, batch: ChunkBatch) -> list[dict[str, torch.Tensor]]:
        """What each step of a chunk said."""
        signals = {
            "next.reward": self._simulator.rewards(batch),
            "next.terminated": batch.terminated,
            "next.truncated": batch.truncated,
            "next.success": self._simulator.success(batch),
        }
        return [
            {name: torch.from_numpy(rows[:, column].copy()) for name, rows in signals.items()}
            for column in range(batch.rewards.shape[1])
        ]


def _executed_steps(execution: Any, chunk: int) -> int:
    """Env steps of one exchange with the policy."""
    steps = chunk * int(execution.interpolation.factor) if execution.interpolation.enable else chunk
    return (
        min(steps, int(execution.serial_smoothing.execution_steps))
        if execution.serial_smoothing.enable
        else steps
    )
