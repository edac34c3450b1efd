"""How far mujoco-warp is from a recording: `check_settling`, `check_torques`, `check_controller`, `replay`.

A recording is the package's env under the MuJoCo that LIBERO needs; `ReferenceWorld` adds the C MuJoCo that
mujoco-warp was installed with.
"""

from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np
from gpu_recorded import Recording

from vlac_gym.envs.warp.scene_files import START_ARRAYS
from vlac_gym.envs.warp.worlds import PHYSICS_STEPS, WarpWorlds

SETTLE_STEPS = 10
SETTLING_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
STEPS_AFTERWARDS = 10
"""Without motion, gripper open, after an episode's recorded actions: a success may come some steps later."""

MakeWorlds = Callable[[int], WarpWorlds]


class ReferenceWorld:
    """One world in the installed C MuJoCo.

    Args:
        recording: The task.
        half_distances: As of `WarpWorlds`.
    """

    def __init__(self, recording: Recording, *, half_distances: bool) -> None:
        self.model, self.data = recording.model, mujoco.MjData(recording.model)
        self._half_distances = half_distances
        self._is_box = self.model.geom_type == int(mujoco.mjtGeom.mjGEOM_BOX)

    def start(self, state: dict[str, np.ndarray]) -> None:
        """Puts the world into a state: one row of each of `START_ARRAYS`."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = state["qpos"], state["qvel"]
        self._first_half()
        self.data.qacc_warmstart[:] = state["qacc_warmstart"]

    def step(self, controls: np.ndarray) -> None:
        """Physics steps with the given controls, (K, nu)."""
        for control in controls:
            self.data.ctrl[:] = control
            mujoco.mj_step2(self.model, self.data)
            self._first_half()

    def _first_half(self) -> None:
        mujoco.mj_step1(self.model, self.data)
        if self._half_distances:
            self._halve()
            mujoco.mj_makeConstraint(self.model, self.data)
            mujoco.mj_island(self.model, self.data)
            mujoco.mj_projectConstraint(self.model, self.data)
            mujoco.mj_referenceConstraint(self.model, self.data)

    def _halve(self) -> None:
        data, count = self.data, self.data.ncon
        pairs = data.contact.geom[:count]
        boxes = (pairs >= 0).all(axis=1) & self._is_box[pairs].all(axis=1)
        normals = data.contact.frame[:count, :3]
        faces = np.zeros(count, bool)
        for side in range(2):
            rotations = data.geom_xmat[pairs[:, side]].reshape(-1, 3, 3)
            faces |= np.abs(np.einsum("ni,nij->nj", normals, rotations)).max(axis=1) > 1 - 1e-6
        data.contact.dist[:count] = np.where(boxes & faces, 0.5, 1.0) * data.contact.dist[:count]


def check_settling(recording: Recording, make_worlds: MakeWorlds, count: int) -> str:
    """Settles official initial states as the env does, and says how far from its places the objects lie then."""
    starts, model = recording.starts, recording.model
    count = min(count, len(recording.official))
    worlds = make_worlds(count)
    official = recording.official[:count]
    states = {name: starts[name][:count] for name in START_ARRAYS}
    states |= {"qpos": official[:, 1 : 1 + model.nq], "qvel": official[:, 1 + model.nq :]}
    states["qacc_warmstart"] = np.zeros_like(states["qvel"])
    states["grip"] = np.zeros_like(states["grip"])
    worlds.start_from(states)
    for _ in range(SETTLE_STEPS):
        worlds.step(np.tile(SETTLING_ACTION, (count, 1)))
    apart, speed = _object_distances(
        model, worlds.data.qpos.numpy(), starts["qpos"][:count], worlds.data.qvel.numpy()
    )
    return (
        f"settled from {count} official states: objects end {1e3 * np.median(apart.max(axis=1)):.2f} mm from the env's "
        f"(median; most {1e3 * apart.max():.2f}), {int((apart.max(axis=1) > 5e-3).sum())} over 5 mm; "
        f"{int((speed.max(axis=1) > 0.05).sum())} faster than 5 cm/s; {_text(worlds.problems())}"
    )


def check_torques(
    recording: Recording, make_worlds: MakeWorlds, reference: ReferenceWorld | None, most: int
) -> Iterator[str]:
    """Applies the expert's recorded torques, grasp included, and yields how far from the recording that leads."""
    for number, episode in enumerate(recording.episodes[:-1][:most]):
        grasped = np.flatnonzero(episode["grasped"])
        moments = {"grasp": int(grasped[0])} if len(grasped) else {}
        moments |= {"end": len(episode["actions"])}
        for name, states in (
            ("mujoco-warp", _warp_states(episode, make_worlds(1))),
            ("C MuJoCo", None if reference is None else _reference_states(episode, reference)),
        ):
            if states is not None:
                parts = [_drift(recording, states, episode, step, moment) for moment, step in moments.items()]
                yield f"torques of episode {number}, {name}: {'; '.join(parts)}"


def check_controller(recording: Recording, make_worlds: MakeWorlds) -> str:
    """Plays the episode of random actions with the batched controller: how far from the recording it ends."""
    episode = recording.episodes[-1]
    worlds = make_worlds(1)
    worlds.start_from(_first_state(episode))
    worst = 0.0
    for step, action in enumerate(episode["actions"], start=1):
        worlds.step(action[None])
        worst = max(worst, float(np.abs(worlds.data.qpos.numpy()[0] - episode["qpos"][step]).max()))
    return (
        f"controller, {len(episode['actions'])} random env steps: qpos at most {worst:.1e} from the recording"
    )


def replay(recording: Recording, make_worlds: MakeWorlds, most: int, copies: int) -> Iterator[str]:
    """Replays the expert's recorded actions open loop, `copies` worlds each; yields what came of them."""
    episodes = recording.episodes[:-1][:most]
    worlds = make_worlds(copies * len(episodes))
    states = {
        name: np.repeat([episode[name][0] for episode in episodes], copies, axis=0) for name in START_ARRAYS
    }
    worlds.start_from(states)
    longest = max(len(episode["actions"]) for episode in episodes) + STEPS_AFTERWARDS
    actions = np.tile(np.array(SETTLING_ACTION), (len(episodes), longest, 1))
    for row, episode in zip(actions, episodes, strict=True):
        row[: len(episode["actions"])] = episode["actions"]
    first = np.full(worlds.num_worlds, -1)
    for step in range(longest):
        worlds.step(np.repeat(actions[:, step], copies, axis=0))
        first[worlds.success() & (first < 0)] = step + 1
    for number, episode in enumerate(episodes):
        mine = first[number * copies : (number + 1) * copies]
        yield (
            f"replay of episode {number}: success in {int((mine >= 0).sum())} of {copies} worlds, first at step "
            f"{min(mine[mine >= 0], default=None)}; recorded: {bool(episode['success'][-1])} at "
            f"{len(episode['actions'])}"
        )
    agree = int((_judge_in_c(recording, worlds) == worlds.success()).sum())
    yield (
        f"replay: {int((first >= 0).sum())} of {worlds.num_worlds} worlds solved, {int(worlds.success().sum())} at "
        f"the end; C MuJoCo agrees with the device's verdict in {agree} of {worlds.num_worlds}; "
        f"{_text(worlds.problems())}"
    )


def _judge_in_c(recording: Recording, worlds: WarpWorlds) -> np.ndarray:
    """LIBERO's verdict on states copied back, by C MuJoCo's contacts: bool (N,)."""
    model, task = recording.model, recording.task
    data = mujoco.MjData(model)
    moved, target = task["goal_bodies"]
    verdicts = []
    for qpos in worlds.data.qpos.numpy():
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        pairs = data.contact.geom[: data.ncon]
        sides = [np.isin(pairs, geoms) for geoms in task["goal_geoms"]]
        touching = bool(((sides[0] & sides[1][:, ::-1]).any(axis=1)).any())
        apart = data.xpos[moved] - data.xpos[target]
        verdicts.append(touching and np.hypot(*apart[:2]) < 0.03 and apart[2] >= 0.0)
    return np.array(verdicts)


def _warp_states(episode: dict[str, np.ndarray], worlds: WarpWorlds) -> np.ndarray:
    worlds.start_from(_first_state(episode))
    states = [episode["qpos"][0]]
    for controls in episode["controls"]:
        for control in controls[:PHYSICS_STEPS]:
            worlds.data.ctrl.assign(control[None].astype(np.float32))
            worlds.advance()
        states.append(worlds.data.qpos.numpy()[0].copy())  # on a CPU a view of what moves on
    return np.array(states)


def _reference_states(episode: dict[str, np.ndarray], reference: ReferenceWorld) -> np.ndarray:
    reference.start({name: episode[name][0] for name in START_ARRAYS})
    states = [episode["qpos"][0]]
    for controls in episode["controls"]:
        reference.step(controls)
        states.append(reference.data.qpos.copy())
    return np.array(states)


def _first_state(episode: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: episode[name][:1] for name in START_ARRAYS}


def _drift(
    recording: Recording, states: np.ndarray, episode: dict[str, np.ndarray], step: int, moment: str
) -> str:
    arm = recording.task["arm_qpos"]
    joints = np.abs(states[: step + 1, arm] - episode["qpos"][: step + 1, arm]).max()
    apart, _ = _object_distances(recording.model, states[: step + 1], episode["qpos"][: step + 1], None)
    return f"until {moment} (step {step}) joints {joints:.1e} rad, objects {1e3 * apart.max():.2f} mm"


def _object_distances(
    model: Any, qpos: np.ndarray, other: np.ndarray, qvel: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of free bodies in two lists of states, m (N, bodies), and their speeds in the first, m/s."""
    free = np.flatnonzero(model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE))
    places = model.jnt_qposadr[free][:, None] + np.arange(3)
    apart = np.linalg.norm(qpos[:, places] - other[:, places], axis=2)
    speeds = np.zeros_like(apart)
    if qvel is not None:
        speeds = np.linalg.norm(qvel[:, model.jnt_dofadr[free][:, None] + np.arange(3)], axis=2)
    return apart, speeds


def _text(problems: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in problems.items())
