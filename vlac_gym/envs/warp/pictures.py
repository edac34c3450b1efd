"""Pictures of all worlds at once that look like MuJoCo's OpenGL pictures: `Pictures`.

mujoco-warp's own renderer shades every pixel by itself and leaves out what LIBERO's scenes need: textures of boxes and
cylinders, mipmaps, highlights of shininess 0, the texture's part in a highlight, reflections. `Pictures` takes only its
search for what a ray hits, and computes the colour there as MuJoCo's OpenGL renderer does (render_gl3.c and
render_context.c of 3.3.2): light at the vertices of meshes and of the squares that a box's face is divided into, cut
off at white, interpolated, times the texture; four samples per pixel, whose colour is that of the pixel's middle, where
a pixel beside it shows another surface.

Refused: lights that cast shadows. Not drawn: sky and haze, whose place stays black, and geoms that are more than half
transparent; those that are less so are opaque. The model's sizes, colours, textures and lights are those of all worlds.
"""

__all__ = ["DRAWN_GROUPS", "Pictures"]

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.frames.on_device import torch_stream, wait_for_torch

with needs("Drawing on a GPU", get=GET_WARP):
    import mujoco
    import mujoco_warp as mjw
    import warp as wp
    from mujoco_warp._src.render import _make_cast_ray

from vlac_gym.envs.warp import drawing, shading

DRAWN_GROUPS = (1, 2)
"""Of geoms: robosuite's group 0 are collision shapes, which LIBERO doesn't draw."""
_SAMPLES = ((-0.125, 0.375), (0.375, 0.125), (-0.375, -0.125), (0.125, -0.375))
"""Where OpenGL's four samples lie in a pixel of an offscreen picture, from its middle: to the right, and below."""
_PLACES = ("geom_xpos", "geom_xmat", "light_xpos", "light_xdir", "cam_xpos", "cam_xmat")
_MODEL_RAYS = ("geom_type", "geom_dataid", "geom_size", "flex_vertadr", "flex_edge", "flex_radius")
_DATA_RAYS = ("flexvert_xpos",)
_CONTEXT_RAYS = (
    "bvh_id",
    "group_root",
    "bvh_ngeom",
    "bvh_nflexgeom",
    "enabled_geom_ids",
    "mesh_bvh_id",
    "hfield_bvh_id",
)
_FLEX_RAYS = ("flex_geom_flexid", "flex_geom_edgeid", "flex_bvh_id", "flex_group_root")
_PIXELS_AT_ONCE = 1 << 20
"""Drawn at a time, so that what rays hit takes 0.46 GB at most: four times the threads that an H200 has room for."""
_OPAQUE = 0.995
"""The alpha from which a geom may be a mirror."""
_HIDDEN = 0.5
"""The alpha below which a geom isn't drawn."""
_DEFAULT_RGBA = (0.5, 0.5, 0.5, 1.0)
"""A geom's own colour, which counts beside a material only if it is another one."""


class Pictures:
    """Draws cameras of N worlds on warp's current device as OpenGL would.

    Args:
        model: A `mujoco.MjModel` with the textures, the one that the worlds were made from.
        num_worlds: N.
        pixels: Side of the pictures.
        cameras: Names in the model.
        samples: Per pixel at edges: 4 as OpenGL, or 1, which is faster.

    Raises:
        ConfigError: Another number of samples, or lights that cast shadows.
    """

    def __init__(
        self, model: Any, num_worlds: int, pixels: int, cameras: Sequence[str], *, samples: int = 4
    ) -> None:
        if samples not in (1, len(_SAMPLES)):
            raise ConfigError(f"Expected 1 or {len(_SAMPLES)} samples, got {samples}.")
        if (model.light_castshadow[model.light_active.astype(bool)]).any():
            raise ConfigError("Expected lights without shadows, as LIBERO's are; light_castshadow is set.")
        shown = copy.copy(model)
        rgba = _geom_rgba(shown)
        shown.geom_group[rgba[:, 3] < _HIDDEN] = max(DRAWN_GROUPS) + 1
        self._context = mjw.create_render_context(
            shown,
            num_worlds,
            (pixels, pixels),
            True,
            use_textures=False,
            cam_active=list(cameras),
            enabled_geom_groups=list(DRAWN_GROUPS),
        )
        self._textures = _make_textures(model)
        self._texture_array = wp.array(self._textures, dtype=wp.Texture2D)
        drawn = np.isin(shown.geom_group, DRAWN_GROUPS)
        self._scene = _make_scene(model, rgba, drawn)
        self._middle = wp.array([(0.0, 0.0)], dtype=wp.vec2)
        self._samples = wp.array(_SAMPLES, dtype=wp.vec2) if samples > 1 else None
        self._camera_ids = {name: model.camera(name).id for name in cameras}
        self._cast = drawing.make_cast(_make_cast_ray(self._context.geom_ray_types))
        self._num_worlds, self._pixels = num_worlds, pixels
        area = len(cameras) * pixels * pixels
        self._at_once = min(num_worlds, max(1, _PIXELS_AT_ONCE // area))
        self._sheet = _Sheet(self._at_once * area, samples)
        self._rooms: dict[tuple[tuple[str, ...], bool], Any] = {}

    def draw(self, model: Any, data: Any, cameras: Sequence[str]) -> Any:
        """Draws the worlds as `data` describes them, positions of lights and cameras included.

        Args:
            model: mujoco-warp's model of the worlds.
            data: Its data.
            cameras: Some of the names, in any order.

        Returns:
            A warp array on the device, uint8 (N, cameras, pixels * pixels, 3), RGB, rows from the top; the next call
            with the same cameras overwrites it.
        """
        mjw.refit_bvh(model, data, self._context)
        places, rays = shading.Places(), drawing.Rays()
        for name in _PLACES:
            setattr(places, name, getattr(data, name))
        context_rays = _CONTEXT_RAYS + _FLEX_RAYS
        for source, names in ((model, _MODEL_RAYS), (data, _DATA_RAYS), (self._context, context_rays)):
            for name in names:
                setattr(rays, name, getattr(source, name))
        rgb = self._room(cameras)
        screen = drawing.Screen()
        screen.cameras = wp.array([self._camera_ids[name] for name in cameras], dtype=int)
        screen.cam_fovy, screen.pixels = model.cam_fovy, self._pixels
        for begin in range(0, self._num_worlds, self._at_once):
            screen.first_world = begin
            part = rgb[begin : min(begin + self._at_once, self._num_worlds)]
            self._draw_part(screen, places, rays, part.reshape((-1, 3)))
        return rgb

    def _draw_part(self, screen: Any, places: Any, rays: Any, rgb: Any) -> None:
        """Draws some worlds into `rgb`, uint8 (pixels, 3): the middles of all pixels, and samples at edges."""
        sheet, total = self._sheet, rgb.shape[0]
        scene = (self._scene, screen, places)
        textured = (self._scene, self._texture_array, screen, places)
        sheet.number.fill_(total)
        middle = (self._middle, sheet.everything, sheet.number, total, sheet.middles)
        wp.launch(self._cast, total, [*scene, rays, *middle])
        wp.launch(drawing.shade, total, [*textured, *middle, sheet.middles, sheet.colours])
        if self._samples is None:
            wp.launch(drawing.mix, total, [1, sheet.colours, rgb])
            return
        sheet.number.zero_()
        chosen = (sheet.chosen, sheet.number)
        found = (self._samples, sheet.middles, sheet.colours, *chosen, sheet.sample_colours)
        wp.launch(drawing.choose, total, [self._pixels, *found])
        samples = (self._samples, *chosen, total, sheet.hits)
        wp.launch(self._cast, total, [*scene, rays, *samples])
        wp.launch(drawing.shade, total, [*textured, *samples, sheet.middles, sheet.sample_colours])
        wp.launch(drawing.mix, total, [len(_SAMPLES), sheet.sample_colours, rgb])

    def read(self, model: Any, data: Any, cameras: Sequence[str]) -> NDArray[np.uint8]:
        """As `draw`, in this process's memory.

        Returns:
            uint8 (N, cameras, pixels, pixels, 3); the next call with the same cameras overwrites it.
        """
        rgb = self.draw(model, data, cameras)
        host = self._room(cameras, on_host=True)
        wp.copy(host, rgb)
        wp.synchronize_stream()
        side = self._pixels
        pictures: NDArray[np.uint8] = host.numpy().reshape(self._num_worlds, len(cameras), side, side, 3)
        return pictures

    def tensors(self, model: Any, data: Any, cameras: Sequence[str]) -> list[Any]:
        """As `draw`, of each camera a torch tensor on the same device, uint8 (N, pixels, pixels, 3).

        They have memory of their own, which no later call overwrites.
        """
        rgb = self.draw(model, data, cameras)
        # warp and torch don't wait for each other's streams. The host waits for both, once each: torch copies what is
        # drawn to its end, and warp draws again into what is copied to its end.
        if wp.get_device().is_cuda:
            wp.synchronize_stream()
        drawn = wp.to_torch(rgb).view(self._num_worlds, len(cameras), self._pixels, self._pixels, 3)
        with torch_stream(drawn.device):
            copies = [drawn[:, k].clone() for k in range(len(cameras))]
        wait_for_torch(drawn.device)
        return copies

    def _room(self, cameras: Sequence[str], *, on_host: bool = False) -> Any:
        """Memory for the pictures of these cameras, on the device or in this process."""
        key = (tuple(cameras), on_host)
        if key not in self._rooms:
            shape = (self._num_worlds, len(cameras), self._pixels * self._pixels, 3)
            where = {"device": "cpu", "pinned": wp.get_device().is_cuda} if on_host else {}
            self._rooms[key] = wp.zeros(shape, dtype=wp.uint8, **where)
        return self._rooms[key]


class _Sheet:
    """Memory for what the rays of some pixels hit.

    Attributes:
        everything: All pixels.
        middles: What their middles show, and what they show in the mirror: (2, pixels).
        colours: Of the middles.
        chosen: Samples with a ray, as many as `number` says.
        hits, sample_colours: As of the middles, of the samples.
    """

    def __init__(self, pixels: int, samples: int) -> None:
        self.everything = wp.array(np.arange(pixels, dtype=np.int32), dtype=int)
        self.number = wp.zeros(1, dtype=int)
        self.middles = wp.empty((2, pixels), dtype=shading.Hit)
        self.colours = wp.empty(pixels, dtype=wp.vec3)
        if samples > 1:
            self.chosen = wp.empty(samples * pixels, dtype=int)
            self.hits = wp.empty((2, samples * pixels), dtype=shading.Hit)
            self.sample_colours = wp.empty(samples * pixels, dtype=wp.vec3)


def _by_geom(model: Any, name: str, default: Any) -> NDArray[Any]:
    """An array of the materials, by geom, with the default for geoms without one."""
    values = np.concatenate([getattr(model, f"mat_{name}"), np.asarray(default)[None]])
    chosen: NDArray[Any] = values[model.geom_matid]  # -1 is the last
    return chosen


def _geom_rgba(model: Any) -> NDArray[Any]:
    """Each geom's colour, as MuJoCo's visualizer chooses between its own and its material's: (ngeom, 4)."""
    own = (model.geom_matid < 0) | (model.geom_rgba != np.array(_DEFAULT_RGBA, np.float32)).any(axis=1)
    return np.where(
        own[:, None], model.geom_rgba, _by_geom(model, "rgba", np.array(_DEFAULT_RGBA, np.float32))
    )


def _make_textures(model: Any) -> list[Any]:
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


def _make_scene(model: Any, rgba: NDArray[Any], drawn: NDArray[Any]) -> Any:
    """What of the model its colours depend on, by geom."""
    scene = shading.Scene()
    roles = _by_geom(model, "texid", np.full(model.mat_texid.shape[1], -1, np.int32))
    textured = roles[:, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)]
    kinds, scales = zip(
        *(_texture_mapping(model, i, int(textured[i])) for i in range(model.ngeom)), strict=True
    )
    scene.geom_type = wp.array(model.geom_type, dtype=int)
    scene.geom_size = wp.array(model.geom_size, dtype=wp.vec3)
    scene.rgb = wp.array(np.ascontiguousarray(rgba[:, :3]), dtype=wp.vec3)
    for name, default in (("emission", 0.0), ("specular", 0.5), ("shininess", 0.5)):
        setattr(scene, name, wp.array(_by_geom(model, name, default), dtype=float))
    scene.texture = wp.array(textured, dtype=int)
    scene.mapping = wp.array(kinds, dtype=int)
    scene.texture_scale = wp.array(np.array(scales), dtype=wp.vec3)
    scene.texture_size = wp.array(np.stack([model.tex_width, model.tex_height], axis=1), dtype=wp.vec2)
    flat = np.isin(model.geom_type, (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)))
    reflectance = _by_geom(model, "reflectance", 0.0)
    mirrors = np.flatnonzero(drawn & flat & (reflectance > 0) & (rgba[:, 3] >= _OPAQUE))
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
    headlight = np.array([head.ambient, head.diffuse, head.specular], np.float32) * (
        1.0 if head.active else 0.0
    )
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
