"""rlinf 0.3.0's own env worker on a local Ray; needs an environment with rlinf."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_env_adapter.rlinf.starts import ResetStates

SUPPORT = Path(__file__).parents[2] / "support"
CHUNK = 4


@pytest.fixture
def record(tmp_path) -> Callable[[], list[dict[str, Any]]]:
    """What `VLACRewardWrapper` returned in RLinf's processes so far, chunk by chunk."""
    folder = tmp_path / "record"
    folder.mkdir()

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]

    return read


@pytest.fixture
def seed_with_tasks() -> Callable[..., int]:
    """Finds a seed with which the stages' first episodes are of these tasks."""
    trials = [(0, 50), (1, 50)]

    def find(*tasks: int) -> int:
        ranks = range(len(tasks))

        def drawn(seed: int) -> tuple[Any, ...]:
            states = [ResetStates(trials, share=(rank, len(tasks)), seed=seed) for rank in ranks]
            return tuple(state.next_groups(1)[0].task_id for state in states)

        return next(seed for seed in range(100) if drawn(seed) == tasks)

    return find


@pytest.fixture
def play(tmp_path) -> Callable[..., dict[str, Any]]:
    """Runs RLinf's workers once in a process of their own, with the extension module or without."""

    def run(cfg: Any, extension: str | None = "rlinf_extension") -> dict[str, Any]:
        import torch
        from omegaconf import OmegaConf

        config, result = tmp_path / "config.yaml", tmp_path / "result.pt"
        OmegaConf.save(cfg, config)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": "1",
            "VLAC_GYM_TEST_RECORD": str(tmp_path / "record"),
        }
        environment.pop("RLINF_EXT_MODULE", None)
        if extension is not None:
            environment["RLINF_EXT_MODULE"] = extension
        command = [sys.executable, str(SUPPORT / "rlinf_run.py"), str(config), str(result)]
        subprocess.run(command, env=environment, check=True, timeout=400)
        outcome: dict[str, Any] = torch.load(result, weights_only=False)
        return outcome

    return run


@pytest.fixture
def make_config(tmp_path) -> Callable[..., Any]:
    """RLinf's config with two chunks of 4 steps on LIBERO; the critic finds task 1 done at step 3, task 0 never."""

    def make(critic: str, train: dict[str, Any] | None = None, stages: int = 2) -> Any:
        from omegaconf import OmegaConf

        block = {
            "env": {"suite": "libero_spatial", "tasks": [0, 1], "image_size": 64, "chunk": CHUNK},
            "critic": {"spec": critic},
            "rule": {"min_steps": 3, "value_stride": 2},
            "placement": {"envs_per_worker": 1},
        }
        env = {
            "env_type": "libero",
            "task_suite_name": "vlac_gym",
            "vlac_gym": block,
            "total_num_envs": 2,
            "rollout_epoch": 1,
            "max_episode_steps": 8,
            "max_steps_per_rollout_epoch": 8,
            "auto_reset": False,
            "ignore_terminations": False,
            "use_fixed_reset_state_ids": True,
            "group_size": 1,
            "seed": 0,
            "is_eval": False,
            "video_cfg": {
                "save_video": False,
                "info_on_video": True,
                "video_base_dir": str(tmp_path / "video"),
            },
        }
        video = {**env["video_cfg"], "save_video": True, "extra_info_on_video": ["episode.critic_mode"]}
        return OmegaConf.create(
            {
                "cluster": {"num_nodes": 1, "component_placement": {"actor,env,rollout": "0-0"}},
                "runner": {"task_type": "embodied", "only_eval": False, "val_check_interval": 1},
                "algorithm": {
                    "gamma": 1.0,
                    "gae_lambda": 1.0,
                    "adv_type": "gae",
                    "reward_type": "action_level",
                },
                "env": {
                    "group_name": "EnvGroup",
                    "train": {**env, **(train or {})},
                    "eval": {**env, "is_eval": True, "video_cfg": video},
                },
                "rollout": {"group_name": "RolloutGroup", "pipeline_stage_num": stages},
                "actor": {
                    "group_name": "ActorGroup",
                    "model": {"model_type": "mlp_policy", "num_action_chunks": CHUNK, "action_dim": 7},
                },
                "reward": {"use_reward_model": False},
            }
        )

    return make
