"""On warp's CPU device, where mujoco-warp is installed: `scripts/test_warp.sh`."""

import numpy as np
import pytest

pytestmark = [pytest.mark.warp, pytest.mark.timeout(300)]
PIXELS = 8
VIEW = """
<mujoco>
  <visual><headlight active="{lamp}"/></visual>
  <asset>
    <texture name="squares" type="2d" builtin="checker" rgb1="1 0 0" rgb2="0 0 1" width="64" height="64"/>
    <material name="squares" texture="squares" texrepeat="3 3" reflectance="0"/>
    <material name="lamp" rgba="1 1 1 1" emission="1"/>
    <material name="mirror" rgba="0 0 0 1" reflectance="1"/>
  </asset>
  <worldbody><camera name="above" pos="0 0 1" fovy="90"/>{geoms}</worldbody>
</mujoco>
"""
# At the distance of 1 a pixel is 0.25 wide: pixel 5 begins at x = 0.25, and the edge is 3 quarters of it further right.
LAMP = '<geom type="box" group="1" material="lamp" pos="{0} 0 {1}" size="{2} {2} .1"/>'
DIRECT = LAMP.format(0.4375 - 3, -0.1, 3)
MIRROR = '<geom type="plane" group="1" material="mirror" size="4 4 .1"/>'
IN_MIRROR = MIRROR + LAMP.format(4 * 0.4375 - 9, 3.1, 9)


def draw(xml, samples, worlds=1, qpos=None):
    mujoco, mjw, wp = (pytest.importorskip(name) for name in ("mujoco", "mujoco_warp", "warp"))
    from vlac_gym.envs.warp.pictures import Pictures

    with wp.ScopedDevice("cpu"):
        model = mujoco.MjModel.from_xml_string(xml)
        device_model, data = mjw.put_model(model), mjw.make_data(model, nworld=worlds)
        if qpos is not None:
            data.qpos.assign(np.array(qpos, np.float32))
        mjw.kinematics(device_model, data)
        mjw.camlight(device_model, data)
        pictures = Pictures(model, worlds, PIXELS, ["above"], samples=samples)
        return pictures.read(device_model, data, ["above"])[:, 0].copy()


@pytest.mark.parametrize("geoms", [DIRECT, IN_MIRROR], ids=["direct", "in the mirror"])
def test_a_pixel_at_an_edge_has_the_share_of_its_samples_and_others_one_colour(geoms):
    xml = VIEW.format(lamp=0, geoms=geoms)
    row = [255] * 5 + [191, 0, 0]  # three of pixel 5's four samples are left of the edge
    assert draw(xml, 4)[0, :, :, 0].tolist() == [row] * PIXELS
    assert draw(xml, 1)[0, :, :, 0].tolist() == [[255] * 6 + [0, 0]] * PIXELS


def test_inside_a_textured_face_the_samples_have_the_colour_of_the_pixels_middle():
    floor = '<geom type="plane" group="1" material="squares" size="4 4 .1"/>'
    xml = VIEW.format(lamp=1, geoms=floor)
    picture = draw(xml, 4)
    assert len(np.unique(picture)) > 4
    assert np.array_equal(picture, draw(xml, 1))


def test_worlds_are_drawn_some_at_a_time_each_in_its_own_place(monkeypatch):
    from vlac_gym.envs.warp import pictures

    body = '<body><joint type="slide" axis="1 0 0"/>' + DIRECT + "</body>"
    xml = VIEW.format(lamp=0, geoms=body)
    monkeypatch.setattr(pictures, "_PIXELS_AT_ONCE", 2 * PIXELS**2)
    drawn = draw(xml, 4, worlds=3, qpos=[[0.0], [-0.25], [-0.5]])
    rows = [[255] * (5 - k) + [191] + [0] * (2 + k) for k in range(3)]
    assert drawn[..., 0].tolist() == [[row] * PIXELS for row in rows]
