"""Writes what gpu_simulation.py needs of LIBERO tasks: it runs where neither LIBERO nor its MuJoCo is installed.

    python benchmarks/gpu_recording.py --tasks 0 5 --episodes 5 --out recording

Per task a folder `SUITE_ID` with
- `scene.xml` and `assets/`: the scene and its meshes; with ``--textures`` also its textures, shrunk to that size;
- `task.json`: names, the controller's constants, the goal;
- `model.npz`: the numbers of the model as the pinned MuJoCo compiled them and LIBERO's construction left them, since
  another version may compile the same scene to other numbers;
- `starts.npz`: official initial states, and the same settled, with the controller's state;
- `episodes.npz`: episodes of the expert: actions, states, torques of every physics step, success, and whether both
  fingers touch the object. The last one is of 60 random actions instead.
"""

import argparse
import importlib.metadata
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.simulator import LiberoSimulator
from vlac_gym.policies import Policy, make_policy

MODEL_ARRAYS = (
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

RANDOM_STEPS = 60


def main() -> None:
    """Records every task asked for, and prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--tasks", type=int, nargs="+", default=[0])
    parser.add_argument("--starts", type=int, default=50, help="initial states 0 to N-1")
    parser.add_argument("--episodes", type=int, default=5, help="the expert's, from initial states 0 to N-1")
    parser.add_argument("--steps", type=int, default=160, help="an episode's most steps")
    parser.add_argument(
        "--textures", type=int, default=0, metavar="PIXELS", help="keep textures, at this size"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.episodes > args.starts:
        parser.error(f"--episodes {args.episodes} begin at the --starts {args.starts}: record as many starts")
    for task_id in args.tasks:
        print(record(args, task_id), flush=True)


def record(args: argparse.Namespace, task_id: int) -> str:
    """Records one task; returns the line to print."""
    env = LiberoEnv(args.suite, task_id, cameras=("agentview",), image_size=16)
    env.reset(options={"init_state_id": 0})
    simulator = env._simulator  # a benchmark may look inside
    assert simulator is not None
    folder = args.out / f"{args.suite}_{task_id}"
    folder.mkdir(parents=True, exist_ok=True)
    write_scene(simulator.domain.model.get_xml(), folder, args.textures)
    np.savez(folder / "model.npz", **model_arrays(simulator._model))
    (folder / "task.json").write_text(json.dumps(describe_task(env, simulator), indent=1))
    np.savez(folder / "starts.npz", **record_starts(env, args.starts))
    expert = make_policy("expert")
    episodes = [record_episode(env, expert, state, args.steps) for state in range(args.episodes)]
    random = record_episode(env, make_policy("random"), 0, RANDOM_STEPS)
    np.savez_compressed(
        folder / "episodes.npz",
        **{f"{name}_{i}": value for i, one in enumerate([*episodes, random]) for name, value in one.items()},
    )
    env.close()
    solved = sum(bool(episode["success"][-1]) for episode in episodes)
    lengths = [len(episode["actions"]) for episode in episodes]
    return f"{folder.name}: {args.starts} starts, expert solved {solved} of {len(episodes)}, steps {lengths}"


def write_scene(xml: str, folder: Path, texture_pixels: int) -> None:
    """Writes the scene with its files beside it, and without textures unless they are asked for."""
    root = ET.fromstring(xml)
    assets = folder / "assets"
    shutil.rmtree(assets, ignore_errors=True)
    assets.mkdir()
    for asset in root.findall("asset"):
        for number, entry in enumerate(list(asset)):
            if entry.tag in ("texture", "material") and not texture_pixels:
                asset.remove(entry)
            elif file := entry.get("file"):
                name = f"{entry.tag}_{number}{Path(file).suffix}"
                if entry.tag == "texture":
                    _write_texture(Path(file), assets / name, texture_pixels)
                else:
                    shutil.copyfile(file, assets / name)
                entry.set("file", f"assets/{name}")
    if not texture_pixels:
        for element in root.iter():
            element.attrib.pop("material", None)
    for compiler in root.findall("compiler"):
        for name in ("meshdir", "texturedir"):
            compiler.attrib.pop(name, None)
    ET.ElementTree(root).write(folder / "scene.xml")


def _write_texture(source: Path, target: Path, pixels: int) -> None:
    with Image.open(source) as picture:
        picture.thumbnail((pixels, pixels))
        picture.convert("RGB").save(target)


def model_arrays(model: Any) -> dict[str, np.ndarray]:
    """Copies of the arrays that describe the scene, and of the solver's options."""
    names = [name for name in dir(model) if name.startswith(MODEL_ARRAYS)]
    found = {name: getattr(model, name) for name in names}
    arrays = {name: value.copy() for name, value in found.items() if isinstance(value, np.ndarray)}
    options = ("timestep", "impratio", "gravity", "tolerance", "iterations", "cone", "solver", "integrator")
    return arrays | {f"opt.{name}": np.array(getattr(model.opt, name)) for name in options}


def describe_task(env: LiberoEnv, simulator: LiberoSimulator) -> dict[str, Any]:
    """Ids in the model and the controller's constants; LIBERO's goals of one `on` condition only."""
    domain, model, robot = simulator.domain, simulator._model, simulator.domain.robots[0]
    controller, gripper = robot.controller, robot.gripper
    (goal,) = env.scene.goal
    if goal.name != "on":
        raise SystemExit(f"Expected a goal (on OBJECT OBJECT), got {goal} in {env.task.name}.")
    if controller.position_limits is not None or controller.interpolator_pos is not None:
        raise SystemExit("Expected LIBERO's OSC_POSE without limits and interpolation.")
    span = model.actuator_ctrlrange[robot._ref_joint_gripper_actuator_indexes]
    return {
        "suite": env.task.suite,
        "task_id": env.task.task_id,
        "task": env.task.language,
        "mujoco": importlib.metadata.version("mujoco"),
        "sizes": {name: int(getattr(model, name)) for name in ("nq", "nv", "nu", "nbody", "ngeom", "nsite")},
        "site": int(robot.eef_site_id),
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
        "goal_bodies": [int(domain.obj_body_id[name]) for name in goal.args],
        "goal_geoms": [
            sorted(
                int(domain.sim.model.geom_name2id(geom)) for geom in domain.objects_dict[name].contact_geoms
            )
            for name in goal.args
        ],
    }


def record_starts(env: LiberoEnv, count: int) -> dict[str, np.ndarray]:
    """Official initial states (count, 1 + nq + nv), and what is left of them after settling."""
    simulator: Any = env._simulator
    settled = []
    for state in range(count):
        env.reset(options={"init_state_id": state})
        settled.append(state_of(simulator))
    return {"official": simulator._init_states[:count], **_stacked(settled)}


def state_of(simulator: Any) -> dict[str, np.ndarray]:
    """What the next step follows from: physics, the solver's start, the controller's goal and the gripper's command."""
    data, control = simulator._data, simulator._control
    return {
        "qpos": data.qpos.copy(),
        "qvel": data.qvel.copy(),
        "qacc_warmstart": data.qacc_warmstart.copy(),
        "goal_position": np.array(control._controller.goal_pos),
        "goal_rotation": np.array(control._controller.goal_ori),
        "grip": control._grip.copy(),
    }


def record_episode(env: LiberoEnv, policy: Policy, init_state_id: int, limit: int) -> dict[str, np.ndarray]:
    """An episode until success: T actions, T + 1 states, and (T, 25, nu) controls, one per physics step."""
    simulator: Any = env._simulator
    env.reset(options={"init_state_id": init_state_id})
    policy.reset(env, init_state_id)
    held = env.scene.goal[0].args[0]
    controls: list[np.ndarray] = []
    apply = simulator._control.apply

    def recording_apply() -> None:
        apply()
        controls.append(simulator._data.ctrl.copy())

    simulator._control.apply = recording_apply
    actions: list[np.ndarray] = []
    states = [state_of(simulator) | verdicts(env, held)]
    while not states[-1]["success"] and len(actions) < limit:
        actions.append(np.clip(policy.act(None, env.current_info()), -1.0, 1.0))
        env.step_unrendered(actions[-1])
        states.append(state_of(simulator) | verdicts(env, held))
    del simulator._control.apply
    controls_array = np.array(controls).reshape(len(actions), -1, simulator._model.nu)
    return {"actions": np.array(actions), "controls": controls_array, **_stacked(states)}


def verdicts(env: LiberoEnv, held: str) -> dict[str, np.ndarray]:
    """Whether the goal holds and the object is grasped."""
    return {"success": np.array(env.scene.is_success()), "grasped": np.array(env.scene.is_grasped(held))}


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


if __name__ == "__main__":
    main()
