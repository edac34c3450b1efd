"""Pictures from a render process: those that a process draws itself, and what is freed when whoever asked is gone."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import contextmanager
from multiprocessing.reduction import send_handle
from types import SimpleNamespace

import numpy as np
import pytest
from drawn_scene import DrawnScene

from vlac_gym.envs import offscreen
from vlac_gym.envs.offscreen import OffscreenRenderer
from vlac_gym.envs.render_client import RemoteRenderer, RenderClient, RenderLine
from vlac_gym.envs.render_messages import LoadModel, ModelReply, OpenModel
from vlac_gym.envs.render_service import _RenderService, serve_pictures
from vlac_gym.errors import SimulatorError

mujoco = pytest.importorskip("mujoco")

WAIT_S = 60.0


@pytest.fixture(scope="module")
def process():
    """A render process, and its line."""
    context = multiprocessing.get_context("spawn")
    lobby, theirs = context.Pipe()
    started = context.Process(target=serve_pictures, args=(theirs, 0), daemon=True)
    started.start()
    theirs.close()
    yield SimpleNamespace(process=started, line=RenderLine(lobby, "render process 0"))
    lobby.close()
    started.join(WAIT_S)
    assert started.exitcode == 0


@pytest.fixture
def service():
    """The same in a thread of this process, which can be looked into."""
    lobby, theirs = multiprocessing.Pipe()
    service = _RenderService(theirs, None)
    thread = threading.Thread(target=service.run)
    thread.start()
    yield SimpleNamespace(line=RenderLine(lobby, "render thread"), models=service._models, service=service)
    lobby.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert service._models._loaded == {}


@contextmanager
def remote(line, key="scene", library=mujoco):
    renderer = RemoteRenderer(library, key, RenderClient(line))
    try:
        yield renderer
    finally:
        renderer.close()
        hang_up(renderer)


def hang_up(renderer):
    """What the end of a worker does."""
    if renderer._client._pipe is not None:
        renderer._client._pipe.close()


def wait_until(is_so):
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def own(scene, camera="above", size=48):
    renderer = OffscreenRenderer(mujoco)
    picture = renderer.draw(scene.model, scene.data, camera, size).read()
    renderer.close()
    return picture


def look(renderer, scene, camera="above", size=48):
    return renderer.draw(scene.model, scene.data, camera, size).read()


def test_pictures_are_those_that_the_process_draws_itself(process):
    scene = DrawnScene(mujoco)
    with remote(process.line) as renderer:
        for position, camera, size in (
            (0.0, "above", 48),
            (0.3, "riding", 48),
            (-0.4, "above", 33),
            (0.1, "above", 700),
        ):
            scene.move(position)
            picture = look(renderer, scene, camera, size)
            assert len(np.unique(picture)) > 10
            np.testing.assert_array_equal(picture, own(scene, camera, size))


def test_the_state_may_change_as_soon_as_it_is_drawn(process):
    scene, wanted, drawn = DrawnScene(mujoco), [], []
    with remote(process.line) as renderer:
        for i in range(6):
            scene.move(0.1 * i)
            wanted.append(own(scene, ("above", "riding")[i % 2]))
            drawn.append(renderer.draw(scene.model, scene.data, ("above", "riding")[i % 2], 48))
        for i in (3, 0, 5, 1, 4, 2):
            np.testing.assert_array_equal(drawn[i].read(), wanted[i])
    assert len({picture.tobytes() for picture in wanted}) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda model, data: model.light_diffuse.__imul__([1.0, 0.5, 0.2]),
        lambda model, data: model.vis.headlight.diffuse.__imul__(0.3),
        lambda model, data: model.light_castshadow.fill(False),
        lambda model, data: data.light_xpos.__iadd__([1.0, 0.0, 0.0]),
        lambda model, data: model.site_rgba.fill(1.0),
        lambda model, data: model.geom_rgba[1].fill(0.5),
        lambda model, data: model.mat_rgba.fill(0.5),
        lambda model, data: model.cam_fovy.fill(30.0),
        lambda model, data: model.tendon_rgba.fill(1.0),
    ],
)
def test_a_model_that_looks_otherwise_for_one_picture_does_so_there(process, change):
    scene, plain = DrawnScene(mujoco), DrawnScene(mujoco)
    change(scene.model, scene.data)
    with remote(process.line) as renderer:
        before = look(renderer, plain)
        changed = look(renderer, scene)
        np.testing.assert_array_equal(changed, own(scene))
        assert not np.array_equal(changed, before)
        np.testing.assert_array_equal(look(renderer, plain), before)


class CountingLibrary:
    """MuJoCo, and how often a model was sent over."""

    def __init__(self):
        self.num_saved = 0

    def mj_saveModel(self, *args):
        self.num_saved += 1
        mujoco.mj_saveModel(*args)

    def __getattr__(self, name):
        return getattr(mujoco, name)


def test_workers_share_a_model_until_the_last_of_them_lets_go(service):
    library, scene = CountingLibrary(), DrawnScene(mujoco)
    others = len(offscreen._process_gl.uploads)  # of other tests' envs that are still open

    def num_uploads() -> int:
        return len(offscreen._process_gl.uploads) - others

    with remote(service.line, library=library) as first:
        with remote(service.line, library=library) as second, remote(service.line, "other", library) as other:
            picture = look(first, scene)
            np.testing.assert_array_equal(look(second, scene), picture)
            np.testing.assert_array_equal(look(other, DrawnScene(mujoco, "other")), picture)
            assert library.num_saved == 2
            assert num_uploads() == 2
        wait_until(lambda: num_uploads() == 1)
        np.testing.assert_array_equal(look(first, scene), picture)
        first.close()
        first.close()
        wait_until(lambda: num_uploads() == 0)
        np.testing.assert_array_equal(look(first, scene), picture)
        assert library.num_saved == 3


def test_what_a_worker_had_is_freed_when_it_is_gone(service):
    gone, scene = RemoteRenderer(mujoco, "gone", RenderClient(service.line)), DrawnScene(mujoco)
    with remote(service.line) as kept:
        picture = look(kept, scene)
        for _ in range(3):
            gone.draw(scene.model, scene.data, "above", 48)
        hang_up(gone)  # with three pictures on their way
        wait_until(lambda: list(service.models._loaded) == ["scene"])
        assert len(service.service._memories) == 1
        np.testing.assert_array_equal(look(kept, scene), picture)


def raw_pipe(line):
    ours, theirs = multiprocessing.Pipe()
    send_handle(line.lobby, theirs.fileno(), None)
    theirs.close()
    return ours


def test_another_worker_is_asked_for_the_model_when_the_first_is_gone_before_it_sent_it(service):
    first, second = raw_pipe(service.line), raw_pipe(service.line)
    first.send(OpenModel("scene"))
    assert first.recv() == ModelReply("scene", is_wanted=True)
    second.send(OpenModel("scene"))
    wait_until(lambda: len(service.models._users["scene"]) == 2)
    assert not second.poll()
    first.close()
    assert second.recv() == ModelReply("scene", is_wanted=True)
    second.close()
    wait_until(lambda: service.models._users == {})


def test_a_model_that_cannot_be_loaded_is_an_error_of_all_who_wait_for_it(service):
    first, second = raw_pipe(service.line), raw_pipe(service.line)
    first.send(OpenModel("scene"))
    first.recv()
    second.send(OpenModel("scene"))
    wait_until(lambda: len(service.models._users["scene"]) == 2)
    file = os.memfd_create("empty")
    first.send(LoadModel("scene"))
    send_handle(first, file, None)
    os.close(file)
    for pipe in (first, second):
        reply = pipe.recv()
        assert not reply.is_wanted
        assert "Error: " in reply.error
        pipe.close()
    with remote(service.line) as renderer:  # the next one may try again
        assert look(renderer, DrawnScene(mujoco)).any()


def test_a_picture_that_cannot_be_drawn_or_read_is_that_pictures_error(service, monkeypatch):
    scene = DrawnScene(mujoco)
    with remote(service.line) as renderer:
        picture = look(renderer, scene)
        for owner, name in ((OffscreenRenderer, "draw"), (offscreen.OffscreenPicture, "read")):
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, fail)
                drawn = renderer.draw(scene.model, scene.data, "above", 48)
                with pytest.raises(SimulatorError, match=r"^no card$"):
                    drawn.read()
            np.testing.assert_array_equal(look(renderer, scene), picture)


def fail(*args):
    raise SimulatorError("no card")


def test_an_unknown_camera_is_refused_as_by_the_processes_own_renderer(process):
    scene = DrawnScene(mujoco)
    with remote(process.line) as renderer, pytest.raises(KeyError, match="nowhere"):
        look(renderer, scene, "nowhere")


def test_pictures_given_up_leave_their_memory_to_the_next(process):
    scene = DrawnScene(mujoco)
    with remote(process.line) as renderer:
        for i in range(8):
            scene.move(0.1 * i)
            renderer.draw(scene.model, scene.data, "above", 48).drop()
            np.testing.assert_array_equal(look(renderer, scene), own(scene))
        assert len(renderer._memories[48]) == 2


def test_a_picture_of_a_closed_renderer_is_refused(process):
    scene = DrawnScene(mujoco)
    with remote(process.line) as renderer:
        picture = look(renderer, scene)
        drawn = renderer.draw(scene.model, scene.data, "above", 48)
        renderer.close()
        with pytest.raises(SimulatorError, match="closed before its picture was read"):
            drawn.read()
        drawn.drop()
        np.testing.assert_array_equal(look(renderer, scene), picture)


def test_threads_may_draw_at_once(process):
    pictures, wrong = {}, []
    with remote(process.line) as renderer:

        def play(i):
            scene = DrawnScene(mujoco)
            for k in range(10):
                scene.move(0.1 * i)
                if not np.array_equal(look(renderer, scene), pictures[i]):
                    wrong.append((i, k))

        for i in range(3):
            scene = DrawnScene(mujoco)
            scene.move(0.1 * i)
            pictures[i] = own(scene)
        threads = [threading.Thread(target=play, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert wrong == []


def test_the_end_of_the_process_is_a_failure_of_the_simulator_that_says_what_to_do():
    context = multiprocessing.get_context("forkserver")
    lobby, theirs = context.Pipe()
    process = context.Process(target=serve_pictures, args=(theirs, 0), daemon=True)
    process.start()
    theirs.close()
    scene, line = DrawnScene(mujoco), RenderLine(lobby, "render process 7")
    renderer = RemoteRenderer(mujoco, "scene", RenderClient(line))
    assert look(renderer, scene).any()
    os.kill(process.pid, signal.SIGSTOP)
    drawn = renderer.draw(scene.model, scene.data, "above", 48)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(SimulatorError, match=r"render process 7 is gone, .*render_processes=0"):
        drawn.read()
    with pytest.raises(SimulatorError, match="render process 7 is gone"):
        look(renderer, scene)
    renderer.close()
    process.join()
    with pytest.raises(SimulatorError, match="render process 7 is gone"):
        look(RemoteRenderer(mujoco, "scene", RenderClient(line)), scene)
    lobby.close()
