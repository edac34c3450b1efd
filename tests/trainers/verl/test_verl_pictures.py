"""Pictures on their way through verl: Qwen2.5-VL's real processor and token builder, a scripted env."""

import asyncio
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")
pytest.importorskip("torchvision")

SETTINGS = {
    "env": {
        "id": "scripted_ids:Scripted-v0",
        "chunk": 4,
        "max_episode_steps": 6,
        "kwargs": {"image_size": 56},
    },
    "critic": {"spec": "scripted:0.1"},
    "placement": {"envs_per_worker": 1},
}
POLICY = {"action_options": {"low": [-1.0] * 7, "high": [1.0] * 7}}
TOKENS_PER_PICTURE = 4  # 56 pixels are 4 patches of 14 a side, of which 2 x 2 make a token.


@pytest.fixture(scope="module")
def vision_policy(tmp_path_factory):
    from tiny_policy import write_tiny_vision_policy

    return write_tiny_vision_policy(tmp_path_factory.mktemp("vision_policy"))


def objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def configure(compose, vision_policy, **trainer):
    from omegaconf import open_dict

    config = compose(
        f"actor_rollout_ref.model.path={vision_policy}", *(f"trainer.{k}={v}" for k, v in trainer.items())
    )
    with open_dict(config):
        config.vlac_gym = SETTINGS
        config.vlac_gym_policy = POLICY
    return config


async def run_loop(worker, phase: str):
    """One episode by verl's own instantiation, without its postprocessing."""
    from unittest.mock import patch

    kept = {}

    async def keep(output, validate, **kwargs):
        kept["output"] = output

    with patch.object(worker, "_agent_loop_postprocess", keep):
        await worker._run_agent_loop(
            {},
            {"step": 0, "sample_index": 0, "rollout_n": 0, "validate": phase == "validate"},
            agent_name="vlac_gym",
            raw_prompt=[{"role": "user", "content": "task"}],
            extra_info={"seed": 1},
        )
    from verl_env_adapter.common.settings import parse_settings
    from verl_env_adapter.verl.async_envs import shared_envs

    shared_envs(parse_settings(SETTINGS)).close()
    return kept["output"]


def first_pixel(picture) -> list[int]:
    """Episode, and step in the third channel, as `ScriptedEnv` writes them."""
    return list(picture.getpixel((0, 0)))


def test_each_row_holds_its_own_chunks_picture(compose, vision_policy):
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl_policy import DrawingPolicy

    policy = DrawingPolicy(str(vision_policy), numbers=28)
    worker = AgentLoopWorker(configure(compose, vision_policy), policy)
    first, second = asyncio.run(run_loop(worker, "train"))

    assert [first_pixel(row.multi_modal_data["images"][0]) for row in (first, second)] == [
        [1, 0, 0],
        [1, 0, 4],
    ]
    assert [len(question["image_data"]) for question in policy.questions] == [1, 1]
    assert len({question["request_id"] for question in policy.questions}) == 1
    pad = worker.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for row, question, reply in zip((first, second), policy.questions, policy.replies, strict=True):
        assert row.prompt_ids == question["prompt_ids"]
        assert row.prompt_ids.count(pad) == TOKENS_PER_PICTURE
        assert worker.tokenizer.decode(row.response_ids, skip_special_tokens=True) == reply
        assert row.response_mask == [1] * len(row.response_ids)
        assert len(row.response_logprobs) == len(row.response_ids)
    assert (first.reward_score, second.reward_score) == (None, 0.5)
    assert second.extra_fields["reward_extra_info"]["env_steps"] == 6.0


def test_conversation_holds_every_picture_and_trains_on_replies_alone(compose, vision_policy):
    import torch
    from verl import DataProto
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl_policy import DrawingPolicy

    policy = DrawingPolicy(str(vision_policy), numbers=28)
    worker = AgentLoopWorker(configure(compose, vision_policy, use_v1="false"), policy)
    columns = {
        "raw_prompt": objects([[{"role": "user", "content": "task"}]]),
        "agent_name": objects(["vlac_gym"]),
        "extra_info": objects([{"mode": "train", "seed": 1}]),
    }

    async def play():
        from verl_env_adapter.common.settings import parse_settings
        from verl_env_adapter.verl.async_envs import shared_envs

        data = DataProto.from_dict({"dummy_tensor": torch.zeros(1, 1)}, non_tensors=columns)
        output = await worker.generate_sequences(data)
        shared_envs(parse_settings(SETTINGS)).close()
        return output

    output = asyncio.run(play())
    assert [len(question["image_data"]) for question in policy.questions] == [1, 2]
    assert [first_pixel(picture) for picture in policy.questions[1]["image_data"]] == [[1, 0, 0], [1, 0, 4]]
    pad = worker.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (output.batch["input_ids"] == pad).sum().item() == 2 * TOKENS_PER_PICTURE
    (inputs,) = output.non_tensor_batch["multi_modal_inputs"]
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4], [1, 4, 4]]
    # The trained tokens are the replies (with their end marks), and nothing else.
    response = output.batch["responses"][0][output.batch["response_mask"][0].bool()]
    assert worker.tokenizer.decode(response.tolist(), skip_special_tokens=True) == "".join(policy.replies)
    assert output.batch["rm_scores"].sum().item() == 0.5


def test_text_model_refuses_pictures_by_name(compose, tiny_policy):
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl_policy import DrawingPolicy

    worker = AgentLoopWorker(configure(compose, tiny_policy), DrawingPolicy(str(tiny_policy), numbers=28))
    with pytest.raises(ValueError, match="Multimodal inputs require"):
        asyncio.run(run_loop(worker, "train"))
