"""Warp kernels of `goals`: LIBERO's goals, judged in each world by its own task's. One thread per world, or contact."""

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.extras import needs

with needs("Simulating on a GPU", get=GET_WARP):
    import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.struct
class GoalTable:
    """Each world's task, and each task's goal: `in` the region of a site where it has one, else `on` a body."""

    task: wp.array(dtype=int)
    moved: wp.array(dtype=int)
    target: wp.array(dtype=int)
    site: wp.array(dtype=int)
    size: wp.array(dtype=wp.vec3)
    side: wp.array2d(dtype=int)


@wp.kernel
def find_touching(
    num_contacts: wp.array(dtype=int),
    goals: GoalTable,
    contact_geom: wp.array(dtype=wp.vec2i),
    contact_world: wp.array(dtype=int),
    touching: wp.array(dtype=int),
):
    """Marks worlds in which a geom of side 1 touches one of side 2."""
    i = wp.tid()
    if i >= num_contacts[0]:
        return
    first, second = contact_geom[i][0], contact_geom[i][1]
    if first < 0 or second < 0:
        return
    world = contact_world[i]
    task = goals.task[world]
    if goals.side[task, first] + goals.side[task, second] == 3:
        touching[world] = 1


@wp.func
def is_on(apart: wp.vec3, touching: int):
    """LIBERO's `on`: touching, within 3 cm across, and not below."""
    near = wp.length(wp.vec2(apart[0], apart[1])) < 0.03
    return wp.where(near and apart[2] >= 0.0 and touching == 1, 1, 0)


@wp.func
def is_in(apart: wp.vec3, turned: wp.vec3):
    """LIBERO's `in` a region: the object's origin is in the region's box, turned to the world's axes, or 1 cm below."""
    inside = 1
    for k in range(3):
        reach = wp.abs(turned[k])
        below = wp.where(k == 2, 0.01, 0.0)
        if apart[k] >= reach or apart[k] <= -reach - below:
            inside = 0
    return inside


@wp.kernel
def judge(
    goals: GoalTable,
    xpos: wp.array2d(dtype=wp.vec3),
    site_xpos: wp.array2d(dtype=wp.vec3),
    site_xmat: wp.array2d(dtype=wp.mat33),
    touching: wp.array(dtype=int),
    success: wp.array(dtype=int),
):
    """Writes each world's verdict, and forgets who touched."""
    world = wp.tid()
    task = goals.task[world]
    place = xpos[world, goals.moved[task]]
    site = goals.site[task]
    if site >= 0:
        success[world] = is_in(place - site_xpos[world, site], site_xmat[world, site] @ goals.size[task])
    else:
        success[world] = is_on(place - xpos[world, goals.target[task]], touching[world])
    touching[world] = 0
