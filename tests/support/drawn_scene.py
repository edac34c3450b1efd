"""A scene of everything that a renderer shows, and an env that shows it; importable by worker processes."""

import os
from typing import Any

import gymnasium as gym
import numpy as np

XML = """
<mujoco model="{name}">
  <asset>
    <texture name="floor" type="2d" builtin="checker" rgb1="1 0 0" rgb2="1 1 1" width="64" height="64"/>
    <material name="floor" texture="floor" texrepeat="3 3"/>
    <mesh name="tent" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0 0 4"/>
    <camera name="above" pos="0 0 3"/>
    <geom type="plane" size="2 2 .1" material="floor" group="1"/>
    <site name="fixed" pos="-.8 .8 .1" size=".05"/>
    <body name="moved">
      <joint name="slide" type="slide" axis="1 0 0"/>
      <geom type="mesh" mesh="tent" rgba="0 1 0 1" group="1"/>
      <site name="mark" pos=".2 .2 .6" size=".1" rgba="0 0 1 1"/>
      <camera name="riding" pos="0 0 2"/>
    </body>
  </worldbody>
  <tendon>
    <spatial width=".03"><site site="fixed"/><site site="mark"/></spatial>
  </tendon>
</mujoco>
"""


class DrawnScene:
    """A model and its state."""

    def __init__(self, mujoco: Any, name: str = "scene") -> None:
        self.mujoco = mujoco
        self.key = name
        self.model = mujoco.MjModel.from_xml_string(XML.format(name=name))
        self.data = mujoco.MjData(self.model)
        self.move(0.0)

    def move(self, position: float) -> None:
        self.data.qpos[0] = position
        self.mujoco.mj_forward(self.model, self.data)


class DrawnEnv(gym.Env):
    """Draws a `DrawnScene` that its actions move, by whatever draws for its process."""

    def __init__(self, offset: float = 0.0) -> None:
        self.observation_space = gym.spaces.Dict({"image": gym.spaces.Box(0, 255, (48, 48, 3), np.uint8)})
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.offset = offset
        self.scene: DrawnScene | None = None
        self.renderer: Any = None
        self.position = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.scene is None:
            from vlac_gym.envs.gl import configure_gl
            from vlac_gym.envs.renderer import make_renderer

            configure_gl()
            import mujoco

            self.scene = DrawnScene(mujoco)
            self.renderer = make_renderer(mujoco, self.scene.key)
        self.position = self.offset
        return self.observe(), {}

    def step(self, action):
        if action[1] == 1.0:
            os._exit(3)
        self.position += float(action[0])
        return self.observe(), 0.0, False, False, {}

    def observe(self):
        self.scene.move(self.position)
        return {"image": self.renderer.draw(self.scene.model, self.scene.data, "above", 48).read()}

    def renderer_name(self):
        return type(self.renderer).__name__

    def close(self):
        if self.renderer is not None:
            self.renderer.close()
