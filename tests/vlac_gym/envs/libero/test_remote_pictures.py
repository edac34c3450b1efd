"""LIBERO's scenes through a render process: the pictures that the simulator's process draws itself, to the bit."""

import multiprocessing

import numpy as np
import pytest

from vlac_gym.envs.libero.lighting import VIEW_NAMES, split_view
from vlac_gym.envs.libero.simulator import LiberoSimulator
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.envs.render_client import RemoteRenderer, RenderClient, RenderLine
from vlac_gym.envs.render_service import serve_pictures


@pytest.fixture
def line():
    context = multiprocessing.get_context("spawn")
    lobby, theirs = context.Pipe()
    process = context.Process(target=serve_pictures, args=(theirs, 0), daemon=True)
    process.start()
    theirs.close()
    yield RenderLine(lobby, "render process 0")
    lobby.close()
    process.join(60)
    assert process.exitcode == 0


def views(simulator):
    """All views of the present state: drawn first, read last."""
    drawn = [simulator.draw(*split_view(view)) for view in VIEW_NAMES]
    return [picture.read() for picture in drawn]


def test_pictures_after_random_steps_under_all_lights_and_with_a_lit_stove(line):
    simulator = LiberoSimulator(
        get_task("libero_goal", 7), image_size=48, settle_steps=0, start_timeout_s=120.0
    )
    simulator.start(0)
    compiled, rng = simulator._compiled, np.random.default_rng(0)
    own, remote = compiled.renderer, RemoteRenderer(simulator._mujoco, compiled.xml_key, RenderClient(line))
    seen = []
    for stove in (0.0, 2.0):
        for _ in range(5):
            simulator.step(rng.uniform(-1, 1, 7))
        simulator._data.joint("flat_stove_1_button").qpos[:] = stove
        simulator._mujoco.mj_forward(simulator._model, simulator._data)
        pictures = []
        for renderer in (own, remote):
            compiled.renderer = renderer
            pictures.append(views(simulator))
        np.testing.assert_array_equal(pictures[1], pictures[0])
        assert len({picture.tobytes() for picture in pictures[0]}) == len(VIEW_NAMES)
        seen.append(simulator._model.site("flat_stove_1_burner").rgba[3])
    assert seen[0] < 0 < seen[1]  # the burner is shown once it is lit
    remote.close()
    compiled.renderer = own
    simulator.close()
