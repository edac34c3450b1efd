"""verl 0.9.1's V1 manager is stopped by an absent critic instead of playing other episodes in place of the lost ones.

Run by `scripts/test_verl.sh`, in an environment that has verl.
"""

import time
import uuid
from typing import Any

import pytest

from vlac_gym.errors import CircuitBreakerError

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")

SETTINGS = {
    "env": {"id": "scripted_ids:Scripted-v0", "chunk": 4, "max_episode_steps": 6},
    "critic": {
        "spec": "http://127.0.0.1:1",  # nobody is there
        "max_attempts": 1,
        "on_error": {"then": "raise", "max_silence_s": 0.001},
    },
    "placement": {"envs_per_worker": 1},
}


def prompts(uids: list[str]) -> Any:
    from verl.utils import tensordict_utils as tu
    from verl_rows import columns, objects

    rows = [{"mode": "train", "seed": i} for i in range(len(uids))]
    data = tu.get_tensordict(
        {**columns(rows), "uid": objects(uids), "index": objects(list(range(len(uids))))}
    )
    tu.assign_non_tensor_data(data, "global_steps", 1)
    return data


def wait_for_failures(tq: Any, uids: list[str]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        tags = tq.kv_list(partition_id="train").get("train", {})
        if {tags.get(uid, {}).get("status") for uid in uids} == {"failure"}:
            return
        time.sleep(0.2)
    raise AssertionError("the episodes did not fail in 300 s")


def test_the_next_prompts_raise_in_the_trainer(compose, tiny_policy, tmp_path, start_ray):
    import ray
    import transfer_queue as tq
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
    from verl_policy import DrawingPolicy
    from verl_rows import agent_loop_file

    bounds = {"low": [-1.0] * 7, "high": [1.0] * 7}
    config = compose(
        agent_loop_file(tmp_path, SETTINGS, action_options=bounds),
        "actor_rollout_ref.rollout.n=2",
        "transfer_queue.enable=true",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    )
    uids = [uuid.uuid4().hex for _ in range(2)]
    start_ray(num_cpus=16)
    try:
        tq.init(config.transfer_queue)
        manager = AgentLoopManagerTQ.create(
            config=config, llm_client=DrawingPolicy(str(tiny_policy), numbers=28)
        )
        manager.generate_sequences(prompts(uids))
        wait_for_failures(tq, uids)
        with pytest.raises(CircuitBreakerError, match="no usable answer"):
            manager.generate_sequences(prompts([uuid.uuid4().hex]))
    finally:
        tq.close()
        ray.shutdown()
