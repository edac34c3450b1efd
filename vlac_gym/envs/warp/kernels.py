"""Warp kernels of `worlds`: LIBERO's arm controller, and contact distances as in MuJoCo 3.3.2.

One thread per world, or per contact. The controller computes what `vlac_gym.envs.libero.control` does, in float32 and
by Cholesky factors instead of pseudo-inverses. J is the hand's Jacobian of the seven arm joints, M their inertia:

    force  = (J_p M^-1 J_p')^-1 (kp position error - kd velocity)          and likewise the torque, with J_r
    joints = J' (force, torque) + bias + M a - J' (J M^-1 J')^-1 J a       with a = 10 (q0 - q) - 2 sqrt(10) q'

The last two terms are the null-space part: M a, less what of it the hand would notice.
"""

from typing import Any

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.extras import needs

with needs("Simulating on a GPU", get=GET_WARP):
    import warp as wp

wp.set_module_options({"enable_backward": False})

mat77 = wp.types.matrix((7, 7), float)
mat66 = wp.types.matrix((6, 6), float)
mat67 = wp.types.matrix((6, 7), float)
vec7 = wp.types.vector(7, float)
vec6 = wp.types.vector(6, float)

JOINT_KP = wp.constant(10.0)
JOINT_KV = wp.constant(6.3245553)


@wp.struct
class Arm:
    """Where the arm is in the model, and the controller's constants."""

    site: int
    root: int
    first_qpos: int
    first_dof: int
    first_actuator: int
    first_finger: int
    kp: vec6
    kd: vec6
    action_scale: vec6
    initial_joint: vec7
    torque_low: vec7
    torque_high: vec7
    finger_bias: wp.vec2
    finger_weight: wp.vec2
    finger_speed: wp.vec2


@wp.func
def cholesky(a: Any):
    """Lower factor L of a square matrix a = L L'."""
    low = a - a
    for i in range(len(a)):
        for j in range(i + 1):
            rest = a[i, j]
            for k in range(j):
                rest -= low[i, k] * low[j, k]
            if i == j:
                low[i, i] = wp.sqrt(rest)
            else:
                low[i, j] = rest / low[j, j]
    return low


@wp.func
def solve6(low: mat66, b: vec6):
    """x with L L' x = b."""
    x = vec6()
    for i in range(6):
        rest = b[i]
        for k in range(i):
            rest -= low[i, k] * x[k]
        x[i] = rest / low[i, i]
    for m in range(6):
        i = 5 - m
        rest = x[i]
        for k in range(i + 1, 6):
            rest -= low[k, i] * x[k]
        x[i] = rest / low[i, i]
    return x


@wp.kernel
def set_goal(
    arm: Arm,
    actions: wp.array2d(dtype=float),
    site_xpos: wp.array2d(dtype=wp.vec3),
    site_xmat: wp.array2d(dtype=wp.mat33),
    goal_position: wp.array(dtype=wp.vec3),
    goal_rotation: wp.array(dtype=wp.mat33),
    finger_change: wp.array(dtype=wp.vec2),
):
    """Takes new actions (N, 7): a goal relative to the hand's present pose; without a turn the old rotation stays."""
    world = wp.tid()
    step = vec6()
    for i in range(6):
        step[i] = wp.clamp(actions[world, i], -1.0, 1.0) * arm.action_scale[i]
    goal_position[world] = site_xpos[world, arm.site] + wp.vec3(step[0], step[1], step[2])
    turn = wp.vec3(step[3], step[4], step[5])
    angle = wp.length(turn)
    if angle > 0.0:
        rotation = wp.quat_to_matrix(wp.quat_from_axis_angle(turn / angle, angle))
        goal_rotation[world] = rotation @ site_xmat[world, arm.site]
    grip = actions[world, 6]
    direction = wp.where(grip > 0.0, 1.0, wp.where(grip < 0.0, -1.0, 0.0))
    finger_change[world] = arm.finger_speed * direction


@wp.kernel
def control(
    arm: Arm,
    inertia_address: wp.array2d(dtype=int),
    qpos: wp.array2d(dtype=float),
    qvel: wp.array2d(dtype=float),
    inertia: wp.array2d(dtype=float),
    bias: wp.array2d(dtype=float),
    cdof: wp.array2d(dtype=wp.spatial_vector),
    subtree_com: wp.array2d(dtype=wp.vec3),
    site_xpos: wp.array2d(dtype=wp.vec3),
    site_xmat: wp.array2d(dtype=wp.mat33),
    goal_position: wp.array(dtype=wp.vec3),
    goal_rotation: wp.array(dtype=wp.mat33),
    finger_change: wp.array(dtype=wp.vec2),
    finger: wp.array(dtype=wp.vec2),
    ctrl: wp.array2d(dtype=float),
):
    """Writes torques and the fingers' targets for the present state into ctrl (N, nu)."""
    world = wp.tid()
    hand = site_xpos[world, arm.site]
    offset = hand - subtree_com[world, arm.root]
    jacobian = mat67()
    mass = mat77()
    speed = vec6()
    pull = vec7()
    for i in range(7):
        axis = cdof[world, arm.first_dof + i]
        turning = wp.vec3(axis[0], axis[1], axis[2])
        moving = wp.vec3(axis[3], axis[4], axis[5]) + wp.cross(turning, offset)
        joint_speed = qvel[world, arm.first_dof + i]
        for k in range(3):
            jacobian[k, i] = moving[k]
            jacobian[3 + k, i] = turning[k]
            speed[k] += moving[k] * joint_speed
            speed[3 + k] += turning[k] * joint_speed
        for j in range(i + 1):
            entry = inertia[world, inertia_address[i, j]]
            mass[i, j] = entry
            mass[j, i] = entry
        pull[i] = JOINT_KP * (arm.initial_joint[i] - qpos[world, arm.first_qpos + i]) - JOINT_KV * joint_speed

    # lambda^-1 = J M^-1 J' = Y' Y with L Y = J'
    low = cholesky(mass)
    half = mat67()
    for row in range(6):
        for i in range(7):
            rest = jacobian[row, i]
            for k in range(i):
                rest -= low[i, k] * half[row, k]
            half[row, i] = rest / low[i, i]
    mobility = half @ wp.transpose(half)
    mobility_position = wp.mat33()
    mobility_rotation = wp.mat33()
    for i in range(3):
        for j in range(3):
            mobility_position[i, j] = mobility[i, j]
            mobility_rotation[i, j] = mobility[3 + i, 3 + j]

    goal = goal_rotation[world]
    now = site_xmat[world, arm.site]
    turn_error = wp.vec3()
    for k in range(3):
        turn_error += 0.5 * wp.cross(
            wp.vec3(now[0, k], now[1, k], now[2, k]), wp.vec3(goal[0, k], goal[1, k], goal[2, k])
        )
    move_error = goal_position[world] - hand
    pushed = wp.vec3()
    turned = wp.vec3()
    for k in range(3):
        pushed[k] = arm.kp[k] * move_error[k] - arm.kd[k] * speed[k]
        turned[k] = arm.kp[3 + k] * turn_error[k] - arm.kd[3 + k] * speed[3 + k]
    force = wp.inverse(mobility_position) @ pushed
    torque = wp.inverse(mobility_rotation) @ turned

    noticed = solve6(cholesky(mobility), jacobian @ pull)
    wrench = vec6()
    for k in range(3):
        wrench[k] = force[k] - noticed[k]
        wrench[3 + k] = torque[k] - noticed[3 + k]
    joints = wp.transpose(jacobian) @ wrench + mass @ pull
    for i in range(7):
        joint_torque = joints[i] + bias[world, arm.first_dof + i]
        ctrl[world, arm.first_actuator + i] = wp.clamp(joint_torque, arm.torque_low[i], arm.torque_high[i])

    opening = finger[world] + finger_change[world]
    for k in range(2):
        opening[k] = wp.clamp(opening[k], -1.0, 1.0)
        ctrl[world, arm.first_finger + k] = arm.finger_bias[k] + arm.finger_weight[k] * opening[k]
    finger[world] = opening


@wp.func
def along_an_axis(normal: wp.vec3, rotation: wp.mat33):
    """Whether a contact's normal is that of a box's face."""
    most = wp.float32(0.0)
    for k in range(3):
        most = wp.max(most, wp.abs(wp.dot(normal, wp.vec3(rotation[0, k], rotation[1, k], rotation[2, k]))))
    return most > 1.0 - 1.0e-6


@wp.kernel
def halve_face_distances(
    num_contacts: wp.array(dtype=int),
    geom_type: wp.array(dtype=int),
    box: int,
    geom_xmat: wp.array2d(dtype=wp.mat33),
    contact_geom: wp.array(dtype=wp.vec2i),
    contact_world: wp.array(dtype=int),
    contact_frame: wp.array(dtype=wp.mat33),
    contact_dist: wp.array(dtype=float),
):
    """Halves the distance where a box's face touches a box: up to MuJoCo 3.3 it was reported so."""
    i = wp.tid()
    if i >= num_contacts[0]:
        return
    first, second = contact_geom[i][0], contact_geom[i][1]
    if first < 0 or second < 0:
        return
    if geom_type[first] != box or geom_type[second] != box:
        return
    frame = contact_frame[i]
    normal = wp.vec3(frame[0, 0], frame[0, 1], frame[0, 2])
    world = contact_world[i]
    if along_an_axis(normal, geom_xmat[world, first]) or along_an_axis(normal, geom_xmat[world, second]):
        contact_dist[i] = 0.5 * contact_dist[i]


@wp.struct
class WorldMoments:
    """What a world's next step follows from, by world."""

    qpos: wp.array2d(dtype=float)
    qvel: wp.array2d(dtype=float)
    qacc_warmstart: wp.array2d(dtype=float)
    goal_position: wp.array(dtype=wp.vec3)
    goal_rotation: wp.array(dtype=wp.mat33)
    grip: wp.array(dtype=wp.vec2)


@wp.func
def copy_moment(source: WorldMoments, row: int, target: WorldMoments, world: int):
    """Copies one row of each array."""
    for i in range(source.qpos.shape[1]):
        target.qpos[world, i] = source.qpos[row, i]
    for i in range(source.qvel.shape[1]):
        target.qvel[world, i] = source.qvel[row, i]
        target.qacc_warmstart[world, i] = source.qacc_warmstart[row, i]
    target.goal_position[world] = source.goal_position[row]
    target.goal_rotation[world] = source.goal_rotation[row]
    target.grip[world] = source.grip[row]


@wp.kernel
def start_worlds(
    rows: wp.array(dtype=int),
    starts: WorldMoments,
    now: WorldMoments,
    kept: WorldMoments,
    failed: wp.array(dtype=int),
):
    """Puts worlds into the start of the given row; those of row -1 stay as they are."""
    world = wp.tid()
    row = rows[world]
    if row >= 0:
        copy_moment(starts, row, now, world)
        copy_moment(starts, row, kept, world)
        failed[world] = 0


@wp.kernel
def keep_or_restore(
    active: wp.array(dtype=int), now: WorldMoments, kept: WorldMoments, failed: wp.array(dtype=int)
):
    """Keeps what active worlds have reached; all others, and those with numbers that are not finite, are put back."""
    world = wp.tid()
    is_kept = active[world] == 1
    if is_kept:
        for i in range(now.qpos.shape[1]):
            if not wp.isfinite(now.qpos[world, i]):
                is_kept = False
        for i in range(now.qvel.shape[1]):
            if not wp.isfinite(now.qvel[world, i]):
                is_kept = False
        if not is_kept:
            failed[world] = 1
    if is_kept:
        copy_moment(now, world, kept, world)
    else:
        copy_moment(kept, world, now, world)
