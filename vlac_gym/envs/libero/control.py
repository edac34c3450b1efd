"""robosuite's arm controller and contact test without their bookkeeping: `ArmControl`, `ContactTest`.

Both give bit for bit what robosuite 1.4.0 gives (`controllers/osc.py`, `robots/single_arm.py`,
`environments/base.py`): the same functions are called on the same numbers in the same order. Left out are what
nobody reads here: observables at every physics step, force and velocity histories, name look-ups, and the
`mj_forward` that each of them repeats.
"""

__all__ = ["ArmControl", "ContactTest", "solve_again"]

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import SimulatorError
from vlac_gym.extras import needs

_KEPT_ALIVE = ("sim", "update")


class ArmControl:
    """The operational-space controller of one arm with its gripper, applied once per physics step.

    Args:
        mujoco: The imported module.
        domain: LIBERO's inner environment, just built.

    Attributes:
        repeats_solves: Leave the solver's start as robosuite does (`solve_again`); True at first.
    """

    def __init__(self, mujoco: Any, domain: Any) -> None:
        self.repeats_solves = True
        with needs("LIBERO", "libero"):
            from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

        self._nullspace_torques = nullspace_torques
        self._opspace_matrices = opspace_matrices
        self._orientation_error = orientation_error
        self._mujoco = mujoco
        self._model = domain.sim.model._model
        self._data = domain.sim.data._data
        robot = domain.robots[0]
        self._controller = robot.controller
        self._controller.update = self._update
        self._site = robot.eef_site_id
        self._arm = _ArmBuffers(self._model, self._data, robot)
        self._arm_actuators = _as_slice(robot._ref_joint_actuator_indexes)
        self._torque_low, self._torque_high = (np.array(limit) for limit in robot.torque_limits)
        self._grip_actuators = _as_slice(robot._ref_joint_gripper_actuator_indexes)
        span = self._model.actuator_ctrlrange[self._grip_actuators]
        self._grip_bias = 0.5 * (span[:, 1] + span[:, 0])
        self._grip_weight = 0.5 * (span[:, 1] - span[:, 0])
        self._grip_speed = np.array([-1.0, 1.0]) * robot.gripper.speed
        self._grip = np.array(robot.gripper.current_action, dtype=np.float64)
        self._grip_change = np.zeros(2)

    def snapshot(self) -> dict[str, Any]:
        """A copy of goals, gripper position and cached kinematics, for `restore`."""
        kept = {
            name: copy.deepcopy(value)
            for name, value in vars(self._controller).items()
            if name not in _KEPT_ALIVE
        }
        return {"controller": kept, "grip": self._grip}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Goes back to a snapshot, which stays as it is."""
        vars(self._controller).update(copy.deepcopy(snapshot["controller"]))
        self._grip = snapshot["grip"]

    def set_goal(self, action: NDArray[np.float64]) -> None:
        """Takes a new action: float64 (7,), within [-1, 1]."""
        self._controller.set_goal(action[:6])
        self._grip_change = self._grip_speed * np.sign(action[6:])

    def apply(self) -> None:
        """Writes the torques and the gripper's command for the present state into MuJoCo's controls."""
        control = self._arm.controls
        torques = np.maximum(self._torques(), self._torque_low)
        control[self._arm_actuators] = np.minimum(torques, self._torque_high, out=torques)
        self._grip = np.minimum(np.maximum(self._grip + self._grip_change, -1.0), 1.0)
        control[self._grip_actuators] = self._grip_bias + self._grip_weight * self._grip

    def _torques(self) -> NDArray[np.float64]:
        c, arm = self._controller, self._arm
        self._update()
        error, speed, wrench, torques = arm.error, arm.speed, arm.wrench, arm.torques
        np.subtract(c.goal_pos, c.ee_pos, out=error[:3])
        error[3:] = self._orientation_error(c.goal_ori, c.ee_ori_mat)
        speed[:3] = c.ee_pos_vel
        speed[3:] = c.ee_ori_vel
        error *= c.kp
        speed *= c.kd
        error -= speed  # a - b is a + (-b) to the bit
        _, lambda_position, lambda_orientation, nullspace = self._opspace_matrices(
            c.mass_matrix, c.J_full, c.J_pos, c.J_ori
        )
        np.dot(lambda_position, error[:3], out=wrench[:3])
        np.dot(lambda_orientation, error[3:], out=wrench[3:])
        np.dot(c.J_full.T, wrench, out=torques)
        torques += arm.bias_force
        torques += self._nullspace_torques(
            c.mass_matrix, nullspace, c.initial_joint, c.joint_pos, c.joint_vel
        )
        c.new_update = True
        return torques

    def _update(self, force: bool = False) -> None:
        """robosuite's `Controller.update`; positions and velocities of the present state must be computed."""
        c = self._controller
        if not (c.new_update or force):
            return  # as in LIBERO, the first step after a reset sees the pose of the newly built robot
        mujoco, model, data, arm = self._mujoco, self._model, self._data, self._arm
        if self.repeats_solves:
            solve_again(mujoco, model, data)
        mujoco.mj_jacSite(model, data, *arm.jacobian, self._site)
        mujoco.mj_fullM(model, arm.mass, data.qM)
        arm.fill(c)
        c.new_update = False


def solve_again(mujoco: Any, model: Any, data: Any) -> None:
    """What one of robosuite's repeated `mj_forward` leaves behind: the solver's start is refined by one solve more.

    Each solve starts from the accelerations of the one before, so a repetition is no repetition to the last bits.
    Positions and velocities of the present state must be computed; those parts would be computed again unchanged.
    """
    mujoco.mj_fwdActuation(model, data)
    mujoco.mj_fwdAcceleration(model, data)
    mujoco.mj_fwdConstraint(model, data)


class _ArmBuffers:
    """Views of MuJoCo's arrays and room for the arm's share of them, made once.

    The controller's matrices are kept in Fortran order, as robosuite's fancy indexing leaves them: linear algebra
    rounds differently for another order.
    """

    def __init__(self, model: Any, data: Any, robot: Any) -> None:
        site, nv = robot.eef_site_id, model.nv
        positions = _as_slice(robot.controller.qpos_index)
        velocities = _as_slice(robot.controller.qvel_index)
        self.controls = data.ctrl
        self.bias_force = data.qfrc_bias[velocities]
        self.jacobian = np.zeros((2, 3, nv))
        self.mass = np.zeros((nv, nv))
        self._site_position = data.site_xpos[site]
        self._site_rotation = data.site_xmat[site].reshape(3, 3)
        self._speeds = data.qvel
        self._arm_positions, self._arm_speeds = data.qpos[positions], data.qvel[velocities]
        self._arm_jacobian = self.jacobian.reshape(6, nv)[:, velocities]
        self._arm_mass = self.mass[velocities, velocities]
        self.error, self.speed, self.wrench = np.empty((3, 6))
        self.torques = np.empty(len(self._arm_speeds))

    def fill(self, controller: Any) -> None:
        """Copies the present kinematics and inertia into the controller's attributes."""
        c = controller
        c.ee_pos = self._site_position.copy()
        c.ee_ori_mat = self._site_rotation.copy()
        c.ee_pos_vel = np.dot(self.jacobian[0], self._speeds)
        c.ee_ori_vel = np.dot(self.jacobian[1], self._speeds)
        c.joint_pos = self._arm_positions.copy()
        c.joint_vel = self._arm_speeds.copy()
        c.J_full = self._arm_jacobian.copy(order="F")
        c.J_pos = self._arm_jacobian[:3].copy(order="F")
        c.J_ori = self._arm_jacobian[3:].copy(order="F")
        c.mass_matrix = self._arm_mass.copy(order="F")


def _as_slice(indexes: Sequence[int]) -> slice:
    """The range that consecutive indexes span; a slice is a view, and reading it costs less than a list's copy."""
    first, last = int(indexes[0]), int(indexes[-1])
    if list(indexes) != list(range(first, last + 1)):
        raise SimulatorError(f"Expected the robot's joints side by side in the model, got {list(indexes)}.")
    return slice(first, last + 1)


class ContactTest:
    """robosuite's `MujocoEnv.check_contact` on sets of geom numbers instead of names.

    Args:
        domain: LIBERO's inner environment.
    """

    def __init__(self, domain: Any) -> None:
        self._model = domain.sim.model
        self._data = domain.sim.data._data
        self._masks: dict[Any, NDArray[np.bool_]] = {}

    def __call__(self, geoms_1: Any, geoms_2: Any = None) -> bool:
        """True if a geom of the first group touches one of the second (or anything, for None).

        Args:
            geoms_1: A geom's name, a list of names, or a robosuite model.
            geoms_2: The same, or None.
        """
        count = self._data.ncon
        if count == 0:
            return False
        pairs = self._data.contact.geom[:count]
        first = self._mask(geoms_1)[pairs]
        if geoms_2 is None:
            return bool(first.any())
        second = self._mask(geoms_2)[pairs]
        return bool(((first[:, 0] & second[:, 1]) | (first[:, 1] & second[:, 0])).any())

    def _mask(self, geoms: Any) -> NDArray[np.bool_]:
        key = (
            geoms
            if isinstance(geoms, str)
            else tuple(geoms)
            if isinstance(geoms, (list, tuple))
            else id(geoms)
        )
        found = self._masks.get(key)
        if found is None:
            found = np.zeros(self._model.ngeom, dtype=bool)
            found[[self._model.geom_name2id(name) for name in _geom_names(geoms)]] = True
            self._masks[key] = found
        return found


def _geom_names(geoms: Any) -> Sequence[str]:
    if isinstance(geoms, str):
        return [geoms]
    if isinstance(geoms, (list, tuple)):
        return list(geoms)
    return list(geoms.contact_geoms)
