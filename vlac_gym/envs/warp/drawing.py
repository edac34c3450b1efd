"""The kernel of `pictures`, one thread per pixel: `make_kernel`, and `Rays`, which it reads."""

from typing import Any

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.extras import needs

with needs("Drawing on a GPU", get=GET_WARP):
    import warp as wp

from vlac_gym.envs.warp import shading

FAR, BESIDE = wp.constant(1.0e10), wp.constant(1.0e-5)


@wp.struct
class Rays:
    """What mujoco-warp's search for hits reads besides a model's shapes and a state's places: of a `RenderContext`."""

    geom_type: wp.array(dtype=int)
    geom_dataid: wp.array2d(dtype=int)
    geom_size: wp.array2d(dtype=wp.vec3)
    flex_vertadr: wp.array(dtype=int)
    flex_edge: wp.array(dtype=wp.vec2i)
    flex_radius: wp.array(dtype=float)
    flexvert_xpos: wp.array2d(dtype=wp.vec3)
    bvh_id: wp.uint64
    group_root: wp.array(dtype=int)
    bvh_ngeom: int
    bvh_nflexgeom: int
    enabled_geom_ids: wp.array(dtype=int)
    mesh_bvh_id: wp.array(dtype=wp.uint64)
    hfield_bvh_id: wp.array(dtype=wp.uint64)
    flex_geom_flexid: wp.array(dtype=int)
    flex_geom_edgeid: wp.array(dtype=int)
    flex_bvh_id: wp.array(dtype=wp.uint64)
    flex_group_root: wp.array2d(dtype=int)


@wp.func
def meet(eye: wp.vec3, direction: wp.vec3, point: wp.vec3, normal: wp.vec3):
    """Where a ray meets the plane through a point, which may lie behind the eye."""
    steep = wp.dot(normal, direction)
    if wp.abs(steep) < 1.0e-6:
        return point
    return eye + direction * (wp.dot(normal, point - eye) / steep)


@wp.func
def is_flat(kind: int):
    """Whether a geom's surface is made of flat faces."""
    return kind == shading.MESH or kind == shading.BOX or kind == shading.PLANE


def make_kernel(cast_ray: Any) -> Any:
    """The kernel.

    Args:
        cast_ray: Of `mujoco_warp._src.render._make_cast_ray`, for the scene's types of geoms.
    """

    @wp.func
    def find(rays: Rays, places: shading.Places, world: int, origin: wp.vec3, direction: wp.vec3):
        geom, distance, normal, _u, _v, face, mesh = cast_ray(
            rays.geom_type,
            rays.geom_dataid,
            rays.geom_size,
            rays.flex_vertadr,
            rays.flex_edge,
            rays.flex_radius,
            places.geom_xpos,
            places.geom_xmat,
            rays.flexvert_xpos,
            rays.bvh_id,
            rays.group_root[world],
            world,
            rays.bvh_ngeom,
            rays.bvh_nflexgeom,
            rays.enabled_geom_ids,
            rays.mesh_bvh_id,
            rays.hfield_bvh_id,
            rays.flex_geom_flexid,
            rays.flex_geom_edgeid,
            rays.flex_bvh_id,
            rays.flex_group_root,
            origin,
            direction,
            FAR,
            True,
        )
        hit = shading.Hit()
        hit.geom = geom
        hit.mesh = mesh
        hit.face = face
        hit.normal = normal
        hit.point = origin + direction * distance
        return hit

    @wp.kernel(module="unique", enable_backward=False)
    def draw(
        scene: shading.Scene,
        textures: wp.array(dtype=wp.Texture2D),
        places: shading.Places,
        rays: Rays,
        cam_fovy: wp.array2d(dtype=float),
        cameras: wp.array(dtype=int),
        pixels: int,
        samples: wp.array(dtype=wp.vec2),
        rgb: wp.array4d(dtype=wp.uint8),
    ):
        world, index = wp.tid()
        number, pixel = index // (pixels * pixels), index % (pixels * pixels)
        column, row = float(pixel % pixels), float(pixel // pixels)
        camera = cameras[number]
        turn = places.cam_xmat[world, camera]
        step = 2.0 * wp.tan(0.5 * wp.radians(cam_fovy[world % cam_fovy.shape[0], camera])) / float(pixels)
        middle = 0.5 * float(pixels)
        to_right, to_below = turn @ wp.vec3(step, 0.0, 0.0), turn @ wp.vec3(0.0, -step, 0.0)
        ahead = turn @ wp.vec3((column + 0.5 - middle) * step, (middle - row - 0.5) * step, -1.0)
        view = shading.View()
        view.eye = places.cam_xpos[world, camera]
        view.forward = turn @ wp.vec3(0.0, 0.0, -1.0)
        view.world = world
        view.share = 1.0
        total, colour = wp.vec3(0.0, 0.0, 0.0), wp.vec3(0.0, 0.0, 0.0)
        last = shading.Hit()
        last.geom = -1
        for sample in range(samples.shape[0]):
            offset = samples[sample]
            ray = wp.normalize(ahead + to_right * offset[0] + to_below * offset[1])
            hit = find(rays, places, world, view.eye, ray)
            if hit.geom >= 0:
                point, normal = hit.point, hit.normal
                flat = is_flat(scene.geom_type[hit.geom])
                same = (
                    hit.geom == last.geom and hit.face == last.face and wp.dot(normal, last.normal) > 0.99999
                )
                if not (flat and same):
                    right = meet(view.eye, ahead + to_right, point, normal)
                    below = meet(view.eye, ahead + to_below, point, normal)
                    if flat:  # the colour is that of the pixel's middle, even beside the face
                        hit.point = meet(view.eye, ahead, point, normal)
                    colour = shading.shade(scene, textures, places, view, hit, right, below)
                    up = places.geom_xmat[world, hit.geom] @ wp.vec3(0.0, 0.0, 1.0)
                    if hit.geom == scene.mirror and wp.dot(normal, up) > 0.5:
                        bounced = ray - normal * (2.0 * wp.dot(normal, ray))
                        seen = find(rays, places, world, point + normal * BESIDE, bounced)
                        if seen.geom >= 0:
                            image = shading.View()
                            image.eye = view.eye - normal * (2.0 * wp.dot(normal, view.eye - point))
                            image.forward = view.forward
                            image.world = world
                            image.share = scene.reflectance
                            far = wp.length(seen.point - image.eye)
                            beside, under = seen.point + to_right * far, seen.point + to_below * far
                            colour += shading.shade(scene, textures, places, image, seen, beside, under)
                            colour = shading.clip(colour)
                    last = hit
                total += colour
        total = total * (255.0 / float(samples.shape[0]))
        for channel in range(3):
            rgb[world, number, pixel, channel] = wp.uint8(total[channel] + 0.5)

    return draw
