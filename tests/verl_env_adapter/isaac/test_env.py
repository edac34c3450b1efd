"""verl's Isaac env under the wrapper, on a double with its recorded shapes, dtypes and habits."""

import numpy as np
import pytest

from verl_env_adapter.isaac.env import IsaacLiberoEnv
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.errors import AdapterContractError, ConfigError
from vlac_gym.wrappers import ActionChunk, VLACRewardWrapper

torch = pytest.importorskip("torch")

TASK = "put the black bowl on the plate"


class RecordedIsaac:
    """`IsaacEnv`'s results as its code makes them: `to_tensor` of float64 gives float32, the camera uint8."""

    def __init__(self, num_envs=1, success_steps=(), image=(16, 16)):
        self.num_envs = num_envs
        self.max_episode_steps = 4
        self.calls = []
        self._success_steps = success_steps
        self._image = image

    def reset_envs_to_state_ids(self, state_ids_list, task_ids_list):
        self.calls.append(("reset", state_ids_list, task_ids_list))
        self.elapsed_steps = np.zeros(self.num_envs, dtype=np.int32)
        self.success_once = np.zeros(self.num_envs, dtype=bool)
        return self._observation(), {}

    def step(self, actions):
        self.calls.append(("step", actions.shape, actions.dtype))
        truncations = torch.tensor(self.elapsed_steps >= self.max_episode_steps)  # before counting
        self.elapsed_steps += 1
        terminations = np.isin(self.elapsed_steps, self._success_steps)
        self.success_once |= terminations
        infos = {"episode": {"success_once": torch.tensor(self.success_once)}}
        rewards = torch.tensor(terminations.astype(np.float32))
        return self._observation(), rewards, torch.tensor(terminations), truncations, infos

    def close(self):
        self.calls.append(("close",))

    def _observation(self):
        image = torch.zeros((self.num_envs, *self._image, 3), dtype=torch.uint8)
        image[:, 0, 0, 0] = torch.tensor(self.elapsed_steps)
        state = torch.zeros((self.num_envs, 7), dtype=torch.float32)
        return {
            "images_and_states": {"full_image": image, "state": state},
            "task_descriptions": [TASK] * self.num_envs,
        }


def env(isaac):
    return IsaacLiberoEnv(isaac, image_size=(16, 16))


def test_observations_lose_the_batch_axis_and_fit_the_space():
    isaac = RecordedIsaac()
    wrapped = env(isaac)
    observation, info = wrapped.reset(options={"task_id": 3})
    assert wrapped.observation_space.contains(observation)
    assert info == {"task": TASK, "success": False, "elapsed_steps": 0}
    wrapped.step(np.zeros(7))
    wrapped.reset()
    resets = [("reset", [0], [3])]
    assert isaac.calls == [*resets, ("step", (1, 7), np.float32), *resets]  # the task stays


def test_critic_trains_and_the_limit_is_the_wrappers():
    isaac = RecordedIsaac(success_steps=[1])
    critic = ScriptedCritic(success_probs=[0.1] * 4, values=[[0.0, 0.375]])
    wrapped = ActionChunk(VLACRewardWrapper(env(isaac), critic, max_episode_steps=4), 8)
    wrapped.reset()
    _, reward, terminated, truncated, info = wrapped.step(np.zeros((8, 7), np.float32))
    assert info["chunk"]["rewards"].tolist() == [0.0, 0.0, 0.0, 0.375]
    assert (reward, terminated, truncated) == (0.375, False, True)
    assert info["sim_success"] is True
    assert "success" not in info


def test_evaluation_is_the_simulators():
    critic = ScriptedCritic()
    wrapped = VLACRewardWrapper(env(RecordedIsaac(success_steps=[2])), critic, mode="eval")
    wrapped.reset()
    steps = [wrapped.step(np.zeros(7, np.float32)) for _ in range(2)]
    assert [step[1:4] for step in steps] == [(0.0, False, False), (1.0, True, False)]
    assert steps[1][4]["success"] is True
    assert critic.calls == []


def test_batches_of_several_envs_are_refused():
    with pytest.raises(ConfigError, match="num_envs 1, got 8"):
        env(RecordedIsaac(num_envs=8))


def test_other_cameras_are_named():
    with pytest.raises(
        AdapterContractError, match=r"agentview_image as uint8 \(16, 16, 3\).*got uint8 \(8, 8, 3\)"
    ):
        env(RecordedIsaac(image=(8, 8))).reset()


def test_close_reaches_the_simulator():
    isaac = RecordedIsaac()
    env(isaac).close()
    assert isaac.calls == [("close",)]
