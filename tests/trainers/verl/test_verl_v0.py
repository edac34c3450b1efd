"""verl 0.9.1's V0 worker plays real LIBERO episodes; what the wrapper paid is what the trainer gets.

Run by `scripts/test_verl.sh`, in an environment that has verl.
"""

import asyncio

import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")


def test_v0_worker_gets_what_the_wrapper_paid(compose, tiny_policy, critic, settings_block, tmp_path):
    import torch
    from verl import DataProto
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl_policy import DrawingPolicy
    from verl_rows import EXTRA_KEYS, agent_loop_file, columns, row

    config = compose("trainer.use_v1=false", agent_loop_file(tmp_path, settings_block))
    policy = DrawingPolicy(str(tiny_policy), numbers=28)
    worker = AgentLoopWorker(config, policy)

    def batch(validate: bool) -> DataProto:
        mode = "eval" if validate else "train"
        rows = [row(mode, 0), row(mode, 1), row(mode, 0, 7)]
        data = DataProto.from_dict({"dummy_tensor": torch.zeros(3, 1)}, non_tensors=columns(rows))
        data.meta_info["validate"] = validate
        return data

    async def play() -> tuple[DataProto, DataProto, int]:
        from verl_env_adapter.common.settings import parse_settings
        from verl_env_adapter.verl.async_envs import shared_envs

        trained = await worker.generate_sequences(batch(validate=False))
        asked = len(critic.values())
        validated = await worker.generate_sequences(batch(validate=True))
        shared_envs(parse_settings(settings_block)).close()
        return trained, validated, asked

    trained, validated, asked = asyncio.run(play())

    rewards = trained.batch["rm_scores"].sum(dim=1).tolist()
    paid = critic.values()
    assert rewards[1] == 1.0
    assert sorted([rewards[0], rewards[2]]) == sorted(paid)
    assert len({*rewards}) == 3
    assert all(0.0 < value < 1.0 for value in paid)
    # The reward stands on the last token of each response.
    last = trained.batch["attention_mask"][:, 1024:].sum(dim=1) - 1
    assert trained.batch["rm_scores"].gather(1, last[:, None])[:, 0].tolist() == rewards
    extra = trained.non_tensor_batch
    assert trained.meta_info["reward_extra_keys"] == validated.meta_info["reward_extra_keys"]
    assert set(trained.meta_info["reward_extra_keys"]) == EXTRA_KEYS
    assert extra["critic_done"].tolist() == extra["acc"].tolist() == [0.0, 1.0, 0.0]
    assert extra["env_steps"].tolist() == [6.0, 3.0, 6.0]
    assert extra["truncated"].tolist() == [1.0, 0.0, 1.0]
    assert extra["__num_turns__"].tolist() == [4, 2, 4]
    # Validation: the simulator alone, and not one question to the critic.
    assert validated.batch["rm_scores"].sum(dim=1).tolist() == [0.0, 0.0, 0.0]
    assert validated.non_tensor_batch["is_eval"].tolist() == [1.0, 1.0, 1.0]
    assert validated.non_tensor_batch["env_steps"].tolist() == [6.0, 6.0, 6.0]
    assert len(critic.values()) == asked == 2


def test_no_token_is_trained_of_an_episode_that_lost_its_critic(compose, tiny_policy, tmp_path):
    import torch
    from verl import DataProto
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl_policy import DrawingPolicy
    from verl_rows import agent_loop_file, columns

    from verl_env_adapter.common.settings import parse_settings
    from verl_env_adapter.verl.async_envs import shared_envs

    settings = {
        "env": {"id": "scripted_ids:Scripted-v0", "chunk": 4, "max_episode_steps": 6},
        "critic": {
            "spec": "http://127.0.0.1:1",
            "max_attempts": 1,
            "on_error": {"then": "truncate", "retries": 1},
        },
        "placement": {"envs_per_worker": 1},
    }
    bounds = {"low": [-1.0] * 7, "high": [1.0] * 7}
    config = compose("trainer.use_v1=false", agent_loop_file(tmp_path, settings, action_options=bounds))
    worker = AgentLoopWorker(config, DrawingPolicy(str(tiny_policy), numbers=28))
    rows = DataProto.from_dict(
        {"dummy_tensor": torch.zeros(2, 1)},
        non_tensors=columns([{"mode": "train", "seed": 0}] * 2),
    )
    rows.meta_info["validate"] = False

    async def play() -> DataProto:
        played = await worker.generate_sequences(rows)
        shared_envs(parse_settings(settings)).close()
        return played

    played = asyncio.run(play())
    assert played.batch["rm_scores"].sum(dim=1).tolist() == [0.0, 0.0]
    assert played.batch["response_mask"].sum(dim=1).tolist() == [0, 0]
    assert (played.batch["attention_mask"][:, 1024:].sum(dim=1) > 0).all()
    assert played.non_tensor_batch["critic_failed"].tolist() == [1.0, 1.0]
    assert played.non_tensor_batch["truncated"].tolist() == [1.0, 1.0]
    assert (played.non_tensor_batch["critic_retries"] > 0).all()
