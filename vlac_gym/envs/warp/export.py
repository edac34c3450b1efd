"""Writes a LIBERO task down for machines without LIBERO, where mujoco-warp simulates it: `export_scene`.

A task's folder has `scene.xml` and `assets/` (meshes, textures), `task.json` (names, ids, the controller's constants,
the goal), `model.npz` (the numbers that LIBERO's MuJoCo compiled the scene to and LIBERO's construction left, since
another version compiles it to others), and `starts.npz` (the official initial states, and the same settled).
"""

__all__ = ["export_scene"]

import importlib.metadata
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.simulator import LiberoSimulator
from vlac_gym.envs.warp.scene_files import FORMAT
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_json

with needs("Writing scenes", "video"):
    from PIL import Image

_MODEL_ARRAYS = (
    "actuator_",
    "body_",
    "cam_",
    "dof_",
    "eq_",
    "geom_",
    "jnt_",
    "light_",
    "mat_",
    "qpos",
    "site_",
)
"""How the names of those arrays begin that describe the scene; meshes and textures are compiled anew."""


def export_scene(
    task_suite: str, task_id: int, folder: Path, *, num_starts: int | None = None, texture_size: int = 1024
) -> None:
    """Writes one task.

    Args:
        task_suite: A name from `vlac_gym.envs.list_suites`.
        task_id: Which task of the suite.
        folder: Where to; made if it is not there.
        num_starts: Initial states 0 to so many - 1; None for all.
        texture_size: Longest side of a texture in pixels; larger ones are shrunk.

    Raises:
        ConfigError: The goal is not one that can be judged on the device: one object on another, or in a region.
        DependencyNotInstalled: LIBERO is not installed.
    """
    env = LiberoEnv(task_suite, task_id, cameras=("agentview",), image_size=16)
    try:
        env.reset(options={"init_state_id": 0})
        simulator = env._simulator
        assert simulator is not None
        described = _describe(env, simulator)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.json").unlink(missing_ok=True)  # written last: a folder that has it is whole
        _write_scene(simulator.domain.model.get_xml(), folder, texture_size)
        _save(folder / "model.npz", _model_arrays(simulator._model))
        count = env.task.num_init_states if num_starts is None else num_starts
        _save(folder / "starts.npz", _settled_starts(env, count))
        write_json(folder / "task.json", described)
    finally:
        env.close()


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _describe(env: LiberoEnv, simulator: LiberoSimulator) -> dict[str, Any]:
    domain, model, robot = simulator.domain, simulator._model, simulator.domain.robots[0]
    controller, gripper = robot.controller, robot.gripper
    if controller.position_limits is not None or controller.interpolator_pos is not None:
        raise ConfigError(f"Expected LIBERO's OSC_POSE without limits and interpolation in {env.task.name}.")
    span = model.actuator_ctrlrange[robot._ref_joint_gripper_actuator_indexes]
    return {
        "format": FORMAT,
        "suite": env.task.suite,
        "task_id": env.task.task_id,
        "task": env.task.language,
        "max_episode_steps": env.task.max_episode_steps,
        "num_init_states": env.task.num_init_states,
        "mujoco": importlib.metadata.version("mujoco"),
        "sizes": {name: int(getattr(model, name)) for name in ("nq", "nv", "nu", "nbody", "ngeom", "nsite")},
        "site": int(robot.eef_site_id),
        "eef_body": int(model.body(robot.robot_model.eef_name).id),
        "finger_qpos": [int(i) for i in robot._ref_gripper_joint_pos_indexes],
        "arm_qpos": [int(i) for i in robot._ref_joint_pos_indexes],
        "arm_dofs": [int(i) for i in robot._ref_joint_vel_indexes],
        "arm_actuators": [int(i) for i in robot._ref_joint_actuator_indexes],
        "gripper_actuators": [int(i) for i in robot._ref_joint_gripper_actuator_indexes],
        "torque_limits": np.array(robot.torque_limits).tolist(),
        "kp": np.array(controller.kp).tolist(),
        "kd": np.array(controller.kd).tolist(),
        "action_scale": np.array(controller.output_max).tolist(),
        "initial_joint": np.array(controller.initial_joint).tolist(),
        "gripper_bias": (0.5 * (span[:, 1] + span[:, 0])).tolist(),
        "gripper_weight": (0.5 * (span[:, 1] - span[:, 0])).tolist(),
        "gripper_speed": [-float(gripper.speed), float(gripper.speed)],
        **_goal_of(env, domain),
    }


def _goal_of(env: LiberoEnv, domain: Any) -> dict[str, Any]:
    """The goal as `worlds` judges it: `on` of two objects, or `in` a region of one."""
    goals = env.scene.goal
    if len(goals) == 1 and goals[0].name == "on" and set(goals[0].args) <= set(domain.objects_dict):
        model = domain.sim.model
        shapes = [domain.objects_dict[name].contact_geoms for name in goals[0].args]
        return {
            "goal": "on",
            "goal_bodies": [int(domain.obj_body_id[name]) for name in goals[0].args],
            "goal_geoms": [sorted(int(model.geom_name2id(geom)) for geom in geoms) for geoms in shapes],
        }
    if len(goals) == 1 and goals[0].name == "in" and goals[0].args[1] in domain.object_sites_dict:
        moved, region = goals[0].args
        return {
            "goal": "in",
            "goal_bodies": [int(domain.obj_body_id[moved])],
            "goal_geoms": [],
            "goal_site": int(domain.sim.model.site_name2id(region)),
            "goal_size": [float(side) for side in domain.object_sites_dict[region].size],
        }
    raise ConfigError(
        f"Expected a goal of one object on another or in a region, got {goals} in {env.task.name}. Leave the task out."
    )


def _settled_starts(env: LiberoEnv, count: int) -> dict[str, NDArray[np.float64]]:
    """Official initial states (count, 1 + nq + nv), and what is left of them after settling."""
    simulator: Any = env._simulator
    settled = []
    for state in range(count):
        env.reset(options={"init_state_id": state})
        settled.append(state_of(simulator))
    stacked = {name: np.stack([row[name] for row in settled]) for name in settled[0]}
    return {"official": simulator._init_states[:count], **stacked}


def state_of(simulator: LiberoSimulator) -> dict[str, NDArray[np.float64]]:
    """What the next env step follows from, by the names of `START_ARRAYS`."""
    data, control = simulator._data, simulator._control
    return {
        "qpos": data.qpos.copy(),
        "qvel": data.qvel.copy(),
        "qacc_warmstart": data.qacc_warmstart.copy(),
        "goal_position": np.array(control._controller.goal_pos),
        "goal_rotation": np.array(control._controller.goal_ori),
        "grip": control._grip.copy(),
    }


def _model_arrays(model: Any) -> dict[str, NDArray[Any]]:
    """Copies of the arrays that describe the scene, and of the solver's options."""
    names = [name for name in dir(model) if name.startswith(_MODEL_ARRAYS)]
    found = {name: getattr(model, name) for name in names}
    arrays = {name: value.copy() for name, value in found.items() if isinstance(value, np.ndarray)}
    options = ("timestep", "impratio", "gravity", "tolerance", "iterations", "cone", "solver", "integrator")
    return arrays | {f"opt.{name}": np.array(getattr(model.opt, name)) for name in options}


def _write_scene(xml: str, folder: Path, texture_size: int) -> None:
    """Writes the scene with its files beside it."""
    root = ET.fromstring(xml)
    assets = folder / "assets"
    shutil.rmtree(assets, ignore_errors=True)
    assets.mkdir()
    for asset in root.findall("asset"):
        for number, entry in enumerate(asset):
            if file := entry.get("file"):
                name = f"{entry.tag}_{number}{Path(file).suffix}"
                if entry.tag == "texture":
                    _write_texture(Path(file), assets / name, texture_size)
                else:
                    shutil.copyfile(file, assets / name)
                entry.set("file", f"assets/{name}")
    for compiler in root.findall("compiler"):
        for attribute in ("meshdir", "texturedir"):
            compiler.attrib.pop(attribute, None)
    ET.ElementTree(root).write(folder / "scene.xml")


def _write_texture(source: Path, target: Path, size: int) -> None:
    with Image.open(source) as picture:
        picture.thumbnail((size, size))
        picture.convert("RGB").save(target)
