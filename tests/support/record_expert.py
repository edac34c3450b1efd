"""Run where LIBERO is installed: `python record_expert.py FOLDER` plays the expert for the tests of worlds on a GPU.

FOLDER is of `vlac-gym export-scenes`; each task's folder gets `expert.npz`: of initial states k = 0 and 1 the actions
(T, 7) until success, the proprioception (T + 1, 8), and the first pictures of both cameras.
"""

import sys
from pathlib import Path

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.warp.scene_files import list_scene_folders
from vlac_gym.policies import make_policy


def record(suite: str, task_id: int, folder: Path) -> None:
    env, expert = LiberoEnv(suite, task_id, image_size=64), make_policy("expert")
    recorded: dict[str, np.ndarray] = {}
    for state in (0, 1):
        observation, _ = env.reset(options={"init_state_id": state})
        expert.reset(env, state)
        actions, states = [], [observation["state"]]
        while not actions or not env.step_unrendered(actions[-1])[1]:
            if actions:
                states.append(env.proprioception())
            actions.append(np.clip(expert.act(None, env.current_info()), -1, 1))
        states.append(env.proprioception())
        recorded |= {f"actions_{state}": np.array(actions), f"states_{state}": np.array(states)}
        recorded |= {f"{key}_{state}": observation[key] for key in ("agentview_image", "wrist_image")}
    env.close()
    np.savez(folder / "expert.npz", **recorded)


if __name__ == "__main__":
    for (suite, task_id), folder in list_scene_folders(Path(sys.argv[1])).items():
        record(suite, task_id, folder)
