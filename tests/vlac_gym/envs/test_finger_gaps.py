"""Whether fingers are near an object, in a scene of three boxes."""

from types import SimpleNamespace

import mujoco
import pytest

from vlac_gym.envs.finger_gaps import are_fingers_near

BOXES = """<mujoco><worldbody>
  <geom name="cube" type="box" size=".02 .02 .02"/>
  <body name="left"><joint name="left" type="slide"/><geom name="left" type="box" size=".01 .01 .01"/></body>
  <body name="right"><joint name="right" type="slide"/><geom name="right" type="box" size=".01 .01 .01"/></body>
</worldbody></mujoco>"""


@pytest.fixture
def near():
    model = mujoco.MjModel.from_xml_string(BOXES.replace('"slide"', '"slide" axis="1 0 0"'))
    data = mujoco.MjData(model)
    names = SimpleNamespace(_model=model, geom_name2id=lambda name: model.geom(name).id)
    sim = SimpleNamespace(model=names, data=SimpleNamespace(_data=data))

    def with_gaps(left_m: float, right_m: float) -> bool:
        """Half a cube is 20 mm, half a finger 10 mm."""
        data.qpos[:] = -0.03 - left_m, 0.03 + right_m
        mujoco.mj_forward(model, data)
        return are_fingers_near(sim, [["left"], ["right"]], ["cube"])

    return with_gaps


@pytest.mark.parametrize(
    ("left_m", "right_m", "expected"),
    [
        (0.0, 0.0, True),
        (0.0029, 0.0029, True),
        (-0.001, 0.0029, True),  # one finger presses, the other has just come off
        (-0.001, 0.0031, False),
        (0.0, 0.01, False),  # a finger that merely touches
        (0.0031, 0.0031, False),
    ],
)
def test_both_fingers_must_be_within_three_millimetres(near, left_m, right_m, expected):
    assert near(left_m, right_m) is expected
