"""The ManiSkill example: on a double with the nested observation of its CPU wrapper, and on a GPU for real."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
import torch

PATH = Path(__file__).parents[2] / "examples" / "06_maniskill.py"


@pytest.fixture
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("maniskill_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CubeDouble(gym.Env):
    """PickCube-v1 behind `CPUGymWrapper`, obs_mode rgb: nested dicts, one camera, success in info."""

    made_with: dict = {}

    def __init__(self, **options):
        type(self).made_with = options
        camera = gym.spaces.Dict({"rgb": gym.spaces.Box(0, 255, (128, 128, 3), np.uint8)})
        sensors = gym.spaces.Dict({"base_camera": camera})
        qpos = gym.spaces.Box(-np.inf, np.inf, (9,), np.float32)
        self.observation_space = gym.spaces.Dict(
            {"agent": gym.spaces.Dict({"qpos": qpos}), "sensor_data": sensors}
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)

    def _observation(self):
        camera = {"rgb": np.zeros((128, 128, 3), np.uint8)}
        return {"agent": {"qpos": np.zeros(9, np.float32)}, "sensor_data": {"base_camera": camera}}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {"success": False}

    def step(self, action):
        self.steps += 1
        success = self.steps >= 3
        return self._observation(), 0.25, success, False, {"success": success}


@pytest.fixture
def maniskill(monkeypatch):
    """Stub modules, and the double under ManiSkill's id."""
    for name in ("mani_skill", "mani_skill.envs", "mani_skill.utils", "mani_skill.utils.wrappers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    wrappers = ModuleType("mani_skill.utils.wrappers.gymnasium")
    wrappers.CPUGymWrapper = gym.Wrapper
    monkeypatch.setitem(sys.modules, wrappers.__name__, wrappers)
    gym.register("PickCube-v1", CubeDouble, disable_env_checker=True)
    yield
    del gym.registry["PickCube-v1"]


def test_critic_judges_the_base_cameras_picture(example, maniskill, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["06_maniskill.py", "--critic", "scripted:0.1,0.95", "--steps", "9"])
    example.main()
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("frames (128, 128, 3), actions (7,)")
    assert last == "step 2: reward 1.000, critic done True, sim success False"
    assert CubeDouble.made_with["obs_mode"] == "rgb"


def test_step_limit_pays_the_value_and_the_simulators_reward_stays_out(
    example, maniskill, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["06_maniskill.py", "--critic", "scripted:0.1", "--steps", "5"])
    example.main()
    # The scripted critic's value ends at 0.5; the simulator saw success at step 3 and paid 0.25 at each.
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "step 5: reward 0.500, critic done False, sim success True"
    )


class CubeBatchDouble(gym.vector.VectorEnv):
    """`ManiSkillVectorEnv`: tensors, partial resets by `env_idx`, no masks in infos, `unwrapped` another object."""

    device = "cpu"
    unwrapped = object()

    def __init__(self, env_id, num_envs, auto_reset, **options):
        assert not auto_reset
        self.num_envs, self.limit = num_envs, options["max_episode_steps"]
        self.single_observation_space = CubeDouble().observation_space
        self.single_action_space = CubeDouble().action_space
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.resets = []

    def _observation(self):
        rgb = self.steps.to(torch.uint8)[:, None, None, None]
        return {"sensor_data": {"base_camera": {"rgb": rgb.expand(-1, 128, 128, 3)}}}

    def reset(self, *, seed=None, options=None):
        if options is None:
            self.steps = torch.zeros(self.num_envs, dtype=torch.int64)
        else:
            self.resets.append(options["env_idx"].tolist())
            self.steps[options["env_idx"]] = 0
        return self._observation(), {"elapsed_steps": self.steps.clone()}

    def step(self, actions):
        self.steps += 1
        success = self.steps == 2
        info = {"elapsed_steps": self.steps.clone(), "success": success}
        return self._observation(), self.steps * 0.5, success, self.steps >= self.limit, info

    def close_extras(self, **kwargs):
        pass


def test_a_batch_on_the_gpu_gets_the_rule(example, maniskill, monkeypatch, capsys):
    for name in ("mani_skill.vector", "mani_skill.vector.wrappers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    wrappers = ModuleType("mani_skill.vector.wrappers.gymnasium")
    wrappers.ManiSkillVectorEnv = CubeBatchDouble
    monkeypatch.setitem(sys.modules, wrappers.__name__, wrappers)
    env = example.make_batch("PickCube-v1", "scripted:0.1,0.1,0.1,0.1,0.1,0.95,0.1,0.1,0.1", 4, 2)
    example.play_batch(env, 4)
    # Env 1 is done at step 3, one step after the simulator's success; env 0 plays its 4 steps, env 1 one of its next.
    assert env.env.env.resets == [[1], [0]]
    assert capsys.readouterr().out == "2 envs, 4 steps each: 2 episodes, 1 of them done by the critic\n"


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
def test_real_maniskill_runs(example, monkeypatch, capsys):
    pytest.importorskip("mani_skill")
    monkeypatch.setattr(sys, "argv", ["06_maniskill.py", "--steps", "5"])
    example.main()
    assert "step 5:" in capsys.readouterr().out
