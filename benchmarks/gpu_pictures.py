"""Pictures of mujoco-warp's worlds: `Pictures`, which look like MuJoCo's OpenGL pictures, and `PlainPictures`.

mujoco-warp's own renderer (`PlainPictures`) shades every pixel by itself and leaves out what LIBERO's scenes need:
textures of boxes and cylinders, mipmaps, highlights of shininess 0, the texture's part in a highlight, reflections.
`Pictures` takes only mujoco-warp's search for what a ray hits, and computes the colour there as MuJoCo's OpenGL
renderer does (render_gl3.c and render_context.c of 3.3.2): light at the vertices of meshes and of the squares that a
box's face is divided into, cut off at white, interpolated, times the texture; four samples per pixel, for edges, whose
colour is that of the pixel's middle.

Refused: lights that cast shadows. Not drawn: sky and haze, whose place stays black, and geoms that are more than half
transparent; those that are less so are opaque. The model's sizes, colours, textures and lights are those of all worlds.
"""

import copy
from collections.abc import Sequence
from typing import Any

import gpu_drawing as drawing
import gpu_shading as shading
import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp
from mujoco_warp._src.render import _make_cast_ray

DRAWN_GROUPS = (1, 2)
"""Of geoms: robosuite's group 0 are collision shapes, which LIBERO doesn't draw."""
SAMPLES = ((-0.125, 0.375), (0.375, 0.125), (-0.375, -0.125), (0.125, -0.375))
"""Where OpenGL's four samples lie in a pixel of an offscreen picture, from its middle: to the right, and below."""
MOST_AT_ONCE = 64
PLACES = ("geom_xpos", "geom_xmat", "light_xpos", "light_xdir", "cam_xpos", "cam_xmat")
MODEL_RAYS = ("geom_type", "geom_dataid", "geom_size", "flex_vertadr", "flex_edge", "flex_radius")
DATA_RAYS = ("flexvert_xpos",)
CONTEXT_RAYS = (
    "bvh_id",
    "group_root",
    "bvh_ngeom",
    "bvh_nflexgeom",
    "enabled_geom_ids",
    "mesh_bvh_id",
    "hfield_bvh_id",
)
FLEX_RAYS = ("flex_geom_flexid", "flex_geom_edgeid", "flex_bvh_id", "flex_group_root")
OPAQUE = 0.995
"""The alpha from which a geom may be a mirror."""
HIDDEN = 0.5
"""The alpha below which a geom isn't drawn."""
DEFAULT_RGBA = (0.5, 0.5, 0.5, 1.0)
"""A geom's own colour, which counts beside a material only if it is another one."""


class Pictures:
    """Draws cameras of N worlds on their device as OpenGL would.

    Args:
        model: A `mujoco.MjModel` with the textures, the one that the worlds were made from.
        num_worlds: N.
        pixels: Side of the pictures.
        cameras: Names in the model.
        samples: Rays per pixel for edges: 4 as OpenGL, or 1, which is faster.

    Attributes:
        rgb: After `draw`: uint8 (N, cameras, pixels, pixels, 3), upright, on the device.
    """

    def __init__(
        self, model: Any, num_worlds: int, pixels: int, cameras: Sequence[str], *, samples: int = 4
    ) -> None:
        if samples not in (1, len(SAMPLES)):
            raise ValueError(f"Expected 1 or {len(SAMPLES)} samples, got {samples}.")
        if (model.light_castshadow[model.light_active.astype(bool)]).any():
            raise ValueError("Expected lights without shadows, as LIBERO's are; light_castshadow is set.")
        shown = copy.copy(model)
        rgba = geom_rgba(shown)
        shown.geom_group[rgba[:, 3] < HIDDEN] = max(DRAWN_GROUPS) + 1
        self._context = mjw.create_render_context(
            shown,
            num_worlds,
            (pixels, pixels),
            True,
            use_textures=False,
            cam_active=list(cameras),
            enabled_geom_groups=list(DRAWN_GROUPS),
        )
        self._textures = make_textures(model)
        self._texture_array = wp.array(self._textures, dtype=wp.Texture2D)
        drawn = np.isin(shown.geom_group, DRAWN_GROUPS)
        self._scene = make_scene(model, rgba, drawn)
        points = np.array(SAMPLES if samples > 1 else [(0.0, 0.0)], np.float32)
        self._samples = wp.array(points, dtype=wp.vec2)
        self._cameras = wp.array([model.camera(name).id for name in cameras], dtype=int)
        self._kernel = drawing.make_kernel(_make_cast_ray(self._context.geom_ray_types))
        self._pixels = pixels
        self.rgb = wp.zeros((num_worlds, len(cameras), pixels * pixels, 3), dtype=wp.uint8)

    def draw(self, model: Any, data: Any) -> None:
        """Draws the worlds as `data` describes them, positions of lights and cameras included."""
        mjw.refit_bvh(model, data, self._context)
        places, rays = shading.Places(), drawing.Rays()
        for name in PLACES:
            setattr(places, name, getattr(data, name))
        for source, names in (
            (model, MODEL_RAYS),
            (data, DATA_RAYS),
            (self._context, CONTEXT_RAYS + FLEX_RAYS),
        ):
            for name in names:
                setattr(rays, name, getattr(source, name))
        picture = (model.cam_fovy, self._cameras, self._pixels, self._samples, self.rgb)
        size = (self.rgb.shape[0], self.rgb.shape[1] * self.rgb.shape[2])
        wp.launch(self._kernel, size, [self._scene, self._texture_array, places, rays, *picture])

    def numpy(self) -> np.ndarray:
        """The last pictures: uint8 (N, cameras, pixels, pixels, 3)."""
        worlds, cameras = self.rgb.shape[:2]
        return self.rgb.numpy().reshape(worlds, cameras, self._pixels, self._pixels, 3).copy()


class PlainPictures:
    """Draws cameras of N worlds by mujoco-warp's own renderer; arguments as of `Pictures`."""

    def __init__(self, model: Any, num_worlds: int, pixels: int, cameras: Sequence[str]) -> None:
        size, options = (pixels, pixels), {"enabled_geom_groups": list(DRAWN_GROUPS)}
        self._context = mjw.create_render_context(
            model, num_worlds, size, True, cam_active=list(cameras), **options
        )
        self._pixels = pixels

    def draw(self, model: Any, data: Any) -> None:
        """See `Pictures.draw`."""
        mjw.refit_bvh(model, data, self._context)
        mjw.render(model, data, self._context)

    def numpy(self) -> np.ndarray:
        """See `Pictures.numpy`."""
        packed = self._context.rgb_data.numpy().reshape(
            len(self._context.rgb_data), -1, self._pixels, self._pixels
        )
        return np.stack([(packed >> shift) & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)


RENDERERS: dict[str, Any] = {"opengl": Pictures, "plain": PlainPictures}


def draw_places(
    model: Any, qpos: np.ndarray, pixels: int, cameras: Sequence[str], renderer: str
) -> np.ndarray:
    """Pictures of joint positions (N, nq), some at a time: uint8 (N, cameras, pixels, pixels, 3)."""
    count = min(len(qpos), MOST_AT_ONCE)
    device_model, data = mjw.put_model(model), mjw.make_data(model, nworld=count)
    pictures = RENDERERS[renderer](model, count, pixels, cameras)
    drawn = []
    for begin in range(0, len(qpos), count):
        rows = np.minimum(np.arange(begin, begin + count), len(qpos) - 1)
        data.qpos.assign(qpos[rows].astype(np.float32))
        mjw.kinematics(device_model, data)
        mjw.com_pos(device_model, data)
        mjw.camlight(device_model, data)
        pictures.draw(device_model, data)
        drawn.append(pictures.numpy())
    return np.concatenate(drawn)[: len(qpos)]


def by_geom(model: Any, name: str, default: Any) -> np.ndarray:
    """An array of the materials, by geom, with the default for geoms without one."""
    values = np.concatenate([getattr(model, f"mat_{name}"), np.asarray(default)[None]])
    return values[model.geom_matid]  # -1 is the last


def geom_rgba(model: Any) -> np.ndarray:
    """Each geom's colour, as MuJoCo's visualizer chooses between its own and its material's: (ngeom, 4)."""
    own = (model.geom_matid < 0) | (model.geom_rgba != np.float32(DEFAULT_RGBA)).any(axis=1)
    return np.where(own[:, None], model.geom_rgba, by_geom(model, "rgba", np.float32(DEFAULT_RGBA)))


def make_textures(model: Any) -> list[Any]:
    """Every texture of the model with all its mipmaps."""
    textures = []
    for i in range(model.ntex):
        shape = int(model.tex_height[i]), int(model.tex_width[i]), int(model.tex_nchannel[i])
        begin = int(model.tex_adr[i])
        texels = np.full((*shape[:2], 4), 255, np.uint8)
        texels[..., : shape[2]] = model.tex_data[begin : begin + int(np.prod(shape))].reshape(shape)
        flat = model.tex_type[i] == int(mujoco.mjtTexture.mjTEXTURE_2D)
        mode = wp.TextureAddressMode.WRAP if flat else wp.TextureAddressMode.CLAMP
        levels = 0 if flat or shape[0] == shape[1] else 1  # six faces in one strip would mix
        textures.append(wp.Texture2D(texels, address_mode=mode, num_mip_levels=levels))
    return textures


def make_scene(model: Any, rgba: np.ndarray, drawn: np.ndarray) -> Any:
    """What of the model its colours depend on, by geom."""
    scene = shading.Scene()
    roles = by_geom(model, "texid", np.full(model.mat_texid.shape[1], -1, np.int32))
    textured = roles[:, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)]
    kinds, scales = zip(
        *(_texture_mapping(model, i, int(textured[i])) for i in range(model.ngeom)), strict=True
    )
    scene.geom_type = wp.array(model.geom_type, dtype=int)
    scene.geom_size = wp.array(model.geom_size, dtype=wp.vec3)
    scene.rgb = wp.array(np.ascontiguousarray(rgba[:, :3]), dtype=wp.vec3)
    for name, default in (("emission", 0.0), ("specular", 0.5), ("shininess", 0.5)):
        setattr(scene, name, wp.array(by_geom(model, name, default), dtype=float))
    scene.texture = wp.array(textured, dtype=int)
    scene.mapping = wp.array(kinds, dtype=int)
    scene.texture_scale = wp.array(np.array(scales), dtype=wp.vec3)
    scene.texture_size = wp.array(np.stack([model.tex_width, model.tex_height], axis=1), dtype=wp.vec2)
    flat = np.isin(model.geom_type, (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)))
    reflectance = by_geom(model, "reflectance", 0.0)
    mirrors = np.flatnonzero(drawn & flat & (reflectance > 0) & (rgba[:, 3] >= OPAQUE))
    scene.mirror = int(mirrors[0]) if mirrors.size else -1  # OpenGL's renderer has the first only
    scene.reflectance = float(reflectance[mirrors[0]]) if mirrors.size else 0.0
    _add_meshes(scene, model)
    _add_lights(scene, model)
    scene.squares = int(model.vis.quality.numquads)
    return scene


def _texture_mapping(model: Any, geom: int, texture: int) -> tuple[int, tuple[float, float, float]]:
    """How a point of a geom, in its own frame, becomes a place in its texture: mapping and factors."""
    if texture < 0:
        return shading.UNTEXTURED, (0.0, 0.0, 0.0)
    kind, material = model.geom_type[geom], model.geom_matid[geom]
    is_mesh = kind == int(mujoco.mjtGeom.mjGEOM_MESH)
    if is_mesh and model.mesh_texcoordadr[model.geom_dataid[geom]] >= 0:
        return shading.COORDINATES, (0.0, 0.0, 0.0)
    size = model.geom_size[geom].astype(float)
    if kind == int(mujoco.mjtGeom.mjGEOM_CYLINDER):
        size = size[[0, 0, 1]]
    uniform = bool(model.mat_texuniform[material])
    unit = np.ones(3) if uniform else 1.0 / np.where(size > 0, size, 1.0)
    if model.tex_type[texture] == int(mujoco.mjtTexture.mjTEXTURE_2D):
        repeat = model.mat_texrepeat[material]
        return shading.PLANAR, (0.5 * repeat[0] * unit[0], -0.5 * repeat[1] * unit[1], 0.0)
    one_face = model.tex_width[texture] == model.tex_height[texture]
    return shading.CUBE if one_face else shading.CUBE_STRIP, tuple(np.ones(3) if is_mesh else unit)


def _add_meshes(scene: Any, model: Any) -> None:
    scene.mesh_vertex_address = wp.array(model.mesh_vertadr, dtype=int)
    scene.mesh_face_address = wp.array(model.mesh_faceadr, dtype=int)
    scene.mesh_normal_address = wp.array(model.mesh_normaladr, dtype=int)
    scene.mesh_coordinate_address = wp.array(model.mesh_texcoordadr, dtype=int)
    scene.vertices = wp.array(model.mesh_vert, dtype=wp.vec3)
    scene.normals = wp.array(model.mesh_normal, dtype=wp.vec3)
    scene.coordinates = wp.array(model.mesh_texcoord, dtype=wp.vec2)
    scene.face_vertices = wp.array(model.mesh_face, dtype=wp.vec3i)
    scene.face_normals = wp.array(model.mesh_facenormal, dtype=wp.vec3i)
    scene.face_coordinates = wp.array(model.mesh_facetexcoord, dtype=wp.vec3i)


def _add_lights(scene: Any, model: Any) -> None:
    head, active = model.vis.headlight, model.light_active.astype(bool)
    headlight = np.float32([head.ambient, head.diffuse, head.specular]) * (1.0 if head.active else 0.0)
    scene.head_ambient, scene.head_diffuse, scene.head_specular = (wp.vec3(*part) for part in headlight)
    for name in ("ambient", "diffuse", "specular"):
        values = getattr(model, f"light_{name}") * active[:, None]
        setattr(scene, f"light_{name}", wp.array(values.astype(np.float32), dtype=wp.vec3))
    directional = model.light_type == int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    cutoff = np.where(model.light_cutoff >= 180.0, -2.0, np.cos(np.radians(model.light_cutoff)))
    scene.light_directional = wp.array(directional.astype(np.int32), dtype=int)
    scene.light_attenuation = wp.array(model.light_attenuation, dtype=wp.vec3)
    scene.light_cutoff_cosine = wp.array(cutoff.astype(np.float32), dtype=float)
    scene.light_exponent = wp.array(model.light_exponent, dtype=float)
