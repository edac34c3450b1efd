"""LIBERO's scenes rest as recorded: the versions of MuJoCo under which they do, and what they look like there."""

import importlib.metadata
import tomllib
from pathlib import Path

import numpy as np
import pytest

from vlac_gym.envs import mujoco_version
from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.mujoco_version import MUJOCO_REQUIREMENT, check_mujoco, mujoco_problem
from vlac_gym.errors import DependencyNotInstalled

SETTLED = {
    ("libero_spatial", 5): (
        119.97,
        {
            "akita_black_bowl_1": (-0.2114, 0.2022, 0.9344),  # on the ramekin, 14.5 mm off its centre
            "glazed_rim_porcelain_ramekin_1": (-0.1969, 0.2016, 0.8993),
            "plate_1": (0.0735, 0.1855, 0.9025),
        },
    ),
    ("libero_object", 0): (
        138.70,  # 102.4 with textures in the other colour space
        {"alphabet_soup_1": (-0.1191, -0.2398, 0.0384), "basket_1": (0.0148, 0.2521, -0.0046)},
    ),
    ("libero_goal", 2): (
        117.60,
        {"wine_bottle_1": (-0.1962, -0.0393, 0.8989), "akita_black_bowl_1": (-0.1032, -0.0100, 0.8984)},
    ),
    ("libero_10", 0): (
        69.58,
        {
            "ketchup_1": (-0.2685, -0.1486, 0.5092),  # 1.05 m where boxes that touch are pushed apart
            "milk_1": (0.0493, -0.1214, 0.5065),
            "orange_juice_1": (0.0100, -0.2592, 0.5065),
        },
    ),
}
"""Mean of the agent's picture and settled places in m, initial state 0, equal to the digits given under MuJoCo 3.2.3,
3.3.0, 3.3.1 and 3.3.2."""


@pytest.mark.parametrize(("suite", "task_id"), list(SETTLED))
def test_scenes_rest_and_look_as_recorded(suite, task_id):
    mean, places = SETTLED[suite, task_id]
    env = LiberoEnv(suite, task_id, cameras=("agentview",), image_size=256)
    try:
        observation, _ = env.reset(options={"init_state_id": 0})
        data = env._running().domain.sim.data
        for name, place in places.items():
            np.testing.assert_allclose(data.get_body_xpos(f"{name}_main"), place, atol=2e-4)
            assert np.linalg.norm(data.get_body_xvelp(f"{name}_main")) < 0.02  # m/s
        assert observation["agentview_image"].mean() == pytest.approx(mean, abs=0.3)
    finally:
        env.close()


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Has these packages looked for as if they and no others were installed."""

    def version(name: str) -> str:
        if (key := name.replace("-", "_")) not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[key]

    monkeypatch.setattr(mujoco_version.importlib.metadata, "version", version)


@pytest.mark.parametrize("version", ["3.2.7", "3.3.0", "3.3.1", "3.3.2"])
def test_versions_that_keep_the_scenes_are_right(version):
    assert mujoco_problem(version) is None


@pytest.mark.parametrize(
    ("version", "since"),
    [
        ("3.3.3", "3.3.3"),
        ("3.3.7", "3.3.3"),
        ("3.4.0", "3.4.0"),
        ("3.17.0", "3.4.0"),
        ("4.0.0", "3.4.0"),
        ("4.1.0rc1", "3.4.0"),
    ],
)
def test_an_env_on_a_version_that_spoils_them_is_refused(monkeypatch, version, since):
    installed(monkeypatch, mujoco=version)
    with pytest.raises(DependencyNotInstalled) as refusal:
        LiberoEnv()
    assert f'LIBERO needs "mujoco>=3.3,<3.3.3", found {version}: since MuJoCo {since} ' in str(refusal.value)
    assert 'pip install "mujoco>=3.3,<3.3.3"' in str(refusal.value)


def test_beside_mujoco_warp_nobody_is_told_to_take_its_mujoco_away(monkeypatch):
    installed(monkeypatch, mujoco="3.13.0", mujoco_warp="3.13.0")
    with pytest.raises(DependencyNotInstalled, match="mujoco-warp, which is installed here, needs this one"):
        check_mujoco()


def test_without_mujoco_nothing_is_said(monkeypatch):
    installed(monkeypatch)
    check_mujoco()


def test_the_package_asks_for_the_range_that_the_messages_name():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert MUJOCO_REQUIREMENT in project["project"]["optional-dependencies"]["libero"]
    assert mujoco_problem(importlib.metadata.version("mujoco")) is None
