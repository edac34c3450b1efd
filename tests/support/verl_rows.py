"""Rows and configuration files for driving verl's agent loops: `agent_loop_file`, `row`, `columns`, `objects`."""

from pathlib import Path
from typing import Any

import numpy as np

EXTRA_KEYS = {
    "acc",
    "env_reward",
    "sim_success",
    "critic_done",
    "critic_failed",
    "critic_retries",
    "critic_failovers",
    "critic_value",
    "terminated",
    "truncated",
    "env_steps",
    "action_chunks",
    "malformed_chunks",
    "cut_by_length",
    "is_eval",
}


def agent_loop_file(folder: Path, settings: dict[str, Any], **policy: Any) -> str:
    """Writes the agent-loop config file that a user writes; returns the trainer's override."""
    from omegaconf import OmegaConf

    entry = {
        "name": "vlac_gym",
        "_target_": "verl_env_adapter.verl.agent_loop.VLACAgentLoop",
        "settings": settings,
        "policy": {"images": [], **policy},  # The tiny model has no processor for pictures.
    }
    file = folder / "agent.yaml"
    OmegaConf.save(OmegaConf.create([entry]), file)
    return f"actor_rollout_ref.rollout.agent.agent_loop_config_path={file}"


def row(mode: str, task_id: int, init_state_id: int = 0) -> dict[str, Any]:
    """A dataset row's `extra_info`."""
    return {"mode": mode, "task_id": task_id, "init_state_id": init_state_id, "task_suite": "libero_spatial"}


def objects(items: list[Any]) -> np.ndarray:
    """One-dimensional object array, whatever the items are."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def columns(extra_infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """A dataset's columns as verl's data loader collates them."""
    count = len(extra_infos)
    return {
        "raw_prompt": objects([[{"role": "user", "content": "task"}]] * count),
        "agent_name": objects(["vlac_gym"] * count),
        "data_source": objects(["vlac_gym/libero_spatial"] * count),
        "reward_model": objects([{"style": "env", "ground_truth": ""}] * count),
        "extra_info": objects(extra_infos),
    }
