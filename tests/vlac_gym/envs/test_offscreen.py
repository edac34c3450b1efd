"""`OffscreenRenderer`: one OpenGL context for all models and threads of a process, and what forks may do."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from vlac_gym.envs import offscreen
from vlac_gym.envs.gl import probe_egl, probe_osmesa
from vlac_gym.envs.offscreen import OffscreenRenderer
from vlac_gym.errors import SimulatorError

mujoco = pytest.importorskip("mujoco")

# A textured floor and a mesh, seen from above: what OpenGL holds for a model.
SCENE = """
<mujoco>
  <visual><quality offsamples="{offsamples}"/></visual>
  <asset>
    <texture name="floor" type="2d" builtin="checker" rgb1="{colour}" rgb2="1 1 1" width="64" height="64"/>
    <material name="floor" texture="floor" texrepeat="3 3"/>
    <mesh name="tent" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
  </asset>
  <worldbody>
    <light pos="0 0 4"/>
    <camera name="above" pos="0 0 3"/>
    <geom type="plane" size="2 2 .1" material="floor" group="1"/>
    <geom type="mesh" mesh="tent" rgba="{colour} 1" group="1"/>
  </worldbody>
</mujoco>
"""


class Scene:
    """A model, its state and its renderer."""

    def __init__(self, colour, offsamples=4):
        self.model = mujoco.MjModel.from_xml_string(SCENE.format(colour=colour, offsamples=offsamples))
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self.renderer = OffscreenRenderer(mujoco)

    def draw(self, size=48):
        return self.renderer.draw(self.model, self.data, "above", size)

    def look(self, size=48):
        return self.draw(size).read()

    def close(self):
        self.renderer.close()


@pytest.fixture
def scenes():
    made = [Scene(colour) for colour in ("1 0 0", "0 1 0", "0 0 1")]
    yield made
    for scene in made:
        scene.close()


def in_thread(function):
    """Runs a function in a thread of its own and gives back what it returned or raised."""
    results = []

    def run():
        try:
            results.append(function())
        except Exception as error:  # noqa: BLE001
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def test_closing_in_any_order_leaves_the_others_pictures(scenes):
    pictures = [scene.look() for scene in scenes]
    assert len({picture.tobytes() for picture in pictures}) == 3
    assert all(len(np.unique(picture)) > 10 for picture in pictures)
    for order in np.random.default_rng(0).permuted(np.tile(np.arange(3), (6, 1)), axis=1):
        for k, closed in enumerate(order):
            scenes[closed].close()
            for i in order[k + 1 :]:
                np.testing.assert_array_equal(scenes[i].look(), pictures[i])
        for i in order[::-1]:
            np.testing.assert_array_equal(scenes[i].look(), pictures[i])


def test_pictures_that_are_drawn_together_are_those_drawn_one_by_one(scenes):
    sizes = (48, 48, 96, 33)
    alone = [[scene.look(size) for size in sizes] for scene in scenes]
    drawn = [[scene.draw(size) for size in sizes] for scene in scenes]
    scenes[0].data.geom_xpos += 0.3  # the state may go on meanwhile
    assert not np.array_equal(scenes[0].look(), alone[0][0])
    for i in (2, 0, 1):
        for k in (3, 0, 2, 1):
            np.testing.assert_array_equal(drawn[i][k].read(), alone[i][k])


def test_pictures_given_up_leave_their_buffers_to_the_next(scenes):
    picture = scenes[0].look()
    buffers = set()
    for _ in range(20):
        drawn = scenes[0].draw()
        buffers.add(drawn._buffer)
        drawn.drop()
    assert len(buffers) == 1
    np.testing.assert_array_equal(scenes[0].look(), picture)


def test_pictures_are_those_that_mujoco_reads(scenes):
    """Also without multisampling, larger than the framebuffer, and with one that was resized since they were drawn."""
    single = Scene("1 1 0", offsamples=0)
    for scene in (scenes[0], single):
        drawn = [(size, scene.draw(size)) for size in (64, 700, 33)]  # the framebuffer begins with 640
        for size, picture in drawn:
            scene.draw(size).drop()
            pixels = np.empty((size, size, 3), np.uint8)
            with offscreen._process_gl.current():
                mujoco.mjr_readPixels(
                    pixels, None, mujoco.MjrRect(0, 0, size, size), scene.renderer._textures
                )
            np.testing.assert_array_equal(picture.read(), pixels[::-1])
    assert single.renderer._textures.offSamples == 0
    single.close()


def test_an_error_that_drawing_left_in_opengl_spoils_no_picture(scenes, monkeypatch):
    picture = scenes[0].look()
    enable = pytest.importorskip("OpenGL.platform").PLATFORM.GL[
        "glEnable"
    ]  # unlike PyOpenGL's, it asks for no error
    real = mujoco.mjr_render

    def render(*args):
        real(*args)
        enable(0)

    monkeypatch.setattr(mujoco, "mjr_render", render)
    np.testing.assert_array_equal(scenes[0].look(), picture)


def test_opengl_that_cannot_copy_a_picture_is_a_failure_of_the_simulator(scenes, monkeypatch):
    picture = scenes[0].look()
    gl = pytest.importorskip("OpenGL.GL")
    with monkeypatch.context() as patched:
        patched.setattr(gl, "GL_PIXEL_PACK_BUFFER", 0)
        with pytest.raises(SimulatorError, match="0x500 of glBindBuffer"):
            scenes[0].draw()
    np.testing.assert_array_equal(scenes[0].look(), picture)


def test_a_picture_of_a_closed_context_is_refused(scenes, monkeypatch):
    # without what other tests keep open
    monkeypatch.setattr(offscreen, "_process_gl", offscreen._ProcessGL())
    drawn = scenes[0].draw()
    scenes[0].close()
    with pytest.raises(SimulatorError, match="closed before its picture was read"):
        drawn.read()
    drawn.drop()
    scenes[0].look()
    scenes[0].close()


def test_threads_see_the_same_pictures_and_make_no_further_context(scenes):
    pictures = [scene.look() for scene in scenes]
    context = offscreen._process_gl._context
    uploads = list(offscreen._process_gl.uploads)
    for scene, picture in zip(scenes, pictures):
        np.testing.assert_array_equal(in_thread(scene.look), picture)
    assert offscreen._process_gl._context is context
    assert offscreen._process_gl.uploads == uploads


def test_what_one_thread_made_another_frees(scenes):
    picture = in_thread(scenes[0].look)
    other = scenes[1].look()
    in_thread(scenes[0].close)
    scenes[0].close()
    np.testing.assert_array_equal(scenes[1].look(), other)
    np.testing.assert_array_equal(scenes[0].look(), picture)
    assert len([u for u in offscreen._process_gl.uploads if u is scenes[0].renderer._textures]) == 1


def test_threads_that_draw_at_once_do_not_disturb_each_other(scenes):
    pictures = [scene.look() for scene in scenes]
    wrong = []

    def draw(i):
        for k in range(20):
            if k % 5 == 4:
                scenes[i].close()
            if not np.array_equal(scenes[i].look(), pictures[i]):
                wrong.append((i, k))

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []


def test_a_picture_larger_than_the_buffer_and_a_small_one_after_it(scenes):
    small = scenes[0].look(48)
    assert scenes[0].look(700).shape == (700, 700, 3)
    np.testing.assert_array_equal(scenes[0].look(48), small)
    assert scenes[0].model.vis.global_.offwidth == 640  # the shared model is not written to


def test_the_threads_own_context_is_current_again_afterwards(scenes):
    from mujoco.gl_context import GLContext

    if "egl" not in GLContext.__module__:
        pytest.skip("asks EGL which context is current")
    from OpenGL import EGL as egl

    assert not egl.eglGetCurrentContext()
    scenes[0].look()
    assert not egl.eglGetCurrentContext()
    own = GLContext(16, 16)
    own.make_current()
    current = egl.eglGetCurrentContext().address
    scenes[0].look()
    scenes[0].close()
    scenes[1].look()
    assert egl.eglGetCurrentContext().address == current
    own.free()


def test_opengl_that_does_not_start_is_a_simulator_error(scenes, monkeypatch):
    class Broken:
        def __init__(self, width, height):
            raise RuntimeError("no card")

    monkeypatch.setattr(offscreen, "_process_gl", offscreen._ProcessGL())
    monkeypatch.setattr(offscreen, "_context_class", lambda: Broken)
    with pytest.raises(SimulatorError, match=r"OpenGL cannot be started with MUJOCO_GL=.*no card"):
        scenes[0].look()
    monkeypatch.undo()
    assert scenes[0].look().any()


def run_script(body, environ=None):
    """Runs code in a process of its own, with this module as `here`; returns its output, which must be clean."""
    head = (
        "import importlib.util, os, sys, threading\n"
        "from vlac_gym.envs.gl import configure_gl\n"
        "configure_gl()\n"
        f"spec = importlib.util.spec_from_file_location('here', {__file__!r})\n"
        "here = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(here)\n"
        "gl = here.offscreen._process_gl\n"
    )
    repository = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + body],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(environ or {}), "PYTHONPATH": repository},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


FORK = """
scene = here.Scene("1 0 0")
picture = scene.look()
child = os.fork()
if child == 0:
    try:
        here.Scene("0 1 0").look()
    except here.SimulatorError as error:
        told = "forked from one that had already rendered" in str(error)
    scene.close()
    scene.close()
    del scene
    os._exit(0 if told else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), (scene.look() == picture).all())
"""


def test_a_fork_is_refused_and_closing_in_it_leaves_the_parents_pictures():
    assert run_script(FORK) == "0 True\n"


LAST = """
scenes = [here.Scene("1 0 0"), here.Scene("0 1 0")]
for scene in scenes:
    scene.look()
scenes[0].close()
print(gl._context is None, len(gl.uploads))
here.in_thread(scenes[1].close)
print(gl._context is None, len(gl.uploads))
scenes[0].look()
threading.Thread(target=scenes[1].look).start()  # left to the end of the interpreter, which must be clean
"""


def test_the_context_goes_with_the_last_model_and_the_interpreter_ends_cleanly():
    assert run_script(LAST) == "False 1\nTrue 0\n"


CLOSED_BEFORE = """
scene = here.Scene("1 0 0")
scene.look()
import atexit, mujoco.egl
from OpenGL import EGL
atexit.register(EGL.eglTerminate, mujoco.egl.EGL_DISPLAY)  # as robosuite does for its own contexts
"""


@pytest.mark.skipif(probe_egl() is not None, reason="EGL is not installed")
def test_a_display_that_another_library_closed_first_is_no_error_at_exit():
    assert run_script(CLOSED_BEFORE, {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}) == ""


SAME = """
scenes = [here.Scene(colour) for colour in ("1 0 0", "0 1 0")]
pictures = [scene.look() for scene in scenes]
same = (here.in_thread(scenes[1].look) == pictures[1]).all()
here.in_thread(scenes[0].close)
print(same, (scenes[1].look() == pictures[1]).all(), (scenes[0].look() == pictures[0]).all())
"""


@pytest.mark.skipif(probe_osmesa() is not None, reason="libOSMesa is not installed")
def test_osmesa_shares_its_context_likewise():
    environ = {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}
    assert run_script(SAME, environ) == "True True True\n"


@pytest.mark.gpu
def test_tasks_and_threads_keep_their_pictures_on_a_gpu():
    from vlac_gym.envs.gl import renders_in_software
    from vlac_gym.envs.libero import LiberoEnv

    assert not renders_in_software(), (
        "Mesa's software device renders; unset MUJOCO_EGL_DEVICE_ID or mend the driver"
    )
    env, pictures = LiberoEnv("libero_object", image_size=64), {}
    other = LiberoEnv("libero_spatial", image_size=64)
    for task_id in (0, 1, 2, 1, 0, 2):
        env.reset(options={"task_id": task_id, "init_state_id": 0})
        env._frames.clear()
        seen = in_thread(env.observe) if task_id == 1 else env.observe()
        first = pictures.setdefault(task_id, seen)
        for key in ("agentview_image", "wrist_image"):
            np.testing.assert_array_equal(seen[key], first[key])
        before = other.reset(options={"init_state_id": 0})[0]["agentview_image"]
        in_thread(other.close)
        assert len(np.unique(before)) > 50
        np.testing.assert_array_equal(other.reset(options={"init_state_id": 0})[0]["agentview_image"], before)
    env.close()
    other.close()
    assert offscreen._process_gl._context is None
