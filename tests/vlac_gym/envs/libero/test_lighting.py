"""Pictures under other lights on the real simulator: they differ, and nothing else does."""

import numpy as np
import pytest

from vlac_gym.envs.libero.lighting import LIGHTS, SIDE_DIRECTION, VIEW_NAMES, relit, split_view
from vlac_gym.errors import ConfigError


@pytest.fixture
def env(libero_env):
    libero_env.reset(seed=0, options={"init_state_id": 0, "task_id": 0})
    return libero_env.unwrapped


def everything(env):
    """All that a renderer or the physics reads, as bytes by name."""
    model, data = env._running()._model, env._running()._data
    fields = {name: getattr(model, name) for name in dir(model) if name.startswith(("light_", "mat_"))}
    fields |= {f"data.{name}": getattr(data, name) for name in ("light_xpos", "light_xdir", "cam_xpos")}
    fields |= {f"data.{name}": getattr(data, name) for name in ("qpos", "qvel", "qacc", "xpos", "ctrl")}
    head = model.vis.headlight
    fields |= {f"head.{name}": getattr(head, name) for name in ("ambient", "diffuse", "specular")}
    return {name: np.array(value).tobytes() for name, value in fields.items()}


@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("camera", ["agentview", "wrist"])
def test_each_light_changes_the_picture_and_leaves_everything_else(env, camera, light):
    plain = env.render_camera(camera)
    before = everything(env)
    changed = env.render_camera(f"{camera}@{light}")
    assert everything(env) == before
    difference = np.abs(changed.astype(int) - plain)
    # Measured at 256 x 256: a mean of 2.7 (shadow, agentview) to 30 (diffuse, wrist) of 255.
    assert difference.mean() > 1.0
    assert (difference.max(axis=2) > 8).mean() > 0.03
    env._frames.clear()
    np.testing.assert_array_equal(env.render_camera(camera), plain)
    np.testing.assert_array_equal(env.render_camera(f"{camera}@{light}"), changed)


def test_lights_differ_from_each_other(env):
    pictures = {env.render_camera(f"agentview@{light}").tobytes() for light in LIGHTS}
    assert len(pictures) == len(LIGHTS) == 4


def test_an_episode_with_relit_pictures_is_the_same_episode(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 7))
    ends = []
    for light in (None, "direction", "shadow"):
        env.reset(options={"init_state_id": 1, "task_id": 0})
        for action in actions:
            env.step_unrendered(action)
            if light is not None:
                env.render_camera(f"agentview@{light}")
        ends.append((env.physics_state(), env.render_camera("agentview")))
    for state, picture in ends[1:]:
        np.testing.assert_array_equal(state, ends[0][0])
        np.testing.assert_array_equal(picture, ends[0][1])


def test_lights_come_back_after_a_picture_that_failed(env):
    simulator = env._running()
    before = everything(env)
    lit = relit(simulator._model, simulator._data, "diffuse")
    lit.__enter__()
    assert everything(env) != before
    assert lit.__exit__(RuntimeError, RuntimeError("no picture"), None) is False
    assert everything(env) == before


def test_views_are_cameras_with_or_without_a_light():
    assert split_view("wrist") == ("wrist", None)
    assert split_view("agentview@specular") == ("agentview", "specular")
    assert len(VIEW_NAMES) == 10
    assert all(split_view(view) for view in VIEW_NAMES)
    assert np.linalg.norm(SIDE_DIRECTION) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("agentveiw", "Unknown camera 'agentveiw'.*Did you mean 'agentview'"),
        ("agentview@difuse", "Unknown light of view 'agentview@difuse'.*Did you mean 'diffuse'"),
        ("agentview@", "Unknown light of view 'agentview@'"),
    ],
)
def test_unknown_views_are_refused(env, view, message):
    with pytest.raises(ConfigError, match=message):
        env.render_camera(view)
