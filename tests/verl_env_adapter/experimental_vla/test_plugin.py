"""experimental/vla's env on scripted envs, and the changes to its loop and trainer on doubles of their shapes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from verl_env_adapter.experimental_vla.env import VLACChunkEnv, tagged, untagged
from verl_env_adapter.experimental_vla.plugin import episode_rewards, prepare_loop, prepare_trainer
from vlac_gym.errors import AdapterContractError, ConfigError, CriticResponseError


def config(*, spec="scripted:0.1", limit=8, success=(), critic=None, **more):
    env = {"id": "scripted_arm:ScriptedArm-v0", "chunk": 4, "kwargs": {"success_steps": list(success)}}
    block = {"env": env, "critic": {"spec": spec, **(critic or {})}, **more}
    return {"num_envs": 2, "max_episode_steps": limit, "vlac_gym": block}


@pytest.fixture
def make_env():
    envs = []

    def make(cfg):
        envs.append(VLACChunkEnv(cfg, 0, 1, isolated=False))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def actions():
    return np.zeros((2, 4, 7), np.float32)


def begin(env, phase="train"):
    return env.reset_envs_to_state_ids([5, 6], tagged(phase, [0, 0]))


def test_reset_has_the_recorded_shapes(make_env):
    obs, info = begin(make_env(config()))
    assert {key: (tuple(value.shape), value.dtype) for key, value in obs["images_and_states"].items()} == {
        "full_image": ((2, 8, 8, 3), torch.uint8),
        "state": ((2, 3), torch.float32),
    }
    assert obs["task_descriptions"] == ["put the bowl on the plate"] * 2
    assert info == {}


def test_policy_sees_pictures_turned_by_180_degrees_of_the_raw_ones(make_env):
    env = make_env(config())
    begin(env)
    obs, *_ = env.chunk_step(actions())
    assert obs["images_and_states"]["full_image"][0, 0, -1].tolist() == [1, 0, 4]
    assert obs["images_and_states"]["state"].tolist() == [[4.0, 1.0, 2.0]] * 2


def test_none_ending_then_all_at_the_limit_with_the_value(make_env):
    env = make_env(config())
    begin(env)
    _, rewards, terminations, truncations, infos = env.chunk_step(actions())
    assert rewards.dtype == torch.float32
    assert terminations.dtype == truncations.dtype == torch.bool
    assert not rewards.any()
    assert not terminations.any()
    assert not truncations.any()
    assert infos == {}
    _, rewards, terminations, truncations, _ = env.chunk_step(actions())
    assert rewards.tolist() == [[0.0, 0.0, 0.0, 0.5]] * 2
    assert truncations.tolist() == [[False, False, False, True]] * 2
    assert not terminations.any()


def test_critics_done_inside_a_chunk_stays_to_the_end_of_the_window(make_env):
    env = make_env(config(spec="scripted:0.1,0.1,0.95,0.95"))
    begin(env)
    _, rewards, terminations, _, _ = env.chunk_step(actions())
    assert rewards.tolist() == [[0.0, 1.0, 0.0, 0.0]] * 2
    assert terminations.tolist() == [[False, True, True, True]] * 2
    _, rewards, terminations, _, _ = env.chunk_step(actions())
    assert not rewards.any()
    assert terminations.all()


def test_validation_is_the_simulators(make_env):
    env = make_env(config(spec="scripted:0.95", success=[3]))
    begin(env, "validate")
    _, rewards, terminations, _, _ = env.chunk_step(actions())
    assert rewards.tolist() == [[0.0, 0.0, 1.0, 0.0]] * 2
    assert terminations.tolist() == [[False, False, True, True]] * 2


def test_simulators_success_neither_ends_nor_pays_in_training(make_env):
    env = make_env(config(success=[2]))
    begin(env)
    _, rewards, terminations, _, _ = env.chunk_step(actions())
    assert not rewards.any()
    assert not terminations.any()


def test_failed_critic_raises(make_env, monkeypatch):
    from vlac_gym.critic.scripted import ScriptedCritic

    def fail(*args):
        raise CriticResponseError("no number in the reply")

    monkeypatch.setattr(ScriptedCritic, "success_prob", fail)
    env = make_env(config())
    begin(env)
    with pytest.raises(CriticResponseError):
        env.chunk_step(actions())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": {"on_error": "truncate"}}, "can't mask a lost episode"),
        ({"truncate_as_terminal": True}, "does not. Drop it"),
        ({"placement": {"env_resource": "sim"}}, "beside the trainer's own workers"),
        (
            {"env": {"backend": "warp", "scenes": "/scenes", "tasks": [3]}},
            "backend: mujoco, got 'warp': experimental/vla numbers",
        ),
        ({"limit": 10}, "multiple of the chunk 4, got 10"),
    ],
)
def test_what_this_trainer_can_not_keep_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        VLACChunkEnv(config(**changes), 0, 1)


def test_settings_are_demanded_and_may_not_contradict_the_trainer():
    with pytest.raises(ConfigError, match=r"env\.train\.vlac_gym"):
        VLACChunkEnv({"num_envs": 1, "max_episode_steps": 8}, 0, 1)
    cfg = config()
    cfg["vlac_gym"]["env"]["max_episode_steps"] = 4
    with pytest.raises(ConfigError, match=r"says 8 where vlac_gym\.env\.max_episode_steps says 4"):
        VLACChunkEnv(cfg, 0, 1)


def test_phase_travels_in_the_task_ids():
    assert tagged("validate", [0, 3]).tolist() == ["validate:0", "validate:3"]
    assert untagged(tagged("train", [1, 2])) == "train"
    for wrong in ([0, 3], ["train:0", "validate:1"], ["test:0"]):
        with pytest.raises(AdapterContractError, match="VERL_USE_EXTERNAL_MODULES"):
            untagged(wrong)


class Loop:
    """`EnvLoop`, as far as its rewards matter: concatenates the stages in place and forgets `rew`."""

    stage_num = 2

    def _collate_trajectories(self, trajectories, initial_state_ids, meta_info):
        for first, second in zip(trajectories[0], trajectories[1], strict=True):
            for key in first:
                first[key] = torch.cat([first[key], second[key]])
        complete = torch.stack([slot["done"] for slot in trajectories[0]], dim=1)
        return SimpleNamespace(batch={"complete": complete}, meta_info=meta_info)


class Trainer:
    def __init__(self, reward_fn, val_reward_fn):
        self.reward_fn, self.val_reward_fn = reward_fn, val_reward_fn
        self.resets = []

    def _reset_envs(self, gen_batch):
        self.resets.append(gen_batch.non_tensor_batch["task_ids"].tolist())
        return "future"

    def _validate(self):
        self._reset_envs(generation_batch())
        raise RuntimeError("validation failed")


def generation_batch():
    return SimpleNamespace(non_tensor_batch={"state_ids": np.array([4]), "task_ids": np.array([2])})


def test_rewards_of_both_stages_reach_the_batch_in_its_order():
    module = SimpleNamespace(EnvLoop=type("EnvLoop", (Loop,), dict(vars(Loop))), __name__="env_loop")
    prepare_loop(module)
    prepare_loop(module)
    slots = {
        stage: [
            {"rew": torch.tensor([[0.0, 10.0 * stage + step]]), "done": torch.tensor([[False, False]])}
            for step in (1, 2, 3)
        ]
        for stage in (0, 1)
    }
    output = module.EnvLoop()._collate_trajectories(slots, None, meta_info={})
    assert output.batch["env_rewards"].tolist() == [
        [[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]],
        [[0.0, 11.0], [0.0, 12.0], [0.0, 13.0]],
    ]
    assert output.batch["complete"].shape == (2, 3, 2)


def test_every_chunk_gets_its_episodes_paid_reward():
    paid = torch.zeros(2, 3, 4)
    paid[0, 1, 2], paid[1, 2, 3] = 1.0, 0.25
    data = SimpleNamespace(batch={"env_rewards": paid})
    assert episode_rewards(data).tolist() == [[1.0] * 3, [0.25] * 3]
    assert episode_rewards(data, return_dict=True)["reward_tensor"].tolist() == [[1.0] * 3, [0.25] * 3]
    with pytest.raises(AdapterContractError, match="value would be lost"):
        episode_rewards(SimpleNamespace(batch={"complete": paid}))


def test_trainer_tells_the_phase_and_learns_from_the_envs():
    module = SimpleNamespace(
        RobRayPPOTrainer=type("RobRayPPOTrainer", (Trainer,), dict(vars(Trainer))), __name__="trainer"
    )
    prepare_trainer(module)
    prepare_trainer(module)
    trainer = module.RobRayPPOTrainer(reward_fn="theirs", val_reward_fn="theirs")
    assert trainer.reward_fn is episode_rewards
    assert trainer.val_reward_fn == "theirs"
    batch = generation_batch()
    assert trainer._reset_envs(batch) == "future"
    with pytest.raises(RuntimeError, match="validation failed"):
        trainer._validate()
    trainer._reset_envs(batch)
    assert trainer.resets == [["train:2"], ["validate:2"], ["train:2"]]
    assert batch.non_tensor_batch["task_ids"].tolist() == [2]


def test_another_verl_is_refused():
    with pytest.raises(AdapterContractError, match="Expected EnvLoop"):
        prepare_loop(SimpleNamespace(__name__="verl.experimental.vla.env_loop"))
