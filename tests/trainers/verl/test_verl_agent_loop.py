"""verl 0.9.1's real agent-loop workers play real LIBERO episodes; what the wrapper paid is what the trainer gets.

Run by `scripts/test_verl.sh`, in an environment that has verl.
"""

import asyncio
import uuid
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")

EXTRA_KEYS = {
    "acc",
    "env_reward",
    "sim_success",
    "critic_done",
    "critic_failed",
    "critic_value",
    "terminated",
    "truncated",
    "env_steps",
    "action_chunks",
    "malformed_chunks",
    "cut_by_length",
    "is_eval",
}

POLICY = {"images": []}  # The tiny model has no processor for pictures.


def agent_loop_file(folder, settings: dict[str, Any], **policy: Any) -> str:
    """The agent-loop config file that a user writes."""
    from omegaconf import OmegaConf

    entry = {
        "name": "vlac_gym",
        "_target_": "verl_env_adapter.verl_agent_loop.VLACAgentLoop",
        "settings": settings,
        "policy": POLICY | policy,
    }
    file = folder / "agent.yaml"
    OmegaConf.save(OmegaConf.create([entry]), file)
    return f"actor_rollout_ref.rollout.agent.agent_loop_config_path={file}"


def row(mode: str, task_id: int, init_state_id: int = 0) -> dict[str, Any]:
    return {"mode": mode, "task_id": task_id, "init_state_id": init_state_id, "task_suite": "libero_spatial"}


def objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def columns(extra_infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    count = len(extra_infos)
    return {
        "raw_prompt": objects([[{"role": "user", "content": "task"}]] * count),
        "agent_name": objects(["vlac_gym"] * count),
        "data_source": objects(["vlac_gym/libero_spatial"] * count),
        "reward_model": objects([{"style": "env", "ground_truth": ""}] * count),
        "extra_info": objects(extra_infos),
    }


def test_v0_worker_gets_what_the_wrapper_paid(compose, tiny_policy, critic, settings_block, tmp_path):
    import torch
    from verl import DataProto
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl_policy import DrawingPolicy

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
        from verl_env_adapter.env_workers import shared_workers
        from verl_env_adapter.settings import parse_settings

        trained = await worker.generate_sequences(batch(validate=False))
        asked = len(critic.values())
        validated = await worker.generate_sequences(batch(validate=True))
        shared_workers(parse_settings(settings_block)).close()
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


def test_v1_manager_puts_what_the_wrapper_paid_into_grpo(
    compose, tiny_policy, critic, settings_block, tmp_path, worker_environment
):
    import ray
    import transfer_queue as tq
    from tensordict import TensorDict
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
    from verl.utils import tensordict_utils as tu
    from verl_policy import DrawingPolicy

    config = compose(
        agent_loop_file(tmp_path, settings_block),
        "actor_rollout_ref.rollout.n=2",
        "transfer_queue.enable=true",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    )

    def batch(validate: bool, uids: list[str]) -> TensorDict:
        # The third prompt of the training batch names an initial state that LIBERO does not have.
        mode = "eval" if validate else "train"
        rows = [row(mode, 0), row(mode, 1), row(mode, 0, init_state_id=999)][: len(uids)]
        data = tu.get_tensordict(
            {**columns(rows), "uid": objects(uids), "index": objects([0, 1, 2][: len(uids)])}
        )
        tu.assign_non_tensor_data(data, "global_steps", 3)
        if validate:
            tu.assign_non_tensor_data(data, "validate", True)
        return data

    ray.init(num_cpus=16, include_dashboard=False, runtime_env={"env_vars": worker_environment})
    try:
        tq.init(config.transfer_queue)
        manager = AgentLoopManagerTQ.create(
            config=config, llm_client=DrawingPolicy(str(tiny_policy), numbers=28)
        )
        train_uids = [uuid.uuid4().hex for _ in range(3)]
        manager.generate_sequences(batch(False, train_uids))
        train_keys = wait_for_rows(tq, "train", train_uids, ["finished", "finished", "failure"])
        asked = len(critic.values())
        val_uids = [uuid.uuid4().hex for _ in range(2)]
        manager.generate_sequences(batch(True, val_uids))
        val_keys = wait_for_rows(tq, "val", val_uids, ["finished", "finished"])
        train = read(tq, "train", train_keys)
        val = read(tq, "val", val_keys)
        advantages = grpo(train, train_keys)
    finally:
        tq.close()
        ray.shutdown()

    assert not [key for key in train_keys if key.startswith(train_uids[2])]
    # Task 0: two chunks per episode, 6 steps. Task 1: one chunk, done at step 3. Two samples of each.
    assert sorted(key.removeprefix(train_uids[0]) for key in train_keys if key.startswith(train_uids[0])) == [
        "_0_0",
        "_0_1",
        "_1_0",
        "_1_1",
    ]
    assert sorted(key.removeprefix(train_uids[1]) for key in train_keys if key.startswith(train_uids[1])) == [
        "_0_0",
        "_1_0",
    ]
    rewards = dict(
        zip(train_keys, [scores.sum().item() for scores in train["rm_scores"].unbind()], strict=True)
    )
    final = [rewards[f"{train_uids[0]}_{session}_1"] for session in (0, 1)]
    assert sorted(final) == sorted(critic.values())
    assert final[0] != final[1]
    assert all(rewards[f"{train_uids[0]}_{session}_0"] == final[session] for session in (0, 1))
    assert [rewards[f"{train_uids[1]}_{session}_0"] for session in (0, 1)] == [1.0, 1.0]
    # The policy's tokens alone are trained, and every row has its log-probabilities.
    for mask, log_probs in zip(
        train["response_mask"].unbind(), train["rollout_log_probs"].unbind(), strict=True
    ):
        assert mask.tolist() == [1] * len(mask)
        assert log_probs.tolist() == [-0.5] * len(mask)
    # GRPO by hand: of two samples the better one gets +1/sqrt(2), the other the opposite; equal ones get 0.
    better = int(final[1] > final[0])
    for session in (0, 1):
        expected = 2**-0.5 if session == better else -(2**-0.5)
        for i in (0, 1):
            assert advantages[f"{train_uids[0]}_{session}_{i}"] == pytest.approx(expected, abs=1e-3)
        assert advantages[f"{train_uids[1]}_{session}_0"] == pytest.approx(0.0, abs=1e-6)
    # Validation: the simulator alone, in the same keys, and the critic was not asked.
    infos = [
        fields["reward_extra_info"]
        for fields in [*train.get("extra_fields").tolist(), *val.get("extra_fields").tolist()]
    ]
    assert all(set(info) == EXTRA_KEYS for info in infos)
    assert [info["is_eval"] for info in infos] == [0.0] * 6 + [1.0] * 4
    assert [scores.sum().item() for scores in val["rm_scores"].unbind()] == [0.0] * 4
    assert len(critic.values()) == asked == 2


def wait_for_rows(tq: Any, partition: str, uids: list[str], expected: list[str]) -> list[str]:
    """Waits until every prompt has come to its end; returns the keys of the rows in order."""
    import time

    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        tags = tq.kv_list(partition_id=partition).get(partition, {})
        states = [tags.get(uid, {}).get("status") for uid in uids]
        if not {*states} & {None, "pending", "running"}:
            assert states == expected, "an agent loop failed, or did not; see its log above"
            return sorted(key for key in tags if key not in uids)
        time.sleep(0.5)
    raise AssertionError(f"no rows of {partition} in 240 s")


def read(tq: Any, partition: str, keys: list[str]) -> Any:
    fields = [
        "rm_scores",
        "response_mask",
        "rollout_log_probs",
        "extra_fields",
        "uid",
        "reward_model",
        "num_turns",
    ]
    return tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)


def grpo(rows: Any, keys: list[str]) -> dict[str, float]:
    """verl's own GRPO over rows that its trainer would read, as `PPOTrainer._compute_advantage` calls it."""
    from verl import DataProto
    from verl.trainer.ppo.core_algos import AdvantageEstimator
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    data = DataProto(batch=rows.select("rm_scores", "response_mask").to_padded_tensor())
    data.batch["token_level_scores"] = data.batch["token_level_rewards"] = data.batch["rm_scores"]
    data.non_tensor_batch["uid"] = objects(rows.get("uid").tolist())
    data = compute_advantage_for_multi_trajectories(
        data, keys, adv_estimator=AdvantageEstimator.GRPO, num_repeat=2
    )
    return dict(zip(keys, data.batch["advantages"][:, 0].tolist(), strict=True))
