"""The kernels of `pictures`: `make_cast`, `choose`, `shade`, `mix`, and `Rays` and `Screen`, which they read.

What rays hit and what colour it has are kernels of their own: of one that does both, a GPU runs few threads at once.
They take a list of samples: first the middles of all pixels, then those of OpenGL's four samples that may show
something else than the middle, which `choose` lists.
"""

from typing import Any

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.extras import needs

with needs("Drawing on a GPU", get=GET_WARP):
    import warp as wp

from vlac_gym.envs.warp import shading

FAR, BESIDE = wp.constant(1.0e10), wp.constant(1.0e-5)
BEND = wp.constant(0.1)
"""Sine of the angle (6 degrees) by which a surface may leave its plane from one pixel to the next and need no samples.

Half of it brings up to 0.6 dB for a fifth more pixels with samples, twice of it costs up to 0.5 for an eighth less."""


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


@wp.struct
class Screen:
    """Which pictures: of each world from the first one on those of all cameras, square, in rows of pixels."""

    first_world: int
    cameras: wp.array(dtype=int)
    cam_fovy: wp.array2d(dtype=float)
    pixels: int


@wp.func
def view_of(screen: Screen, places: shading.Places, pixel: int):
    """Who looks through a pixel, counted over all pictures."""
    area = screen.pixels * screen.pixels
    picture, inside = pixel // area, pixel % area
    world = screen.first_world + picture // screen.cameras.shape[0]
    camera = screen.cameras[picture % screen.cameras.shape[0]]
    turn = places.cam_xmat[world, camera]
    fovy = screen.cam_fovy[world % screen.cam_fovy.shape[0], camera]
    step = 2.0 * wp.tan(0.5 * wp.radians(fovy)) / float(screen.pixels)
    x = (float(inside % screen.pixels) + 0.5 - 0.5 * float(screen.pixels)) * step
    y = (0.5 * float(screen.pixels) - 0.5 - float(inside // screen.pixels)) * step
    view = shading.View()
    view.eye = places.cam_xpos[world, camera]
    view.forward = turn @ wp.vec3(0.0, 0.0, -1.0)
    view.ahead = turn @ wp.vec3(x, y, -1.0)
    view.right = turn @ wp.vec3(x + step, y, -1.0)
    view.below = turn @ wp.vec3(x, y - step, -1.0)
    view.world = world
    view.share = 1.0
    return view


@wp.func
def is_mirror(scene: shading.Scene, places: shading.Places, world: int, hit: shading.Hit):
    """Whether a hit is on the mirror's upper side."""
    if hit.geom != scene.mirror or hit.geom < 0:
        return False
    return wp.dot(hit.normal, places.geom_xmat[world, hit.geom] @ wp.vec3(0.0, 0.0, 1.0)) > 0.5


@wp.func
def turned(direction: wp.vec3, normal: wp.vec3):
    """A direction as a mirror has it."""
    return direction - normal * (2.0 * wp.dot(normal, direction))


@wp.func
def mirrored(view: shading.View, hit: shading.Hit, reflectance: float):
    """Who looks out of the mirror."""
    image = shading.View()
    image.eye = hit.point + turned(view.eye - hit.point, hit.normal)
    image.forward = view.forward
    image.ahead = turned(view.ahead, hit.normal)
    image.right = turned(view.right, hit.normal)
    image.below = turned(view.below, hit.normal)
    image.world = view.world
    image.share = reflectance
    return image


@wp.func
def is_same(a: shading.Hit, b: shading.Hit):
    """Whether two hits are on one surface: of one geom, and neither far from the plane that touches it at the other."""
    if a.geom != b.geom:
        return False
    if a.geom < 0:
        return True
    way = b.point - a.point
    limit = BEND * wp.length(way)
    return wp.abs(wp.dot(way, a.normal)) <= limit and wp.abs(wp.dot(way, b.normal)) <= limit


@wp.func
def on_face(a: shading.Hit, b: shading.Hit):
    """Whether two hits of one pixel have one colour: both are on one flat face, or nowhere."""
    if a.geom != b.geom or a.face != b.face:
        return False
    return a.geom < 0 or wp.dot(a.normal, b.normal) > 0.99999


@wp.func
def beside(pixels: int, pixel: int, offset: wp.vec2, corner: int):
    """A pixel on a sample's side: across for a corner of 1, up or down for 2, both for 3; at the border the pixel."""
    column, row = pixel % pixels, pixel // pixels % pixels
    across, down = int(wp.sign(offset[0])) * (corner % 2), int(wp.sign(offset[1])) * (corner // 2)
    if column + across < 0 or column + across >= pixels:
        across = 0
    if row + down < 0 or row + down >= pixels:
        down = 0
    return pixel + down * pixels + across


@wp.kernel(module="unique", enable_backward=False, grid_stride=False)
def choose(
    pixels: int,
    samples: wp.array(dtype=wp.vec2),
    middles: wp.array2d(dtype=shading.Hit),
    middle_colours: wp.array(dtype=wp.vec3),
    chosen: wp.array(dtype=int),
    count: wp.array(dtype=int),
    colours: wp.array(dtype=wp.vec3),
):
    """Lists the samples that need a ray: one of the three next pixels on their side shows another surface.

    The others have the colour of their pixel's middle.
    """
    pixel = wp.tid()
    for k in range(samples.shape[0]):
        differs = bool(False)  # noqa: UP018 - a variable to warp
        for corner in range(1, 4):
            other = beside(pixels, pixel, samples[k], corner)
            for bounce in range(2):
                if not is_same(middles[bounce, pixel], middles[bounce, other]):
                    differs = True
        sample = pixel * samples.shape[0] + k
        colours[sample] = middle_colours[pixel]
        if differs:
            chosen[wp.atomic_add(count, 0, 1)] = sample


def make_cast(cast_ray: Any) -> Any:
    """The kernel that finds what the rays of chosen pixels hit, and what they hit after a mirror.

    Args:
        cast_ray: Of `mujoco_warp._src.render._make_cast_ray`, for the scene's types of geoms.
    """

    @wp.kernel(module="unique", enable_backward=False, grid_stride=False)
    def cast(
        scene: shading.Scene,
        screen: Screen,
        places: shading.Places,
        rays: Rays,
        samples: wp.array(dtype=wp.vec2),
        chosen: wp.array(dtype=int),
        count: wp.array(dtype=int),
        threads: int,
        hits: wp.array2d(dtype=shading.Hit),
    ):
        for index in range(wp.tid(), count[0], threads):
            sample = chosen[index]
            offset = samples[sample % samples.shape[0]]
            view = view_of(screen, places, sample // samples.shape[0])
            world = view.world
            across, down = (view.right - view.ahead) * offset[0], (view.below - view.ahead) * offset[1]
            origin, direction = wp.vec3(view.eye), wp.normalize(view.ahead + across + down)
            seen = bool(True)  # noqa: UP018 - a variable to warp
            bounce = int(0)  # noqa: RUF046, UP018
            while bounce < 2:  # not unrolled, so that the search is there once
                hit = shading.Hit()
                hit.geom = -1
                if seen:
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
                    hit.geom = geom
                    hit.mesh = mesh
                    hit.face = face
                    hit.normal = normal
                    hit.point = origin + direction * distance
                hits[bounce, index] = hit
                seen = bounce == 0 and is_mirror(scene, places, world, hit)
                origin, direction = hit.point + hit.normal * BESIDE, turned(direction, hit.normal)
                bounce += 1

    return cast


@wp.func
def colour_of(
    scene: shading.Scene,
    textures: wp.array(dtype=wp.Texture2D),
    places: shading.Places,
    first_view: shading.View,
    first: shading.Hit,
    beyond: shading.Hit,
):
    """A ray's colour: of what it hits, and of what that shows if it is the mirror."""
    colour, view, hit = wp.vec3(0.0, 0.0, 0.0), first_view, first
    bounce = int(0)  # noqa: RUF046, UP018 - a variable to warp
    while bounce < 2 and hit.geom >= 0:  # not unrolled, so that `shading.shade` is there once
        colour = shading.clip(colour + shading.shade(scene, textures, places, view, hit))
        view, hit = mirrored(view, first, scene.reflectance), beyond
        bounce += 1
    return colour


@wp.kernel(module="unique", enable_backward=False, grid_stride=False)
def shade(
    scene: shading.Scene,
    textures: wp.array(dtype=wp.Texture2D),
    screen: Screen,
    places: shading.Places,
    samples: wp.array(dtype=wp.vec2),
    chosen: wp.array(dtype=int),
    count: wp.array(dtype=int),
    threads: int,
    hits: wp.array2d(dtype=shading.Hit),
    middles: wp.array2d(dtype=shading.Hit),
    colours: wp.array(dtype=wp.vec3),
):
    """The colours of chosen samples. Those on the face that their pixel's middle shows keep the middle's."""
    for index in range(wp.tid(), count[0], threads):
        sample = chosen[index]
        pixel = sample // samples.shape[0]
        first, beyond = hits[0, index], hits[1, index]
        same = on_face(first, middles[0, pixel]) and on_face(beyond, middles[1, pixel])
        if samples.shape[0] == 1 or not same:
            view = view_of(screen, places, pixel)
            colours[sample] = colour_of(scene, textures, places, view, first, beyond)


@wp.kernel(module="unique", enable_backward=False, grid_stride=False)
def mix(samples: int, colours: wp.array(dtype=wp.vec3), rgb: wp.array2d(dtype=wp.uint8)):
    """The mean colour of each pixel's samples."""
    pixel = wp.tid()
    total = wp.vec3(0.0, 0.0, 0.0)
    for sample in range(samples):
        total += colours[pixel * samples + sample]
    total = total * (255.0 / float(samples))
    for channel in range(3):
        rgb[pixel, channel] = wp.uint8(total[channel] + 0.5)
