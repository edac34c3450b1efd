"""Device code of `drawing`: the colour of what a ray hits, `shade`, as OpenGL's fixed-function pipeline has it.

`Scene` is what it reads of a model, and `Places` of a state.
"""

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.extras import needs

with needs("Drawing on a GPU", get=GET_WARP):
    import warp as wp

UNTEXTURED, COORDINATES, PLANAR, CUBE, CUBE_STRIP = 0, 1, 2, 3, 4
"""How a geom's texture is laid on: not at all, by a mesh's coordinates, along z, as a cube of one picture or of six."""
PLANE, BOX, MESH = 0, 6, 7
"""Of `mujoco.mjtGeom`."""


@wp.struct
class Scene:
    """A model's colours and shapes. By geom, by light, by texture, by mesh, or by vertex or face of all meshes."""

    geom_type: wp.array(dtype=int)
    geom_size: wp.array(dtype=wp.vec3)
    rgb: wp.array(dtype=wp.vec3)
    emission: wp.array(dtype=float)
    specular: wp.array(dtype=float)
    shininess: wp.array(dtype=float)
    texture: wp.array(dtype=int)
    mapping: wp.array(dtype=int)
    texture_scale: wp.array(dtype=wp.vec3)
    texture_size: wp.array(dtype=wp.vec2)
    mirror: int
    reflectance: float
    squares: int
    mesh_vertex_address: wp.array(dtype=int)
    mesh_face_address: wp.array(dtype=int)
    mesh_normal_address: wp.array(dtype=int)
    mesh_coordinate_address: wp.array(dtype=int)
    vertices: wp.array(dtype=wp.vec3)
    normals: wp.array(dtype=wp.vec3)
    coordinates: wp.array(dtype=wp.vec2)
    face_vertices: wp.array(dtype=wp.vec3i)
    face_normals: wp.array(dtype=wp.vec3i)
    face_coordinates: wp.array(dtype=wp.vec3i)
    head_ambient: wp.vec3
    head_diffuse: wp.vec3
    head_specular: wp.vec3
    light_ambient: wp.array(dtype=wp.vec3)
    light_diffuse: wp.array(dtype=wp.vec3)
    light_specular: wp.array(dtype=wp.vec3)
    light_directional: wp.array(dtype=int)
    light_attenuation: wp.array(dtype=wp.vec3)
    light_cutoff_cosine: wp.array(dtype=float)
    light_exponent: wp.array(dtype=float)


@wp.struct
class Places:
    """Where things are: by world, then by geom, light or camera."""

    geom_xpos: wp.array2d(dtype=wp.vec3)
    geom_xmat: wp.array2d(dtype=wp.mat33)
    light_xpos: wp.array2d(dtype=wp.vec3)
    light_xdir: wp.array2d(dtype=wp.vec3)
    cam_xpos: wp.array2d(dtype=wp.vec3)
    cam_xmat: wp.array2d(dtype=wp.mat33)


@wp.struct
class View:
    """Who looks through one pixel, and at which world. A mirror shows it to an eye behind itself, and takes part of the
    colour. `ahead` points to the pixel's middle, `right` and `below` to those of the next pixels."""

    eye: wp.vec3
    forward: wp.vec3
    ahead: wp.vec3
    right: wp.vec3
    below: wp.vec3
    world: int
    share: float


@wp.struct
class Hit:
    """A place on a geom's surface; `mesh` and `face` are -1 for other geoms than meshes, `geom` where there is none."""

    geom: int
    mesh: int
    face: int
    point: wp.vec3
    normal: wp.vec3


@wp.struct
class Vertex:
    """What is lit: a point's own colour, and how it shines."""

    base: wp.vec3
    specular: float
    shininess: float
    normal: wp.vec3
    to_eye: wp.vec3


@wp.struct
class Lamp:
    """A light as one point has it: its colours, the direction to it, and how much of it arrives."""

    ambient: wp.vec3
    diffuse: wp.vec3
    specular: wp.vec3
    direction: wp.vec3
    weight: float


@wp.func
def clip(colour: wp.vec3):
    """As a framebuffer holds it."""
    return wp.min(wp.max(colour, wp.vec3(0.0, 0.0, 0.0)), wp.vec3(1.0, 1.0, 1.0))


@wp.func
def lit_by(vertex: Vertex, lamp: Lamp):
    """One light's part of a vertex's colour."""
    colour = wp.cw_mul(vertex.base, lamp.ambient)
    facing = wp.dot(vertex.normal, lamp.direction)
    if facing > 0.0:
        half = wp.max(0.0, wp.dot(vertex.normal, wp.normalize(lamp.direction + vertex.to_eye)))
        power = float(1.0)  # noqa: UP018 - a variable to warp; of shininess 0, which OpenGL draws
        if vertex.shininess > 0.0:
            power = wp.pow(half, 128.0 * vertex.shininess)
        colour += wp.cw_mul(vertex.base, lamp.diffuse) * facing + lamp.specular * (vertex.specular * power)
    return colour * lamp.weight


@wp.func
def headlight(scene: Scene, view: View):
    """The light from the camera."""
    lamp = Lamp()
    lamp.ambient = scene.head_ambient
    lamp.diffuse = scene.head_diffuse
    lamp.specular = scene.head_specular
    lamp.direction = -view.forward
    lamp.weight = 1.0
    return lamp


@wp.func
def lamp_at(scene: Scene, places: Places, world: int, index: int, point: wp.vec3):
    """A light of the model, as a point has it."""
    lamp = Lamp()
    lamp.ambient = scene.light_ambient[index]
    lamp.diffuse = scene.light_diffuse[index]
    lamp.specular = scene.light_specular[index]
    axis = places.light_xdir[world, index]
    lamp.direction = -axis
    lamp.weight = 1.0
    if scene.light_directional[index] == 0:
        way = places.light_xpos[world, index] - point
        distance = wp.length(way)
        lamp.direction = way / wp.max(distance, 1.0e-9)
        fall = scene.light_attenuation[index]
        weight = 1.0 / wp.max(fall[0] + fall[1] * distance + fall[2] * distance * distance, 1.0e-9)
        cosine, limit = -wp.dot(lamp.direction, axis), scene.light_cutoff_cosine[index]
        if cosine < limit:
            weight = 0.0
        elif limit >= -1.0 and scene.light_exponent[index] > 0.0:
            weight = weight * wp.pow(wp.max(cosine, 0.0), scene.light_exponent[index])
        lamp.weight = weight
    return lamp


@wp.func
def light(scene: Scene, places: Places, view: View, geom: int, point: wp.vec3, normal: wp.vec3):
    """A vertex's colour by all lights, cut off at white."""
    vertex = Vertex()
    vertex.base = scene.rgb[geom] * view.share
    vertex.specular = scene.specular[geom]
    vertex.shininess = scene.shininess[geom]
    vertex.normal = normal
    vertex.to_eye = wp.normalize(view.eye - point)
    colour = vertex.base * scene.emission[geom] + lit_by(vertex, headlight(scene, view))
    for i in range(scene.light_diffuse.shape[0]):
        colour += lit_by(vertex, lamp_at(scene, places, view.world, i, point))
    return clip(colour)


@wp.func
def barycentric(point: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Weights of a triangle's corners at a point of its plane; beside it some are negative."""
    ab, ac, ap = b - a, c - a, point - a
    normal = wp.cross(ab, ac)
    scale = 1.0 / wp.max(wp.dot(normal, normal), 1.0e-30)
    v, w = wp.dot(wp.cross(ap, ac), normal) * scale, wp.dot(wp.cross(ab, ap), normal) * scale
    return wp.vec3(1.0 - v - w, v, w)


@wp.func
def main_axis(v: wp.vec3):
    """Index of the component that is farthest from 0."""
    axis = int(0)  # noqa: RUF046, UP018 - a variable to warp
    for i in range(1, 3):
        if wp.abs(v[i]) > wp.abs(v[axis]):
            axis = i
    return axis


@wp.func
def square_corner(scene: Scene, hit: Hit, local: wp.vec3, axis: int, index: int):
    """One of four corners, in the box's frame, with its weight: a box's faces are divided into squares."""
    size = scene.geom_size[hit.geom]
    corner, weight = local, float(1.0)  # noqa: UP018 - a variable to warp
    width, last = 2.0 / float(scene.squares), float(scene.squares - 1)
    for side in range(2):
        along = (axis + 1 + side) % 3
        place = (local[along] / size[along] + 1.0) / width
        begin = wp.clamp(wp.floor(place), 0.0, last)
        if (index >> side) % 2 == 1:
            corner[along] = ((begin + 1.0) * width - 1.0) * size[along]
            weight = weight * (place - begin)
        else:
            corner[along] = (begin * width - 1.0) * size[along]
            weight = weight * (1.0 - (place - begin))
    return corner, weight


@wp.func
def corner_weights(scene: Scene, mesh: int, face: int, local: wp.vec3):
    """`barycentric` of a mesh's face."""
    corners, first = (
        scene.face_vertices[scene.mesh_face_address[mesh] + face],
        scene.mesh_vertex_address[mesh],
    )
    a, b = scene.vertices[first + corners[0]], scene.vertices[first + corners[1]]
    return barycentric(local, a, b, scene.vertices[first + corners[2]])


@wp.func
def face_corner(scene: Scene, hit: Hit, flat: wp.vec3, index: int):
    """A corner of a mesh's face and its normal. Without texture coordinates, far-off normals don't count."""
    face = scene.mesh_face_address[hit.mesh] + hit.face
    corner = scene.vertices[scene.mesh_vertex_address[hit.mesh] + scene.face_vertices[face][index]]
    side = scene.normals[scene.mesh_normal_address[hit.mesh] + scene.face_normals[face][index]]
    if scene.mesh_coordinate_address[hit.mesh] < 0 and wp.dot(side, flat) < 0.8:
        side = flat
    return corner, side


@wp.func
def light_surface(scene: Scene, places: Places, view: View, hit: Hit, local: wp.vec3):
    """A geom's colour by all lights: of a box or mesh that of the corners around, of others that of the point."""
    place, turn = places.geom_xpos[view.world, hit.geom], places.geom_xmat[view.world, hit.geom]
    kind = scene.geom_type[hit.geom]
    flat = wp.transpose(turn) @ hit.normal
    axis = main_axis(flat)
    weights = wp.vec3(1.0, 0.0, 0.0)
    corners = int(1)  # noqa: RUF046, UP018 - a variable to warp
    if kind == MESH:
        corners = 3
        weights = corner_weights(scene, hit.mesh, hit.face, local)
    elif kind == BOX:
        corners = 4
    colour = wp.vec3(0.0, 0.0, 0.0)
    for i in range(corners):  # a loop on the device, too: `light` is long, and is there once
        corner, side, weight = local, flat, float(1.0)  # noqa: UP018
        if kind == MESH:
            corner, side = face_corner(scene, hit, flat, i)
            weight = weights[i]
        elif kind == BOX:
            corner, weight = square_corner(scene, hit, local, axis, i)
        point, normal = place + turn @ corner, wp.normalize(turn @ side)
        colour += light(scene, places, view, hit.geom, point, normal) * weight
    return clip(colour)


@wp.func
def cube_place(direction: wp.vec3, axis: int, positive: bool):
    """Where a cube's face has a direction, 0 to 1 from left to right and from its first row on."""
    x, y, z = direction[0], direction[1], direction[2]
    place = wp.vec2(0.0, 0.0)
    if axis == 0:
        place = wp.vec2(-z, -y) / wp.abs(x)
        if not positive:
            place = wp.vec2(z, -y) / wp.abs(x)
    elif axis == 1:
        place = wp.vec2(x, z) / wp.abs(y)
        if not positive:
            place = wp.vec2(x, -z) / wp.abs(y)
    else:
        place = wp.vec2(x, -y) / wp.abs(z)
        if not positive:
            place = wp.vec2(-x, -y) / wp.abs(z)
    return 0.5 * (place + wp.vec2(1.0, 1.0))


@wp.func
def texture_place(scene: Scene, hit: Hit, local: wp.vec3, axis: int, positive: bool):
    """Where in its texture a geom has a point, given in its own frame."""
    mapping = scene.mapping[hit.geom]
    scaled = wp.cw_mul(local, scene.texture_scale[hit.geom])
    if mapping == PLANAR:
        return wp.vec2(scaled[0] - 0.5, scaled[1] - 0.5)
    if mapping == COORDINATES:
        weights = corner_weights(scene, hit.mesh, hit.face, local)
        corners = scene.face_coordinates[scene.mesh_face_address[hit.mesh] + hit.face]
        first = scene.mesh_coordinate_address[hit.mesh]
        place = scene.coordinates[first + corners[0]] * weights[0]
        place += scene.coordinates[first + corners[1]] * weights[1]
        return place + scene.coordinates[first + corners[2]] * weights[2]
    return cube_place(scaled, axis, positive)


@wp.func
def texel(
    scene: Scene,
    textures: wp.array(dtype=wp.Texture2D),
    hit: Hit,
    local: wp.vec3,
    right: wp.vec3,
    below: wp.vec3,
):
    """A texture's colour at a point; `right` and `below` are the points that the next pixels show."""
    texture = scene.texture[hit.geom]
    scaled = wp.cw_mul(local, scene.texture_scale[hit.geom])
    axis = main_axis(scaled)
    positive = scaled[axis] > 0.0
    place = texture_place(scene, hit, local, axis, positive)
    size = scene.texture_size[texture]
    across = wp.cw_mul(texture_place(scene, hit, right, axis, positive) - place, size)
    down = wp.cw_mul(texture_place(scene, hit, below, axis, positive) - place, size)
    detail = wp.max(wp.log2(wp.max(wp.max(wp.length(across), wp.length(down)), 1.0e-6)), 0.0)
    if scene.mapping[hit.geom] == CUBE_STRIP:
        side = float(2 * axis)
        if not positive:
            side = side + 1.0
        place = wp.vec2(place[0], (side + place[1]) / 6.0)
    found = wp.texture_sample(textures[texture], place, dtype=wp.vec4, lod=detail)
    return wp.vec3(found[0], found[1], found[2])


@wp.func
def is_flat(kind: int):
    """Whether a geom's surface is made of flat faces."""
    return kind == MESH or kind == BOX or kind == PLANE  # noqa: SIM109, RUF100 - warp has no `in`


@wp.func
def meet(eye: wp.vec3, direction: wp.vec3, point: wp.vec3, normal: wp.vec3):
    """Where a ray meets the plane through a point, which may lie behind the eye."""
    steep = wp.dot(normal, direction)
    if wp.abs(steep) < 1.0e-6:
        return point
    return eye + direction * (wp.dot(normal, point - eye) / steep)


@wp.func
def shade(scene: Scene, textures: wp.array(dtype=wp.Texture2D), places: Places, view: View, hit: Hit):
    """A geom's colour. Of flat faces it is that of the pixel's middle, which may lie beside the face."""
    place, back = places.geom_xpos[view.world, hit.geom], wp.transpose(places.geom_xmat[view.world, hit.geom])
    point = hit.point
    if is_flat(scene.geom_type[hit.geom]):
        point = meet(view.eye, view.ahead, point, hit.normal)
    local = back @ (point - place)
    colour = light_surface(scene, places, view, hit, local)
    if scene.mapping[hit.geom] != UNTEXTURED:
        right = back @ (meet(view.eye, view.right, hit.point, hit.normal) - place)
        below = back @ (meet(view.eye, view.below, hit.point, hit.normal) - place)
        colour = wp.cw_mul(colour, texel(scene, textures, hit, local, right, below))
    return colour
