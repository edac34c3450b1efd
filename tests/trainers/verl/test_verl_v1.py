"""verl 0.9.1's V1 manager, TransferQueue and GRPO on real LIBERO: the wrapper's pay is what the actor learns from.

Run by `scripts/test_verl.sh`, in an environment that has verl.
"""

import time
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")

FIELDS = [
    "rm_scores",
    "response_mask",
    "rollout_log_probs",
    "extra_fields",
    "uid",
    "reward_model",
    "num_turns",
]


@dataclass
class Rollout:
    """What the trainer would read: keys and fields of the rows, and verl's own advantages.

    The prompts: task 0 (two chunks, ends at the limit of 6 steps), task 1 (done at step 3, in its first
    chunk), and one that can't be played; two samples of each.
    """

    uids: list[str]
    keys: list[str]
    train: Any
    val: Any
    advantages: dict[str, float]
    paid_values: list[float]
    asked_in_validation: int

    @property
    def rewards(self) -> dict[str, float]:
        scores = [row.sum().item() for row in self.train["rm_scores"].unbind()]
        return dict(zip(self.keys, scores, strict=True))

    def key(self, prompt: int, session: int, index: int) -> str:
        return f"{self.uids[prompt]}_{session}_{index}"


@pytest.fixture(scope="module")
def rollout(compose, tiny_policy, start_critic, make_block, tmp_path_factory, start_ray) -> Rollout:
    import ray
    import transfer_queue as tq
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
    from verl_policy import DrawingPolicy
    from verl_rows import agent_loop_file

    critic = start_critic()
    config = compose(
        agent_loop_file(tmp_path_factory.mktemp("v1"), make_block(critic.url)),
        "actor_rollout_ref.rollout.n=2",
        "transfer_queue.enable=true",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    )
    uids = [uuid.uuid4().hex for _ in range(3)]
    val_uids = [uuid.uuid4().hex for _ in range(2)]
    start_ray(num_cpus=16)
    try:
        tq.init(config.transfer_queue)
        policy = DrawingPolicy(str(tiny_policy), numbers=28)
        manager = AgentLoopManagerTQ.create(config=config, llm_client=policy)
        manager.generate_sequences(prompts(uids, validate=False))
        keys = wait_for_rows(tq, "train", uids, ["finished", "finished", "failure"])
        values = critic.values()
        manager.generate_sequences(prompts(val_uids, validate=True))
        val_keys = wait_for_rows(tq, "val", val_uids, ["finished", "finished"])
        train = tq.kv_batch_get(keys=keys, partition_id="train", select_fields=FIELDS)
        val = tq.kv_batch_get(keys=val_keys, partition_id="val", select_fields=FIELDS)
        return Rollout(uids, keys, train, val, grpo(train, keys), values, len(critic.values()) - len(values))
    finally:
        tq.close()
        ray.shutdown()


def prompts(uids: list[str], *, validate: bool) -> Any:
    """Task 0, task 1, and an initial state that LIBERO does not have, as the trainer sends them."""
    from verl.utils import tensordict_utils as tu
    from verl_rows import columns, objects, row

    mode = "eval" if validate else "train"
    rows = [row(mode, 0), row(mode, 1), row(mode, 0, init_state_id=999)][: len(uids)]
    index = objects(list(range(len(uids))))
    data = tu.get_tensordict({**columns(rows), "uid": objects(uids), "index": index})
    tu.assign_non_tensor_data(data, "global_steps", 3)
    if validate:
        tu.assign_non_tensor_data(data, "validate", True)
    return data


def wait_for_rows(tq: Any, partition: str, uids: list[str], expected: list[str]) -> list[str]:
    """Waits until every prompt has come to its end; returns the keys of the rows in order."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        tags = tq.kv_list(partition_id=partition).get(partition, {})
        states = [tags.get(uid, {}).get("status") for uid in uids]
        if not {*states} & {None, "pending", "running"}:
            assert states == expected, "an agent loop failed, or did not; see its log above"
            return sorted(key for key in tags if key not in uids)
        time.sleep(0.5)
    raise AssertionError(f"no end of {partition} in 400 s: {states}")


def grpo(rows: Any, keys: list[str]) -> dict[str, float]:
    """verl's own GRPO over rows that its trainer would read, as `PPOTrainer._compute_advantage` calls it."""
    from verl import DataProto
    from verl.trainer.ppo.core_algos import AdvantageEstimator
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
    from verl_rows import objects

    data = DataProto(batch=rows.select("rm_scores", "response_mask").to_padded_tensor())
    data.batch["token_level_scores"] = data.batch["token_level_rewards"] = data.batch["rm_scores"]
    data.non_tensor_batch["uid"] = objects(rows.get("uid").tolist())
    data = compute_advantage_for_multi_trajectories(
        data, keys, adv_estimator=AdvantageEstimator.GRPO, num_repeat=2
    )
    return dict(zip(keys, data.batch["advantages"][:, 0].tolist(), strict=True))


def test_every_chunk_is_a_row_and_a_failed_episode_is_none(rollout):
    expected = [rollout.key(0, session, index) for session in (0, 1) for index in (0, 1)]
    expected += [rollout.key(1, session, 0) for session in (0, 1)]
    assert rollout.keys == sorted(expected)


def test_rewards_are_the_very_numbers_that_the_wrapper_paid(rollout):
    final = [rollout.rewards[rollout.key(0, session, 1)] for session in (0, 1)]
    assert sorted(final) == sorted(rollout.paid_values)
    assert len({*final}) == 2
    assert all(0.0 < value < 1.0 for value in final)
    # verl copies an episode's reward to its other rows.
    assert [rollout.rewards[rollout.key(0, session, 0)] for session in (0, 1)] == final
    assert [rollout.rewards[rollout.key(1, session, 0)] for session in (0, 1)] == [1.0, 1.0]
    for scores in rollout.train["rm_scores"].unbind():
        assert scores[:-1].tolist() == [0.0] * (len(scores) - 1)


def test_advantages_follow_from_the_rewards_by_hand(rollout):
    # Of two samples the better one gets +1/sqrt(2), the other the opposite; equal ones get 0.
    final = [rollout.rewards[rollout.key(0, session, 1)] for session in (0, 1)]
    for session in (0, 1):
        expected = 2**-0.5 if final[session] == max(final) else -(2**-0.5)
        for index in (0, 1):
            assert rollout.advantages[rollout.key(0, session, index)] == pytest.approx(expected, abs=1e-3)
        assert rollout.advantages[rollout.key(1, session, 0)] == pytest.approx(0.0, abs=1e-6)


def test_only_the_policys_tokens_are_trained_each_with_its_log_probability(rollout):
    masks, log_probs = rollout.train["response_mask"].unbind(), rollout.train["rollout_log_probs"].unbind()
    for mask, row_log_probs in zip(masks, log_probs, strict=True):
        assert mask.tolist() == [1] * len(mask)
        assert row_log_probs.tolist() == [-0.5] * len(mask)


def test_validation_is_the_simulators_and_asks_no_critic(rollout):
    from verl_rows import EXTRA_KEYS

    infos = [
        fields["reward_extra_info"]
        for rows in (rollout.train, rollout.val)
        for fields in rows.get("extra_fields").tolist()
    ]
    assert all(set(info) == EXTRA_KEYS for info in infos)
    assert [info["is_eval"] for info in infos] == [0.0] * 6 + [1.0] * 4
    assert {info["env_steps"] for info in infos[6:]} == {6.0}
    assert [scores.sum().item() for scores in rollout.val["rm_scores"].unbind()] == [0.0] * 4
    assert rollout.asked_in_validation == 0
