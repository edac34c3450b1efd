"""The env class of verl's experimental/vla over an `EnvPool`: `VLACChunkEnv`. Loads no trainer; returns torch tensors.

Proven against volcengine/verl b178a3c (2026-01-29), ``verl/experimental/vla``. What it translates, and why:

- pictures upright -> turned by 180 degrees; `state` is the end effector's position only, float32 (3,), as there;
- the gripper comes in LIBERO's convention: the env worker has turned it before;
- `terminations`: the critic's done in training, the simulator's in validation; the trainer calls it `complete` and
  masks every later action with it, so that the end stays latched;
- the trainer never tells its env whether it validates: `experimental_vla` writes the phase into the task ids of
  each reset (``"train:0"``), and a reset without it is refused, since then nothing of this package is in place;
- the trainer plays ``max_episode_steps // chunk`` chunks and has no truncation: the step limit is the trainer's,
  and must be a multiple of the chunk, or the value would never be paid;
- the trainer cannot mask a lost episode (`critic.on_error: truncate` is refused) and does not bootstrap
  (`truncate_as_terminal` is refused: it would cut `complete` at the step limit);
- videos are not written (`video_cfg`); ``vlac-gym rollout`` records.
"""

__all__ = ["VLACChunkEnv", "tagged", "untagged"]

import logging
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.env_report import EnvReport
from verl_env_adapter.common.policy_view import (
    host_settings,
    policy_images,
    policy_state,
    refuse_env_resource,
    refuse_worlds,
)
from verl_env_adapter.common.settings import AdapterSettings, Phase
from verl_env_adapter.common.sources import EXPERIMENTAL_VLA
from verl_env_adapter.common.start_states import StartPlan, start_counts
from vlac_gym.errors import AdapterContractError, ConfigError
from vlac_gym.extras import needs

with needs("The experimental/vla adapter", get=EXPERIMENTAL_VLA):
    import torch

logger = logging.getLogger(__name__)

_PICTURES = {"full_image": "agentview_image"}
_PHASES: tuple[Phase, ...] = get_args(Phase)


def tagged(phase: Phase, task_ids: Sequence[Any]) -> NDArray[np.object_]:
    """Task ids that carry the trainer's phase to the envs: ``train:3``."""
    return np.array([f"{phase}:{task_id}" for task_id in task_ids], dtype=object)


def untagged(task_ids: Sequence[Any]) -> Phase:
    """The phase that the task ids of one reset carry.

    Raises:
        AdapterContractError: They carry none, or not the same.
    """
    phases = {str(task_id).partition(":")[0] for task_id in task_ids}
    known = [phase for phase in _PHASES if {phase} == phases]
    if not known:
        raise AdapterContractError(
            f"Expected task ids such as 'train:0' in a reset, got {list(task_ids)!r}: the trainer's process runs "
            "without verl_env_adapter.experimental_vla.plugin. Set VERL_USE_EXTERNAL_MODULES in the trainer's "
            "environment and in ray_kwargs.ray_init.runtime_env.env_vars."
        )
    return known[0]


class VLACChunkEnv:
    """A batch of wrapped envs with the methods that experimental/vla's env worker calls.

    Args:
        cfg: ``config.env.train`` with the settings block as `vlac_gym`.
        rank: Of the env worker.
        world_size: Number of env workers.
        isolated: Each env in a process of its own.

    Raises:
        ConfigError: The settings do not fit this trainer.
    """

    def __init__(self, cfg: Mapping[str, Any], rank: int, world_size: int, *, isolated: bool = True) -> None:
        self._settings = _settings(cfg)
        counts = start_counts(self._settings.env) if self._settings.env.is_libero else {0: 10**6}
        self._plan = StartPlan(counts, None, seed=0) if self._settings.env.is_libero else None
        self._num_states = sum(counts.values())
        self._pool = EnvPool(self._settings, int(cfg["num_envs"]), isolated=isolated)
        video = cfg.get("video_cfg") or {}
        if video.get("save_video", False):
            logger.warning("vlac-gym writes no videos for experimental/vla; use `vlac-gym rollout`.")

    def get_all_state_ids(self) -> NDArray[np.int64]:
        """Running numbers of all (task, initial state) of the suite: int64 (num_states,)."""
        return np.arange(self._num_states)

    def reset_envs_to_state_ids(
        self, state_ids_list: Sequence[Any], task_ids_list: Sequence[Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode in every env.

        Args:
            state_ids_list: One running number for each env.
            task_ids_list: The trainer's phase, see `tagged`.

        Returns:
            ``{"images_and_states": {"full_image": uint8 (N, H, W, 3), "state": float32 (N, 3)},
            "task_descriptions": [str]}`` and an empty dict.
        """
        mode = self._settings.mode_in(untagged(task_ids_list))
        options = [self._options(int(state_id)) for state_id in state_ids_list]
        reports = self._pool.reset(mode=mode, options=options)
        return _observations(reports), {}

    def chunk_step(
        self, chunk_actions: Any
    ) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Executes (N, T, 7) actions, each env up to its episode's end.

        Returns:
            Observations as above; rewards float32 (N, T); terminations and truncations bool (N, T); an empty dict.
        """
        batch = self._pool.step_chunk(np.asarray(chunk_actions))
        return (
            _observations(batch.reports),
            torch.from_numpy(batch.rewards),
            torch.from_numpy(batch.terminated),
            torch.from_numpy(batch.truncated),
            {},
        )

    def flush_video(self, video_sub_dir: str | None = None) -> None:
        """Does nothing; see the module."""

    def close(self) -> None:
        """Ends the envs; safe to call twice."""
        self._pool.close()

    def _options(self, state_id: int) -> dict[str, int]:
        if self._plan is None:
            return {"seed": state_id}
        start = self._plan.by_id(state_id)
        return {"task_id": start.task_id, "init_state_id": start.init_state_id}


def _settings(cfg: Mapping[str, Any]) -> AdapterSettings:
    block = cfg.get("vlac_gym")
    if block is None:
        raise ConfigError("Expected the settings as env.train.vlac_gym; see examples/train_experimental_vla.")
    camera = cfg.get("init_params") or {}
    limit = int(cfg["max_episode_steps"])
    host = {
        "suite": (cfg.get("task_suite_name", "libero_spatial"), None),
        "image_size": (int(camera.get("camera_heights", 256)), 256),
        "max_episode_steps": (limit, None),
    }
    settings = host_settings(block, host, defaults={}, where="env.train")
    refuse_env_resource(settings, "env.disagg_sim")
    refuse_worlds(
        settings, "experimental/vla numbers the starts of a whole suite, and worlds have one task of it"
    )
    if settings.truncate_as_terminal:
        raise ConfigError(
            "truncate_as_terminal is for trainers that bootstrap; experimental/vla does not. Drop it."
        )
    if settings.critic.on_error.then == "truncate":
        raise ConfigError(
            "Expected critic.on_error: raise, got 'truncate': experimental/vla can't mask a lost episode and would "
            "learn from its reward of 0."
        )
    if limit % settings.env.chunk:
        raise ConfigError(
            f"Expected env.train.max_episode_steps as a multiple of the chunk {settings.env.chunk}, got {limit}: the "
            "trainer plays whole chunks only, and the critic's value is paid at the last step."
        )
    return settings


def _observations(reports: Sequence[EnvReport]) -> dict[str, Any]:
    frames = [policy_images(r.observation, _PICTURES, "experimental/vla")["full_image"] for r in reports]
    states = [policy_state(report.observation, np.float32)[:3] for report in reports]
    return {
        "images_and_states": {
            "full_image": torch.from_numpy(np.stack(frames)),
            "state": torch.from_numpy(np.stack(states)),
        },
        "task_descriptions": [report.task for report in reports],
    }
